//! `cache stats`: what is kept, and what it saved.

use std::process::ExitCode;

use peregrine::NanoUsd;
use peregrine::cache::{Survey, Totals};
use peregrine::core::UnixTime;
use serde_json::{Value, json};

use super::args::StatsArgs;
use super::place::Place;
use crate::failure::Failure;
use crate::output::Console;
use crate::runs::text;

/// Shows what is kept, and what it saved.
///
/// # Errors
///
/// [`Failure`], with what the store says.
pub(crate) async fn stats(args: &StatsArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let place = Place::of(&args.place)?;
    let (survey, totals) = match place.find()? {
        Some(answers) => (Some(answers.survey().await?), answers.totals().await?),
        None => (None, Totals::default()),
    };
    if args.json {
        let value = to_json(&place, survey.as_ref(), &totals);
        console.line(&value.to_string())?;
    } else {
        console.answer(&to_text(&place, survey.as_ref(), &totals))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(place: &Place, survey: Option<&Survey>, totals: &Totals) -> Value {
    let none = Survey::default();
    let bytes = match survey {
        Some(survey) => survey.bytes,
        None => Some(0),
    };
    let survey = survey.unwrap_or(&none);
    json!({
        "store": place.to_string(),
        "entries": survey.entries,
        "expired": survey.expired,
        "bytes": bytes,
        "oldest_ms": survey.oldest,
        "newest_ms": survey.newest,
        "totals": {
            "since_ms": totals.since,
            "hits": totals.hits,
            "stale": totals.stale,
            "coalesced": totals.coalesced,
            "similar": totals.similar,
            "misses": totals.misses,
            "bypassed": totals.bypassed,
            "stored": totals.stored,
            "removed": totals.removed,
            "hit_rate": totals.hit_rate(),
            "bytes_served": totals.bytes_served,
            "tokens_saved": totals.tokens_saved,
            "nano_usd_saved": totals.nano_usd_saved,
            "unpriced": totals.unpriced,
        },
    })
}

fn to_text(place: &Place, survey: Option<&Survey>, totals: &Totals) -> String {
    let Some(survey) = survey else {
        return format!("no answers are kept in {place}\n");
    };
    let mut lines = text::counted(survey.entries, "answer");
    if let Some(bytes) = survey.bytes {
        lines += &format!(", {}", text::size(bytes));
    }
    lines += &format!(", in {place}\n");
    if let (Some(oldest), Some(newest)) = (survey.oldest, survey.newest) {
        let (oldest, newest) = (text::time(UnixTime(oldest)), text::time(UnixTime(newest)));
        lines += &format!("from {oldest} to {newest}\n");
    }
    if let Some(since) = totals.since {
        let free = totals.hits + totals.stale + totals.coalesced + totals.similar;
        let asked = text::counted(free + totals.misses, "call");
        let part = totals.hit_rate() * 100.0;
        let since = text::time(UnixTime(since));
        lines += &format!("{free} of {asked} answered from it since {since} ({part:.1} %)\n");
        let tokens = text::counted(totals.tokens_saved, "token");
        let money = NanoUsd(totals.nano_usd_saved);
        lines += &match totals.unpriced {
            0 => format!("saved: {tokens}, {money}\n"),
            unpriced => format!(
                "saved: {tokens}, {money}, and what {} of unknown price would have cost\n",
                text::counted(unpriced, "answer")
            ),
        };
    }
    lines
}
