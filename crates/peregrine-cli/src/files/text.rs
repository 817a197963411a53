//! From a file's bytes to text: bounded, never a panic, never binary.

use std::io::Read as _;

use cap_std::fs::File;

/// How much of a file is looked at to tell text from binary.
const SNIFFED_BYTES: usize = 8 << 10;

/// What is in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Text.
    Text {
        /// The text; bytes that are not UTF-8 are shown as U+FFFD.
        text: String,
        /// Whether there were such bytes.
        lossy: bool,
        /// Whether the file is longer than was read.
        cut: bool,
    },
    /// Something else.
    Binary,
}

/// Reads at most `max_bytes` of a file.
pub(super) fn read(file: File, max_bytes: u64) -> std::io::Result<Content> {
    let mut bytes = Vec::new();
    // One more than the bound tells a file of exactly that length from a longer one.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    let cut = bytes.len() as u64 > max_bytes;
    if cut {
        bytes.pop();
    }
    Ok(decode(bytes, cut))
}

fn decode(mut bytes: Vec<u8>, cut: bool) -> Content {
    if bytes[..bytes.len().min(SNIFFED_BYTES)].contains(&0) {
        return Content::Binary;
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    if cut
        && let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        // The bound fell into a character: that is not the file's fault.
        bytes.truncate(error.valid_up_to());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Content::Text {
            text,
            lossy: false,
            cut,
        },
        Err(error) => {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            Content::Text {
                text,
                lossy: true,
                cut,
            }
        }
    }
}

/// At most `max` bytes of a text, cut between characters.
pub(super) fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: Content) -> (String, bool) {
        match content {
            Content::Text { text, lossy, .. } => (text, lossy),
            Content::Binary => panic!("binary"),
        }
    }

    #[test]
    fn bytes_become_text_or_binary() {
        assert_eq!(
            text(decode("\u{feff}caf\u{e9}".into(), false)),
            ("caf\u{e9}".to_owned(), false)
        );
        assert_eq!(
            text(decode(b"a\xff\xfeb".to_vec(), false)),
            ("a\u{fffd}\u{fffd}b".to_owned(), true)
        );
        assert_eq!(decode(b"MZ\0\0".to_vec(), false), Content::Binary);
        assert_eq!(text(decode(b"caf\xc3".to_vec(), true)), ("caf".to_owned(), false));
        assert_eq!(
            text(decode(b"caf\xc3".to_vec(), false)),
            ("caf\u{fffd}".to_owned(), true)
        );
        assert_eq!(text(decode(Vec::new(), false)), (String::new(), false));
    }

    #[test]
    fn clips_fall_between_characters() {
        assert_eq!(clip("\u{e9}\u{e9}", 3), "\u{e9}");
        assert_eq!(clip("ab", 9), "ab");
    }
}
