//! A relay between a client and its server that cuts connections, at points that only its seed decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::child::Random;

/// How many messages of a client pass before its connection may be cut: enough to sign in.
const SPARED: u64 = 8;

/// Relays what clients say to a server, and cuts one connection in `one_in` messages. Ends when it is dropped.
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct State {
    cutting: AtomicBool,
    cuts: AtomicU64,
}

impl Relay {
    /// A relay to `server`, which is `host:port`.
    pub(crate) async fn to(server: String, one_in: u64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            for connection in 0_u64.. {
                let (client, _) = listener.accept().await.unwrap();
                let (server, state) = (server.clone(), Arc::clone(&shared));
                let random = Random(seed.wrapping_add(connection.wrapping_mul(0x9e37_79b9)) | 1);
                tokio::spawn(async move {
                    // Whatever breaks here is what a broken connection looks like.
                    let _broken = relay(client, &server, one_in, random, &state).await;
                });
            }
        });
        Self {
            port,
            state,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections were cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::Relaxed)
    }

    /// Begins to cut, or lets everything pass, which it does at first.
    pub(crate) fn set_cutting(&self, cutting: bool) {
        self.state.cutting.store(cutting, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Relays one connection, until it ends or is cut.
async fn relay(
    client: TcpStream,
    server: &str,
    one_in: u64,
    mut random: Random,
    state: &State,
) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut said) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut messages, mut withhold) = (0, false);
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let read = read?;
                messages += 1;
                let is_cut = state.cutting.load(Ordering::Relaxed)
                    && messages > SPARED
                    && random.below(one_in) == 0;
                if is_cut {
                    state.cuts.fetch_add(1, Ordering::Relaxed);
                }
                match (read, is_cut.then(|| random.below(3))) {
                    // The server never hears of it,
                    (0, _) | (_, Some(0)) => return Ok(()),
                    // or only of a part,
                    (_, Some(1)) => return to_server.write_all(&asked[..read / 2]).await,
                    // or it does, and its answer is lost.
                    (_, cut) => withhold |= cut.is_some(),
                }
                to_server.write_all(&asked[..read]).await?;
            }
            read = from_server.read(&mut said) => {
                let read = read?;
                if read == 0 || withhold {
                    return Ok(());
                }
                to_client.write_all(&said[..read]).await?;
            }
        }
    }
}
