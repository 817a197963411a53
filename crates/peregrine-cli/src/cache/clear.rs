//! `cache clear`: answers are removed, by what they have in common or all of them.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use peregrine::cache::{Selector, Tag};
use serde_json::json;

use super::args::ClearArgs;
use super::place::Place;
use crate::failure::Failure;
use crate::output::{Console, Verbosity};
use crate::runs::args::scope_name;
use crate::runs::text;

/// Removes answers.
///
/// # Errors
///
/// [`Failure`]; some of the answers may be gone.
pub(crate) async fn clear(args: &ClearArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let place = Place::of(&args.place)?;
    let (selector, what) = selected(args);
    let count = match place.find()? {
        None => 0,
        Some(answers) if args.dry_run => answers.count(&selector).await?,
        Some(_) if selector == Selector::All && !may_remove_all(args, &place, console)? => {
            console.note(Verbosity::Normal, "nothing was removed");
            return Ok(ExitCode::SUCCESS);
        }
        Some(answers) => {
            console.working("removing");
            answers.tier().remove(&selector).await?
        }
    };
    if args.json {
        let value = json!({"dry_run": args.dry_run, "removed": count, "store": place.to_string()});
        console.line(&value.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would be" } else { "were" };
    let note = format!(
        "{}{what} {verb} removed from {place}",
        text::counted(count, "answer")
    );
    console.note(Verbosity::Normal, &note);
    Ok(ExitCode::SUCCESS)
}

/// Which answers, and how they are called.
fn selected(args: &ClearArgs) -> (Selector, String) {
    if let Some(tag) = &args.tag {
        return (Selector::Tag(Tag::label(tag)), format!(" with the tag {tag}"));
    }
    if let Some((provider, model)) = &args.model {
        return (
            Selector::Tag(Tag::model(provider, model)),
            format!(" of {provider}/{model}"),
        );
    }
    if let Some(scope) = &args.scope {
        return (
            Selector::Tag(Tag::scope(&scope.key())),
            format!(" of {}", scope_name(scope)),
        );
    }
    (Selector::All, String::new())
}

/// Asks a person, if there is one.
fn may_remove_all(args: &ClearArgs, place: &Place, console: &mut Console) -> Result<bool, Failure> {
    if args.yes || !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    console
        .confirms(&format!("remove all answers from {place}?"))
        .map_err(|error| Failure::io(&error))
}
