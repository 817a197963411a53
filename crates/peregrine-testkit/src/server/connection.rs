//! The tasks of a server: one that accepts, and one for each connection, owned by the first. When the first
//! ends, all end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::counters::{Ledger, Outcome};
use super::dialect::wire;
use super::fault::{ApiError, ConnectionFault, Cut};
use super::http::{Conn, Head, Limits, Read, Refused};
use super::render::{self, Settings};
use super::reply::{Reply, reason};
use super::script::Script;
use super::seen::SeenRequest;
use super::transmit::{Sent, send};

/// What all tasks of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) script: Script,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) max_connections: usize,
    pub(crate) api_key: Option<String>,
    pub(crate) stop: Notify,
}

/// Accepts until told to stop.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    loop {
        let room = tasks.len() < shared.max_connections;
        tokio::select! {
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    tasks.spawn(connection(Arc::clone(&shared), stream));
                }
                // Out of descriptors: go on when a connection has ended.
                Err(_) if !tasks.is_empty() => {
                    let _ = tasks.join_next().await;
                }
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = tasks.join_next() => {}
            () = shared.stop.notified() => break,
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let (id, _open) = shared.ledger.connection();
    // Without it answers in two writes would wait for an acknowledgement; an error only costs that.
    let _ = stream.set_nodelay(true);
    let mut conn = Conn::new(stream, Arc::clone(&shared.ledger));
    match shared.script.take_connection_fault() {
        None => {}
        Some(ConnectionFault::Reset) => return conn.reset(),
        Some(ConnectionFault::Close) => return,
        Some(ConnectionFault::Ignore) => return conn.ignore().await,
    }
    loop {
        match conn.read(shared.limits).await {
            Read::Ended | Read::Broken => return,
            Read::Refused(why) => return refuse(&shared, conn, why).await,
            Read::Request(head, body) => match exchange(&shared, &mut conn, id, head, body).await {
                Next::Go => {}
                Next::Close => return,
                Next::Reset => return conn.reset(),
            },
        }
    }
}

enum Next {
    Go,
    Close,
    Reset,
}

/// Answers one request.
async fn exchange(shared: &Shared, conn: &mut Conn, id: u64, head: Head, body: Bytes) -> Next {
    let ledger = &shared.ledger;
    let received = Instant::now();
    if !ledger.keeps_requests()
        && shared.api_key.is_none()
        && shared.settings.first_byte_latency.is_zero()
        && let Some(reply) = shared.script.floor()
        && let Some(bytes) = reply.as_floor()
    {
        drop(body);
        conn.skip(head);
        ledger.next_seq();
        let in_flight = ledger.begin();
        let written = conn.write(bytes).await;
        in_flight.ended(if written.is_ok() {
            Outcome::Completed
        } else {
            Outcome::Cancelled
        });
        return if written.is_ok() && head.keep_alive {
            Next::Go
        } else {
            Next::Close
        };
    }

    let (method, target, headers) = conn.take(head);
    let request = Arc::new(SeenRequest::new(
        ledger.next_seq(),
        id,
        &method,
        &target,
        headers,
        body,
    ));
    ledger.keep(&request);
    let in_flight = ledger.begin();
    let reply = match unauthorized(shared, &request) {
        Some(error) => Arc::new(Reply::api_error(error)),
        None => shared.script.reply(&request),
    };
    let outgoing = render::outgoing(&reply, &request, &head, &shared.settings);
    let close = outgoing.close;
    drop((reply, request));
    match send(conn, outgoing, received).await {
        Sent::Whole => {
            in_flight.ended(Outcome::Completed);
            if close { Next::Close } else { Next::Go }
        }
        Sent::Cut(how) => {
            in_flight.ended(Outcome::Cut);
            match how {
                Cut::Reset => Next::Reset,
                Cut::End if !close => Next::Go,
                _ => Next::Close,
            }
        }
        Sent::Gone => {
            in_flight.ended(Outcome::Cancelled);
            Next::Close
        }
    }
}

/// The refusal of a request without the key that was demanded, where the dialect carries it. Ollama has none.
fn unauthorized(shared: &Shared, request: &SeenRequest) -> Option<ApiError> {
    let key = shared.api_key.as_deref()?;
    if wire(request.endpoint.dialect()).request_id_header().is_none() && request.path.contains("/api/") {
        return None;
    }
    let bearer = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    let given = bearer
        .or_else(|| request.header("x-api-key"))
        .or_else(|| request.header("x-goog-api-key"))
        .or_else(|| request.header("api-key"))
        .or_else(|| request.query_param("key"));
    match given {
        Some(given) if given == key => None,
        Some(_) => Some(ApiError::new(
            401,
            "the API key of the request is not the one this server was given",
        )),
        None => Some(ApiError::new(401, "the request has no API key")),
    }
}

/// Answers a request that could not be read, and ends the connection.
async fn refuse(shared: &Shared, mut conn: Conn, why: Refused) {
    shared.ledger.update(|c| c.rejected += 1);
    let error = ApiError::new(why.status, why.message);
    let body = wire(super::seen::Dialect::OpenAiChat)
        .error_body(&error, "")
        .to_string();
    let answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        why.status,
        reason(why.status),
        body.len(),
    );
    if conn.write(answer.as_bytes()).await.is_ok() {
        conn.linger().await;
    }
}
