//! `limiter`: asks a limiter, local or shared through Redis, and prints who waited how long.

use std::io::{BufRead as _, Read as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use peregrine_core::{Error, ErrorKind, Result};
use peregrine_limits::{Ask, Learning, Limiter, Limits, SharedConfig, SharedEvent, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::output::Output;

/// How many asks may be under way.
const MAX_ASKS: usize = 100_000;
const MAX_LINE_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the limits are kept: `local`, or `redis:URL` (or a `redis://..` URL as it is).
    #[arg(long, default_value = "local")]
    backend: String,
    /// Under which name the limits are shared in Redis.
    #[arg(long, default_value = "probe")]
    name: String,
    /// Requests a minute.
    #[arg(long)]
    rpm: Option<u64>,
    /// Tokens a minute.
    #[arg(long)]
    tpm: Option<u64>,
    /// Requests at the same time.
    #[arg(long)]
    concurrency: Option<u32>,
    /// The share of the limits that is used.
    #[arg(long, default_value_t = 0.9)]
    margin: f64,
    /// How much may be used at once, in milliseconds of the rate.
    #[arg(long)]
    burst_ms: Option<u64>,
    /// How many may wait.
    #[arg(long, default_value_t = 10_000)]
    max_waiting: usize,
    /// Follow the limits that a 429 shows (`"status": 429` in an ask).
    #[arg(long)]
    learn: bool,
    /// After how long a process that is gone loses its places, with Redis.
    #[arg(long, default_value_t = 30_000)]
    lease_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    tenant: String,
    /// How long the request is in flight.
    #[serde(default)]
    hold_ms: u64,
    /// What it really used; what it asked for if not said.
    used: Option<u64>,
    /// 429 for a refusal by the provider.
    status: Option<u16>,
    /// How long the provider then asks to wait.
    retry_after_ms: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    let limiter = limiter(&arguments).await?;
    let began = tokio::time::Instant::now();
    let (told, mut lines) = mpsc::channel::<Value>(1_024);
    let mut asks = read();
    let mut running = tokio::task::JoinSet::new();
    let mut refused = None;
    let mut index = 0_u64;
    let mut reading = true;
    while reading || !running.is_empty() {
        tokio::select! {
            line = lines.recv() => if let Some(line) = line {
                output.line(&line)?;
            },
            ask = asks.recv(), if reading && running.len() < MAX_ASKS => match ask {
                None => reading = false,
                Some(ask) => {
                    running.spawn(serve(limiter.clone(), ask?, index, began, told.clone()));
                    index += 1;
                }
            },
            Some(served) = running.join_next(), if !running.is_empty() => {
                let failed = served.map_err(|error| Error::layer(ErrorKind::Internal, error))?;
                refused = refused.or(failed);
            }
        }
    }
    drop(told);
    while let Some(line) = lines.recv().await {
        output.line(&line)?;
    }
    refused.map_or(Ok(()), |error| Err(limit_error(error)))
}

async fn limiter(arguments: &Arguments) -> Result<Limiter> {
    let Arguments {
        backend,
        name,
        rpm,
        tpm,
        concurrency,
        margin,
        burst_ms,
        max_waiting,
        learn,
        lease_ms,
    } = arguments;
    let mut limits = Limits::new().with_margin(*margin).with_max_waiting(*max_waiting);
    limits.requests_per_minute = *rpm;
    limits.tokens_per_minute = *tpm;
    limits.concurrency = *concurrency;
    limits.burst = burst_ms.map(Duration::from_millis);
    limits.learning = learn.then(Learning::new);
    let timer = TokioTimer::new();
    let limiter = match backend.as_str() {
        "local" => Limiter::new(limits, timer),
        redis if redis.starts_with("redis") => {
            // `redis:redis://h:1`, `redis://h:1` and `redis:h:1` mean the same.
            let url = match redis.strip_prefix("redis:") {
                Some(rest) if rest.starts_with("redis") => rest.to_owned(),
                Some(rest) if !rest.starts_with("//") => format!("redis://{rest}"),
                _ => redis.to_owned(),
            };
            let note = |event: &SharedEvent| match event {
                SharedEvent::Away { processes, reason } => {
                    eprintln!("peregrine-probe: redis is away, limits divided by {processes}: {reason}");
                }
                event => eprintln!("peregrine-probe: redis: {event:?}"),
            };
            SharedConfig::new(url, name.as_str(), limits)
                .with_lease(Duration::from_millis(*lease_ms))
                .on_event(note)
                .connect(timer)
                .await
        }
        other => {
            let message = format!("`{other}` is no backend; `local` and `redis:URL` are");
            return Err(Error::invalid_request(message));
        }
    };
    limiter.map_err(limit_error)
}

/// The asks on standard input, as they come. Another thread reads them: a read cannot be cancelled.
fn read() -> mpsc::Receiver<Result<Line>> {
    let (send, asks) = mpsc::channel(1_024);
    // The thread ends with the input, with the first bad line, or when nobody takes its lines any more.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut text = String::new();
            let read = (&mut input).take(MAX_LINE_BYTES).read_line(&mut text);
            let line = match read {
                Ok(0) => return,
                Ok(_) if text.trim().is_empty() => continue,
                Ok(_) => serde_json::from_str(&text)
                    .map_err(|error| Error::invalid_request(format!("an ask that is none: {error}"))),
                Err(error) => Err(Error::invalid_request(format!("standard input: {error}"))),
            };
            let bad = line.is_err();
            if send.blocking_send(line).is_err() || bad {
                return;
            }
        }
    });
    asks
}

async fn serve(
    limiter: Limiter,
    line: Line,
    index: u64,
    began: tokio::time::Instant,
    told: mpsc::Sender<Value>,
) -> Option<peregrine_limits::Error> {
    let Line {
        tokens,
        tenant,
        hold_ms,
        used,
        status,
        retry_after_ms,
    } = line;
    let asked = tokio::time::Instant::now();
    let admitted = limiter.acquire(Ask::tokens(tokens).for_tenant(&tenant)).await;
    let milliseconds = |time: Duration| json!(time.as_micros() as f64 / 1_000.0);
    let mut shown = json!({
        "index": index,
        "tenant": tenant,
        "tokens": tokens,
        "wait_ms": milliseconds(asked.elapsed()),
    });
    let refused = match admitted {
        Ok(permit) => {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            shown["admitted_ms"] = milliseconds(began.elapsed());
            shown["admitted_unix_ms"] = milliseconds(unix);
            shown["shared"] = limiter.status().shared.into();
            // Nobody listens any more: the command is at its end.
            let _closed = told.send(shown).await;
            tokio::time::sleep(Duration::from_millis(hold_ms)).await;
            if status == Some(429) {
                let mut signals = peregrine_limits::Signals::new();
                signals.retry_after = retry_after_ms.map(Duration::from_millis);
                permit.rejected(&signals);
            } else {
                permit.settle(used.unwrap_or(tokens));
            }
            return None;
        }
        Err(error) => error,
    };
    shown["error"] = json!({
        "code": kind(&refused).code(),
        "retryable": refused.is_retryable(),
        "message": refused.to_string(),
    });
    let _closed = told.send(shown).await;
    Some(refused)
}

fn kind(error: &peregrine_limits::Error) -> ErrorKind {
    match error.kind() {
        peregrine_limits::ErrorKind::TooLarge => ErrorKind::RequestTooLarge,
        peregrine_limits::ErrorKind::Config => ErrorKind::Config,
        _ => ErrorKind::Refused,
    }
}

fn limit_error(error: peregrine_limits::Error) -> Error {
    Error::layer(kind(&error), error)
}
