//! Pieces of a message's content: texts, images, audio, documents.
//!
//! Invariant: a piece is written as an object without its closing brace, so that a cache mark can follow.

use peregrine_core::{DocumentPart, Error, MediaPart, MediaSource, Part, Result};
use serde_json::Value;

use super::compat::{AudioForm, DocumentForm};
use super::message::{Encoder, Mark, is_piece, own_data};
use super::request::CacheControl;
use crate::wire::body::{append_document, base64, data_url};
use crate::wire::json;

impl Encoder<'_> {
    /// The content of a message: a text where that says it all, else a list of pieces.
    pub(super) fn content<'p>(
        &self,
        out: &mut Vec<u8>,
        pieces: impl Iterator<Item = &'p Part> + Clone,
        mark: Mark,
    ) -> Result<()> {
        let mut ahead = pieces.clone();
        match (ahead.next(), ahead.next()) {
            (None, _) => out.extend_from_slice(br#""""#),
            (Some(Part::Text(only) | Part::Refusal(only)), None) if mark == Mark::None => {
                json::write(out, &only.text);
            }
            _ if self.compat.joined_text && pieces.clone().all(|part| part.as_text().is_some()) => {
                let all: String = pieces.filter_map(Part::as_text).collect();
                json::write(out, &all);
            }
            _ => {
                out.push(b'[');
                let mut pieces = pieces.peekable();
                while let Some(piece) = pieces.next() {
                    self.piece(out, piece)?;
                    if pieces.peek().is_some() {
                        out.extend_from_slice(b"},");
                    }
                }
                match mark {
                    Mark::None => {}
                    Mark::Breakpoint => {
                        out.extend_from_slice(br#","prompt_cache_breakpoint":{"mode":"explicit"}"#);
                    }
                    Mark::CacheControl { an_hour } => {
                        json::field(out, "cache_control", &CacheControl::new(an_hour));
                    }
                }
                out.extend_from_slice(b"}]");
            }
        }
        Ok(())
    }

    pub(super) fn piece(&self, out: &mut Vec<u8>, part: &Part) -> Result<()> {
        match part {
            Part::Text(text) | Part::Refusal(text) => {
                out.extend_from_slice(br#"{"type":"text","text":"#);
                json::write(out, &text.text);
            }
            Part::Image(image) => self.image(out, image)?,
            Part::Audio(audio) => self.audio(out, audio)?,
            Part::Document(document) => self.document(out, document)?,
            Part::Reasoning(part) => {
                out.extend_from_slice(br#"{"type":"thinking","thinking":[{"type":"text","text":"#);
                json::write(out, &part.text);
                out.extend_from_slice(b"}]");
                json::optional(
                    out,
                    "signature",
                    own_data(&part.data).and_then(|data| data.get("signature")),
                );
            }
            Part::Opaque(opaque) if is_piece(opaque) => {
                json::write(out, &opaque.value);
                out.pop();
            }
            Part::ToolCall(_) => {
                return Err(Error::invalid_request(
                    "a tool call belongs in a message of the assistant",
                ));
            }
            Part::ToolResult(_) => {
                return Err(Error::invalid_request(
                    "a tool result belongs in a message of the role tool",
                ));
            }
            other => return Err(self.unsupported(&format!("this part: {}", kind(other)), "leave it out")),
        }
        Ok(())
    }

    fn image(&self, out: &mut Vec<u8>, image: &MediaPart) -> Result<()> {
        let MediaPart {
            source,
            media_type,
            detail,
        } = image;
        out.extend_from_slice(br#"{"type":"image_url","image_url":{"url":"#);
        match source {
            MediaSource::Bytes { data } => data_url(out, required_type(media_type, "an image")?, data),
            MediaSource::Url { url } => json::write(out, url),
            _ => return Err(self.unsupported("an image by file id", "send its bytes or its address")),
        }
        json::optional(out, "detail", detail.as_ref());
        out.push(b'}');
        Ok(())
    }

    fn audio(&self, out: &mut Vec<u8>, audio: &MediaPart) -> Result<()> {
        let MediaPart {
            source,
            media_type,
            detail: _,
        } = audio;
        out.extend_from_slice(br#"{"type":"input_audio","input_audio":"#);
        match (self.compat.audio, source) {
            (AudioForm::DataAndFormat, MediaSource::Bytes { data }) => {
                out.extend_from_slice(br#"{"data":"#);
                base64(out, data);
                json::field(out, "format", audio_format(required_type(media_type, "audio")?));
                out.push(b'}');
            }
            (AudioForm::Plain, MediaSource::Bytes { data }) => base64(out, data),
            (AudioForm::Plain, MediaSource::Url { url }) => json::write(out, url),
            (AudioForm::None, _) => return Err(self.unsupported("audio", "send its transcript")),
            _ => return Err(self.unsupported("audio by address or file id", "send its bytes")),
        }
        Ok(())
    }

    fn document(&self, out: &mut Vec<u8>, document: &DocumentPart) -> Result<()> {
        let DocumentPart {
            source,
            media_type,
            title,
        } = document;
        let form = self.compat.documents;
        match (form, source) {
            (_, MediaSource::Text { text }) => {
                out.extend_from_slice(br#"{"type":"text","text":"#);
                append_document(out, title.as_deref(), text);
            }
            (DocumentForm::None, _) => {
                return Err(self.unsupported("a document that is a file", "send its text"));
            }
            (DocumentForm::DocumentUrl, MediaSource::File { id }) => {
                out.extend_from_slice(br#"{"type":"file","file_id":"#);
                json::write(out, id);
            }
            (DocumentForm::DocumentUrl, source) => {
                out.extend_from_slice(br#"{"type":"document_url","document_url":"#);
                match source {
                    MediaSource::Bytes { data } => {
                        data_url(out, required_type(media_type, "a document")?, data);
                    }
                    MediaSource::Url { url } => json::write(out, url),
                    _ => return Err(self.unsupported("a document from this source", "send its bytes")),
                }
                json::optional(out, "document_name", title.as_ref());
            }
            (_, MediaSource::File { id }) => {
                out.extend_from_slice(br#"{"type":"file","file":{"file_id":"#);
                json::write(out, id);
                out.push(b'}');
            }
            (_, source) => {
                // The server refuses file data without a name.
                out.extend_from_slice(br#"{"type":"file","file":{"filename":"#);
                json::write(out, title.as_deref().unwrap_or("document"));
                out.extend_from_slice(br#","file_data":"#);
                match source {
                    MediaSource::Bytes { data } => {
                        data_url(out, required_type(media_type, "a document")?, data);
                    }
                    MediaSource::Url { url } if form == DocumentForm::FileOrUrl => json::write(out, url),
                    _ => return Err(self.unsupported("a document by address", "send its bytes")),
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

/// The media type that bytes need.
pub(crate) fn required_type<'m>(media_type: &'m Option<String>, what: &str) -> Result<&'m str> {
    media_type.as_deref().ok_or_else(|| {
        Error::invalid_request(format!(
            "{what} sent as bytes needs a media type; set it with `with_media_type`"
        ))
    })
}

/// The format of audio by its media type: `audio/mpeg` is `mp3`, `audio/x-wav` is `wav`, others as they are.
pub(crate) fn audio_format(media_type: &str) -> &str {
    let subtype = media_type.strip_prefix("audio/").unwrap_or(media_type);
    match subtype.split(';').next().unwrap_or(subtype).trim() {
        "mpeg" | "mpeg3" | "x-mpeg-3" | "x-mp3" => "mp3",
        "wave" | "x-wav" | "vnd.wave" => "wav",
        "mp4" | "x-m4a" => "m4a",
        other => other,
    }
}

fn kind(part: &Part) -> String {
    match serde_json::to_value(part) {
        Ok(Value::Object(fields)) => fields["type"].as_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}
