//! The ways to a server: TLS with certificates that the system trusts, HTTP/2, and the proxies of the environment.
//!
//! Certificates, TLS, HTTP/2 and proxies are real ones on this machine. What the system trusts and which proxies there are
//! is read from the environment once, so each case calls from a process of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use peregrine_core::{ChatModel as _, ChatRequest, Message, Secret};
use peregrine_providers::{Connector, HttpConfig, RetryPolicy};
use peregrine_testkit::server::{LlmServer, Reply};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const TEXT: &str = "it came this way";
/// A name that no resolver knows: who reaches it went through a proxy.
const FAR: &str = "llm.example.test";
/// As a proxy sees it.
const AUTHORIZATION: &str = "Basic dXNlcjpwdy00NzEx";
const PASSWORD: &str = "pw-4711";

/// What a call in a process with this environment says: `{"text"}`, or `{"kind", "stage", "error"}`.
async fn call(url: &str, environment: &[(&str, &str)]) -> Value {
    let mut program = tokio::process::Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", "ways::call_of_the_parent", "--nocapture"])
        .env("PEREGRINE_WAY", url);
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUEST_METHOD",
    ] {
        program.env_remove(name).env_remove(name.to_lowercase());
    }
    program
        .env_remove("SSL_CERT_DIR")
        .envs(environment.iter().copied());
    let output = program.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains(PASSWORD), "{text}");
    let line = text.lines().find_map(|line| line.split_once("SAYS ")).unwrap().1;
    serde_json::from_str(line).unwrap()
}

/// The child of [`call`]; alone it does nothing.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
async fn call_of_the_parent() {
    let Ok(url) = std::env::var("PEREGRINE_WAY") else {
        return;
    };
    let model = Connector::new()
        .with_base_url(&url)
        .with_api_key(Secret::new("sk-test"))
        .with_retry(RetryPolicy::new(0))
        .with_http(HttpConfig::default().with_connect_timeout(Duration::from_secs(3)))
        .chat("openai/m")
        .unwrap();
    let request = ChatRequest::new([Message::user("which way?")]);
    // At the same time, so that HTTP/2 shows what it is good for.
    let (one, two) = tokio::join!(model.complete(&request), model.complete(&request));
    let said = match one.and(two) {
        Ok(response) => json!({ "text": response.message.text() }),
        Err(error) => {
            let causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            json!({ "kind": format!("{:?}", error.kind()), "error": causes.join(": ") })
        }
    };
    println!("SAYS {said}");
}

/// An authority that signs certificates, as a file to trust.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trusted: NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let trusted = NamedTempFile::new().unwrap();
        std::fs::write(trusted.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            trusted,
        }
    }

    fn file(&self) -> &str {
        self.trusted.path().to_str().unwrap()
    }

    /// Speaks TLS as `name`, and what `protocols` say above it.
    fn acceptor(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Listens, and counts who comes.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (address, connections)
}

async fn llm() -> LlmServer {
    let server = LlmServer::start().await.unwrap();
    server.set_reply(Reply::text(TEXT));
    server
}

/// TLS in front of the server, which speaks HTTP/1.1.
async fn behind_tls(server: &LlmServer, acceptor: TlsAcceptor) -> (SocketAddr, Arc<AtomicUsize>) {
    let to = server.addr();
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut server = TcpStream::connect(to).await.unwrap();
            let _ended = copy_bidirectional(&mut stream, &mut server).await;
        }
    })
    .await
}

/// A server of HTTP/2 alone.
async fn http2(acceptor: TlsAcceptor) -> (SocketAddr, Arc<AtomicUsize>) {
    async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.version(), hyper::Version::HTTP_2);
        assert_eq!(request.headers()["authorization"], "Bearer sk-test");
        let message = json!({ "role": "assistant", "content": TEXT });
        let body = json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
        let mut response = hyper::Response::new(Full::new(Bytes::from(body.to_string())));
        let kind = hyper::header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
        Ok(response)
    }
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let service = hyper::service::service_fn(answer);
            let _ended = serve.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// The heads that a proxy read.
type Heads = Arc<Mutex<Vec<String>>>;

async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Tunnels whatever comes to `to`, or hands one request on to it.
async fn pass_on(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    to: SocketAddr,
    heads: Heads,
) {
    let head = head(&mut stream).await;
    let authorized = head.to_lowercase().contains(&AUTHORIZATION.to_lowercase());
    heads.lock().unwrap().push(head.clone());
    let mut server = TcpStream::connect(to).await.unwrap();
    let answer: &[u8] = match (authorized, head.starts_with("CONNECT ")) {
        (false, _) => b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        (true, true) => b"HTTP/1.1 200 OK\r\n\r\n",
        (true, false) => b"",
    };
    stream.write_all(answer).await.unwrap();
    if !authorized {
        return;
    }
    if !head.starts_with("CONNECT ") {
        let head = head
            .replace(&format!("http://{FAR}"), "")
            .replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        server.write_all(head.as_bytes()).await.unwrap();
    }
    let _ended = copy_bidirectional(&mut stream, &mut server).await;
}

/// A proxy that asks for a password, and leads to `to` whatever it is asked for.
async fn proxy(to: SocketAddr) -> (SocketAddr, Heads) {
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    let (address, _) = listen(move |stream| pass_on(stream, to, Arc::clone(&seen))).await;
    (address, heads)
}

fn text() -> Value {
    json!({ "text": TEXT })
}

#[track_caller]
fn assert_fails(said: &Value, kind: &str, why: &str) {
    let error = said["error"].as_str().unwrap_or_default();
    assert!(said["kind"] == kind && error.contains(why), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_those_that_the_system_trusts_for_that_name() {
    let (authority, other, server) = (Authority::new(), Authority::new(), llm().await);
    let (address, _) = behind_tls(&server, authority.acceptor("localhost", &["http/1.1"])).await;
    let url = format!("https://localhost:{}/v1", address.port());
    let trusted = [("SSL_CERT_FILE", authority.file())];
    assert_eq!(call(&url, &trusted).await, text());
    assert_eq!(
        server.last_request().unwrap().header("authorization"),
        Some("Bearer sk-test")
    );
    let served = server.requests().len();

    assert_fails(
        &call(&url, &[("SSL_CERT_FILE", other.file())]).await,
        "Connect",
        "certificate",
    );
    let by_address = format!("https://{address}/v1");
    assert_fails(&call(&by_address, &trusted).await, "Connect", "certificate");
    // Whom nobody trusts was told nothing.
    assert_eq!(server.requests().len(), served);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_where_the_server_has_it() {
    let authority = Authority::new();
    let (address, connections) = http2(authority.acceptor("localhost", &["h2"])).await;
    let url = format!("https://localhost:{}/v1", address.port());
    assert_eq!(call(&url, &[("SSL_CERT_FILE", authority.file())]).await, text());
    // Two calls at the same time may each open a connection, but no more than that.
    assert!(connections.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_hands_plain_requests_on() {
    let server = llm().await;
    let (address, heads) = proxy(server.addr()).await;
    let url = format!("http://{FAR}/v1");
    let with_password = format!("http://user:{PASSWORD}@{address}");
    assert_eq!(call(&url, &[("HTTP_PROXY", &with_password)]).await, text());
    let head = heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with(&format!("POST http://{FAR}/v1/chat/completions HTTP/1.1\r\n")),
        "{head}"
    );
    assert!(head.contains(&format!("host: {FAR}\r\n")), "{head}");

    let without = format!("http://{address}");
    let refused = call(&url, &[("HTTP_PROXY", without.as_str())]).await;
    assert!(
        refused["error"]
            .as_str()
            .is_some_and(|error| error.contains("407")),
        "{refused}"
    );
    // The other one's proxy is not ours.
    assert_fails(
        &call(&url, &[("HTTPS_PROXY", &with_password)]).await,
        "Connect",
        FAR,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_tunnels_tls_and_sees_nothing_of_it() {
    let (authority, server) = (Authority::new(), llm().await);
    let (origin, _) = behind_tls(&server, authority.acceptor(FAR, &["http/1.1"])).await;
    let (address, heads) = proxy(origin).await;
    let url = format!("https://{FAR}/v1");
    let trusted = ("SSL_CERT_FILE", authority.file());
    let with_password = format!("http://user:{PASSWORD}@{address}");
    assert_eq!(
        call(&url, &[trusted, ("HTTPS_PROXY", &with_password)]).await,
        text()
    );
    let head = heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with(&format!("CONNECT {FAR}:443 HTTP/1.1\r\n")),
        "{head}"
    );
    assert!(!head.contains("sk-test"), "{head}");
    assert_eq!(server.last_request().unwrap().header("proxy-authorization"), None);

    let without = format!("http://{address}");
    assert_fails(
        &call(&url, &[trusted, ("ALL_PROXY", &without)]).await,
        "Connect",
        "authorization",
    );

    // HTTP/2 through the tunnel.
    let (origin, _) = http2(authority.acceptor(FAR, &["h2"])).await;
    let (address, _) = proxy(origin).await;
    let with_password = format!("http://user:{PASSWORD}@{address}");
    assert_eq!(
        call(&url, &[trusted, ("ALL_PROXY", &with_password)]).await,
        text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_speak_tls_itself() {
    let (authority, server) = (Authority::new(), llm().await);
    let (origin, _) = behind_tls(&server, authority.acceptor(FAR, &["http/1.1"])).await;
    let (plain, secured) = (server.addr(), origin);
    for (scheme, to) in [("http", plain), ("https", secured)] {
        let acceptor = authority.acceptor("localhost", &["http/1.1"]);
        let (address, _) = listen(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                pass_on(stream, to, Heads::default()).await;
            }
        })
        .await;
        let proxy = format!("https://user:{PASSWORD}@localhost:{}", address.port());
        let environment = [("SSL_CERT_FILE", authority.file()), ("ALL_PROXY", proxy.as_str())];
        let url = format!("{scheme}://{FAR}/v1");
        assert_eq!(call(&url, &environment).await, text(), "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn socks_reaches_names_that_only_the_proxy_knows() {
    let server = llm().await;
    let to = server.addr();
    let (address, connections) = listen(move |mut stream| async move {
        // RFC 1928 and RFC 1929.
        let mut offered = [0; 2];
        stream.read_exact(&mut offered).await.unwrap();
        let mut methods = vec![0; usize::from(offered[1])];
        stream.read_exact(&mut methods).await.unwrap();
        assert!(offered[0] == 5 && methods.contains(&2), "{methods:?}");
        stream.write_all(&[5, 2]).await.unwrap();
        let mut login = vec![0; 2 + "user".len() + 1 + PASSWORD.len()];
        stream.read_exact(&mut login).await.unwrap();
        assert!(login.ends_with(PASSWORD.as_bytes()));
        stream.write_all(&[1, 0]).await.unwrap();
        let mut asked = vec![0; 4 + 1 + FAR.len() + 2];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked[..4], [5, 1, 0, 3]);
        assert_eq!(&asked[5..5 + FAR.len()], FAR.as_bytes());
        stream
            .write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80])
            .await
            .unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        let _ended = copy_bidirectional(&mut stream, &mut server).await;
    })
    .await;
    for scheme in ["socks5", "socks5h"] {
        let proxy = format!("{scheme}://user:{PASSWORD}@{address}");
        let said = call(&format!("http://{FAR}/v1"), &[("ALL_PROXY", &proxy)]).await;
        assert_eq!(said, text(), "{scheme}");
    }
    assert!(connections.load(Ordering::SeqCst) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_and_this_machine_are_reached_without_a_proxy() {
    let server = llm().await;
    let (address, connections) = listen(|_stream| async {}).await;
    let proxy = format!("http://{address}");
    let url = format!("{}/v1", server.url());
    assert_eq!(call(&url, &[("ALL_PROXY", &proxy)]).await, text());
    let except = [
        ("ALL_PROXY", proxy.as_str()),
        ("NO_PROXY", "other.test,.example.test"),
    ];
    assert_fails(&call(&format!("http://{FAR}/v1"), &except).await, "Connect", FAR);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_connecting_is_for_all_steps_of_it() {
    // It takes the connection, and then never says a word.
    let (address, connections) = listen(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let trusted = Authority::new();
    let trusted = ("SSL_CERT_FILE", trusted.file());
    let silent = format!("https://{address}/v1");
    assert_fails(&call(&silent, &[trusted]).await, "Timeout", "");
    let proxy = format!("http://{address}");
    let far = format!("https://{FAR}/v1");
    assert_fails(
        &call(&far, &[trusted, ("ALL_PROXY", &proxy)]).await,
        "Timeout",
        "",
    );
    assert!(connections.load(Ordering::SeqCst) >= 2);
}
