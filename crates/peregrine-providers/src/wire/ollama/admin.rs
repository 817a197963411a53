//! What a server has: `/api/tags`, `/api/ps`, `/api/show`, `/api/version`, without a socket.
//!
//! Each call is an [`AdminRequest`] to send and a function that reads its answer. Unknown fields are passed
//! over and missing ones are empty, so that older and newer servers are read alike.

use peregrine_core::{Capabilities, ProtocolError, RawResponse, Result, UnixTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::DIALECT;
use crate::wire::error::ErrorBody;

/// A call that asks a server about its models.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use peregrine_core::RawResponse;
/// use peregrine_providers::wire::ollama::AdminRequest;
///
/// let call = AdminRequest::version();
/// assert_eq!((call.method, call.path), ("GET", "/api/version"));
/// let headers: Vec<(String, String)> = Vec::new();
/// let answer = RawResponse::new(200, headers, vec![Bytes::from(r#"{"version":"0.13.1"}"#)]);
/// assert_eq!(AdminRequest::read_version(&answer)?, "0.13.1");
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminRequest {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The address, relative to the base URL, with a leading slash.
    pub path: &'static str,
    /// The JSON body, where there is one.
    pub body: Option<Vec<u8>>,
}

impl AdminRequest {
    /// Asks which models are installed.
    pub fn tags() -> Self {
        Self::get("/api/tags")
    }

    /// Asks which models are loaded.
    pub fn ps() -> Self {
        Self::get("/api/ps")
    }

    /// Asks for the server's version.
    pub fn version() -> Self {
        Self::get("/api/version")
    }

    /// Asks what a model is and can do.
    pub fn show(model: &str) -> Self {
        Self {
            method: "POST",
            path: "/api/show",
            body: Some(serde_json::json!({"model": model}).to_string().into_bytes()),
        }
    }

    fn get(path: &'static str) -> Self {
        Self {
            method: "GET",
            path,
            body: None,
        }
    }

    /// The installed models, in the server's order.
    ///
    /// # Errors
    ///
    /// The server's error, or a protocol error; both carry `raw`.
    pub fn read_tags(raw: &RawResponse) -> Result<Vec<InstalledModel>> {
        read::<Models<InstalledModel>>(raw, "/api/tags").map(|list| list.models)
    }

    /// The loaded models, in the server's order.
    ///
    /// # Errors
    ///
    /// As for [`read_tags`](Self::read_tags).
    pub fn read_ps(raw: &RawResponse) -> Result<Vec<RunningModel>> {
        read::<Models<RunningModel>>(raw, "/api/ps").map(|list| list.models)
    }

    /// What a model is and can do.
    ///
    /// # Errors
    ///
    /// As for [`read_tags`](Self::read_tags).
    pub fn read_show(raw: &RawResponse) -> Result<ModelDescription> {
        read(raw, "/api/show")
    }

    /// The server's version.
    ///
    /// # Errors
    ///
    /// As for [`read_tags`](Self::read_tags); an answer without a version is a protocol error.
    pub fn read_version(raw: &RawResponse) -> Result<String> {
        read::<Version>(raw, "/api/version").map(|answer| answer.version)
    }
}

/// An installed model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct InstalledModel {
    /// The name to call it by, with its tag: `llama3.2:1b`.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// When it was changed last, as the server writes it (RFC 3339).
    pub modified_at: Option<String>,
    /// Its size on the disk.
    #[serde(rename = "size", deserialize_with = "or_default")]
    pub size_bytes: u64,
    /// Its digest.
    #[serde(deserialize_with = "or_default")]
    pub digest: String,
    /// Its family, size and format.
    #[serde(deserialize_with = "or_default")]
    pub details: ModelDetails,
    /// What it can do, in the server's words; empty where the server does not say it here.
    #[serde(deserialize_with = "or_default")]
    pub capabilities: Vec<String>,
    /// The host that really runs it, for a model of the cloud.
    pub remote_host: Option<String>,
}

/// A loaded model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RunningModel {
    /// The name it was called by.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The memory it takes.
    #[serde(rename = "size", deserialize_with = "or_default")]
    pub size_bytes: u64,
    /// The part of that which is the graphics card's.
    #[serde(rename = "size_vram", deserialize_with = "or_default")]
    pub size_vram_bytes: u64,
    /// When it will be unloaded, as the server writes it (RFC 3339).
    pub expires_at: Option<String>,
    /// The context it was loaded with, in tokens; a longer prompt is cut.
    #[serde(rename = "context_length")]
    pub context_tokens: Option<u32>,
    /// Its family, size and format.
    #[serde(deserialize_with = "or_default")]
    pub details: ModelDetails,
}

/// The family, size and format of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ModelDetails {
    /// The file format, such as `gguf`.
    #[serde(deserialize_with = "or_default")]
    pub format: String,
    /// The architecture family, such as `llama`.
    #[serde(deserialize_with = "or_default")]
    pub family: String,
    /// The number of parameters, such as `3.2B`.
    #[serde(deserialize_with = "or_default")]
    pub parameter_size: String,
    /// The quantisation, such as `Q4_K_M`.
    #[serde(deserialize_with = "or_default")]
    pub quantization_level: String,
}

/// What a model is and can do.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ModelDescription {
    /// What it can do, in the server's words: `completion`, `tools`, `vision`, `thinking`, `embedding` ..
    #[serde(deserialize_with = "or_default")]
    pub capabilities: Vec<String>,
    /// Its family, size and format.
    #[serde(deserialize_with = "or_default")]
    pub details: ModelDetails,
    /// The parameters of its Modelfile, a line each.
    #[serde(deserialize_with = "or_default")]
    pub parameters: String,
    /// Its prompt template.
    #[serde(deserialize_with = "or_default")]
    pub template: String,
    /// The metadata of its file, such as `llama.context_length`.
    #[serde(deserialize_with = "or_default")]
    pub model_info: Map<String, Value>,
}

impl ModelDescription {
    /// The longest context it was trained for, in tokens. What it is loaded with is mostly much less; see
    /// [`RunningModel::context_tokens`].
    pub fn context_tokens(&self) -> Option<u32> {
        let architecture = self.model_info.get("general.architecture")?.as_str()?;
        let length = self.model_info.get(&format!("{architecture}.context_length"))?;
        u32::try_from(length.as_u64()?).ok()
    }

    /// The capabilities in Peregrine's words. An older server that lists none gives a model that completes
    /// text in pieces, as every model of `/api/chat` does.
    pub fn to_capabilities(&self) -> Capabilities {
        let has = |word: &str| self.capabilities.iter().any(|capability| capability == word);
        let chats = self.capabilities.is_empty() || has("completion");
        let mut capabilities = Capabilities::default();
        capabilities.streaming = chats;
        capabilities.json_mode = chats;
        capabilities.json_schema = chats;
        capabilities.tools = has("tools");
        capabilities.parallel_tools = has("tools");
        capabilities.images = has("vision");
        capabilities.reasoning = has("thinking");
        capabilities.context_tokens = self.context_tokens();
        capabilities
    }
}

#[derive(Deserialize)]
struct Models<T> {
    #[serde(
        default = "Vec::new",
        deserialize_with = "or_default",
        bound = "T: Deserialize<'de>"
    )]
    models: Vec<T>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

fn read<T: DeserializeOwned>(raw: &RawResponse, path: &str) -> Result<T> {
    let body = raw.body();
    let failed = !(200..300).contains(&raw.status());
    let holds_error = || {
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        value.filter(|value| value.get("error").is_some_and(|error| !error.is_null()))
    };
    if failed {
        let mut error = ErrorBody::parse(&body).into_error(DIALECT, raw.status(), None, UnixTime(0));
        error.raw = Some(raw.clone());
        return Err(error.into());
    }
    if let Some(value) = holds_error() {
        let mut error = ErrorBody::from_value(&value).into_error(DIALECT, 200, None, UnixTime(0));
        error.raw = Some(raw.clone());
        return Err(error.into());
    }
    serde_json::from_slice(&body).map_err(|source| {
        ProtocolError::new(format!("the answer is not an object of Ollama's {path}"))
            .with_source(source)
            .with_raw(raw.clone())
            .into()
    })
}

/// `null` is as good as nothing (a server without models says `"models": null`).
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
