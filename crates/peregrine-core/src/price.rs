//! Prices of models, and what a usage costs by them.
//!
//! Algorithm: a model's price is the entry of its provider with its name, or with its name without a version
//! suffix (`-2024-08-06`, `-20250514`, `-001`, `-latest`). Any other suffix makes another model: the price of
//! `gpt-4o` is never taken for `gpt-4o-mini`. Sums are made in nano-dollars per million tokens and rounded
//! up once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Cost, NanoUsd, Usage};

const MILLION: u128 = 1_000_000;

/// The price of a model, in nano-US-dollars for a million tokens (so $2.50 is 2,500,000,000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// For a million tokens of prompt.
    pub input: NanoUsd,
    /// For a million tokens of output, reasoning included.
    pub output: NanoUsd,
    /// For a million tokens read from the provider's prompt cache; `None` charges them as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<NanoUsd>,
    /// For a million tokens written to the provider's prompt cache; `None` charges them as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<NanoUsd>,
}

impl Price {
    /// A price for prompt and output.
    pub const fn per_million(input: NanoUsd, output: NanoUsd) -> Self {
        Self {
            input,
            output,
            cached_input: None,
            cache_write: None,
        }
    }

    /// What a usage costs at this price, rounded up to the next nano-dollar.
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let lines = [
            (usage.plain_input_tokens(), self.input),
            (usage.cached_input_tokens, self.cached_input.unwrap_or(self.input)),
            (usage.cache_write_tokens, self.cache_write.unwrap_or(self.input)),
            (usage.output_tokens, self.output),
        ];
        let line = |(tokens, price): &(u64, NanoUsd)| u128::from(*tokens) * u128::from(price.0);
        let sum = lines.iter().map(line).fold(0_u128, u128::saturating_add);
        NanoUsd(u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX))
    }
}

/// Prices by provider and model. What it does not know is [`Cost::Unpriced`].
///
/// # Examples
///
/// ```
/// use peregrine_core::{Cost, NanoUsd, Price, PriceTable, Usage};
///
/// let table = PriceTable::new().with("acme", "rocket", Price::per_million(NanoUsd::from_cents(100), NanoUsd::from_cents(400)));
/// let usage = Usage::new(1_000, 500);
/// assert_eq!(table.cost("acme", "rocket-2026-01-01", Some(&usage)), Cost::Priced(NanoUsd(3_000_000)));
/// assert_eq!(table.cost("acme", "rocketeer", Some(&usage)), Cost::Unpriced);
/// assert_eq!(table.cost("acme", "rocket", None), Cost::Unpriced);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PriceTable(BTreeMap<String, BTreeMap<String, Price>>);

impl PriceTable {
    /// A table that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// List prices of well-known models as published in 2025. Prices change: check them against the
    /// provider's page and overwrite what differs.
    pub fn list_prices_2025() -> Self {
        LIST_PRICES_2025
            .iter()
            .fold(Self::new(), |table, (provider, model, cents)| {
                let [input, cached, write, output] = cents.map(|tenths| NanoUsd(tenths * 100_000));
                let price = Price {
                    input,
                    output,
                    cached_input: Some(cached),
                    cache_write: Some(write),
                };
                table.with(*provider, *model, price)
            })
    }

    /// Adds or replaces a price. `model` also stands for its dated versions.
    #[must_use]
    pub fn with(mut self, provider: impl Into<String>, model: impl Into<String>, price: Price) -> Self {
        self.0
            .entry(provider.into())
            .or_default()
            .insert(model.into(), price);
        self
    }

    /// The price of a model.
    pub fn price(&self, provider: &str, model: &str) -> Option<&Price> {
        let models = self.0.get(provider)?;
        let versions = model
            .match_indices(['-', '@'])
            .rev()
            .filter(|(at, _)| is_version(&model[at + 1..]));
        std::iter::once(model.len())
            .chain(versions.map(|(at, _)| at))
            .find_map(|end| models.get(&model[..end]))
    }

    /// What a usage of a model costs. Models that run at `offline` or `ollama` are free only if the table
    /// says so.
    pub fn cost(&self, provider: &str, model: &str, usage: Option<&Usage>) -> Cost {
        match (self.price(provider, model), usage) {
            (Some(price), Some(usage)) => Cost::Priced(price.cost(usage)),
            _ => Cost::Unpriced,
        }
    }
}

/// Whether a suffix only names a version: `latest`, or groups of digits of which the first has three or more.
fn is_version(suffix: &str) -> bool {
    let digits = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    let first = suffix.split('-').next().unwrap_or_default();
    suffix == "latest" || (first.len() >= 3 && suffix.split('-').all(digits))
}

/// Provider, model, and input, cached input, cache write and output in hundredths of a cent for a million
/// tokens (so $2.50 is 25,000).
const LIST_PRICES_2025: &[(&str, &str, [u64; 4])] = &[
    ("openai", "gpt-4o", [25_000, 12_500, 25_000, 100_000]),
    ("openai", "gpt-4o-mini", [1_500, 750, 1_500, 6_000]),
    ("openai", "gpt-4.1", [20_000, 5_000, 20_000, 80_000]),
    ("openai", "gpt-4.1-mini", [4_000, 1_000, 4_000, 16_000]),
    ("openai", "gpt-4.1-nano", [1_000, 250, 1_000, 4_000]),
    ("openai", "gpt-5", [12_500, 1_250, 12_500, 100_000]),
    ("openai", "gpt-5-mini", [2_500, 250, 2_500, 20_000]),
    ("openai", "gpt-5-nano", [500, 50, 500, 4_000]),
    ("openai", "text-embedding-3-small", [200, 200, 200, 0]),
    ("openai", "text-embedding-3-large", [1_300, 1_300, 1_300, 0]),
    ("anthropic", "claude-sonnet-4", [30_000, 3_000, 37_500, 150_000]),
    ("anthropic", "claude-sonnet-4-5", [30_000, 3_000, 37_500, 150_000]),
    ("anthropic", "claude-haiku-4-5", [10_000, 1_000, 12_500, 50_000]),
    ("anthropic", "claude-opus-4", [150_000, 15_000, 187_500, 750_000]),
    (
        "anthropic",
        "claude-opus-4-1",
        [150_000, 15_000, 187_500, 750_000],
    ),
    ("anthropic", "claude-opus-4-5", [50_000, 5_000, 62_500, 250_000]),
    ("anthropic", "claude-3-5-haiku", [8_000, 800, 10_000, 40_000]),
    ("gemini", "gemini-2.5-flash", [3_000, 750, 3_000, 25_000]),
    ("gemini", "gemini-2.5-flash-lite", [1_000, 250, 1_000, 4_000]),
    ("gemini", "gemini-2.0-flash", [1_000, 250, 1_000, 4_000]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_prices_are_in_dollars() {
        let table = PriceTable::list_prices_2025();
        let million = Usage::new(1_000_000, 1_000_000);
        assert_eq!(
            table
                .cost("openai", "gpt-4o-2024-08-06", Some(&million))
                .to_string(),
            "$12.50"
        );
        assert_eq!(
            table.cost("openai", "gpt-4o-mini", Some(&million)).to_string(),
            "$0.75"
        );
        assert_eq!(
            table
                .cost("anthropic", "claude-opus-4-5-20251101", Some(&million))
                .to_string(),
            "$30.00"
        );
        for unknown in [
            "gpt-4",
            "gpt-4o-audio",
            "gpt-4o-4",
            "gpt-4o-2024-beta",
            "gpt-4o-",
            "",
        ] {
            assert_eq!(
                table.cost("openai", unknown, Some(&million)),
                Cost::Unpriced,
                "{unknown}"
            );
        }
        assert_eq!(table.cost("ollama", "gpt-4o", Some(&million)), Cost::Unpriced);
    }

    #[test]
    fn cached_tokens_have_their_own_price_and_sums_round_up_once() {
        let price = Price {
            cached_input: Some(NanoUsd(1)),
            ..Price::per_million(NanoUsd(1), NanoUsd(1))
        };
        let usage = Usage {
            input_tokens: 3,
            cached_input_tokens: 1,
            output_tokens: 1,
            ..Usage::default()
        };
        assert_eq!(price.cost(&usage), NanoUsd(1));
        let huge = Usage::new(u64::MAX, u64::MAX);
        assert_eq!(
            Price::per_million(NanoUsd(u64::MAX), NanoUsd(u64::MAX)).cost(&huge),
            NanoUsd(u64::MAX)
        );
    }
}
