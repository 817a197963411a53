//! From text to the terms by which passages are found.
//!
//! A term is a run of letters and digits in lower case, without the commonest English endings, so that
//! `redirects` finds `redirect`. Scripts without spaces between words give one term for each character.

/// Words that say nothing about what is asked.
const STOP_WORDS: &[&str] = &[
    "a", "about", "all", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could",
    "did", "do", "does", "for", "from", "get", "had", "has", "have", "how", "i", "if", "in", "into", "is",
    "it", "its", "me", "my", "no", "not", "of", "on", "or", "our", "please", "should", "so", "tell", "than",
    "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "to", "us", "use",
    "used", "uses", "using", "was", "we", "were", "what", "when", "where", "which", "who", "why", "will",
    "with", "would", "you", "your",
];

/// Calls `visit` with each term of a text. `buffer` is scratch space.
pub(super) fn for_each(text: &str, buffer: &mut String, mut visit: impl FnMut(&str)) {
    let mut give = |buffer: &mut String| {
        if !buffer.is_empty() {
            let len = stem_len(buffer);
            visit(&buffer[..len]);
            buffer.clear();
        }
    };
    for char in text.chars() {
        if is_ideograph(char) {
            give(buffer);
            buffer.push(char);
            give(buffer);
        } else if char.is_alphanumeric() {
            buffer.extend(char.to_lowercase());
        } else {
            give(buffer);
        }
    }
    give(buffer);
}

/// The distinct terms of a question, in order, without words that say nothing (unless there are no others).
pub(super) fn of_question(question: &str, max: usize) -> Vec<String> {
    let mut terms: Vec<String> = Vec::new();
    let mut idle: Vec<String> = Vec::new();
    let stops: Vec<&str> = STOP_WORDS.iter().map(|word| &word[..stem_len(word)]).collect();
    for_each(question, &mut String::new(), |term| {
        let list = if stops.contains(&term) {
            &mut idle
        } else {
            &mut terms
        };
        if list.len() < max && !list.iter().any(|known| known == term) {
            list.push(term.to_owned());
        }
    });
    if terms.is_empty() { idle } else { terms }
}

/// How much of a word is its stem. At least three bytes stay.
fn stem_len(word: &str) -> usize {
    if !word.is_ascii() {
        return word.len();
    }
    let without = |word: &str, ending: &str| {
        let left = word.len().checked_sub(ending.len()).filter(|left| *left >= 3)?;
        word.ends_with(ending).then_some(left)
    };
    let mut len = word.len();
    if !word.ends_with("ss")
        && let Some(left) = without(word, "s")
    {
        len = left;
    }
    for ending in ["ing", "ed"] {
        if let Some(left) = without(&word[..len], ending) {
            len = left;
            break;
        }
    }
    without(&word[..len], "e").unwrap_or(len)
}

fn is_ideograph(char: char) -> bool {
    matches!(char, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_share_a_term() {
        for forms in [
            &["redirect", "redirects", "redirected", "Redirecting"][..],
            &["cache", "caches", "cached", "caching"],
            &["provider", "providers"],
        ] {
            let terms: Vec<_> = forms.iter().map(|form| of_question(form, 9)).collect();
            assert!(terms.windows(2).all(|pair| pair[0] == pair[1]), "{terms:?}");
        }
        assert_eq!(of_question("less MSRV as", 9), ["less", "msrv"]);
    }

    #[test]
    fn questions_keep_what_says_something() {
        assert_eq!(
            of_question("What is the retry-after of RATE_LIMITS?", 9),
            ["retry", "after", "rat", "limit"]
        );
        assert_eq!(of_question("what is it", 9), ["what", "is", "it"]);
        assert_eq!(of_question("a b c d b", 2), ["b", "c"]);
        assert_eq!(of_question("東京 is", 9), ["東", "京"]);
        assert!(of_question("?!", 9).is_empty());
    }
}
