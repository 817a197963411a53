//! The command line of `peregrine cache` and of `ask --cache`, as data.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use peregrine::cache::Ttl;
use peregrine::core::{Scope, Secret};

use crate::args::not_blank;
use crate::runs::args::{age, scope, secret};

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what is kept, and what it saved
    Stats(StatsArgs),
    /// Remove answers: those with a tag, of a model, of a scope, or all
    Clear(ClearArgs),
}

/// Where answers are kept.
///
/// Without an option the variables decide: PEREGRINE_CACHE_URL, then PEREGRINE_CACHE_DIR.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where answers are kept")]
pub(crate) struct PlaceArgs {
    /// Keep answers in a directory [default: $PEREGRINE_CACHE_DIR, else peregrine/answers in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath, conflicts_with = "cache_url")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep answers in Redis: redis://.. [default: $PEREGRINE_CACHE_URL, which hides a password]
    // It is looked at later: here an error would print it.
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub(crate) cache_url: Option<Secret>,
    /// With what the keys in Redis begin
    #[arg(long, value_name = "PREFIX", default_value = DEFAULT_PREFIX, value_parser = not_blank)]
    pub(crate) cache_prefix: String,
}

/// The library's.
pub(crate) const DEFAULT_PREFIX: &str = "peregrine:cache:";

/// Whether an answer may come from a cache.
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheArgs {
    /// Take what the model answered before, if it is not older than TTL, and keep what it answers now: 90s, 15m, 12h, 30d, never
    #[arg(long, value_name = "TTL", num_args = 0..=1, require_equals = true, default_missing_value = "1h")]
    #[arg(value_parser = ttl, conflicts_with = "replay")]
    pub(crate) cache: Option<Ttl>,
    /// A word by which `cache clear --tag` finds what is kept now; may be given more than once
    #[arg(long, value_name = "TAG", requires = "cache", value_parser = not_blank)]
    pub(crate) cache_tag: Vec<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    /// Answers with this tag
    #[arg(long, value_name = "TAG", value_parser = not_blank, conflicts_with_all = ["model", "scope"])]
    pub(crate) tag: Option<String>,
    /// Answers of this model
    #[arg(long, short, value_name = "PROVIDER/MODEL", value_parser = model, conflicts_with = "scope")]
    pub(crate) model: Option<(String, String)>,
    /// Answers of this tenant, or of one session
    #[arg(long, value_name = "TENANT[/SESSION]", value_parser = scope)]
    pub(crate) scope: Option<Scope>,
    /// Only say how many
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask before all answers are removed
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

fn ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "never" => Ok(Ttl::Never),
        text => match age(text) {
            Ok(age) if age.is_zero() => Err("it is over at once; leave out --cache".to_owned()),
            Ok(age) => Ok(Ttl::After(age)),
            Err(error) => Err(error + ", or never"),
        },
    }
}

fn model(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
            Ok((provider.to_owned(), model.to_owned()))
        }
        _ => Err("a provider and a model are expected, such as openai/gpt-5-mini".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_begin_as_in_the_library() {
        let usual = peregrine::cache::RedisConfig::new("redis://localhost");
        assert_eq!(usual.prefix, DEFAULT_PREFIX);
    }

    #[test]
    fn times_and_models_are_read_or_refused() {
        assert_eq!(ttl("never"), Ok(Ttl::Never));
        assert_eq!(ttl("2h"), Ok(Ttl::After(Duration::from_secs(7_200))));
        for bad in ["", "2", "0s", "Never", "-1h"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
        let name = ("openrouter".to_owned(), "meta/llama-3".to_owned());
        assert_eq!(model("openrouter/meta/llama-3"), Ok(name));
        for bad in ["", "gpt", "/gpt", "openai/"] {
            assert!(model(bad).is_err(), "{bad}");
        }
    }
}
