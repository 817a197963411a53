//! The endpoints beside generation that OpenAI-shaped clients use: embeddings, the list of models, and the
//! token count of Responses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{View, missing, model, object};
use crate::server::civil::CREATED;
use crate::server::fault::ApiError;
use crate::server::seen::SeenRequest;

/// The inputs of an embedding request, and the number of dimensions if it asks for one.
#[derive(Debug)]
pub(crate) struct EmbeddingRequest {
    pub(crate) model: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) dimensions: Option<usize>,
}

/// Reads `input`: a text, texts, token numbers, or lists of them.
pub(crate) fn read_embeddings(request: &SeenRequest) -> Result<EmbeddingRequest, ApiError> {
    let body = object(request)?;
    let inputs = match body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) if items.iter().all(Value::is_number) && !items.is_empty() => {
            vec![Value::Array(items.clone()).to_string()]
        }
        Some(Value::Array(items)) if !items.is_empty() => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        _ => return Err(missing("input")),
    };
    Ok(EmbeddingRequest {
        model: model(body)?,
        inputs,
        dimensions: dimensions(body.get("dimensions"))?,
    })
}

/// A number of dimensions between 1 and 65,536: more would let one small request allocate without bound.
pub(crate) fn dimensions(value: Option<&Value>) -> Result<Option<usize>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(n @ 1..=65_536) => Ok(Some(n as usize)),
            _ => Err(
                ApiError::new(400, format!("dimensions must be from 1 to 65536, not {value}"))
                    .with_param("dimensions"),
            ),
        },
    }
}

/// The answer of `POST /embeddings`, with floats or base64 as the request wants.
pub(crate) fn embeddings(request: &SeenRequest, model: &str, vectors: &[Vec<f32>], tokens: u64) -> Value {
    let base64 = request
        .json()
        .and_then(|b| b.get("encoding_format"))
        .and_then(Value::as_str)
        == Some("base64");
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!(BASE64.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    json!({
        "object": "list",
        "data": data.collect::<Value>(),
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}

/// The answer of `GET /models` and `GET /models/{id}`.
pub(crate) fn models(path: &str, models: &[String]) -> Result<Value, ApiError> {
    let card = |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "testkit"});
    match asked_model(path) {
        None => Ok(json!({"object": "list", "data": models.iter().map(|id| card(id)).collect::<Value>()})),
        Some(id) if models.iter().any(|m| m == id) => Ok(card(id)),
        Some(id) => Err(ApiError::new(404, format!("The model '{id}' does not exist"))),
    }
}

/// The answer of `POST /responses/input_tokens`.
pub(crate) fn input_tokens(view: &View) -> Value {
    json!({"object": "response.input_tokens", "input_tokens": super::super::echo::tokens(view.input_chars)})
}

/// The id after `/models/`, if the path has one.
pub(crate) fn asked_model(path: &str) -> Option<&str> {
    let (_, id) = path.split_once("/models/")?;
    Some(id.trim_end_matches('/')).filter(|id| !id.is_empty())
}
