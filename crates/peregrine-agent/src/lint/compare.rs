//! The first byte at which a prompt leaves the one before.

use super::body::is_user;
use super::json::path_at;
use super::prompt::{Element, Prompt};
use super::{PromptBreak, cause};
use crate::tokens;

/// How much is shown before and behind the byte.
const EXCERPT_BEFORE: usize = 24;
const EXCERPT_BEHIND: usize = 56;

pub(super) enum Compared {
    /// One is a beginning of the other.
    Stable,
    Broken(Box<PromptBreak>),
    /// Another question after the same beginning: they do not follow one another.
    Another,
}

pub(super) fn compare(earlier: &Prompt<'_>, later: &Prompt<'_>, before: usize, after: usize) -> Compared {
    let mut offset = 0;
    for (place, (one, two)) in earlier.elements.iter().zip(&later.elements).enumerate() {
        if one.is(two) {
            offset += one.rendered_len();
            continue;
        }
        // A question of which nothing is known, where there was another one.
        let last = place + 1 == later.elements.len();
        if last && is_user(one) && is_user(two) && !cause::dropped(earlier, later, place) {
            return Compared::Another;
        }
        let common = common_len(one.text().as_bytes(), two.text().as_bytes());
        offset += common as u64;
        let lost_bytes = earlier.rendered_len() - offset;
        return Compared::Broken(Box::new(PromptBreak {
            before,
            after,
            offset,
            field: field(one, two, common),
            before_excerpt: excerpt(one.text(), common),
            after_excerpt: excerpt(two.text(), common),
            lost_bytes,
            lost_tokens: tokens::estimate_bytes(usize::try_from(lost_bytes).unwrap_or(usize::MAX)),
            cause: cause::of(earlier, later, place, common),
        }));
    }
    Compared::Stable
}

/// The field's path, in the element that comes first in the order of the prompt if they are of two sections.
fn field(one: &Element<'_>, two: &Element<'_>, common: usize) -> String {
    let element = if two.section < one.section { two } else { one };
    let inner = path_at(element.text(), common);
    match element.index {
        Some(index) => format!("{}[{index}]{inner}", element.field),
        None => format!("{}{inner}", element.field),
    }
}

fn common_len(one: &[u8], two: &[u8]) -> usize {
    one.iter().zip(two).take_while(|(one, two)| one == two).count()
}

fn excerpt(text: &str, at: usize) -> String {
    let from = text.floor_char_boundary(at.saturating_sub(EXCERPT_BEFORE));
    let to = text.ceil_char_boundary(text.len().min(at + EXCERPT_BEHIND));
    let dots = |shown| if shown { ".." } else { "" };
    format!("{}{}{}", dots(from > 0), &text[from..to], dots(to < text.len()))
}
