//! Names and details: short texts that are cheap to clone and safe to print.

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// The name of a scope, a unit or a handler. Cloning never allocates.
///
/// A name made from a `&'static str` allocates nothing at all. One made from anything else may come from outside (a
/// model names a tool), so it is cut after [`Name::MAX_BYTES`], at a whole character.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::Name;
///
/// assert_eq!(Name::from("search").as_str(), "search");
/// assert_eq!(Name::from("x".repeat(1_000)).as_str().len(), Name::MAX_BYTES);
/// ```
#[derive(Clone)]
pub struct Name(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    /// How long a name that is not `'static` can be.
    pub const MAX_BYTES: usize = 128;

    /// The same as `Name::from`, for constants.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Text::Static(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self::from_static(name)
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(Text::Shared(cut(&name, Self::MAX_BYTES).into()))
    }
}

impl From<Arc<str>> for Name {
    fn from(name: Arc<str>) -> Self {
        Self(Text::Shared(match cut(&name, Self::MAX_BYTES) {
            short if short.len() < name.len() => short.into(),
            _ => name,
        }))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The name, with control characters replaced.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(self.as_str()).fmt(f)
    }
}

/// Text without what could move a terminal's cursor or forge a line of a log.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| {
            f.write_char(if letter.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                letter
            })
        })
    }
}

/// The longest beginning of at most `most_bytes` that ends with a whole character.
pub(crate) fn cut(text: &str, most_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(most_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_a_whole_character() {
        let long = "ä".repeat(100);
        assert_eq!(Name::from(long.clone()).as_str(), "ä".repeat(64));
        assert_eq!(Name::from(Arc::<str>::from(long)).as_str().len(), 128);
        assert_eq!(Name::from(format!("x{}", "ä".repeat(100))).as_str().len(), 127);
        let short: Arc<str> = "short".into();
        assert_eq!(Name::from(short.clone()), "short");
        assert_eq!(
            Arc::strong_count(&short),
            1,
            "the clone went into the name and away with it"
        );
    }

    #[test]
    fn what_is_printed_has_no_control_characters() {
        let name = Name::from("\u{1b}[2Jto\nols".to_owned());
        assert_eq!(name.to_string(), "\u{fffd}[2Jto\u{fffd}ols");
        assert_eq!(name, Name::from_static("\u{1b}[2Jto\nols"));
    }
}
