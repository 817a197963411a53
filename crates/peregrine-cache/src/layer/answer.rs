//! An answer as it is kept, and as it is given out again.
//!
//! An answer that came whole is kept as a response, one that came as a stream as its events, which give the response
//! when they are folded; so each can be given out in both ways. What is given out without a call is marked (see
//! [`Served::of`](crate::Served::of)) and says that it used nothing.

use std::fmt;

use peregrine_core::{ChatEvent, ChatResponse, Done, Fold, RawResponse, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Map;

use crate::{Error, Result, Served, Value};

/// The fact in a response's metadata that says how it was come by.
pub(super) const MARK: &str = "cache";

/// The stored form begins with this, so that a later version can tell.
const FORMAT: u8 = 1;
const WHOLE: u8 = 0;
const EVENTS: u8 = 1;
/// How deep a stored answer may be.
const MAX_DEPTH: usize = 160;

/// What the stores of a [`CacheLayer`](crate::CacheLayer) hold: what a model answered, without what the provider sent.
pub struct StoredAnswer {
    response: ChatResponse,
    events: Option<Vec<ChatEvent>>,
    weight: usize,
}

impl StoredAnswer {
    /// An answer that came whole, and what the provider sent.
    pub(super) fn whole(mut response: ChatResponse) -> (Self, Option<RawResponse>) {
        let raw = response.raw.take();
        let weight = encoded(&response).map_or(0, |bytes| bytes.len() * 2);
        let answer = Self {
            response,
            events: None,
            weight: weight + size_of::<Self>(),
        };
        (answer, raw)
    }

    /// An answer that came as events, of which the last is its end; and what the provider sent. `None` if they are no
    /// answer.
    pub(super) fn streamed(mut events: Vec<ChatEvent>) -> Option<(Self, Option<RawResponse>)> {
        let raw = match events.last_mut() {
            Some(ChatEvent::Done(done)) => done.raw.take(),
            _ => return None,
        };
        let response = fold(&events).ok()?;
        let weight = encoded(&events).map_or(0, |bytes| bytes.len() * 3);
        let answer = Self {
            response,
            events: Some(events),
            weight: weight + size_of::<Self>(),
        };
        Some((answer, raw))
    }

    /// The response, as it was.
    pub(super) fn original(&self) -> &ChatResponse {
        &self.response
    }

    /// The events, if it came as such.
    pub(super) fn items(&self) -> &[ChatEvent] {
        self.events.as_deref().unwrap_or_default()
    }

    /// The response to give out.
    pub(super) fn response(&self, served: Served, age_ms: u64) -> ChatResponse {
        let mut response = self.response.clone();
        if served.is_free() {
            mark(&mut response.metadata, served, age_ms, response.usage);
            response.usage = Some(Usage::default());
        }
        response
    }

    /// The events to give out.
    pub(super) fn events(&self, served: Served, age_ms: u64) -> Vec<ChatEvent> {
        match &self.events {
            None => self.response(served, age_ms).into_events(),
            Some(events) => {
                let mut marker = Marker::new(served, age_ms);
                let mut marked = Vec::with_capacity(events.len() + 1);
                for event in events.iter().cloned() {
                    let (first, second) = marker.mark(event);
                    marked.push(first);
                    marked.extend(second);
                }
                marked
            }
        }
    }
}

impl Value for StoredAnswer {
    fn weight(&self) -> usize {
        self.weight
    }

    fn encode(&self) -> Result<Vec<u8>> {
        match &self.events {
            None => stored(WHOLE, &self.response),
            Some(events) => stored(EVENTS, events),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [FORMAT, WHOLE, body @ ..] => Ok(Self {
                response: decoded(body)?,
                events: None,
                weight: body.len() * 2 + size_of::<Self>(),
            }),
            [FORMAT, EVENTS, body @ ..] => {
                let events: Vec<ChatEvent> = decoded(body)?;
                Ok(Self {
                    response: fold(&events)
                        .map_err(|_| Error::corrupt("the events of a stored answer do not fit together"))?,
                    events: Some(events),
                    weight: body.len() * 3 + size_of::<Self>(),
                })
            }
            _ => Err(Error::corrupt(
                "a stored answer is of a form that this version does not know",
            )),
        }
    }
}

/// Changes the events of a stream that is given out without a call of its own.
#[derive(Debug)]
pub(super) struct Marker {
    served: Served,
    age_ms: u64,
    usage: Option<Usage>,
}

impl Marker {
    pub(super) const fn new(served: Served, age_ms: u64) -> Self {
        Self {
            served,
            age_ms,
            usage: None,
        }
    }

    pub(super) const fn served(&self) -> Served {
        self.served
    }

    /// The event or events to give out instead of one.
    pub(super) fn mark(&mut self, event: ChatEvent) -> (ChatEvent, Option<ChatEvent>) {
        let nothing = || ChatEvent::Usage {
            usage: Usage::default(),
        };
        match event {
            event if !self.served.is_free() => (event, None),
            ChatEvent::Usage { usage } => {
                self.usage = Some(usage);
                (nothing(), None)
            }
            ChatEvent::Done(done) => {
                let Done {
                    finish,
                    timings,
                    mut metadata,
                    raw: _,
                } = *done;
                mark(&mut metadata, self.served, self.age_ms, self.usage);
                let done = ChatEvent::Done(Box::new(Done {
                    finish,
                    timings,
                    metadata,
                    raw: None,
                }));
                // A provider that said nothing of its usage would leave it unknown; here it is known.
                match self.usage {
                    Some(_) => (done, None),
                    None => (nothing(), Some(done)),
                }
            }
            event => (event, None),
        }
    }
}

fn mark(metadata: &mut peregrine_core::Metadata, served: Served, age_ms: u64, usage: Option<Usage>) {
    let mut facts = Map::with_capacity(3);
    facts.insert("served".to_owned(), served.as_str().into());
    facts.insert("age_ms".to_owned(), age_ms.into());
    if let Some(usage) = usage {
        let Usage {
            input_tokens,
            cached_input_tokens,
            cache_write_tokens,
            output_tokens,
            reasoning_tokens,
        } = usage;
        let counts = [
            ("input_tokens", input_tokens),
            ("cached_input_tokens", cached_input_tokens),
            ("cache_write_tokens", cache_write_tokens),
            ("output_tokens", output_tokens),
            ("reasoning_tokens", reasoning_tokens),
        ];
        // What is not there is 0; every hit pays for what is.
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let counts = counts.map(|(name, count)| (name.to_owned(), count.into()));
        facts.insert("usage".to_owned(), counts.collect::<Map<_, _>>().into());
    }
    let facts = serde_json::Value::Object(facts);
    metadata.insert(MARK.to_owned(), facts);
}

impl Served {
    /// How a response was come by, as its metadata says: a hit, a stale, a coalesced or a similar one. `None` if it
    /// came from a call of its own.
    pub fn of(response: &ChatResponse) -> Option<Self> {
        let word = response.metadata.get(MARK)?.get("served")?.as_str()?;
        [Self::Hit, Self::Stale, Self::Coalesced, Self::Similar]
            .into_iter()
            .find(|served| served.as_str() == word)
    }

    /// What the call used that a response was kept from, as its metadata says. The response's own usage is nothing.
    pub fn original_usage(response: &ChatResponse) -> Option<Usage> {
        let usage = response.metadata.get(MARK)?.get("usage")?;
        serde_json::from_value(usage.clone()).ok()
    }
}

fn fold(events: &[ChatEvent]) -> peregrine_core::Result<ChatResponse> {
    let mut fold = Fold::new();
    events.iter().cloned().try_for_each(|event| fold.push(event))?;
    fold.finish()
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|source| Error::Encode {
        message: source.to_string(),
    })
}

fn stored<T: Serialize>(kind: u8, value: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![FORMAT, kind];
    rmp_serde::encode::write_named(&mut bytes, value).map_err(|source| Error::Encode {
        message: source.to_string(),
    })?;
    Ok(bytes)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    // The message of the decoder may quote what it read, which is somebody's answer.
    T::deserialize(&mut reader).map_err(|_| Error::corrupt("a stored answer cannot be read"))
}

impl fmt::Debug for StoredAnswer {
    /// What a model said is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredAnswer")
            .field("model", &self.response.model)
            .field("events", &self.events.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}
