//! What a tool returns.

use std::borrow::Cow;

use peregrine_core::{DocumentPart, MediaPart, MediaSource, Part, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ToolError;

/// What a tool returned: some parts, in order.
///
/// # Examples
///
/// ```
/// use peregrine_core::MediaPart;
/// use peregrine_tools::ToolOutput;
///
/// let output = ToolOutput::from("the plot:").with_image(MediaPart::bytes("image/png", &b"..."[..]));
/// assert_eq!(output.text(), "the plot:");
/// assert_eq!(ToolOutput::json(&[1, 2])?.text(), "[1,2]");
/// # Ok::<(), peregrine_tools::ToolError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolOutput {
    /// The parts.
    pub parts: Vec<OutputPart>,
    /// Whether something was left out; a part at the end says so too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A piece of what a tool returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputPart {
    /// Text.
    Text(String),
    /// A value. The model sees it as compact JSON.
    Json(Value),
    /// An image.
    Image(MediaPart),
    /// Audio.
    Audio(MediaPart),
    /// A document.
    Document(DocumentPart),
}

impl ToolOutput {
    /// An output of these parts.
    pub fn new(parts: Vec<OutputPart>) -> Self {
        Self {
            parts,
            truncated: false,
        }
    }

    /// Anything that serialises, as JSON. A string becomes JSON too, in quotes; for plain text there is `From`.
    ///
    /// # Errors
    ///
    /// A fatal [`ToolError`] if it has no form in JSON, such as a map whose keys are not strings.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, ToolError> {
        match serde_json::to_value(value) {
            Ok(value) => Ok(Self::from(value)),
            Err(error) => Err(ToolError::fatal(format!(
                "the tool returned what has no form in JSON: {error}"
            ))),
        }
    }

    /// Adds a part.
    #[must_use]
    pub fn with_part(mut self, part: OutputPart) -> Self {
        self.parts.push(part);
        self
    }

    /// Adds text.
    #[must_use]
    pub fn with_text(self, text: impl Into<String>) -> Self {
        self.with_part(OutputPart::Text(text.into()))
    }

    /// Adds an image.
    #[must_use]
    pub fn with_image(self, image: MediaPart) -> Self {
        self.with_part(OutputPart::Image(image))
    }

    /// The text and JSON parts, one to a line.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            OutputPart::Text(text) => Some(Cow::Borrowed(text.as_str())),
            OutputPart::Json(value) => Some(Cow::Owned(value.to_string())),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// How large it is: bytes of text, of compact JSON and of media that is sent along.
    pub fn size_bytes(&self) -> usize {
        self.parts.iter().map(OutputPart::size_bytes).sum()
    }

    /// Keeps the first `max_bytes` of it, and says at the end what was left out. Text is cut between characters; JSON
    /// is cut as text; media are kept whole or not at all.
    pub fn truncate(&mut self, max_bytes: usize) {
        let whole = self.size_bytes();
        if whole <= max_bytes {
            return;
        }
        let mut left = max_bytes;
        let mut kept = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            let size = part.size_bytes();
            if size <= left {
                left -= size;
                kept.push(part);
                continue;
            }
            let text = match part {
                OutputPart::Text(text) => text,
                OutputPart::Json(value) => value.to_string(),
                // Something smaller may follow.
                _ => continue,
            };
            let start = &text[..text.floor_char_boundary(left)];
            if !start.is_empty() {
                kept.push(OutputPart::Text(start.to_owned()));
            }
            left = 0;
        }
        self.parts = kept;
        let shown = self.size_bytes();
        self.truncated = true;
        self.parts.push(OutputPart::Text(format!(
            "[truncated: {shown} of {whole} bytes shown]"
        )));
    }

    /// The result as the model sees it.
    pub fn into_result(self, call: &ToolCall) -> ToolResult {
        let mut result = ToolResult::new(call, "");
        result.content = self.parts.into_iter().map(Part::from).collect();
        result
    }
}

impl OutputPart {
    fn size_bytes(&self) -> usize {
        let source = match self {
            Self::Text(text) => return text.len(),
            Self::Json(value) => return value.to_string().len(),
            Self::Image(part) | Self::Audio(part) => &part.source,
            Self::Document(part) => &part.source,
        };
        match source {
            MediaSource::Bytes { data } => data.len(),
            MediaSource::Text { text } => text.len(),
            MediaSource::Url { url } => url.len(),
            MediaSource::File { id } => id.len(),
            // A kind of source that is newer than this: as large as its form in JSON.
            other => serde_json::to_string(other).map_or(usize::MAX, |text| text.len()),
        }
    }
}

impl From<OutputPart> for Part {
    fn from(part: OutputPart) -> Self {
        match part {
            OutputPart::Text(text) => Self::text(text),
            OutputPart::Json(value) => Self::text(value.to_string()),
            OutputPart::Image(image) => Self::Image(image),
            OutputPart::Audio(audio) => Self::Audio(audio),
            OutputPart::Document(document) => Self::Document(document),
        }
    }
}

/// The tool has nothing to say: no parts.
impl From<()> for ToolOutput {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        Self::new(vec![OutputPart::Text(text)])
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<Cow<'_, str>> for ToolOutput {
    fn from(text: Cow<'_, str>) -> Self {
        Self::from(text.into_owned())
    }
}

impl From<Value> for ToolOutput {
    fn from(value: Value) -> Self {
        Self::new(vec![OutputPart::Json(value)])
    }
}

impl From<OutputPart> for ToolOutput {
    fn from(part: OutputPart) -> Self {
        Self::new(vec![part])
    }
}

/// An image.
impl From<MediaPart> for ToolOutput {
    fn from(image: MediaPart) -> Self {
        Self::from(OutputPart::Image(image))
    }
}

impl From<DocumentPart> for ToolOutput {
    fn from(document: DocumentPart) -> Self {
        Self::from(OutputPart::Document(document))
    }
}
