//! The cache around a model: what `ask --cache` adds.
//!
//! Invariants: the answers of one address are never taken for another's; a store that fails costs the cache, not the
//! answer, and is told.

use std::sync::{Arc, Mutex, PoisonError};

use peregrine::cache::{Control, Settings, Tag, TierEvent, Totals};
use peregrine::core::{Middleware, Result as ModelResult};
use peregrine::tools::Effect;
use peregrine::{CacheControl as _, CacheLayer, ChatModel, ChatRequest, ChatResponse, ChatStream};
use serde::Serialize;

use super::args::CacheArgs;
use super::place::{Answers, Place};
use crate::failure::Failure;
use crate::files;
use crate::model::Chosen;
use crate::output::{Console, Verbosity};
use crate::runs::text;

/// What a cache did for one command.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    hits: u64,
    misses: u64,
    stored: u64,
    tokens_saved: u64,
    /// Null if a price is not known.
    nano_usd_saved: Option<u64>,
}

/// Answers that are kept, around the model of one command.
#[derive(Debug)]
pub(crate) struct Cached {
    layer: CacheLayer,
    answers: Answers,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Cached {
    /// Puts the cache that the command line asks for, if it does, around the model.
    ///
    /// # Errors
    ///
    /// That there is no place for it, or that it cannot be opened.
    pub(crate) fn around(chosen: &mut Chosen, args: &CacheArgs) -> Result<Option<Self>, Failure> {
        let Some(ttl) = args.cache else {
            return Ok(None);
        };
        let answers = Place::of(&args.place)?.open()?;
        let problems = Arc::new(Mutex::new(Vec::new()));
        let told = problems.clone();
        let settings = Settings::new()
            .with_store(answers.tier())
            .with_ttl(ttl)
            .with_report(move |event| {
                let problem = match event {
                    TierEvent::Down { error, .. } | TierEvent::Damaged { error, .. } => error.to_string(),
                    _ => return,
                };
                told.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
            });
        let harmless = files::names().map(|name| (name, Effect::ReadOnly));
        let layer = CacheLayer::new(settings)
            .with_namespace(chosen.address.as_deref().unwrap_or_default())
            .with_prices(chosen.prices().unwrap_or_default())
            .with_tool_effects(harmless);
        let tags = args.cache_tag.iter().map(|tag| Tag::label(tag));
        let control = tags.fold(Control::new(), Control::with_tag);
        let control = match ttl {
            // What was kept for longer by another command is not taken here.
            peregrine::cache::Ttl::After(age) => control.with_max_age(age),
            _ => control,
        };
        let model = chosen.model.clone().layered(layer.clone());
        chosen.model = model.layered(Controlled(control)).into_handle();
        Ok(Some(Self {
            layer,
            answers,
            problems,
        }))
    }

    /// What it did.
    pub(crate) fn counts(&self) -> Counts {
        let stats = self.layer.stats();
        Counts {
            hits: stats.hits + stats.coalesced,
            misses: stats.misses,
            stored: stats.stored,
            tokens_saved: stats.tokens_saved,
            nano_usd_saved: (stats.unpriced == 0).then_some(stats.nano_usd_saved),
        }
    }

    /// Says what it did, and what went wrong with it; adds that to what `cache stats` shows.
    pub(crate) async fn tell(&self, console: &mut Console) {
        let mut problems = std::mem::take(&mut *self.problems.lock().unwrap_or_else(PoisonError::into_inner));
        // A store that failed is not waited for once more.
        if problems.is_empty()
            && let Err(error) = self.answers.add_totals(&Totals::of(&self.layer.stats())).await
        {
            problems.push(error.to_string());
        }
        for problem in problems {
            console.note(Verbosity::Normal, &format!("without the cache: {problem}"));
        }
        let Counts { hits, misses, .. } = self.counts();
        let level = match hits {
            0 => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        let all = hits + misses;
        console.note(
            level,
            &format!("cache: {hits} of {}", text::counted(all, "answer")),
        );
        // Nothing else that this command asks for is kept out.
        if self.layer.stats().bypassed > 0 {
            console.note(
                Verbosity::Normal,
                "the cache was not used, because the temperature is above 1",
            );
        }
    }
}

/// Says with each request what the cache is to do with it.
#[derive(Debug)]
struct Controlled(Control);

impl Middleware for Controlled {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> ModelResult<ChatResponse> {
        inner.complete(&request.clone().with_cache(&self.0)).await
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> ModelResult<ChatStream> {
        inner.stream(&request.clone().with_cache(&self.0)).await
    }
}
