//! Addresses where nobody answers: one that refuses, one that does not react at all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// A loopback address that refuses connections, as long as this value lives.
///
/// The port is held by a socket that does not listen, so no other program can come to listen there.
#[derive(Debug)]
pub struct RefusedAddr {
    addr: SocketAddr,
    _socket: TcpSocket,
}

impl RefusedAddr {
    /// Takes a free port.
    ///
    /// # Errors
    /// When the system gives no socket or port.
    pub fn new() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self {
            addr: socket.local_addr()?,
            _socket: socket,
        })
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// A loopback address where connecting takes for ever, as long as this value lives: for connect timeouts.
///
/// It listens with the smallest backlog and fills it with connections of its own, so that the system leaves
/// further attempts without an answer. This is best effort: it holds on Linux with its usual settings
/// (`net.ipv4.tcp_abort_on_overflow` = 0); a system that answers nevertheless makes [`Blackhole::new`] fail.
#[derive(Debug)]
pub struct Blackhole {
    addr: SocketAddr,
    _listener: TcpListener,
    _fillers: Vec<TcpStream>,
}

impl Blackhole {
    /// Connections that are tried before giving up on filling the backlog.
    const TRIES: usize = 32;
    /// How long an attempt may take before the backlog counts as full. Loopback connects in microseconds.
    const PATIENCE: Duration = Duration::from_millis(250);

    /// Makes the address. Takes a fraction of a second, to be sure that nobody answers.
    ///
    /// # Errors
    /// When the system gives no socket, or keeps accepting.
    pub async fn new() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(1)?;
        let addr = listener.local_addr()?;
        let mut fillers = Vec::new();
        for _ in 0..Self::TRIES {
            match timeout(Self::PATIENCE, TcpStream::connect(addr)).await {
                Ok(Ok(stream)) => fillers.push(stream),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Ok(Self {
                        addr,
                        _listener: listener,
                        _fillers: fillers,
                    });
                }
            }
        }
        Err(io::Error::other(
            "the system accepts connections beyond the backlog, so no address can be made deaf",
        ))
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}
