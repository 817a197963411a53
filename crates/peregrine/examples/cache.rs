//! Answers that are kept, and a limit on what is asked: `cargo run -p peregrine --example cache --features cache,limits`.
//! Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::cache::{CacheControl, Control, MemoryConfig, MemoryStore, Selector, Settings, Tag};
use peregrine::limits::{Limits, TokioTimer};
use peregrine::prelude::*;
use peregrine::{CacheLayer, Limiter, RateLimit, Served};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::new()
        .with_requests_per_minute(60)
        .with_tokens_per_minute(10_000);
    let limiter = Limiter::new(limits, TokioTimer::new())?;
    // On disk they would outlive the process: `.with_store(DiskStore::open(&DiskConfig::new("answers"))?)`.
    let cache = CacheLayer::new(Settings::new().with_store(MemoryStore::new(&MemoryConfig::default())));
    // What is answered from the cache never comes to the limit.
    let model = OfflineModel::new()
        .layered(RateLimit::new(limiter))
        .layered(cache.clone());

    let falcons = Control::new().with_tag(Tag::label("falcons"));
    let ask =
        || ChatRequest::user("How fast does it dive? The peregrine dives at 320 km/h.").with_cache(&falcons);
    for when in ["at first", "again", "when it was removed"] {
        if when == "when it was removed" {
            cache.remove(&Selector::Tag(Tag::label("falcons"))).await?;
        }
        let answer = model.complete(&ask()).await?;
        let from = Served::of(&answer).map_or("the model", |_| "the cache");
        println!("{when}, from {from}: {}", answer.message.text());
    }
    let stats = cache.stats();
    println!("{} hit, {} misses", stats.hits, stats.misses);
    Ok(())
}
