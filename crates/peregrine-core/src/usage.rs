//! Token usage of a call, in one meaning for every provider.
//!
//! Invariant: `input_tokens` is the whole prompt, cached parts included; `output_tokens` is everything the
//! model wrote, reasoning included. Codecs of providers that count otherwise add up.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// What a call used, in tokens. A count that the provider does not report is 0; a provider that reports no
/// usage at all gives no `Usage` (see [`ChatResponse::usage`](crate::ChatResponse::usage)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The whole prompt, including what was read from or written to the provider's prompt cache.
    pub input_tokens: u64,
    /// The part of the prompt that was read from the provider's prompt cache.
    pub cached_input_tokens: u64,
    /// The part of the prompt that was written to the provider's prompt cache.
    pub cache_write_tokens: u64,
    /// Everything the model wrote, including reasoning.
    pub output_tokens: u64,
    /// The part of the output that was reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Usage without cache or reasoning details.
    pub const fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            input_tokens,
            output_tokens,
            cached_input_tokens: 0,
            cache_write_tokens: 0,
            reasoning_tokens: 0,
        }
    }

    /// Prompt and output together.
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// The part of the prompt that neither came from nor went to the provider's prompt cache.
    pub const fn plain_input_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_sub(self.cached_input_tokens)
            .saturating_sub(self.cache_write_tokens)
    }
}

impl Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
