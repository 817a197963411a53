//! What arrived: one request as it was on the wire, and the endpoint its method and path stand for.
//!
//! Nothing here decides an answer. The body is kept as bytes; [`SeenRequest::json`] parses it on demand.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

/// A wire format that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI Chat Completions, and everything compatible with it.
    OpenAiChat,
    /// OpenAI Responses.
    OpenAiResponses,
    /// Anthropic Messages.
    Anthropic,
    /// Google Gemini.
    Gemini,
    /// Ollama's native API.
    Ollama,
}

/// What a method and a path ask for. The prefix before the parts named here does not matter, except where
/// it is the only thing that tells two services apart (`/v1/models`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Endpoint {
    /// `POST ../chat/completions`
    OpenAiChat,
    /// `POST ../responses`
    OpenAiResponses,
    /// `POST ../responses/input_tokens`
    OpenAiInputTokens,
    /// `POST ../embeddings`, but not `/api/embeddings`
    OpenAiEmbeddings,
    /// `GET ../models` or `GET ../models/{id}`
    OpenAiModels,
    /// `POST ../messages`
    AnthropicMessages,
    /// `POST ../messages/count_tokens`
    AnthropicCountTokens,
    /// `GET ../models` or `GET ../models/{id}` with an `anthropic-version` header
    AnthropicModels,
    /// `POST ../models/{m}:generateContent`
    GeminiGenerate,
    /// `POST ../models/{m}:streamGenerateContent`
    GeminiStream,
    /// `POST ../models/{m}:embedContent`
    GeminiEmbed,
    /// `POST ../models/{m}:batchEmbedContents`
    GeminiBatchEmbed,
    /// `POST ../models/{m}:countTokens`
    GeminiCountTokens,
    /// `GET ../v1beta/models[/{m}]`, or `GET ../models` with an `x-goog-api-key` header
    GeminiModels,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/generate`
    OllamaGenerate,
    /// `POST /api/embed`
    OllamaEmbed,
    /// `POST /api/embeddings`, the older form with one `prompt`
    OllamaEmbeddings,
    /// `GET /api/tags`
    OllamaTags,
    /// `GET /api/ps`
    OllamaPs,
    /// `GET /api/version`
    OllamaVersion,
    /// `POST /api/show`
    OllamaShow,
    /// `GET /` or `HEAD /`: "Ollama is running"
    OllamaRoot,
    /// Anything else: answered 404 unless a script says otherwise.
    Unknown,
}

impl Endpoint {
    /// The wire format of this endpoint; unknown paths get OpenAI's error shape.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::OpenAiResponses | Self::OpenAiInputTokens => Dialect::OpenAiResponses,
            Self::AnthropicMessages | Self::AnthropicCountTokens | Self::AnthropicModels => {
                Dialect::Anthropic
            }
            Self::GeminiGenerate
            | Self::GeminiStream
            | Self::GeminiEmbed
            | Self::GeminiBatchEmbed
            | Self::GeminiCountTokens
            | Self::GeminiModels => Dialect::Gemini,
            Self::OllamaChat
            | Self::OllamaGenerate
            | Self::OllamaEmbed
            | Self::OllamaEmbeddings
            | Self::OllamaTags
            | Self::OllamaPs
            | Self::OllamaVersion
            | Self::OllamaShow
            | Self::OllamaRoot => Dialect::Ollama,
            Self::OpenAiChat | Self::OpenAiEmbeddings | Self::OpenAiModels | Self::Unknown => {
                Dialect::OpenAiChat
            }
        }
    }

    /// Whether a model generates here: the endpoints that take a reply from [`LlmServer::push`].
    ///
    /// [`LlmServer::push`]: super::LlmServer::push
    pub fn is_generation(self) -> bool {
        matches!(
            self,
            Self::OpenAiChat
                | Self::OpenAiResponses
                | Self::AnthropicMessages
                | Self::GeminiGenerate
                | Self::GeminiStream
                | Self::OllamaChat
                | Self::OllamaGenerate
        )
    }

    /// Whether vectors are asked for here.
    pub fn is_embedding(self) -> bool {
        matches!(
            self,
            Self::OpenAiEmbeddings
                | Self::GeminiEmbed
                | Self::GeminiBatchEmbed
                | Self::OllamaEmbed
                | Self::OllamaEmbeddings
        )
    }

    /// Decides by method, path and the headers that tell the services apart.
    pub(crate) fn of(method: &str, path: &str, has_header: impl Fn(&str) -> bool) -> Self {
        let path = if path.len() > 1 {
            path.trim_end_matches('/')
        } else {
            path
        };
        let get = method == "GET" || method == "HEAD";
        if get {
            return match path {
                "/" => Self::OllamaRoot,
                p if p.ends_with("/api/tags") => Self::OllamaTags,
                p if p.ends_with("/api/ps") => Self::OllamaPs,
                p if p.ends_with("/api/version") => Self::OllamaVersion,
                p if p.ends_with("/models") || p.contains("/models/") => {
                    if has_header("anthropic-version") {
                        Self::AnthropicModels
                    } else if p.contains("/v1beta") || has_header("x-goog-api-key") {
                        Self::GeminiModels
                    } else {
                        Self::OpenAiModels
                    }
                }
                _ => Self::Unknown,
            };
        }
        if method != "POST" {
            return Self::Unknown;
        }
        // Gemini names its method after a colon in the last segment.
        if let Some((_, action)) = path.rsplit('/').next().and_then(|last| last.split_once(':')) {
            return match action {
                "generateContent" => Self::GeminiGenerate,
                "streamGenerateContent" => Self::GeminiStream,
                "embedContent" => Self::GeminiEmbed,
                "batchEmbedContents" => Self::GeminiBatchEmbed,
                "countTokens" => Self::GeminiCountTokens,
                _ => Self::Unknown,
            };
        }
        const SUFFIXES: [(&str, Endpoint); 12] = [
            ("/chat/completions", Endpoint::OpenAiChat),
            ("/responses/input_tokens", Endpoint::OpenAiInputTokens),
            ("/responses", Endpoint::OpenAiResponses),
            ("/messages/count_tokens", Endpoint::AnthropicCountTokens),
            ("/messages", Endpoint::AnthropicMessages),
            ("/api/chat", Endpoint::OllamaChat),
            ("/api/generate", Endpoint::OllamaGenerate),
            ("/api/embed", Endpoint::OllamaEmbed),
            ("/api/embeddings", Endpoint::OllamaEmbeddings),
            ("/api/show", Endpoint::OllamaShow),
            ("/embeddings", Endpoint::OpenAiEmbeddings),
            ("/v1/embeddings", Endpoint::OpenAiEmbeddings),
        ];
        SUFFIXES
            .iter()
            .find(|(suffix, _)| path.ends_with(suffix))
            .map_or(Self::Unknown, |(_, e)| *e)
    }
}

/// One request, as it was on the wire.
#[derive(Debug)]
#[non_exhaustive]
pub struct SeenRequest {
    /// Position among all requests of this server, from 1.
    pub seq: u64,
    /// Which connection it came on, from 1.
    pub connection: u64,
    /// The method, as sent.
    pub method: String,
    /// The path without the query, as sent (still percent-encoded).
    pub path: String,
    /// What stood after the `?`.
    pub query: Option<String>,
    /// Headers in the order of arrival; names in lower case, values as bytes.
    pub headers: Vec<(String, Bytes)>,
    /// The body, with any chunked transfer coding removed.
    pub body: Bytes,
    /// What the path stands for.
    pub endpoint: Endpoint,
    json: OnceLock<Option<Value>>,
}

impl SeenRequest {
    pub(crate) fn new(
        seq: u64,
        connection: u64,
        method: &str,
        target: &str,
        headers: Vec<(String, Bytes)>,
        body: Bytes,
    ) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let endpoint = Endpoint::of(method, path, |name| headers.iter().any(|(n, _)| n == name));
        Self {
            seq,
            connection,
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            headers,
            body,
            endpoint,
            json: OnceLock::new(),
        }
    }

    /// The first value of a header, if it is text. The name is compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The body as JSON; `None` when it is not JSON. Parsed once.
    pub fn json(&self) -> Option<&Value> {
        self.json
            .get_or_init(|| serde_json::from_slice(&self.body).ok())
            .as_ref()
    }

    /// The model that was asked for: from the path for Gemini, else from the body.
    pub fn model(&self) -> Option<&str> {
        if self.endpoint.dialect() == Dialect::Gemini {
            let (_, rest) = self.path.rsplit_once("models/")?;
            return Some(rest.split_once(':').map_or(rest, |(model, _)| model));
        }
        self.json()?.get("model")?.as_str()
    }

    /// Whether the client asked for a stream, by the rules of the endpoint (Ollama streams by default).
    pub fn is_stream(&self) -> bool {
        let flag = self
            .json()
            .and_then(|body| body.get("stream"))
            .and_then(Value::as_bool);
        match self.endpoint {
            Endpoint::GeminiStream => true,
            Endpoint::GeminiGenerate => false,
            Endpoint::OllamaChat | Endpoint::OllamaGenerate => flag.unwrap_or(true),
            _ => flag.unwrap_or(false),
        }
    }

    /// The value of a query parameter, not decoded.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// The text of the last user message (or of the last input), as the default responder echoes it.
    pub fn last_user_text(&self) -> String {
        super::dialect::wire(self.endpoint.dialect())
            .read(self)
            .map(|view| view.last_text)
            .unwrap_or_default()
    }

    /// The text of the tool result that ends the conversation, if it ends with one.
    pub fn tool_result(&self) -> Option<String> {
        super::dialect::wire(self.endpoint.dialect())
            .read(self)
            .ok()
            .and_then(|view| view.tool_result)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 64).sum();
        self.path.len() + self.body.len() + headers + 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart_by_suffix_method_and_header() {
        let of = |method: &str, path: &str| Endpoint::of(method, path, |_| false);
        assert_eq!(of("POST", "/openai/v1/chat/completions"), Endpoint::OpenAiChat);
        assert_eq!(of("POST", "/chat/completions/"), Endpoint::OpenAiChat);
        assert_eq!(of("GET", "/v1/chat/completions"), Endpoint::Unknown);
        assert_eq!(
            of("POST", "/v1/responses/input_tokens"),
            Endpoint::OpenAiInputTokens
        );
        assert_eq!(of("POST", "/api/embeddings"), Endpoint::OllamaEmbeddings);
        assert_eq!(of("POST", "/v1/embeddings"), Endpoint::OpenAiEmbeddings);
        assert_eq!(of("POST", "/api/v1/chat/completions"), Endpoint::OpenAiChat);
        assert_eq!(
            of("POST", "/v1beta/models/g:streamGenerateContent"),
            Endpoint::GeminiStream
        );
        assert_eq!(of("POST", "/v1beta/models/g:predict"), Endpoint::Unknown);
        assert_eq!(of("GET", "/v1beta/models"), Endpoint::GeminiModels);
        assert_eq!(of("GET", "/v1/models/m"), Endpoint::OpenAiModels);
        assert_eq!(
            Endpoint::of("GET", "/v1/models", |h| h == "anthropic-version"),
            Endpoint::AnthropicModels
        );
        assert_eq!(of("HEAD", "/"), Endpoint::OllamaRoot);
        assert_eq!(of("DELETE", "/api/delete"), Endpoint::Unknown);
    }
}
