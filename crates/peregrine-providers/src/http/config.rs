//! Time limits and bounds of calls over HTTP.

use std::time::Duration;

/// Time limits and bounds. The defaults suit chat models: answers may take minutes to begin and to end,
/// but a connection that moves no byte for long is dead.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_providers::HttpConfig;
///
/// let config = HttpConfig::default().with_connect_timeout(Duration::from_secs(2));
/// assert_eq!(config.connect_timeout, Duration::from_secs(2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HttpConfig {
    /// For a connection, TLS included. 5 s.
    pub connect_timeout: Duration,
    /// From the request to the first byte of the answer. 120 s. It begins with the call, so it also covers
    /// a connection that has to be made first.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer. 60 s.
    pub idle_timeout: Duration,
    /// For one attempt of a call, streamed or not. 600 s. Each retry has the limit anew: put a timeout around the
    /// call to bound them all.
    pub total_timeout: Duration,
    /// How long an unused connection is kept. 90 s.
    pub pool_idle_timeout: Duration,
    /// How many unused connections are kept for each host. 1,024: with fewer, that many calls at the same time would
    /// connect anew again and again, which costs more than the calls do.
    pub max_idle_connections: usize,
    /// How large an answer may be, streamed or not. 16 MiB. Beside this, no answer may hold more than 131,072
    /// objects and lists or 1,048,576 values, which is far more than any model writes.
    pub max_body_bytes: usize,
    /// How large one event of a stream may be. 4 MiB.
    pub max_event_bytes: usize,
    /// Whether a streamed answer keeps the bytes it came in, for `raw`. True; they are bounded by
    /// `max_body_bytes`.
    pub keep_stream_body: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(600),
            pool_idle_timeout: Duration::from_secs(90),
            max_idle_connections: 1_024,
            max_body_bytes: 16 << 20,
            max_event_bytes: 4 << 20,
            keep_stream_body: true,
        }
    }
}

impl HttpConfig {
    /// Sets the limit for a connection.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets the limit for the first byte of the answer.
    #[must_use]
    pub fn with_first_byte_timeout(mut self, limit: Duration) -> Self {
        self.first_byte_timeout = limit;
        self
    }

    /// Sets the limit between two pieces of an answer.
    #[must_use]
    pub fn with_idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// Sets the limit for the whole call.
    #[must_use]
    pub fn with_total_timeout(mut self, limit: Duration) -> Self {
        self.total_timeout = limit;
        self
    }

    /// Sets how large an answer may be.
    #[must_use]
    pub fn with_max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sets how large one event of a stream may be.
    #[must_use]
    pub fn with_max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Sets how long an unused connection is kept.
    #[must_use]
    pub fn with_pool_idle_timeout(mut self, limit: Duration) -> Self {
        self.pool_idle_timeout = limit;
        self
    }

    /// Sets how many unused connections are kept for each host.
    #[must_use]
    pub fn with_max_idle_connections(mut self, count: usize) -> Self {
        self.max_idle_connections = count;
        self
    }

    /// Says whether a streamed answer keeps the bytes it came in.
    #[must_use]
    pub fn with_keep_stream_body(mut self, keep: bool) -> Self {
        self.keep_stream_body = keep;
        self
    }
}
