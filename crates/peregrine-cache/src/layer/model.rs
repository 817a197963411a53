//! The model that a [`CacheLayer`] makes of a model.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Error, ModelInfo, RawResponse, Result, Scope,
};

use super::answer::Marker;
use super::key::{self, Extent};
use super::{CacheLayer, Outcome, StoredAnswer, control, fell_behind, shared_panic};
use crate::cache::{Aim, FlightKey, Tags, paid};
use crate::engine::{Found, Rules};
use crate::flight::{Emitter, Party, Read};
use crate::{Entry, Key, Served, Tag, Value as _};

/// What an event takes beside its texts.
const EVENT_BYTES: usize = 64;

/// A model with a cache around it: a model. Cheap to clone.
pub struct CachedModel<M>(Arc<Inner<M>>);

pub(super) struct Inner<M> {
    pub(super) layer: CacheLayer,
    pub(super) model: M,
}

type Seat = Party<FlightKey, ChatEvent, Outcome, Tags>;

/// What a call is to do.
enum Plan {
    /// Ask the model, and leave the cache alone.
    Bypass,
    /// Ask the model, and store the answer.
    Renew(Key, Rules),
    /// Look, and ask the model if nothing is there.
    Find(Key, Rules),
}

impl<M: ChatModel> CachedModel<M> {
    pub(super) fn new(layer: CacheLayer, model: M) -> Self {
        Self(Arc::new(Inner { layer, model }))
    }

    /// The cache.
    pub fn cache(&self) -> &CacheLayer {
        &self.0.layer
    }

    /// The model within.
    pub fn inner(&self) -> &M {
        &self.0.model
    }

    /// As [`complete`](ChatModel::complete), and how the answer was come by.
    ///
    /// # Errors
    ///
    /// Those of the model, and [`ErrorKind::InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) for a cache
    /// label that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// The call goes on for those who wait for the same; if nobody does, it is cancelled.
    pub async fn ask(&self, request: &ChatRequest) -> Result<(ChatResponse, Served)> {
        let (key, rules) = match self.plan(request)? {
            Plan::Bypass => {
                self.0.layer.shared.engine.counters.served(Served::Bypass, 0);
                return Ok((self.0.model.complete(request).await?, Served::Bypass));
            }
            Plan::Renew(key, rules) => {
                let outcome = self.0.call(request, &key, &self.tagged(rules, request)).await;
                return self.whole(outcome, true);
            }
            Plan::Find(key, rules) => (key, rules),
        };
        match self.0.layer.shared.engine.find_now(&key, rules.max_age) {
            Found::Fresh(entry) => return Ok(self.give(&entry, Served::Hit)),
            Found::Stale(entry) => {
                self.0.revalidate(request, &key, self.tagged(rules, request));
                return Ok(self.give(&entry, Served::Stale));
            }
            Found::Nothing | Found::Ask => {}
        }
        let rules = self.tagged(rules, request);
        let seat = self.join(request, &key, &rules, false);
        match seat.end().await {
            // It was a stream and too large to be kept; this call cannot have it whole from there.
            Some(Outcome::Passed) | None => {
                self.0.layer.shared.engine.counters.served(Served::Bypass, 0);
                Ok((self.0.model.complete(request).await?, Served::Bypass))
            }
            Some(outcome) => {
                let pays = matches!(outcome, Outcome::Answered(..) | Outcome::Failed(_)) && seat.pays();
                self.whole(outcome, pays)
            }
        }
    }

    /// As [`stream`](ChatModel::stream), and whether the cache was left alone. How a stream that uses it was come by is
    /// known at its end, from its metadata: [`Served::of`].
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    ///
    /// # Cancel safety
    ///
    /// As [`ask`](Self::ask); the same goes for the stream.
    pub async fn ask_stream(&self, request: &ChatRequest) -> Result<(ChatStream, bool)> {
        let engine = &self.0.layer.shared.engine;
        let seat = match self.plan(request)? {
            Plan::Bypass => {
                engine.counters.served(Served::Bypass, 0);
                return Ok((self.0.model.stream(request).await?, true));
            }
            Plan::Renew(key, rules) => {
                // Shared with nobody: an answer that was begun before is not a new one.
                let rules = self.tagged(rules, request);
                let shared = &self.0.layer.shared;
                let flight = FlightKey {
                    aim: Aim::Anew(shared.anew.fetch_add(1, Relaxed)),
                    ..FlightKey::new(key, &rules)
                };
                let (inner, request) = (self.0.clone(), request.clone());
                let tags = rules.tags.clone();
                shared.flights.join(&flight, tags, true, |emitter| async move {
                    inner.call_streamed(&request, &key, &rules, &emitter).await
                })
            }
            Plan::Find(key, rules) => {
                match engine.find_now(&key, rules.max_age) {
                    Found::Fresh(entry) => return Ok((self.give_stream(&entry, Served::Hit), false)),
                    Found::Stale(entry) => {
                        self.0.revalidate(request, &key, self.tagged(rules, request));
                        return Ok((self.give_stream(&entry, Served::Stale), false));
                    }
                    Found::Nothing | Found::Ask => {}
                }
                let rules = self.tagged(rules, request);
                self.join(request, &key, &rules, true)
            }
        };
        match seat.opened().await {
            None => Ok((ChatStream::new(Reader::new(self.0.clone(), seat)), false)),
            Some(Outcome::Stored(entry, served)) => Ok((self.give_stream(&entry, served), false)),
            Some(Outcome::Answered(answer, raw)) => {
                // It was asked for whole.
                let served = paid(seat.pays());
                self.0.count(served, &answer);
                let mut events = answer.events(served, 0);
                if let (true, Some(ChatEvent::Done(done))) = (served == Served::Miss, events.last_mut()) {
                    done.raw = raw;
                }
                Ok((ChatStream::from_events(events), false))
            }
            Some(Outcome::Failed(error)) => {
                engine.counters.served(paid(seat.pays()), 0);
                Err(error)
            }
            Some(Outcome::Panicked | Outcome::Passed) => Err(shared_panic()),
        }
    }

    fn plan(&self, request: &ChatRequest) -> Result<Plan> {
        let CacheLayer { shared, options } = &self.0.layer;
        let control = control::read(request)?;
        let rules = shared.engine.rules(&control);
        let reads = rules.mode.reads();
        if !(reads || rules.stores()) || !(control.anyway || options.admits(request)) {
            return Ok(Plan::Bypass);
        }
        let scope = options.partition.key(request.scope.as_ref());
        let key = key::of(
            &options.namespace,
            &scope,
            self.0.model.info(),
            request,
            Extent::Whole,
        );
        Ok(match key {
            Err(key::Unknown) => Plan::Bypass,
            Ok(key) if reads => Plan::Find(key, rules),
            Ok(key) => Plan::Renew(key, rules),
        })
    }

    /// Adds the tags that every answer has: its model, its tenant, its scope.
    fn tagged(&self, mut rules: Rules, request: &ChatRequest) -> Rules {
        let info = self.0.model.info();
        rules.tags.push(Tag::model(info.provider(), info.model()));
        if let Some(scope) = &request.scope {
            let tenant = Scope {
                tenant: scope.tenant.clone(),
                session: None,
            };
            rules.tags.push(Tag::scope(&tenant.key()));
            if scope.session.is_some() {
                rules.tags.push(Tag::scope(&scope.key()));
            }
        }
        rules
    }

    /// A seat at the call that asks the same.
    fn join(&self, request: &ChatRequest, key: &Key, rules: &Rules, streams: bool) -> Seat {
        let flight = FlightKey::new(*key, rules);
        let flights = &self.0.layer.shared.flights;
        flights.join(&flight, rules.tags.clone(), streams, |emitter| {
            let (inner, request, key, rules) = (self.0.clone(), request.clone(), *key, rules.clone());
            async move {
                match inner.layer.shared.engine.find(&key, rules.max_age).await {
                    Found::Fresh(entry) => return Outcome::Stored(entry, Served::Hit),
                    Found::Stale(entry) => {
                        inner.revalidate(&request, &key, rules);
                        return Outcome::Stored(entry, Served::Stale);
                    }
                    Found::Nothing | Found::Ask => {}
                }
                let near = match &inner.layer.options.similar {
                    Some(similar) => similar.look(&inner, &request).await,
                    None => None,
                };
                if let Some(near) = &near
                    && let Some(entry) = near.usable(&inner, &rules).await
                {
                    return Outcome::Stored(entry, Served::Similar);
                }
                let outcome = if streams {
                    inner.call_streamed(&request, &key, &rules, &emitter).await
                } else {
                    inner.call(&request, &key, &rules).await
                };
                if let (Some(near), Outcome::Answered(answer, _)) = (near, &outcome) {
                    near.learn(&inner, &key, answer, &rules).await;
                }
                outcome
            }
        })
    }

    /// The response that an outcome means for one party.
    fn whole(&self, outcome: Outcome, pays: bool) -> Result<(ChatResponse, Served)> {
        match outcome {
            Outcome::Stored(entry, served) => Ok(self.give(&entry, served)),
            Outcome::Answered(answer, raw) => {
                let served = paid(pays);
                self.0.count(served, &answer);
                let mut response = answer.response(served, 0);
                if pays {
                    response.raw = raw;
                }
                Ok((response, served))
            }
            Outcome::Failed(error) => {
                self.0.layer.shared.engine.counters.served(paid(pays), 0);
                Err(error)
            }
            Outcome::Panicked | Outcome::Passed => Err(shared_panic()),
        }
    }

    fn give(&self, entry: &Entry<StoredAnswer>, served: Served) -> (ChatResponse, Served) {
        self.0.count(served, &entry.value);
        (entry.value.response(served, self.0.age_ms(entry)), served)
    }

    fn give_stream(&self, entry: &Entry<StoredAnswer>, served: Served) -> ChatStream {
        self.0.count(served, &entry.value);
        ChatStream::from_events(entry.value.events(served, self.0.age_ms(entry)))
    }
}

impl<M: ChatModel> Inner<M> {
    fn age_ms(&self, entry: &Entry<StoredAnswer>) -> u64 {
        self.layer
            .shared
            .engine
            .clock
            .unix_ms()
            .saturating_sub(entry.created)
    }

    fn count(&self, served: Served, answer: &StoredAnswer) {
        let counters = &self.layer.shared.engine.counters;
        counters.served(served, answer.weight());
        if served.is_free() {
            let usage = answer.original().usage;
            let info = self.model.info();
            let cost = self
                .layer
                .options
                .prices
                .cost(info.provider(), info.model(), usage.as_ref());
            counters.saved(
                usage.map_or(0, |usage| usage.total_tokens()),
                cost.amount().map(|amount| amount.0),
            );
        }
    }

    /// Asks the model, and stores the answer.
    async fn call(&self, request: &ChatRequest, key: &Key, rules: &Rules) -> Outcome {
        let removals = self.layer.shared.engine.tiers.removals();
        match self.model.complete(request).await {
            Ok(response) => {
                let (answer, raw) = StoredAnswer::whole(response);
                let answer = Arc::new(answer);
                self.store(key, &answer, rules, removals).await;
                Outcome::Answered(answer, raw)
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Asks the model for a stream, hands its events on, and stores the answer when it is whole.
    async fn call_streamed(
        &self,
        request: &ChatRequest,
        key: &Key,
        rules: &Rules,
        emitter: &Emitter<ChatEvent, Outcome>,
    ) -> Outcome {
        let removals = self.layer.shared.engine.tiers.removals();
        let mut stream = match self.model.stream(request).await {
            Ok(stream) => stream,
            Err(error) => return Outcome::Failed(error),
        };
        emitter.open();
        loop {
            let event = match stream.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Outcome::Failed(error),
                None => return Outcome::Failed(Error::truncated("the stream ended without its end event")),
            };
            if !matches!(event, ChatEvent::Done(_)) {
                let bytes = event_bytes(&event);
                emitter.item(event, bytes).await;
                continue;
            }
            emitter.item(event, EVENT_BYTES).await;
            let Some((answer, raw)) = emitter.take_log().and_then(StoredAnswer::streamed) else {
                return Outcome::Passed;
            };
            let answer = Arc::new(answer);
            self.store(key, &answer, rules, removals).await;
            // A model over HTTP reads the end of the body here, so that its connection can be used again; once, because
            // nothing says how long another one would take.
            poll_fn(|cx| {
                let _end_or_not_yet = Pin::new(&mut stream).poll_next(cx);
                Poll::Ready(())
            })
            .await;
            return Outcome::Answered(answer, raw);
        }
    }

    async fn store(&self, key: &Key, answer: &Arc<StoredAnswer>, rules: &Rules, removals: u64) {
        if rules.stores() {
            let engine = &self.layer.shared.engine;
            engine.store(key, answer.clone(), rules, removals).await;
        }
    }

    /// Lets the answer be replaced beside everything else.
    fn revalidate(self: &Arc<Self>, request: &ChatRequest, key: &Key, rules: Rules) {
        let shared = &self.layer.shared;
        let Some(spawn) = shared.engine.spawn.as_ref().filter(|_| rules.stores()) else {
            return;
        };
        let flight = FlightKey::refresh(*key, &rules);
        let (inner, request, key) = (self.clone(), request.clone(), *key);
        let seat = shared
            .flights
            .join(&flight, rules.tags.clone(), false, |_| async move {
                // Whoever found it past its time may have been overtaken by a whole refresh.
                if let Found::Fresh(entry) = inner.layer.shared.engine.find(&key, None).await {
                    return Outcome::Stored(entry, Served::Hit);
                }
                inner.call(&request, &key, &rules).await
            });
        if seat.leads() {
            spawn(Box::pin(async move {
                // Its error was not asked for: who asked has the older answer, and the next one asks again.
                let _told_to_nobody = seat.end().await;
            }));
        }
    }
}

impl<M: ChatModel> ChatModel for CachedModel<M> {
    fn info(&self) -> &ModelInfo {
        self.0.model.info()
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        Ok(self.ask(request).await?.0)
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream> {
        Ok(self.ask_stream(request).await?.0)
    }
}

impl<M> Clone for CachedModel<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: ChatModel> fmt::Debug for CachedModel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedModel")
            .field("model", self.0.model.info())
            .field("cache", &self.0.layer)
            .finish()
    }
}

/// One reader of a shared stream.
///
/// Who of the readers is charged is decided by whoever first has the end of the answer at hand, so a usage is held back
/// until the next event is there: a reader that goes away between the two would take the charge along.
struct Reader<M> {
    inner: Arc<Inner<M>>,
    /// Gone when the stream is over.
    seat: Option<Seat>,
    /// Decided when it matters: at the end, or at a usage that something else follows.
    marker: Option<Marker>,
    held: Option<ChatEvent>,
    /// What is to be given out before anything else is read.
    next: VecDeque<Result<ChatEvent>>,
    /// Everything that was read is counted.
    counted: bool,
}

impl<M: ChatModel> Reader<M> {
    fn new(inner: Arc<Inner<M>>, seat: Seat) -> Self {
        Self {
            inner,
            seat: Some(seat),
            marker: None,
            held: None,
            next: VecDeque::new(),
            counted: false,
        }
    }

    /// How it was come by. Decides that if it was not yet decided.
    fn served(&mut self) -> Served {
        let pays = || paid(self.seat.as_ref().is_none_or(Party::pays));
        self.marker.get_or_insert_with(|| Marker::new(pays(), 0)).served()
    }

    /// Queues what is to be given out for an event that says how it was come by.
    fn mark(&mut self, event: ChatEvent, raw: Option<RawResponse>) {
        let served = self.served();
        let Some(marker) = &mut self.marker else { return };
        let (mut first, second) = marker.mark(event);
        if let (Served::Miss, ChatEvent::Done(done)) = (served, &mut first) {
            done.raw = done.raw.take().or(raw);
        }
        self.next.extend([first].into_iter().chain(second).map(Ok));
    }

    /// The end event. With it the call is over, so what is known of it comes along.
    fn finish(&mut self, event: ChatEvent, cx: &mut Context<'_>) {
        let end = self.seat.as_ref().map(|seat| seat.poll_item(cx));
        let (answer, raw) = match end {
            Some(Poll::Ready(Read::End(Outcome::Answered(answer, raw)))) => (Some(answer), raw),
            _ => (None, None),
        };
        if let Some(usage) = self.held.take() {
            self.mark(usage, None);
        }
        self.mark(event, raw);
        self.end(answer.as_deref());
    }

    /// The call failed, or is lost to this reader.
    fn fail(&mut self, error: Error) {
        if let Some(usage) = self.held.take() {
            self.mark(usage, None);
        }
        self.served();
        self.next.push_back(Err(error));
        self.end(None);
    }

    fn end(&mut self, answer: Option<&StoredAnswer>) {
        let served = self.served();
        match answer {
            Some(answer) => self.inner.count(served, answer),
            None => self.inner.layer.shared.engine.counters.served(served, 0),
        }
        self.counted = true;
        self.seat = None;
    }
}

impl<M: ChatModel> Stream for Reader<M> {
    type Item = Result<ChatEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.next.pop_front() {
                return Poll::Ready(Some(event));
            }
            let Some(seat) = &this.seat else {
                return Poll::Ready(None);
            };
            match ready!(seat.poll_item(cx)) {
                Read::Item(event @ ChatEvent::Done(_)) => this.finish(event, cx),
                Read::Item(event) => {
                    if let Some(usage) = this.held.take() {
                        this.mark(usage, None);
                    }
                    if matches!(event, ChatEvent::Usage { .. }) {
                        this.held = Some(event);
                    } else {
                        this.next.push_back(Ok(event));
                    }
                }
                Read::Behind => this.fail(fell_behind()),
                Read::End(Outcome::Failed(error)) => this.fail(error),
                // An answer ends with its end event, which was read above.
                Read::End(_) | Read::Opened => this.fail(shared_panic()),
            }
        }
    }
}

impl<M> Unpin for Reader<M> {}

impl<M> Drop for Reader<M> {
    /// Who was charged and then left is a miss all the same: there was a call.
    fn drop(&mut self) {
        if let (false, Some(marker)) = (self.counted, &self.marker)
            && marker.served() == Served::Miss
        {
            self.inner.layer.shared.engine.counters.served(Served::Miss, 0);
        }
    }
}

/// What an event takes in memory, roughly.
fn event_bytes(event: &ChatEvent) -> usize {
    let text = match event {
        ChatEvent::TextDelta { text }
        | ChatEvent::ReasoningDelta { text }
        | ChatEvent::RefusalDelta { text } => text.len(),
        ChatEvent::ToolCallDelta { arguments, .. } => arguments.len(),
        ChatEvent::ToolCallEnd { call, .. } => call.arguments.len(),
        ChatEvent::Part { .. } => serde_json::to_string(event).map_or(0, |text| text.len()),
        _ => 0,
    };
    text + EVENT_BYTES
}
