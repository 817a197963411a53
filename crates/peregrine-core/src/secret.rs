//! A secret that does not print itself.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// An API key or another credential: wiped from memory when dropped, never shown by `Debug`, without
/// `Display` and `Serialize`.
///
/// # Examples
///
/// ```
/// use peregrine_core::Secret;
///
/// let key = Secret::new("sk-very-secret");
/// assert!(!format!("{key:?}").contains("very"));
/// assert_eq!(key.expose(), "sk-very-secret");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret itself. Call it where the bytes go on the wire, and nowhere else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// `text` with every occurrence of this secret blotted out: for messages that come from outside and
    /// may quote it back.
    pub fn redact(&self, text: &str) -> String {
        let secret = self.expose();
        if secret.len() < 4 || !text.contains(secret) {
            return text.to_owned();
        }
        text.replace(secret, "[redacted]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_redacted_text_shows_the_secret() {
        let key = Secret::new("sk-abc123");
        assert!(!format!("{key:?} {key:#?}").contains("abc123"));
        assert_eq!(key.redact("bad key sk-abc123!"), "bad key [redacted]!");
        assert_eq!(Secret::new("").redact("text"), "text");
    }
}
