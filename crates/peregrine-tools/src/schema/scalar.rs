//! Keywords about numbers and strings.

use serde_json::Value;

use super::check::Checker;
use super::node::Keyword;
use super::number::{compare, is_multiple};
use super::path::{Path, Problem, excerpt};
use super::words;

impl Checker<'_> {
    pub(super) fn number(&mut self, keyword: &Keyword, value: &Value, at: &Path<'_>) -> bool {
        let Value::Number(number) = value else {
            return true;
        };
        let (holds, words): (bool, fn(&dyn std::fmt::Display) -> String) = match keyword {
            Keyword::Minimum(least) => (compare(number, least).is_ge(), |n| format!("at least {n}")),
            Keyword::Maximum(most) => (compare(number, most).is_le(), |n| format!("at most {n}")),
            Keyword::ExclusiveMinimum(least) => {
                (compare(number, least).is_gt(), |n| format!("more than {n}"))
            }
            Keyword::ExclusiveMaximum(most) => (compare(number, most).is_lt(), |n| format!("less than {n}")),
            Keyword::MultipleOf(step) => (is_multiple(number, step), |n| format!("a multiple of {n}")),
            Keyword::Format(format) => {
                return format.fits(value)
                    || self.fail(|| Problem::at(at, format.words(), words::found(value)));
            }
            _ => return true,
        };
        holds
            || self.fail(|| {
                let expected = match keyword {
                    Keyword::Minimum(bound)
                    | Keyword::Maximum(bound)
                    | Keyword::ExclusiveMinimum(bound)
                    | Keyword::ExclusiveMaximum(bound)
                    | Keyword::MultipleOf(bound) => words(bound),
                    _ => String::new(),
                };
                Problem::at(at, expected, words::found(value))
            })
    }

    pub(super) fn string(&mut self, keyword: &Keyword, value: &Value, text: &str, at: &Path<'_>) -> bool {
        let holds = match keyword {
            // A character has one to four bytes, so most lengths are known without counting.
            Keyword::MinLength(least) => {
                text.len() as u64 >= least.saturating_mul(4) || text.chars().count() as u64 >= *least
            }
            Keyword::MaxLength(most) => text.len() as u64 <= *most || text.chars().count() as u64 <= *most,
            Keyword::Pattern(pattern) => self.spend(text.len() / 64 + 1) && pattern.matches(text),
            Keyword::Format(format) => format.fits(value),
            _ => true,
        };
        holds
            || self.fail(|| {
                let expected = match keyword {
                    Keyword::MinLength(least) => format!("at least {}", words::characters(*least)),
                    Keyword::MaxLength(most) => format!("at most {}", words::characters(*most)),
                    Keyword::Pattern(pattern) => {
                        format!("a string that matches `{}`", excerpt(pattern.source()))
                    }
                    Keyword::Format(format) => format.words(),
                    _ => String::new(),
                };
                Problem::at(at, expected, words::found(value)).with_detail(format!("{:?}", excerpt(text)))
            })
    }
}
