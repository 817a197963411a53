//! The meaning of a scripted answer, free of any dialect: reasoning, then text (or a refusal), then tool
//! calls, a reason to stop and the tokens used.
//!
//! Every dialect renders the same [`Answer`] as a complete body and as a stream; both must mean the same.

use serde_json::Value;

/// Why the model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// It was done.
    Stop,
    /// It met the limit on output tokens.
    Length,
    /// It wants tools to be called. The default of an answer with tool calls.
    ToolCalls,
    /// It was stopped by a filter. The default of a refusal. Ollama has no such word and says `stop`.
    ContentFilter,
    /// It met this stop sequence. Only Anthropic says which; the others say `stop`.
    StopSequence(String),
    /// The dialect's own word, sent as it is (`pause_turn`, `RECITATION`, ..).
    Other(String),
}

/// Tokens used. `input` and `output` are totals: `input` contains both cache figures, `output` contains
/// `reasoning`. Dialects that count differently on the wire (Anthropic's `input_tokens` without the cache,
/// Gemini's `candidatesTokenCount` without thoughts) get the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens of the prompt.
    pub input: u64,
    /// All tokens of the answer.
    pub output: u64,
    /// Those of `output` that were reasoning.
    pub reasoning: u64,
    /// Those of `input` that were read from the provider's cache.
    pub cache_read: u64,
    /// Those of `input` that were written to the provider's cache.
    pub cache_write: u64,
}

impl Usage {
    /// Totals without details.
    pub fn new(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            ..Self::default()
        }
    }

    /// Sets how many of the output tokens were reasoning.
    pub fn with_reasoning(mut self, tokens: u64) -> Self {
        self.reasoning = tokens;
        self
    }

    /// Sets how many of the input tokens were read from, and written to, the provider's cache.
    pub fn with_cache(mut self, read: u64, written: u64) -> Self {
        self.cache_read = read;
        self.cache_write = written;
        self
    }
}

/// The arguments of a scripted tool call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Arguments {
    /// JSON, sent as an object or as compact text, as the dialect wants it.
    Json(Value),
    /// Text sent as it is where the dialect carries text (OpenAI, Anthropic's streams), for broken JSON.
    /// Where the dialect carries an object, text that is not JSON becomes a JSON string.
    Text(String),
}

impl Arguments {
    /// As text, for dialects that carry text.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// As a value, for dialects that carry an object.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
        }
    }
}

/// One scripted tool call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolCall {
    /// The id; empty means that the dialect makes one up, or leaves it out where that is usual (Gemini,
    /// Ollama).
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
}

impl ToolCall {
    /// A call with JSON arguments.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            arguments: Arguments::Json(arguments),
        }
    }

    /// The id, or a made-up one: unique within the server, the same for the same position.
    pub(crate) fn id_or(&self, prefix: &str, seq: u64, index: usize) -> String {
        if self.id.is_empty() {
            format!("{prefix}{seq:08}{index:04}")
        } else {
            self.id.clone()
        }
    }
}

/// How text is cut into the pieces of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pieces {
    /// Before every space that follows something else: the shape of real tokens. The default. Tool
    /// arguments are cut every 8 characters.
    Words,
    /// Into this many pieces of near-equal length (fewer, if there are fewer characters).
    Count(usize),
    /// Every so many characters.
    Chars(usize),
}

impl Pieces {
    /// Cuts text at character boundaries. The pieces are not empty and put together give the text.
    pub(crate) fn cut<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match *self {
            Self::Words => cut_words(text),
            Self::Chars(size) => cut_at(text, (size.max(1)..).step_by(size.max(1))),
            Self::Count(count) => {
                let chars = text.chars().count();
                let count = count.clamp(1, chars.max(1));
                cut_at(text, (1..count).map(|i| i * chars / count))
            }
        }
    }

    /// Cuts tool arguments, where words make no sense.
    pub(crate) fn cut_arguments<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self {
            Self::Words => Self::Chars(8).cut(text),
            other => other.cut(text),
        }
    }
}

fn cut_words(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut after_space) = (0, true);
    for (at, c) in text.char_indices() {
        if c == ' ' && !after_space && at > start {
            pieces.push(&text[start..at]);
            start = at;
        }
        after_space = c == ' ';
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

/// Cuts before the characters with these indices, which must ascend.
fn cut_at(text: &str, cuts: impl Iterator<Item = usize>) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut cuts = cuts.peekable();
    let mut start = 0;
    for (index, (at, _)) in text.char_indices().enumerate() {
        if cuts.next_if(|cut| *cut == index).is_some() && at > start {
            pieces.push(&text[start..at]);
            start = at;
        }
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

/// A scripted answer: what the model says, whatever the dialect.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The reasoning before the text, with the signature that proves it (Anthropic, Gemini), or the
    /// encrypted content (Responses). Chat Completions and Ollama have no place for the signature.
    pub reasoning: Option<(String, Option<String>)>,
    /// The text. `None` differs from empty: Chat Completions says `null`, others leave the block out.
    pub text: Option<String>,
    /// The pieces of the text in a stream, if they are prescribed. Put together they are the text.
    pub text_pieces: Option<Vec<String>>,
    /// A refusal, in its own field where the dialect has one.
    pub refusal: Option<String>,
    /// Tool calls, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped; chosen from the content when absent.
    pub finish: Option<Finish>,
    /// Tokens used; estimated from request and answer (4 characters a token, rounded up) when absent.
    pub usage: Option<Usage>,
    /// The model named in the answer; the one of the request when absent.
    pub model: Option<String>,
    /// How the parts are cut into pieces.
    pub pieces: Option<Pieces>,
}

impl Answer {
    pub(crate) fn finish(&self) -> Finish {
        match &self.finish {
            Some(finish) => finish.clone(),
            None if !self.tool_calls.is_empty() => Finish::ToolCalls,
            None if self.refusal.is_some() => Finish::ContentFilter,
            None => Finish::Stop,
        }
    }

    pub(crate) fn cutting(&self) -> &Pieces {
        self.pieces.as_ref().unwrap_or(&Pieces::Words)
    }

    pub(crate) fn text_cut(&self) -> Vec<&str> {
        match (&self.text_pieces, &self.text) {
            (Some(pieces), _) => pieces.iter().map(String::as_str).collect(),
            (None, Some(text)) => self.cutting().cut(text),
            (None, None) => Vec::new(),
        }
    }

    /// The reasoning text, empty when there is none.
    pub(crate) fn reasoning_text(&self) -> &str {
        self.reasoning.as_ref().map_or("", |(text, _)| text)
    }

    pub(crate) fn signature(&self) -> Option<&str> {
        self.reasoning
            .as_ref()
            .and_then(|(_, signature)| signature.as_deref())
    }

    /// Characters of everything the model wrote, and of the reasoning alone.
    pub(crate) fn written_chars(&self) -> (u64, u64) {
        let count = |text: &str| text.chars().count() as u64;
        let reasoning = count(self.reasoning_text());
        let text = self.text.as_deref().map_or(0, count) + self.refusal.as_deref().map_or(0, count);
        let calls: u64 = self
            .tool_calls
            .iter()
            .map(|c| count(&c.name) + count(&c.arguments.to_text()))
            .sum();
        (reasoning + text + calls, reasoning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_cutting_gives_the_text_back_and_no_empty_piece() {
        let texts = [
            "",
            "a",
            "  ",
            "one two  three",
            "grüße 🦅 und ",
            " x",
            "naïve—text",
        ];
        let ways = [
            Pieces::Words,
            Pieces::Count(1),
            Pieces::Count(3),
            Pieces::Count(64),
            Pieces::Chars(1),
            Pieces::Chars(4),
        ];
        for text in texts {
            for way in &ways {
                let pieces = way.cut(text);
                assert_eq!(pieces.concat(), text, "{way:?}");
                assert!(pieces.iter().all(|p| !p.is_empty()), "{way:?} {pieces:?}");
            }
        }
        assert_eq!(Pieces::Words.cut("The capital of"), ["The", " capital", " of"]);
        assert_eq!(Pieces::Count(3).cut("abcdefg").len(), 3);
        assert_eq!(Pieces::Chars(4).cut("abcdefg"), ["abcd", "efg"]);
        assert_eq!(Pieces::Count(64).cut(&"x".repeat(64)).len(), 64);
    }

    #[test]
    fn the_reason_to_stop_follows_from_the_content() {
        let mut answer = Answer {
            text: Some("hi".into()),
            ..Answer::default()
        };
        assert_eq!(answer.finish(), Finish::Stop);
        answer.tool_calls.push(ToolCall::new("", "t", Value::Null));
        assert_eq!(answer.finish(), Finish::ToolCalls);
        answer.finish = Some(Finish::Length);
        assert_eq!(answer.finish(), Finish::Length);
    }
}
