//! From status, headers and the provider's codes to an error.
//!
//! Order: the provider's own code decides the kind where it is known, else a numeric code in the body, else
//! the HTTP status. Whether a retry may help follows the rule that the official SDKs share: the
//! `x-should-retry` header, else 408, 409, 429 and 5xx, but never what its code says cannot heal (a spent quota). Messages decide nothing.

use std::time::Duration;

use peregrine_core::{ErrorKind, HeaderView, ProviderError, RawResponse, UnixTime};
use serde_json::Value;

/// How much of a body that is not JSON is shown as the message.
const MAX_MESSAGE_CHARS: usize = 500;

/// What a provider says in the body of an error, whatever the shape.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ErrorBody {
    /// Its most telling code or type.
    pub code: Option<String>,
    /// A second, broader word, such as OpenAI's `type` beside `code`.
    pub class: Option<String>,
    /// An HTTP status given as a number in the body.
    pub status: Option<u16>,
    /// The message.
    pub message: String,
    /// How long to wait, where the body says it (Gemini's `RetryInfo`).
    pub retry_after: Option<Duration>,
}

impl ErrorBody {
    /// Reads any of the shapes in use: `{"error": {..}}`, `{"error": ".."}`, the flat `{"object": "error", ..}`,
    /// FastAPI's `{"detail": ..}`, Gemini's array, and text that is no JSON.
    pub fn parse(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Array(items)) if items.len() == 1 => Self::from_value(&items[0]),
            Ok(value) => Self::from_value(&value),
            Err(_) => Self {
                message: shorten(&String::from_utf8_lossy(body)),
                ..Self::default()
            },
        }
    }

    /// Reads the shapes of [`parse`](Self::parse) from a value.
    pub fn from_value(value: &Value) -> Self {
        let error = match value.get("error") {
            Some(Value::Null) | None => value,
            Some(error) => error,
        };
        let word = |name: &str| {
            error
                .get(name)
                .and_then(Value::as_str)
                .filter(|word| !word.is_empty())
        };
        let number = |name: &str| error.get(name).and_then(Value::as_u64);
        let code = word("code").or_else(|| word("status")).map(str::to_owned);
        let class = word("type").filter(|class| *class != "error").map(str::to_owned);
        let status = number("code").or_else(|| number("status_code"));
        Self {
            code: code.or_else(|| class.clone()),
            class,
            status: status
                .and_then(|status| u16::try_from(status).ok())
                .filter(|s| (400..600).contains(s)),
            message: message(error, value),
            retry_after: retry_info(error),
        }
    }

    /// The error that this body means, from an answer with `status` and `headers`.
    ///
    /// `status` is 200 for an error inside a success. `now` turns a `retry-after` date into a duration.
    pub fn into_error(
        self,
        provider: &str,
        status: u16,
        headers: Option<&dyn HeaderView>,
        now: UnixTime,
    ) -> ProviderError {
        let kind = self.kind(status);
        let Self {
            code,
            class: _,
            status: body_status,
            message,
            retry_after: wait_in_body,
        } = self;
        let mut error = ProviderError::new(provider, status, kind, message);
        error.code = code;
        let effective = if status < 400 {
            body_status.unwrap_or(status)
        } else {
            status
        };
        let by_status = matches!(effective, 408 | 409 | 429) || effective >= 500;
        error.retryable = match headers.and_then(|headers| headers.get("x-should-retry")) {
            Some("true") => true,
            Some("false") => false,
            _ => (by_status || kind.is_retryable()) && !cannot_heal(kind),
        };
        error.retry_after = headers
            .and_then(|headers| retry_after(headers, now))
            .or(wait_in_body);
        error
    }

    fn kind(&self, status: u16) -> ErrorKind {
        let known = |word: &Option<String>| word.as_deref().and_then(kind_of_code);
        known(&self.code)
            .or_else(|| {
                if status < 400 {
                    None
                } else {
                    specific_kind_of_status(status)
                }
            })
            .or_else(|| known(&self.class))
            .or_else(|| self.status.map(kind_of_status))
            .unwrap_or_else(|| {
                if status < 400 {
                    ErrorKind::Server
                } else {
                    kind_of_status(status)
                }
            })
    }
}

/// Whether the code says that the same request fails again, whatever the status.
fn cannot_heal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::QuotaExceeded
            | ErrorKind::ContextLength
            | ErrorKind::RequestTooLarge
            | ErrorKind::Authentication
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::ContentFilter
    )
}

/// The error of an answer that is not a success, with the answer kept.
pub fn provider_error(provider: &str, raw: RawResponse, body: ErrorBody, now: UnixTime) -> ProviderError {
    let mut error = body.into_error(provider, raw.status(), Some(raw.headers()), now);
    error.raw = Some(raw);
    error
}

/// How long the provider asks to wait: `retry-after-ms`, else `retry-after` in seconds or as an HTTP date
/// (RFC 9110, section 10.2.3). Values that are no time are passed over; absurd ones come back as they are.
pub fn retry_after(headers: &dyn HeaderView, now: UnixTime) -> Option<Duration> {
    let seconds = |text: &str, unit: f64| {
        let value = text.trim().parse::<f64>().ok()? * unit;
        (value.is_finite() && value >= 0.0)
            .then(|| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX))
    };
    if let Some(wait) = headers
        .get("retry-after-ms")
        .and_then(|text| seconds(text, 0.001))
    {
        return Some(wait);
    }
    let text = headers.get("retry-after")?;
    seconds(text, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        let date_ms = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(date_ms.saturating_sub(Duration::from_millis(now.0)))
    })
}

fn kind_of_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "context_length_exceeded" | "model_context_window_exceeded" | "exceed_context_size_error" => {
            ErrorKind::ContextLength
        }
        "request_too_large" | "request_body_too_large_after_decoding" => ErrorKind::RequestTooLarge,
        "API_KEY_INVALID" | "invalid_api_key" | "authentication_error" | "UNAUTHENTICATED" => {
            ErrorKind::Authentication
        }
        "permission_error" | "permission_denied" | "PERMISSION_DENIED" => ErrorKind::PermissionDenied,
        "model_not_found" | "not_found_error" | "not_found" | "NOT_FOUND" => ErrorKind::NotFound,
        "content_filter" | "content_policy_violation" | "invalid_prompt" => ErrorKind::ContentFilter,
        "rate_limit_exceeded" | "rate_limit_error" | "RESOURCE_EXHAUSTED" => ErrorKind::RateLimited,
        "insufficient_quota"
        | "billing_error"
        | "billing_hard_limit_reached"
        | "quota_exceeded"
        | "enforced_spend_limit_reached"
        | "contract_spend_limit_reached"
        | "linked_organization_spend_limit_reached"
        | "linked_organization_billing_unavailable" => ErrorKind::QuotaExceeded,
        "overloaded_error" | "server_overloaded" | "UNAVAILABLE" => ErrorKind::Overloaded,
        "server_error" | "api_error" | "timeout_error" | "INTERNAL" | "DEADLINE_EXCEEDED" => {
            ErrorKind::Server
        }
        _ => return None,
    })
}

/// The kinds that a status alone settles, whatever broad word stands beside it.
fn specific_kind_of_status(status: u16) -> Option<ErrorKind> {
    match kind_of_status(status) {
        ErrorKind::InvalidRequest | ErrorKind::UnexpectedStatus => None,
        kind => Some(kind),
    }
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        400 | 422 => ErrorKind::InvalidRequest,
        401 => ErrorKind::Authentication,
        402 => ErrorKind::QuotaExceeded,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        413 => ErrorKind::RequestTooLarge,
        429 => ErrorKind::RateLimited,
        503 | 529 => ErrorKind::Overloaded,
        408 | 500..=599 => ErrorKind::Server,
        _ => ErrorKind::UnexpectedStatus,
    }
}

fn message(error: &Value, whole: &Value) -> String {
    let candidates = [
        error,
        &error["message"],
        &error["detail"],
        &whole["message"],
        &whole["detail"],
    ];
    let text = candidates
        .iter()
        .find_map(|value| value.as_str().filter(|text| !text.is_empty()));
    text.map(str::to_owned)
        .unwrap_or_else(|| shorten(&error.to_string()))
}

/// Gemini: `details: [{"@type": "..RetryInfo", "retryDelay": "34s"}]`.
fn retry_info(error: &Value) -> Option<Duration> {
    let delays = error
        .get("details")?
        .as_array()?
        .iter()
        .filter_map(|detail| detail.get("retryDelay")?.as_str());
    delays
        .filter_map(|delay| delay.strip_suffix('s')?.parse::<f64>().ok())
        .find_map(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None if text.is_empty() => "(empty body)".to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000_000);

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn error(status: u16, body: &str, pairs: &[(&str, &str)]) -> ProviderError {
        provider_error(
            "p",
            RawResponse::new(status, headers(pairs), Vec::new()),
            ErrorBody::parse(body.as_bytes()),
            NOW,
        )
    }

    #[test]
    fn every_shape_in_use_is_read() {
        let cases = [
            (
                429,
                r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                ErrorKind::QuotaExceeded,
                false,
            ),
            (
                429,
                r#"{"error":{"message":"m","type":"requests","code":"rate_limit_exceeded"}}"#,
                ErrorKind::RateLimited,
                true,
            ),
            (
                400,
                r#"{"error":{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
                ErrorKind::ContextLength,
                false,
            ),
            (
                404,
                r#"{"type":"error","error":{"type":"not_found_error","message":"m"},"request_id":"r"}"#,
                ErrorKind::NotFound,
                false,
            ),
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                ErrorKind::Overloaded,
                true,
            ),
            (
                200,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                ErrorKind::Overloaded,
                true,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}"#,
                ErrorKind::InvalidRequest,
                false,
            ),
            (
                400,
                r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#,
                ErrorKind::InvalidRequest,
                false,
            ),
            (404, r#"{"error":"m"}"#, ErrorKind::NotFound, false),
            (
                200,
                r#"{"error":{"message":"m","code":502}}"#,
                ErrorKind::Server,
                true,
            ),
            (
                200,
                r#"{"error":{"message":"m","code":429}}"#,
                ErrorKind::RateLimited,
                true,
            ),
            (
                400,
                r#"{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}"#,
                ErrorKind::InvalidRequest,
                false,
            ),
            (422, r#"{"detail":"m"}"#, ErrorKind::InvalidRequest, false),
            (
                401,
                r#"{"error":{"message":"m","type":"invalid_request_error","code":null}}"#,
                ErrorKind::Authentication,
                false,
            ),
            (500, "m", ErrorKind::Server, true),
            (409, "m", ErrorKind::UnexpectedStatus, true),
            (418, "m", ErrorKind::UnexpectedStatus, false),
        ];
        for (status, body, kind, retryable) in cases {
            let error = error(status, body, &[]);
            assert_eq!(
                (error.kind, error.retryable, error.message.as_str()),
                (kind, retryable, "m"),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn the_should_retry_header_wins() {
        assert!(error(400, "m", &[("x-should-retry", "true")]).retryable);
        assert!(!error(500, "m", &[("x-should-retry", "false")]).retryable);
    }

    #[test]
    fn a_code_that_cannot_heal_is_final_whatever_the_status() {
        for code in ["context_length_exceeded", "invalid_api_key", "model_not_found"] {
            let body = format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
            assert!(!error(500, &body, &[]).retryable, "{code}");
        }
    }

    #[test]
    fn waits_are_read_from_every_form_and_never_panic() {
        let wait = |pairs: &[(&str, &str)]| error(429, "m", pairs).retry_after;
        assert_eq!(
            wait(&[("retry-after-ms", "1500.5"), ("retry-after", "9")]),
            Some(Duration::from_micros(1_500_500))
        );
        assert_eq!(wait(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(Duration::from_millis(250)));
        assert_eq!(
            wait(&[("retry-after", "Tue, 14 Nov 2023 22:13:30 GMT")]),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            wait(&[("retry-after", "Tue, 14 Nov 2000 22:13:30 GMT")]),
            Some(Duration::ZERO)
        );
        assert_eq!(wait(&[("retry-after", "1e30")]), Some(Duration::MAX));
        for nonsense in ["-1", "NaN", "inf", "soon", "", "1e999"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        let gemini = r#"{"error":{"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"x"},{"retryDelay":"34s"}]}}"#;
        assert_eq!(error(429, gemini, &[]).retry_after, Some(Duration::from_secs(34)));
    }

    #[test]
    fn long_and_binary_bodies_are_shortened() {
        let long = error(500, &"é".repeat(10_000), &[]);
        assert!(long.message.chars().count() < 600);
        assert_eq!(ErrorBody::parse(b"").message, "(empty body)");
        assert!(ErrorBody::parse(b"\xff\xfe").message.contains('\u{fffd}'));
    }
}
