//! The HTTP client of one entry of the pool: hyper's pooled client over TCP, TLS, or the proxy of the environment.
//!
//! An entry has one origin, so which way leads there is decided once, when the client is built: straight, or through the
//! proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name for it (with the meaning that curl gives them),
//! an HTTP proxy that forwards (`http` origins) or tunnels (`https` origins), or SOCKS, which looks names up itself whichever
//! of its schemes it has: asking for them here would block. Nothing on this machine is reached through a proxy. Redirects are
//! not followed, nothing is sent twice unless it never left, and no compression is asked for.
//!
//! Invariant: the certificates that the system trusts are loaded only where TLS is spoken, once for the process; a plain
//! `http` origin starts without them.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{self, ResponseFuture};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tower_service::Service;

use super::entry::Connecting;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A dead peer is noticed after about a minute, although nobody sends anything for as long as a model thinks.
const KEEPALIVE: (Duration, u32) = (Duration::from_secs(15), 3);
/// How long what was sent may stay unacknowledged.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connections to one origin, and the way there.
pub(super) struct Client {
    inner: legacy::Client<Connector, Full<Bytes>>,
    /// What a forwarding proxy wants to see with each request.
    proxy_authorization: Option<HeaderValue>,
}

impl Client {
    /// A client for `origin`, without a connection yet.
    pub(super) fn new(origin: &Uri, connecting: &Connecting, proxies: Option<&Matcher>) -> io::Result<Self> {
        let proxy = proxies.and_then(|proxies| proxies.intercept(origin));
        let speaks_tls = origin.scheme() == Some(&Scheme::HTTPS);
        let (open, proxy_authorization) = route(tcp(connecting), proxy.as_ref(), speaks_tls)?;
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(connecting.pool_idle_timeout)
            .pool_max_idle_per_host(connecting.max_idle_connections)
            .build(Connector {
                open,
                limit: Some(connecting.connect_timeout),
            });
        Ok(Self {
            inner,
            proxy_authorization,
        })
    }

    /// Sends a request, on a connection of its own or a shared one. Dropping the future takes it back.
    pub(super) fn send(&self, mut request: Request<Full<Bytes>>) -> ResponseFuture {
        if let Some(authorization) = &self.proxy_authorization {
            request
                .headers_mut()
                .insert(http::header::PROXY_AUTHORIZATION, authorization.clone());
        }
        self.inner.request(request)
    }
}

/// Whether a connection could not be made in time.
pub(super) fn is_connect_timeout(error: &legacy::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    let mut io = causes.filter_map(|error| error.downcast_ref::<io::Error>());
    error.is_connect() && io.any(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn tcp(connecting: &Connecting) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connecting.connect_timeout));
    let (interval, retries) = KEEPALIVE;
    tcp.set_keepalive(Some(interval));
    tcp.set_keepalive_interval(Some(interval));
    tcp.set_keepalive_retries(Some(retries));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    tcp
}

/// The way to an origin, and what a proxy on it wants to see with each request.
fn route(
    tcp: HttpConnector,
    proxy: Option<&Intercept>,
    speaks_tls: bool,
) -> io::Result<(Open, Option<HeaderValue>)> {
    let Some(proxy) = proxy else {
        let open = if speaks_tls {
            within_tls(tcp, true)?
        } else {
            open_by(tcp)
        };
        return Ok((open, None));
    };
    let at = proxy.uri().clone();
    let scheme = proxy.uri().scheme_str().unwrap_or_default();
    let to_proxy = match scheme {
        "https" => within_tls(tcp, false)?,
        _ => open_by(tcp),
    };
    let to_proxy = Connector::new(to_proxy);
    let passed_on = match scheme {
        "socks5" | "socks5h" => {
            let mut socks = SocksV5::new(at, to_proxy);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            open_by(socks)
        }
        "socks4" | "socks4a" => open_by(SocksV4::new(at, to_proxy)),
        _ if speaks_tls => {
            let mut tunnel = Tunnel::new(at, to_proxy);
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            open_by(tunnel)
        }
        _ => {
            let open: Open = Arc::new(move |_origin| {
                let opening = to_proxy.open(at.clone());
                Box::pin(async move {
                    Ok(Stream {
                        is_forwarded: true,
                        ..opening.await?
                    })
                })
            });
            return Ok((open, proxy.basic_auth().cloned()));
        }
    };
    let open = match speaks_tls {
        true => within_tls(Connector::new(passed_on), true)?,
        false => passed_on,
    };
    Ok((open, None))
}

/// Speaks TLS with whom `connector` reaches, and HTTP/2 where they have it and `may_be_http2`.
fn within_tls<C>(connector: C, may_be_http2: bool) -> io::Result<Open>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Transport,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(trust_of_the_system()?)
        .https_or_http();
    let https: HttpsConnector<C> = match may_be_http2 {
        true => builder.enable_all_versions().wrap_connector(connector),
        false => builder.enable_http1().wrap_connector(connector),
    };
    Ok(open_by(https))
}

/// TLS as the system's certificates have it. Loading them takes a millisecond or two, so it is done once.
fn trust_of_the_system() -> io::Result<ClientConfig> {
    static TRUST: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(trust) = TRUST.get() {
        return Ok(trust.clone());
    }
    // Named, because a process may hold two cryptographic providers, and then there is no default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trust = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(io::Error::other)?
        .with_no_client_auth();
    Ok(TRUST.get_or_init(|| trust).clone())
}

type Opening = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;
type Open = Arc<dyn Fn(Uri) -> Opening + Send + Sync>;

/// Opens connections, whichever way it is.
#[derive(Clone)]
struct Connector {
    open: Open,
    /// For all steps of it together.
    limit: Option<Duration>,
}

fn open_by<C>(connector: C) -> Open
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Transport,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    Arc::new(move |to| {
        let mut connector = connector.clone();
        Box::pin(async move {
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
            let transport = connector.call(to).await.map_err(Into::into)?;
            Ok(Stream {
                transport: Box::new(transport),
                is_forwarded: false,
            })
        })
    })
}

impl Connector {
    fn new(open: Open) -> Self {
        Self { open, limit: None }
    }

    fn open(&self, to: Uri) -> Opening {
        (self.open)(to)
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Opening;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Opening {
        let opening = self.open(to);
        let Some(limit) = self.limit else { return opening };
        Box::pin(async move {
            match tokio::time::timeout(limit, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

/// What bytes go over.
trait Transport: Connection + Read + Write + Send + Unpin + 'static {}

impl<T: Connection + Read + Write + Send + Unpin + 'static> Transport for T {}

/// An open connection.
struct Stream {
    transport: Box<dyn Transport>,
    /// Whether a proxy reads the requests, which then name the whole address.
    is_forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = self.transport.connected();
        match self.is_forwarded {
            true => connected.proxy(true),
            false => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport).poll_write_vectored(cx, pieces)
    }
}
