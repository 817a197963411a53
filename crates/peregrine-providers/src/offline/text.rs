//! Words for the lexical models: tokens, a light stemmer, stop words, hashes.
//!
//! Algorithm: runs of letters and digits are words (`1.95` is one, `read_file` are two, `ChatModel` is itself
//! and its two halves); scripts that put no spaces between words give overlapping pairs of characters; words
//! of more than 64 bytes, as binary text has them, are passed over. Everything is lower-cased; English endings
//! come off so that `retries`, `retried` and `retrying` are one term. One pass, one reused buffer.

/// Longer words are no words.
const MAX_WORD_BYTES: usize = 64;

/// A term of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token<'a> {
    /// The normalised form.
    pub(super) stem: &'a str,
    /// The text it came from.
    pub(super) raw: &'a str,
    /// Where `raw` starts.
    pub(super) start: usize,
    /// What it is.
    pub(super) form: Form,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A word.
    Word,
    /// A piece of a word in camel case; the word itself came before.
    Piece,
    /// Two characters of a script without spaces.
    Pair,
}

/// How much a word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing: `the`, `which`.
    Stop,
    /// Little: `use`, `file`, `example`.
    Soft,
    /// What it is there for.
    Content,
}

/// Calls `visit` with every token of a text, stop words included.
pub(super) fn for_each_token(text: &str, visit: &mut dyn FnMut(Token<'_>)) {
    let mut buffer = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        if is_unspaced(c) {
            let width = c.len_utf8();
            // A pair with the next character; the last one of a run stands alone only if it is a run of one.
            match chars.peek() {
                Some(&(_, next)) if is_unspaced(next) => {
                    let raw = &text[start..start + width + next.len_utf8()];
                    visit(Token {
                        stem: raw,
                        raw,
                        start,
                        form: Form::Pair,
                    });
                }
                _ => {
                    let alone = !text[..start].chars().next_back().is_some_and(is_unspaced);
                    if alone {
                        let raw = &text[start..start + width];
                        visit(Token {
                            stem: raw,
                            raw,
                            start,
                            form: Form::Pair,
                        });
                    }
                }
            }
            continue;
        }
        if !is_word(c) {
            continue;
        }
        let mut end = start + c.len_utf8();
        let mut before = c;
        while let Some(&(at, next)) = chars.peek() {
            let behind = at + next.len_utf8();
            let joins = is_word(next)
                || (next == '.'
                    && before.is_ascii_digit()
                    && text.as_bytes().get(behind).is_some_and(u8::is_ascii_digit));
            if !joins {
                break;
            }
            before = next;
            end = behind;
            chars.next();
        }
        if end - start <= MAX_WORD_BYTES {
            word(&text[start..end], start, &mut buffer, visit);
        }
    }
}

fn word(raw: &str, start: usize, buffer: &mut String, visit: &mut dyn FnMut(Token<'_>)) {
    normalise(raw, buffer);
    visit(Token {
        stem: buffer,
        raw,
        start,
        form: Form::Word,
    });
    let mut from = 0;
    for at in camel_breaks(raw).chain([raw.len()]) {
        if from == 0 && at == raw.len() {
            // One piece is the word itself.
            break;
        }
        let piece = &raw[from..at];
        normalise(piece, buffer);
        visit(Token {
            stem: buffer,
            raw: piece,
            start: start + from,
            form: Form::Piece,
        });
        from = at;
    }
}

/// The places between `chat` and `Model`, and between `HTTP` and `Server`.
fn camel_breaks(word: &str) -> impl Iterator<Item = usize> + '_ {
    let bytes = word.as_bytes();
    (1..bytes.len()).filter(move |&at| {
        let next_is_lower = bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
        bytes[at].is_ascii_uppercase()
            && (bytes[at - 1].is_ascii_lowercase() || (bytes[at - 1].is_ascii_uppercase() && next_is_lower))
    })
}

/// Lower case, without its English ending.
fn normalise(raw: &str, buffer: &mut String) {
    buffer.clear();
    if raw.is_ascii() {
        buffer.push_str(raw);
        buffer.make_ascii_lowercase();
        stem(buffer);
    } else {
        buffer.extend(raw.chars().flat_map(char::to_lowercase));
    }
}

/// The normalised form of one word.
pub(super) fn stem_of(word: &str) -> String {
    let mut buffer = String::new();
    normalise(word, &mut buffer);
    buffer
}

/// Takes an English ending off a lower-case ASCII word: plural, `-ing`, `-ed`, and a final `e`. A small
/// relative of Porter's stemmer (Porter, 1980); what it gives need not be a word.
fn stem(word: &mut String) {
    if word.len() < 4 || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return;
    }
    if word.ends_with("ies") || word.ends_with("ied") {
        word.truncate(word.len() - 3);
        word.push('y');
        return;
    }
    if word.ends_with('s') && !["ss", "us", "is"].iter().any(|end| word.ends_with(end)) {
        word.pop();
    }
    for ending in ["ing", "ed"] {
        let Some(rest) = word.strip_suffix(ending) else {
            continue;
        };
        if rest.len() >= 3 && rest.contains(['a', 'e', 'i', 'o', 'u', 'y']) {
            let mut len = rest.len();
            let doubled = rest.as_bytes()[len - 1] == rest.as_bytes()[len - 2];
            if doubled && !rest.ends_with(['l', 's', 'z']) {
                len -= 1;
            }
            word.truncate(len);
            break;
        }
    }
    if word.len() > 3 && word.ends_with('e') {
        word.pop();
    }
}

/// How much a word says; `word` as it stands in the text.
pub(super) fn weight(word: &str) -> Weight {
    if word.len() > 16 || !word.is_ascii() {
        return Weight::Content;
    }
    let key = packed(word);
    if STOP_KEYS.binary_search(&key).is_ok() || (word.len() == 1 && word.as_bytes()[0].is_ascii_alphabetic())
    {
        Weight::Stop
    } else if SOFT_KEYS.binary_search(&key).is_ok() {
        Weight::Soft
    } else {
        Weight::Content
    }
}

static STOP_KEYS: [u128; STOP.len()] = all_packed(STOP);
static SOFT_KEYS: [u128; SOFT.len()] = all_packed(SOFT);

/// The first 16 bytes of a word in lower case, in one number; the order of numbers is that of the words.
const fn packed(word: &str) -> u128 {
    let bytes = word.as_bytes();
    let (mut key, mut at) = (0, 0);
    while at < 16 {
        let byte = if at < bytes.len() {
            bytes[at].to_ascii_lowercase()
        } else {
            0
        };
        key = key << 8 | byte as u128;
        at += 1;
    }
    key
}

const fn all_packed<const N: usize>(words: &[&str]) -> [u128; N] {
    let (mut keys, mut at) = ([0; N], 0);
    while at < N {
        keys[at] = packed(words[at]);
        at += 1;
    }
    keys
}

/// Whether a word is one of a list of words with spaces between them.
pub(super) fn among(list: &str, word: &str) -> bool {
    list.split(' ').any(|known| known == word)
}

/// FNV-1a, 64 bits: the same on every machine.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Letters and digits of scripts that put spaces between words.
fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    (c.is_alphanumeric() || is_mark(c)) && !is_unspaced(c)
}

/// Combining marks, without which words of Indic and Semitic scripts fall apart.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}'
        | '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}' | '\u{981}'..='\u{983}' | '\u{9bc}'..='\u{9cd}'
        | '\u{b82}' | '\u{bbe}'..='\u{bcd}')
}

/// Scripts that put no spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese.
fn is_unspaced(c: char) -> bool {
    if c < '\u{0e00}' {
        return false;
    }
    matches!(c, '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3005}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
        && c.is_alphanumeric()
        || matches!(c, '\u{0e31}' | '\u{0e34}'..='\u{0e3a}' | '\u{0e47}'..='\u{0e4e}')
}

/// Words that say nothing about what a text is about: English, and the most frequent of German, French and
/// Spanish. In byte order.
#[rustfmt::skip]
const STOP: &[&str] = &[
    "about", "above", "after", "against", "all", "also", "am", "among", "an", "and", "any", "are", "as",
    "at", "au", "aus", "be", "because", "been", "before", "being", "below", "between", "both", "but", "by",
    "bye", "can", "could", "danke", "das", "de", "dem", "den", "der", "des", "did", "die", "do", "does",
    "doing", "du", "during", "each", "ein", "eine", "el", "en", "es", "est", "et", "every", "for", "from",
    "goodbye", "had", "hallo", "has", "have", "having", "he", "hello", "her", "here", "hey", "hi", "him",
    "his", "how", "if", "il", "in", "into", "is", "ist", "it", "its", "just", "la", "las", "le", "les",
    "ll", "los", "many", "may", "me", "might", "mit", "more", "most", "much", "must", "my", "nicht", "no",
    "nor", "not", "of", "off", "ok", "okay", "on", "one", "only", "or", "other", "our", "out", "over",
    "own", "para", "per", "please", "por", "pour", "que", "qui", "re", "same", "shall", "she", "should",
    "sie", "since", "sind", "so", "some", "such", "than", "thank", "thanks", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "through", "to", "too", "un", "una", "und", "under",
    "une", "until", "up", "upon", "us", "ve", "very", "via", "von", "was", "wer", "were", "what", "when",
    "where", "which", "while", "who", "whom", "whose", "why", "wie", "will", "wird", "with", "within",
    "without", "wo", "would", "yes", "you", "your", "zu",
];

/// Words of questions and commands that a good passage need not repeat. In byte order.
#[rustfmt::skip]
const SOFT: &[&str] = &[
    "allow", "allowed", "answer", "become", "becomes", "called", "case", "come", "comes", "contain",
    "contains", "define", "defined", "describe", "describes", "doc", "docs", "document", "documented",
    "documents", "example", "exist", "exists", "explain", "far", "fast", "file", "files", "find", "folder",
    "get", "give", "given", "go", "goes", "got", "happen", "happens", "keep", "keeps", "kind", "know",
    "large", "list", "long", "look", "make", "makes", "mean", "means", "mentioned", "name", "named", "need",
    "needed", "needs", "old", "possible", "project", "question", "represent", "represented", "say", "says",
    "show", "stand", "stands", "state", "stated", "take", "takes", "tell", "text", "thing", "things",
    "type", "use", "used", "uses", "using", "want", "way", "word", "work", "works",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(text: &str) -> Vec<String> {
        let mut stems = Vec::new();
        for_each_token(text, &mut |token| {
            assert_eq!(&text[token.start..token.start + token.raw.len()], token.raw);
            stems.push(token.stem.to_owned());
        });
        stems
    }

    #[test]
    fn words_numbers_names_and_scripts() {
        assert_eq!(stems("The MSRV is 1.95."), ["the", "msrv", "is", "1.95"]);
        assert_eq!(stems("read_file(path)"), ["read", "fil", "path"]);
        assert_eq!(
            stems("ChatModel HTTPServer"),
            ["chatmodel", "chat", "model", "httpserver", "http", "server"]
        );
        assert_eq!(stems("Größe naïve"), ["größe", "naïve"]);
        assert_eq!(stems("東京は"), ["東京", "京は"]);
        assert_eq!(stems("a 水 b"), ["a", "水", "b"]);
        assert_eq!(stems("हिन्दी"), ["हिन्दी"]);
        assert!(stems("ภาษาไทย").len() > 3);
        assert_eq!(stems(&"x".repeat(65)), Vec::<String>::new());
        assert_eq!(stems(""), Vec::<String>::new());
    }

    #[test]
    fn endings_come_off() {
        for family in [
            &["retry", "retries", "retried", "retrying"][..],
            &["cache", "caches", "cached", "caching"],
            &["stop", "stops", "stopped", "stopping"],
            &["call", "calls", "called", "calling"],
            &["licence", "licences"],
        ] {
            let first = stem_of(family[0]);
            assert!(
                family.iter().all(|word| stem_of(word) == first),
                "{family:?}: {first}"
            );
        }
        for (word, stem) in [
            ("this", "this"),
            ("class", "class"),
            ("status", "status"),
            ("red", "red"),
        ] {
            assert_eq!(stem_of(word), stem);
        }
    }

    #[test]
    fn lists_are_sorted_and_weigh() {
        assert!(STOP.is_sorted() && SOFT.is_sorted());
        assert_eq!(weight("The"), Weight::Stop);
        assert_eq!(weight("s"), Weight::Stop);
        assert_eq!(weight("Uses"), Weight::Soft);
        assert_eq!(weight("MSRV"), Weight::Content);
        assert_eq!(weight("7"), Weight::Content);
        assert_eq!(weight("水"), Weight::Content);
    }
}
