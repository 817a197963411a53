//! The layer that serves recordings.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, ConfigError, Fold, Middleware, Result,
};
use serde_json::Value;

use super::difference::{Difference, differences};
use super::{Answer, Exchange, VERSION, key, name};

/// How many differences a miss shows.
const SHOWN: usize = 5;

/// Answers from recordings and never calls the model.
///
/// A request that was recorded several times gets the answers in the order in which they were recorded, and
/// then the last one again. A stream is served with its recorded events, or with those of a whole answer; a
/// whole answer may come from a recorded stream.
///
/// A request without a recording is an error ([`NoRecording`](peregrine_core::ErrorKind::NoRecording)) that
/// shows the nearest recording and what differs.
#[derive(Debug)]
pub struct Replay {
    exchanges: Vec<Exchange>,
    places: HashMap<String, Vec<usize>>,
    served: Mutex<HashMap<String, usize>>,
}

impl Replay {
    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// [`Config`](peregrine_core::ErrorKind::Config) if the file cannot be read, or a line is no recording:
    /// the line is named.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| {
            ConfigError::new(format!(
                "could not read the recording {}: {source}",
                path.display()
            ))
        })?;
        let mut replay = Self {
            exchanges: Vec::new(),
            places: HashMap::new(),
            served: Mutex::default(),
        };
        for (at, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let refuse = |why: String| {
                ConfigError::new(format!(
                    "line {} of {} is no recording: {why}",
                    at + 1,
                    path.display()
                ))
            };
            let exchange: Exchange =
                serde_json::from_str(line).map_err(|source| refuse(source.to_string()))?;
            if exchange.version != VERSION {
                return Err(refuse(format!(
                    "its version is {}, this build reads {VERSION}",
                    exchange.version
                ))
                .into());
            }
            let place = place(&exchange.model, &exchange.request);
            replay
                .places
                .entry(place)
                .or_default()
                .push(replay.exchanges.len());
            replay.exchanges.push(exchange);
        }
        Ok(replay)
    }

    fn find(&self, model: &str, request: &ChatRequest) -> Result<&Answer> {
        let asked = key(request);
        let place = place(model, &asked);
        let Some(recorded) = self.places.get(&place) else {
            return Err(self.miss(model, &asked).into());
        };
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = served.entry(place).or_insert(0);
        let index = recorded[(*turn).min(recorded.len() - 1)];
        *turn += 1;
        Ok(&self.exchanges[index].answer)
    }

    fn miss(&self, model: &str, asked: &Value) -> ConfigError {
        let nearest = self
            .exchanges
            .iter()
            .enumerate()
            .map(|(at, exchange)| {
                let mut found = differences(&exchange.request, asked);
                if exchange.model != model {
                    found.insert(
                        0,
                        Difference::new("/model", &exchange.model.as_str().into(), &model.into()),
                    );
                }
                (found, at)
            })
            .min_by_key(|(found, at)| (found.len(), *at));
        let Some((found, at)) = nearest else {
            return ConfigError::no_recording("no recording fits the request: the recording is empty");
        };
        let mut shown: Vec<_> = found.iter().take(SHOWN).map(ToString::to_string).collect();
        if shown.is_empty() {
            shown.push("the order of its fields".to_owned());
        }
        if found.len() > SHOWN {
            shown.push(format!("and {} more", found.len() - SHOWN));
        }
        ConfigError::no_recording(format!(
            "no recording fits the request to {model}; the nearest is number {} of {}, which differs in: {}",
            at + 1,
            self.exchanges.len(),
            shown.join("; ")
        ))
    }
}

fn place(model: &str, request: &Value) -> String {
    format!("{model} {request}")
}

impl Middleware for Replay {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        match self.find(&name(inner.info()), request)? {
            Answer::Response(response) => Ok((**response).clone()),
            Answer::Events(events) => {
                let mut fold = Fold::new();
                events.iter().cloned().try_for_each(|event| fold.push(event))?;
                fold.finish()
            }
        }
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        Ok(match self.find(&name(inner.info()), request)? {
            Answer::Response(response) => ChatStream::from_response((**response).clone()),
            Answer::Events(events) => ChatStream::from_events(events.clone()),
        })
    }
}
