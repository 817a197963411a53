//! What differs between two JSON values: places (JSON pointers, RFC 6901) with both sides.

use std::fmt;

use serde_json::Value;

const MAX_SHOWN_CHARS: usize = 60;

/// One place where two values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    at: String,
    recorded: String,
    asked: String,
}

impl Difference {
    pub(super) fn new(at: &str, recorded: &Value, asked: &Value) -> Self {
        let at = if at.is_empty() { "/" } else { at };
        Self {
            at: at.to_owned(),
            recorded: shorten(recorded),
            asked: shorten(asked),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (recorded {}, asked {})",
            self.at, self.recorded, self.asked
        )
    }
}

/// The places where `asked` differs from `recorded`, in the order of the recorded value.
pub(super) fn differences(recorded: &Value, asked: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", recorded, asked, &mut found);
    found
}

fn compare(at: &str, recorded: &Value, asked: &Value, found: &mut Vec<Difference>) {
    match (recorded, asked) {
        (Value::Object(one), Value::Object(two)) => {
            let names = one
                .keys()
                .chain(two.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                let (one, two) = (
                    one.get(name).unwrap_or(&Value::Null),
                    two.get(name).unwrap_or(&Value::Null),
                );
                compare(
                    &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                    one,
                    two,
                    found,
                );
            }
        }
        (Value::Array(one), Value::Array(two)) => {
            for place in 0..one.len().max(two.len()) {
                let (one, two) = (
                    one.get(place).unwrap_or(&Value::Null),
                    two.get(place).unwrap_or(&Value::Null),
                );
                compare(&format!("{at}/{place}"), one, two, found);
            }
        }
        (one, two) if one == two => {}
        (one, two) => found.push(Difference::new(at, one, two)),
    }
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_named_with_both_sides() {
        let recorded = json!({"a": [1, {"b/c": "x"}], "only": true});
        let asked = json!({"a": [1, {"b/c": "y"}, 3]});
        let shown: Vec<_> = differences(&recorded, &asked)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                r#"/a/1/b~1c (recorded "x", asked "y")"#,
                "/a/2 (recorded null, asked 3)",
                "/only (recorded true, asked null)"
            ]
        );
        assert!(differences(&recorded, &recorded).is_empty());
    }
}
