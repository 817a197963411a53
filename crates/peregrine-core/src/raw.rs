//! What a provider really sent, beside what the codec made of it.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Read access to response headers, so that no HTTP type has to appear here.
pub trait HeaderView: Send + Sync {
    /// The first value of a header, by its lower-case name, if it is text.
    fn get(&self, name: &str) -> Option<&str>;

    /// Calls `visit` with every name and value.
    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8]));
}

impl HeaderView for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        for (name, value) in self {
            visit(name, value.as_bytes());
        }
    }
}

/// The response as it came: status, headers, request id and body. Cheap to clone.
///
/// `Debug` shows the status, the request id and sizes, never the payload.
#[derive(Clone)]
pub struct RawResponse(Arc<Inner>);

struct Inner {
    status: u16,
    headers: Box<dyn HeaderView>,
    body: Vec<Bytes>,
}

/// Headers that name the request at the provider, in the order they are looked for.
const REQUEST_ID_HEADERS: [&str; 5] = [
    "x-request-id",
    "request-id",
    "x-generation-id",
    "cf-ray",
    "x-amzn-requestid",
];

impl RawResponse {
    /// A response with its body in the pieces in which it came.
    pub fn new(status: u16, headers: impl HeaderView + 'static, body: Vec<Bytes>) -> Self {
        Self(Arc::new(Inner {
            status,
            headers: Box::new(headers),
            body,
        }))
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// The first value of a header, by its lower-case name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name)
    }

    /// All headers.
    pub fn headers(&self) -> &dyn HeaderView {
        &*self.0.headers
    }

    /// The provider's id of the request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        request_id(&*self.0.headers)
    }

    /// The body. Free if it came in one piece, else joined here.
    pub fn body(&self) -> Bytes {
        match self.0.body.as_slice() {
            [] => Bytes::new(),
            [whole] => whole.clone(),
            pieces => {
                let mut joined = BytesMut::with_capacity(self.body_len());
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                joined.freeze()
            }
        }
    }

    /// The body's length in bytes.
    pub fn body_len(&self) -> usize {
        self.0.body.iter().map(Bytes::len).sum()
    }
}

/// The provider's id of the request, from response headers.
pub(crate) fn request_id(headers: &dyn HeaderView) -> Option<&str> {
    REQUEST_ID_HEADERS.iter().find_map(|name| headers.get(name))
}

impl fmt::Debug for RawResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawResponse")
            .field("status", &self.status())
            .field("request_id", &self.request_id())
            .field("body_bytes", &self.body_len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_payload_and_the_body_joins() {
        let headers = vec![("X-Request-Id".to_owned(), "req-1".to_owned())];
        let raw = RawResponse::new(200, headers, vec![Bytes::from("pass"), Bytes::from("word")]);
        assert_eq!(raw.request_id(), Some("req-1"));
        assert_eq!(raw.body(), "password");
        assert_eq!(raw.body_len(), 8);
        assert!(!format!("{raw:?}").contains("pass"));
    }
}
