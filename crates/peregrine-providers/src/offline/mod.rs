//! A model without weights and without a network: for first runs, examples and tests.
//!
//! [`OfflineModel`] answers with the sentences of the prompt's own texts that fit the question best (BM25), and
//! with nothing else. It quotes, names the source, and says so when nothing fits. It fills a response schema
//! from what it finds, and calls tools when the question calls for them, so that an agent with file tools
//! works end to end: search, read, answer. [`OfflineEmbedder`] compares texts by their letters and words.
//!
//! Neither understands anything. They say what they are in their names and in every response's metadata, and
//! are chosen by name only, never silently.
//!
//! | module | what it does |
//! |---|---|
//! | `text`, `units`, `values` | words; pieces that can be quoted; numbers, paths, names, pairs |
//! | `query`, `bm25` | what is looked for; the index and the ranking |
//! | `question`, `results`, `evidence` | a request read as a question and the texts to answer it from |
//! | `answer`, `quote` | which units answer, and how they are quoted |
//! | `shape`, `schema` | JSON Schemas, and how they are filled |
//! | `arguments`, `tools` | which tool to call next, and with what |
//! | `embed` | the embedding model |

mod answer;
mod arguments;
mod bm25;
mod embed;
mod evidence;
mod query;
mod question;
mod quote;
mod results;
mod schema;
mod shape;
mod stream;
mod text;
mod tools;
mod units;
mod values;

use peregrine_core::{
    Capabilities, ChatModel, ChatRequest, ChatResponse, ChatStream, Error, Finish, Message, ModelInfo, Part,
    ResponseFormat, Result, Sampling, ToolCall, ToolResult, ToolSpec, Usage,
};

use answer::Fit;
use evidence::Evidence;

pub use embed::OfflineEmbedder;

/// The name of the provider.
pub const PROVIDER: &str = "offline";
/// The name of the model.
pub const MODEL: &str = "offline-bm25";

/// A deterministic model that quotes its prompt.
///
/// # What it answers
///
/// - **A question**: up to three sentences, list items, table rows or lines of the prompt's documents, of tool
///   results, and of what the user said beside the question, as `"quote" (source)`, best first. If nothing
///   fits it says so; if something comes close it says that it is only close.
/// - **A response schema**: JSON with values that stand in those texts. What is not found is left out, or null
///   where the schema allows it; where it is required, the call is an
///   [`InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) that names the field.
/// - **Tools**: a call of a tool that the question speaks of, or of tools that list, search and read texts, as
///   long as the texts at hand do not answer. No call is made twice, and after
///   [`with_max_rounds`](Self::with_max_rounds) rounds it answers with what it has.
///
/// `max_tokens` and `stop` are kept to. Everything else of [`Sampling`] and of the reasoning settings changes
/// nothing, because nothing is sampled and nobody reasons. Images, audio and documents other than plain text
/// are refused.
///
/// The same request gives the same response, byte for byte. Tokens are counted by a rule, not by a tokenizer:
/// four bytes of UTF-8 are one token, and each text begins a new one.
///
/// # Performance
///
/// Linear in the length of the prompt, of which at most [`with_max_text_bytes`](Self::with_max_text_bytes) are
/// looked at; a schema adds a pass for each of its fields. Nothing waits and nothing is kept between calls.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatModel, ChatRequest, DocumentPart, Message, Part};
/// use peregrine_providers::offline::OfflineModel;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let readme = "# Peregrine\n\nThe MSRV is Rust 1.95. Licensed under MIT or Apache-2.0.";
/// let question = Message::user("What is the MSRV?")
///     .with_part(Part::Document(DocumentPart::text("README.md", readme)));
/// let answer = OfflineModel::new().complete(&ChatRequest::new([question])).await?;
/// assert_eq!(answer.message.text(), "\"The MSRV is Rust 1.95.\" (README.md)");
/// assert_eq!(answer.metadata["offline"], true);
/// # Ok::<(), peregrine_core::Error>(())
/// # }).expect("it never waits")?;
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OfflineModel {
    info: ModelInfo,
    max_rounds: usize,
    max_quotes: usize,
    max_text_bytes: usize,
}

impl Default for OfflineModel {
    fn default() -> Self {
        Self::new()
    }
}

impl OfflineModel {
    /// The model with its usual bounds: 6 rounds of tools, 3 quotes, 4 MiB of text.
    pub fn new() -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.streaming = true;
        capabilities.tools = true;
        capabilities.parallel_tools = true;
        capabilities.tool_choice = true;
        capabilities.json_schema = true;
        capabilities.json_mode = true;
        Self {
            info: ModelInfo::new(PROVIDER, MODEL).with_capabilities(capabilities),
            max_rounds: 6,
            max_quotes: 3,
            max_text_bytes: 4 << 20,
        }
    }

    /// How many rounds of tool calls it makes at most before it answers.
    #[must_use]
    pub fn with_max_rounds(mut self, max_rounds: usize) -> Self {
        self.max_rounds = max_rounds;
        self
    }

    /// How many sentences it quotes at most; at least 1.
    #[must_use]
    pub fn with_max_quotes(mut self, max_quotes: usize) -> Self {
        self.max_quotes = max_quotes.max(1);
        self
    }

    /// How much text it looks at, in bytes, at most 256 MiB. Of more, the longest texts are cut, and the
    /// response's metadata says how much was left out (`unread_bytes`).
    #[must_use]
    pub fn with_max_text_bytes(mut self, max_text_bytes: usize) -> Self {
        self.max_text_bytes = max_text_bytes.min(256 << 20);
        self
    }

    fn answer(&self, request: &ChatRequest) -> Result<ChatResponse> {
        let ChatRequest {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            response_format,
            sampling,
            // Nothing reasons, and nothing is cached or routed.
            reasoning: _,
            prompt_cache: _,
            provider_options,
            scope: _,
            metadata: _,
        } = request;
        if let Some(given) = provider_options.for_dialect(PROVIDER) {
            let names: Vec<&str> = given.keys().map(String::as_str).collect();
            return Err(Error::invalid_request(format!(
                "the offline model has no provider options; remove {}",
                names.join(", ")
            )));
        }
        let messages: Vec<&Message> = messages.iter().collect();
        let evidence = Evidence::read(&messages, self.max_text_bytes)?;
        let parallel = *parallel_tool_calls != Some(false);
        let calls = tools::next_calls(&evidence, tools, tool_choice, parallel, self.max_rounds)?;
        let mut response = if calls.is_empty() {
            self.say(&evidence, response_format)?
        } else {
            call(&evidence, calls)
        };
        limit(&mut response, sampling);
        let written: usize = response.message.parts.iter().map(part_tokens).sum();
        let mut response = response.with_model(MODEL).with_metadata("offline", true);
        if evidence.index.unread_bytes > 0 {
            response = response.with_metadata("unread_bytes", evidence.index.unread_bytes);
        }
        let usage = Usage::new(prompt_tokens(&messages, tools), written as u64);
        Ok(response.with_usage(usage))
    }

    fn say(&self, evidence: &Evidence<'_>, format: &ResponseFormat) -> Result<ChatResponse> {
        let answer = answer::answer(evidence, self.max_quotes);
        let (text, method) = match format {
            ResponseFormat::Text => (answer.to_text(evidence), "bm25 sentence extraction"),
            ResponseFormat::Json => (
                schema::any_object(&answer).to_string(),
                "bm25 sentence extraction",
            ),
            ResponseFormat::Schema {
                name: _,
                schema,
                strict: _,
            } => (
                schema::fill(schema.value(), evidence, &answer)?.to_string(),
                "bm25 schema filling",
            ),
            other => {
                return Err(Error::invalid_request(format!(
                    "the offline model does not know the response format {other:?}"
                )));
            }
        };
        let sources: Vec<&str> = answer.sources();
        Ok(ChatResponse::text(text)
            .with_metadata("method", method)
            .with_metadata("matched", answer.fit >= Fit::Match)
            .with_metadata("sources", sources))
    }
}

impl ChatModel for OfflineModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// # Errors
    ///
    /// [`InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) for what cannot be read as text, for a
    /// required field of a schema or argument of a forced call that nothing gives, and for provider options.
    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        self.answer(request)
    }

    /// The same answer, word by word.
    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream> {
        self.answer(request).map(stream::by_words)
    }
}

fn call(evidence: &Evidence<'_>, calls: Vec<tools::Call>) -> ChatResponse {
    let parts = (evidence.calls.len()..).zip(calls).map(|(number, call)| {
        let tools::Call { name, arguments } = call;
        Part::ToolCall(ToolCall::new(
            format!("call_{number}"),
            name,
            arguments.to_string(),
        ))
    });
    ChatResponse::new(parts.collect(), Finish::ToolCalls).with_metadata("method", "bm25 tool selection")
}

/// Keeps an answer to the stop texts and to the bound on its length.
fn limit(response: &mut ChatResponse, sampling: &Sampling) {
    let Sampling {
        max_tokens,
        stop,
        // Nothing is sampled.
        temperature: _,
        top_p: _,
        top_k: _,
        seed: _,
        presence_penalty: _,
        frequency_penalty: _,
    } = sampling;
    let [Part::Text(part)] = response.message.parts.as_mut_slice() else {
        return;
    };
    let stops = stop.iter().filter(|stop| !stop.is_empty());
    let met = stops.filter_map(|stop| Some((part.text.find(stop)?, stop))).min();
    if let Some((at, stop)) = met {
        part.text.truncate(at);
        response
            .metadata
            .insert("stop_sequence".to_owned(), stop.as_str().into());
    }
    let room = max_tokens.map_or(usize::MAX, |tokens| {
        (tokens as usize).saturating_mul(BYTES_PER_TOKEN)
    });
    if part.text.len() > room {
        let mut end = room;
        while !part.text.is_char_boundary(end) {
            end -= 1;
        }
        part.text.truncate(end);
        response.finish = Finish::Length;
    }
}

const BYTES_PER_TOKEN: usize = 4;

fn tokens(text: &str) -> usize {
    text.len().div_ceil(BYTES_PER_TOKEN)
}

fn prompt_tokens(messages: &[&Message], specs: &[ToolSpec]) -> u64 {
    let said = messages
        .iter()
        .flat_map(|message| &message.parts)
        .map(part_tokens);
    let offered = specs
        .iter()
        .map(|spec| tokens(&spec.name) + tokens(&spec.description) + tokens(spec.parameters.as_str()));
    said.chain(offered).sum::<usize>() as u64
}

fn part_tokens(part: &Part) -> usize {
    match part {
        Part::Text(text) | Part::Refusal(text) => tokens(&text.text),
        Part::Reasoning(reasoning) => tokens(&reasoning.text),
        Part::ToolCall(call) => tokens(&call.name) + tokens(&call.arguments),
        Part::ToolResult(ToolResult { content, .. }) => content.iter().map(part_tokens).sum(),
        Part::Document(document) => match &document.source {
            peregrine_core::MediaSource::Text { text } => tokens(text),
            peregrine_core::MediaSource::Bytes { data } => data.len().div_ceil(BYTES_PER_TOKEN),
            _ => 0,
        },
        _ => 0,
    }
}
