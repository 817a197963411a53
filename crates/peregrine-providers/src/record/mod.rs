//! Recording exchanges with a model to a file, and serving them back.
//!
//! A recording is a JSON object on a line: the model, what was asked, and what was answered (an answer, or the
//! events of a stream with their boundaries). The key is the whole request in its stored form, without the
//! labels in `metadata`; nothing is hashed, so a miss can say what differs. Keys and credentials are no part
//! of a request and never reach the file; prompts and answers do.
//!
//! | file | what |
//! |---|---|
//! | `recorder` | [`Record`], which writes |
//! | `replay` | [`Replay`], which serves |
//! | `difference` | what differs between two requests |

mod difference;
mod recorder;
mod replay;

pub use recorder::Record;
pub use replay::Replay;

use peregrine_core::{ChatEvent, ChatRequest, ChatResponse, ModelInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Exchange {
    /// The format's version.
    version: u32,
    /// `provider/model`.
    model: String,
    /// What was asked.
    request: Value,
    /// What was answered.
    answer: Answer,
}

/// The version of the lines that this build writes.
const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// To a request for a whole answer.
    Response(Box<ChatResponse>),
    /// To a request for a stream.
    Events(Vec<ChatEvent>),
}

/// The request as the key has it.
fn key(request: &ChatRequest) -> Value {
    let mut asked = request.clone();
    asked.metadata.clear();
    serde_json::to_value(asked).expect("requests have string keys and numbers that JSON can hold, or null")
}

fn name(info: &ModelInfo) -> String {
    info.to_string()
}
