//! The semantic tier: an answer to a similar request, where it may be trusted. Off by default.
//!
//! It is asked only when the exact request is not in the cache, and only for requests whose last message is a text of the
//! user's. Requests can only be similar within one context: the same scope, model, tools, schema, sampling and earlier
//! messages, of which the exact key is made; only that last text may differ. This partition is hard: no similarity
//! crosses it.
//!
//! Which similarity is enough is not one number. Each stored prompt has its own [`Trust`], learned from feedback: when it
//! decides to ask anew although there is a candidate, the new answer shows whether the candidate would have been right
//! (as a judge sees it), and [`feedback`](Semantic::feedback) takes what a person or a program
//! found out later. In shadow mode it looks, learns and counts, and never answers.

mod bound;
mod vectors;

use std::collections::{HashSet, VecDeque};

pub use self::bound::Trust;
pub use self::vectors::Lookup;
use self::vectors::Vectors;
use crate::key::{DigestHasher, DigestMap};
use crate::sync::{Mutex, lock};
use crate::{Error, Key, Result, Selector, Tag};

/// How the semantic tier is set up.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SemanticConfig {
    /// Which part of the requests that are similar to something may get a wrong answer (0.01).
    pub max_error: f64,
    /// Below this similarity nothing is a candidate (0.8). Not what decides: that is learned.
    pub min_similarity: f32,
    /// How often a prompt must have been observed before it may answer (5).
    pub min_observations: u32,
    /// How many prompts are kept, over all contexts (10,000); the oldest go.
    pub max_prompts: usize,
    /// How they are looked up.
    pub lookup: Lookup,
    /// It only looks and learns, and never answers (true).
    pub shadow: bool,
    /// What the decisions are drawn from.
    pub seed: u64,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        Self {
            max_error: 0.01,
            min_similarity: 0.8,
            min_observations: 5,
            max_prompts: 10_000,
            lookup: Lookup::default(),
            shadow: true,
            seed: 1,
        }
    }
}

impl SemanticConfig {
    /// Says which part of the answers given may be wrong.
    #[must_use]
    pub fn with_max_error(mut self, error: f64) -> Self {
        self.max_error = error;
        self
    }

    /// Says below which similarity nothing is a candidate.
    #[must_use]
    pub fn with_min_similarity(mut self, similarity: f32) -> Self {
        self.min_similarity = similarity;
        self
    }

    /// Says how often a prompt must have been observed before it may answer.
    #[must_use]
    pub fn with_min_observations(mut self, observations: u32) -> Self {
        self.min_observations = observations;
        self
    }

    /// Bounds the prompts.
    #[must_use]
    pub fn with_max_prompts(mut self, prompts: usize) -> Self {
        self.max_prompts = prompts;
        self
    }

    /// Says how prompts are looked up.
    #[must_use]
    pub fn with_lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = lookup;
        self
    }

    /// Lets it answer.
    #[must_use]
    pub fn answering(mut self) -> Self {
        self.shadow = false;
        self
    }

    /// Says what the decisions are drawn from.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// What the semantic tier did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemanticStats {
    /// Look-ups that found a candidate.
    pub candidates: u64,
    /// Candidates that it used, or in shadow mode would have used.
    pub used: u64,
    /// Candidates that were compared with a new answer, or judged by feedback, and right.
    pub right: u64,
    /// As `right`, and wrong.
    pub wrong: u64,
    /// Prompts that could not be embedded.
    pub failures: u64,
    /// Prompts it holds.
    pub prompts: u64,
}

/// A stored prompt that is similar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The key of its answer.
    pub key: Key,
    /// How similar it is: the cosine, -1 to 1.
    pub similarity: f32,
    /// Whether it may be used. Never in shadow mode.
    pub use_it: bool,
}

/// Prompts by context and meaning, and how far each may be trusted. Vectors in, keys out: it knows no model and no store.
#[derive(Debug)]
pub struct Semantic {
    config: SemanticConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    contexts: DigestMap<Key, Context>,
    /// The contexts and keys of prompts, oldest first; some are gone.
    order: VecDeque<(Key, Key)>,
    /// Of each answer its context, for feedback.
    places: DigestMap<Key, Key>,
    /// The keys with a tag.
    tagged: DigestMap<Tag, HashSet<Key, DigestHasher>>,
    stats: SemanticStats,
    draw: u64,
}

#[derive(Debug)]
struct Context {
    vectors: Vectors,
    dimensions: usize,
    prompts: Vec<Option<Prompt>>,
    /// Slots without a prompt.
    free: Vec<usize>,
    slots: DigestMap<Key, usize>,
}

#[derive(Debug)]
struct Prompt {
    key: Key,
    tags: Box<[Tag]>,
    trust: Trust,
}

impl Semantic {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a share of errors that is not between 0 and 1, or a similarity that is not between -1 and 1.
    pub fn new(config: SemanticConfig) -> Result<Self> {
        if !(0.0..=1.0).contains(&config.max_error) || !(-1.0..=1.0).contains(&config.min_similarity) {
            return Err(Error::Config {
                message:
                    "the semantic tier takes a share of errors from 0 to 1 and a similarity from -1 to 1"
                        .to_owned(),
            });
        }
        let state = State {
            draw: mix(config.seed),
            ..State::default()
        };
        Ok(Self {
            config,
            state: Mutex::new(state),
        })
    }

    /// The most similar prompt of a context, and whether to use its answer.
    pub fn find(&self, context: &Key, vector: &[f32]) -> Option<Candidate> {
        let mut state = lock(&self.state);
        let held = state.contexts.get(context)?;
        let (slot, similarity) = held.vectors.nearest(vector)?;
        if similarity < self.config.min_similarity {
            return None;
        }
        let prompt = held.prompts.get(slot)?.as_ref()?;
        let key = prompt.key;
        let exploit = if prompt.trust.observations() < self.config.min_observations {
            0.0
        } else {
            prompt.trust.exploit(f64::from(similarity), self.config.max_error)
        };
        state.draw = mix(state.draw);
        let chosen = ((state.draw >> 11) as f64 / (1_u64 << 53) as f64) < exploit;
        state.stats.candidates += 1;
        state.stats.used += u64::from(chosen);
        Some(Candidate {
            key,
            similarity,
            use_it: chosen && !self.config.shadow,
        })
    }

    /// Notes a prompt whose answer is stored under a key, with tags. What is known of the key stays.
    pub fn insert(&self, context: &Key, key: &Key, vector: &[f32], tags: &[Tag]) {
        let mut state = lock(&self.state);
        let lookup = self.config.lookup;
        let held = state.contexts.entry(*context).or_insert_with(|| Context {
            vectors: Vectors::new(vector.len(), lookup),
            dimensions: vector.len(),
            prompts: Vec::new(),
            free: Vec::new(),
            slots: DigestMap::default(),
        });
        if held.slots.contains_key(key) || vector.len() != held.dimensions {
            return;
        }
        let slot = held.free.last().copied().unwrap_or(held.prompts.len());
        if !held.vectors.put(slot, vector) {
            if held.slots.is_empty() {
                state.contexts.remove(context);
            }
            return;
        }
        let prompt = Prompt {
            key: *key,
            tags: tags.into(),
            trust: Trust::new(),
        };
        match held.free.pop() {
            Some(slot) => held.prompts[slot] = Some(prompt),
            None => held.prompts.push(Some(prompt)),
        }
        held.slots.insert(*key, slot);
        for tag in tags {
            state.tagged.entry(*tag).or_default().insert(*key);
        }
        state.places.insert(*key, *context);
        state.order.push_back((*context, *key));
        state.stats.prompts += 1;
        while state.places.len() > self.config.max_prompts {
            let Some((_, oldest)) = state.order.pop_front() else {
                break;
            };
            state.remove(&oldest);
        }
        if state.order.len() > 2 * self.config.max_prompts + 16 {
            let State { order, places, .. } = &mut *state;
            order.retain(|(context, key)| places.get(key) == Some(context));
        }
    }

    /// Tells whether the answer under a key was right for a prompt of this similarity.
    pub fn feedback(&self, key: &Key, similarity: f32, right: bool) {
        let mut state = lock(&self.state);
        let Some(context) = state.places.get(key).copied() else {
            return;
        };
        if let Some(held) = state.contexts.get_mut(&context)
            && let Some(slot) = held.slots.get(key)
            && let Some(Some(prompt)) = held.prompts.get_mut(*slot)
        {
            prompt.trust.observe(f64::from(similarity), right);
        }
        if right {
            state.stats.right += 1;
        } else {
            state.stats.wrong += 1;
        }
    }

    /// Counts a prompt that could not be embedded.
    #[cfg(feature = "layer")]
    pub(crate) fn failed(&self) {
        lock(&self.state).stats.failures += 1;
    }

    /// Forgets prompts whose answers are removed, at a cost proportional to their number.
    pub fn remove(&self, what: &Selector) {
        let mut state = lock(&self.state);
        match what {
            Selector::Key(key) => state.remove(key),
            Selector::Tag(tag) => {
                for key in state.tagged.remove(tag).unwrap_or_default() {
                    state.remove(&key);
                }
            }
            Selector::All => {
                let (draw, stats) = (state.draw, state.stats);
                *state = State {
                    draw,
                    stats: SemanticStats { prompts: 0, ..stats },
                    ..State::default()
                };
            }
        }
    }

    /// What it did so far.
    pub fn stats(&self) -> SemanticStats {
        lock(&self.state).stats
    }
}

impl State {
    fn remove(&mut self, key: &Key) {
        let Some(context) = self.places.remove(key) else {
            return;
        };
        self.stats.prompts -= 1;
        let Some(held) = self.contexts.get_mut(&context) else {
            return;
        };
        if let Some(slot) = held.slots.remove(key) {
            let prompt = held.prompts[slot].take();
            held.vectors.take(slot);
            held.free.push(slot);
            for tag in prompt.iter().flat_map(|prompt| &prompt.tags) {
                if let Some(keys) = self.tagged.get_mut(tag) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.tagged.remove(tag);
                    }
                }
            }
        }
        if held.slots.is_empty() {
            self.contexts.remove(&context);
        }
    }
}

/// The next of a row of pseudo-random numbers (Steele, Lea, Flood: SplitMix, OOPSLA 2014).
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
