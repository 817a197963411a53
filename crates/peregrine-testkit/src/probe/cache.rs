//! `cache`: requests through a cache in front of a provider, a line for each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use peregrine_cache::{
    CacheControl as _, CacheLayer, CachedModel, Control, DiskConfig, DiskStore, MemoryConfig, MemoryStore,
    Mode, RedisConfig, RedisStore, Served, Settings, StoredAnswer, Ttl,
};
use peregrine_core::{ChatModel as _, ChatRequest, ChatResponse, Error, ErrorKind, ModelHandle, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::failure::Failure;
use crate::output::{Output, arguments_of, hex, usage};
use crate::provider::Provider;
use crate::request::{self, parse_scope};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where answers are kept: `memory`, `disk:DIR`, or `redis:URL`.
    #[arg(long)]
    backend: String,
    /// The provider, as for `chat`; unless it is given, an OpenAI-compatible server without a key.
    #[arg(long, default_value = "vllm")]
    provider: String,
    /// The model, of requests that do not name one.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    place: Provider,
    /// The tenant, or tenant/session, whose requests they are.
    #[arg(long)]
    scope: Option<String>,
    /// How many requests are under way at the same time.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Ask for streams.
    #[arg(long)]
    stream: bool,
    /// How long answers stay fresh, in milliseconds (an hour); 0 stores nothing.
    #[arg(long)]
    ttl_ms: Option<u64>,
    /// How old an answer may be, in milliseconds.
    #[arg(long)]
    max_age_ms: Option<u64>,
    /// What requests do with the cache.
    #[arg(long, value_enum, default_value = "read-write")]
    mode: GivenMode,
    /// Use the cache for requests that it is not meant for, too: tools of unknown effect, high temperatures.
    #[arg(long)]
    anyway: bool,
    /// Print what the cache did, as a last line.
    #[arg(long)]
    stats: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GivenMode {
    Off,
    Read,
    Write,
    ReadWrite,
}

type Cached = CachedModel<ModelHandle>;

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let scope = arguments.scope.as_deref().map(parse_scope).transpose()?;
    let control = control(&arguments);
    let cache = CacheLayer::new(settings(&arguments.backend)?);
    let mut models: BTreeMap<String, Cached> = BTreeMap::new();
    let gate = Arc::new(Semaphore::new(arguments.concurrency.max(1)));
    let mut asked = Vec::new();
    for (named, mut request) in request::read_lines().await? {
        let name = named.or_else(|| arguments.model.clone()).unwrap_or_default();
        let model = match models.get(&name) {
            Some(model) => model.clone(),
            None => {
                let model = Some(name.as_str()).filter(|name| !name.is_empty());
                let model = arguments.place.model(&arguments.provider, model)?;
                models.entry(name).or_insert(model.layered(cache.clone())).clone()
            }
        };
        request.scope.clone_from(&scope);
        let request = request.with_cache(&control);
        let (gate, stream) = (gate.clone(), arguments.stream);
        asked.push(tokio::spawn(async move {
            let _turn = gate.acquire().await;
            ask(&model, &request, stream).await
        }));
    }
    let mut failed = None;
    for (index, asked) in asked.into_iter().enumerate() {
        let answer = asked
            .await
            .map_err(|source| Error::layer(ErrorKind::Internal, source))?;
        match answer {
            Ok((response, served)) => output.line(&line(index, &response, served))?,
            Err(error) => {
                let failure = Failure::from(error);
                let mut line = failure.line();
                line["index"] = index.into();
                output.line(&line)?;
                failed.get_or_insert(failure);
            }
        }
    }
    if arguments.stats {
        output.line(&json!({"done": report(&cache)}))?;
    }
    failed.map_or(Ok(()), Err)
}

async fn ask(model: &Cached, request: &ChatRequest, stream: bool) -> Result<(ChatResponse, Served)> {
    if !stream {
        return model.ask(request).await;
    }
    let (stream, bypassed) = model.ask_stream(request).await?;
    let response = stream.collect().await?;
    let served = match Served::of(&response) {
        Some(served) => served,
        None if bypassed => Served::Bypass,
        None => Served::Miss,
    };
    Ok((response, served))
}

fn control(arguments: &Arguments) -> Control {
    let mut control = Control::new().with_mode(match arguments.mode {
        GivenMode::Off => Mode::Off,
        GivenMode::Read => Mode::Read,
        GivenMode::Write => Mode::Write,
        GivenMode::ReadWrite => Mode::ReadWrite,
    });
    control.ttl = arguments.ttl_ms.map(|ttl| match ttl {
        0 => Ttl::NoStore,
        ttl => Ttl::After(Duration::from_millis(ttl)),
    });
    control.max_age = arguments.max_age_ms.map(Duration::from_millis);
    control.anyway = arguments.anyway;
    control
}

fn settings(backend: &str) -> Result<Settings<StoredAnswer>> {
    let settings = Settings::new().with_report(|event| eprintln!("peregrine-probe: {event:?}"));
    let refused = |source: peregrine_cache::Error| Error::layer(ErrorKind::Config, source);
    Ok(match backend.split_once(':') {
        None if backend == "memory" => settings.with_store(MemoryStore::new(&MemoryConfig::default())),
        Some(("memory", "")) => settings.with_store(MemoryStore::new(&MemoryConfig::default())),
        Some(("disk", dir)) => {
            settings.with_store(DiskStore::open(&DiskConfig::new(Path::new(dir))).map_err(refused)?)
        }
        Some(("redis" | "rediss", url)) => {
            // `redis:redis://..` as much as `redis://..` itself.
            let url = if url.starts_with("//") { backend } else { url };
            settings.with_store(RedisStore::new(&RedisConfig::new(url)).map_err(refused)?)
        }
        _ => {
            return Err(Error::invalid_request(
                "--backend is memory, disk:DIR or redis:URL",
            ));
        }
    })
}

fn line(index: usize, response: &ChatResponse, served: Served) -> Value {
    let calls = response
        .tool_calls()
        .map(|call| json!({"id": call.id, "name": call.name, "arguments": arguments_of(&call.arguments)}));
    let mut line = json!({
        "index": index,
        "served": served.as_str(),
        "digest": digest(response),
        "text": response.message.text(),
        "tool_calls": calls.collect::<Vec<_>>(),
        "finish": response.finish,
        "usage": response.usage.as_ref().map(usage),
    });
    if let Some(mark) = response.metadata.get("cache") {
        line["cache"] = mark.clone();
    }
    line
}

/// Of what was said and why it ended: the same for an answer however it was come by.
fn digest(response: &ChatResponse) -> String {
    let said = json!([response.message, response.finish]);
    hex(&Sha256::digest(said.to_string()))
}

fn report(cache: &CacheLayer) -> Value {
    let stats = cache.stats();
    let tiers = stats.tiers.iter().map(|tier| {
        json!({
            "store": tier.store.name,
            "entries": tier.store.entries,
            "bytes": tier.store.bytes,
            "evictions": tier.store.evictions,
            "corrupt": tier.store.corrupt,
            "hits": tier.hits,
            "misses": tier.misses,
            "failures": tier.failures,
            "skipped": tier.skipped,
            "down": tier.down,
        })
    });
    json!({
        "hits": stats.hits,
        "misses": stats.misses,
        "coalesced": stats.coalesced,
        "stale": stats.stale,
        "bypassed": stats.bypassed,
        "stored": stats.stored,
        "tokens_saved": stats.tokens_saved,
        "tiers": tiers.collect::<Vec<_>>(),
    })
}
