//! Images, audio and documents as inputs.

use peregrine_core::{DocumentPart, MediaPart, Part};
use serde::Deserialize as _;
use serde_json::Value;

/// What kind of media an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MediaKind {
    /// Images.
    Image,
    /// Audio.
    Audio,
    /// Documents.
    Document,
}

impl MediaKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Document => "document",
        }
    }
}

/// What an input of media can hold: a [`MediaPart`] or [`DocumentPart`], or an `Option` or `Vec` of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an image, audio or document",
    note = "use `MediaPart` for images and audio, `DocumentPart` for documents, or `Option` or `Vec` of them"
)]
pub trait Media {
    /// Adds the parts of a message that it is; `None` if it cannot be of this kind.
    #[doc(hidden)]
    fn parts(&self, kind: MediaKind, parts: &mut Vec<Part>) -> Option<()>;
}

impl Media for MediaPart {
    fn parts(&self, kind: MediaKind, parts: &mut Vec<Part>) -> Option<()> {
        parts.push(match kind {
            MediaKind::Image => Part::Image(self.clone()),
            MediaKind::Audio => Part::Audio(self.clone()),
            MediaKind::Document => return None,
        });
        Some(())
    }
}

impl Media for DocumentPart {
    fn parts(&self, kind: MediaKind, parts: &mut Vec<Part>) -> Option<()> {
        (kind == MediaKind::Document).then(|| parts.push(Part::Document(self.clone())))
    }
}

impl<M: Media> Media for Option<M> {
    fn parts(&self, kind: MediaKind, parts: &mut Vec<Part>) -> Option<()> {
        self.iter().try_for_each(|media| media.parts(kind, parts))
    }
}

impl<M: Media> Media for Vec<M> {
    fn parts(&self, kind: MediaKind, parts: &mut Vec<Part>) -> Option<()> {
        self.iter().try_for_each(|media| media.parts(kind, parts))
    }
}

/// Media in a run-time input: an address, the JSON form of a part, `null`, or a list of these.
pub(crate) fn from_json(value: &Value, kind: MediaKind, parts: &mut Vec<Part>) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| from_json(item, kind, parts)),
        Value::String(url) if kind == MediaKind::Document => {
            parts.push(Part::Document(DocumentPart::url(url)));
            Ok(())
        }
        Value::String(url) => {
            MediaPart::url(url).parts(kind, parts);
            Ok(())
        }
        Value::Object(_) => {
            let part = match kind {
                MediaKind::Document => DocumentPart::deserialize(value).map(Part::Document),
                MediaKind::Image => MediaPart::deserialize(value).map(Part::Image),
                MediaKind::Audio => MediaPart::deserialize(value).map(Part::Audio),
            };
            parts.push(part.map_err(|error| error.to_string())?);
            Ok(())
        }
        _ => Err(format!(
            "expected the address or the JSON form of {}",
            kind.as_str()
        )),
    }
}

/// The JSON form of media, for compositions.
pub(crate) fn to_json(parts: &[Part]) -> Value {
    let forms = parts.iter().map(|part| match part {
        Part::Image(part) | Part::Audio(part) => serde_json::to_value(part).unwrap_or_default(),
        Part::Document(part) => serde_json::to_value(part).unwrap_or_default(),
        _ => Value::Null,
    });
    Value::Array(forms.collect())
}
