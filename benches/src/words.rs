//! Text to work on: words as often as English has them, drawn without any order, the same each time.

use serde::{Deserialize, Serialize};

/// What a turn adds to a conversation: the kind of thing an agent records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    role: String,
    text: String,
    input_tokens: u32,
    output_tokens: u32,
}

/// Draws words.
pub(crate) struct Words {
    random: u64,
    words: Vec<&'static str>,
}

/// What stands in this file does not depend on the project's texts, so that a changed text is no changed workload.
const CORPUS: &str = "the of and to in a is that for it was on are as with his they at be this from have or by one had not but \
    what all were when we there can an your which their said if do will each about how up out them then she many some so \
    these would other into has more her two like him see time could no make than first been its who now people my made over \
    did down only way find use may water long little very after words called just where most know agent model answer tool \
    result checkpoint journal record turn question budget memory reason plan step error message token request response";

impl Words {
    pub(crate) fn new() -> Self {
        Self {
            random: 42,
            words: CORPUS.split_whitespace().collect(),
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another one.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    /// A text of at least so many bytes. Early words are more frequent, as in languages.
    pub(crate) fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            let count = self.words.len() as u64;
            let (one, other) = (self.next() % count, self.next() % count);
            text += self.words[usize::try_from(one.min(other)).unwrap_or(0)];
            text.push(' ');
        }
        text
    }

    pub(crate) fn turn(&mut self, bytes: usize) -> Turn {
        Turn {
            role: "assistant".to_owned(),
            text: self.text(bytes),
            input_tokens: 1_024,
            output_tokens: 256,
        }
    }
}
