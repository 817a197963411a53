//! `ckpt resume` and `ckpt replay`: what goes on, and what went on.

use peregrine_agent::Agent;
use peregrine_agent::durable::{Entry, Resolution, StoredRun};
use peregrine_agent::run::CallId;
use peregrine_checkpoints::{
    Checkpoints, Draft, Durability, Error as JournalError, History, MemoryStore, Options, Part, RunKey, Span,
};
use peregrine_core::ChatModel as _;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Replay, Resume, open, print, record};
use crate::failure::Failure;
use crate::output::Output;
use crate::script::ScriptModel;

/// An agent that only looks at runs.
fn looking(checkpoints: &Checkpoints) -> Agent {
    Agent::new(ScriptModel::silent().into_handle()).with_checkpoints(checkpoints.clone())
}

pub(super) async fn resume(arguments: &Resume, output: &mut Output) -> Result<(), Failure> {
    let Resume {
        at,
        resolve,
        not_carried_out,
        take_over,
    } = arguments;
    let (checkpoints, key) = open(at, Durability::ProcessSafe).await?;
    let agent = looking(&checkpoints);
    if !resolve.is_empty() || !not_carried_out.is_empty() {
        let mut stored = agent.load(&key).await?;
        if *take_over {
            stored = stored.with_take_over();
        }
        for (call, result) in resolve {
            stored.resolve(CallId(*call), result.clone()).await?;
        }
        for call in not_carried_out {
            stored.resolve(CallId(*call), Resolution::NotCarriedOut).await?;
        }
    }
    let resumed = match take_over {
        true => checkpoints.take_over(&key).await,
        false => checkpoints.resume(&key).await,
    };
    let (journal, history) = resumed.map_err(peregrine_core::Error::from)?;
    output.line(&json!({"opened": {
        "run": key.run,
        "next": journal.next_seq(),
        "token": journal.lease().map(|lease| lease.token),
        "tail": history.tail,
    }}))?;
    journal.finish().await.map_err(peregrine_core::Error::from)?;
    // What is no run of an agent has none.
    let stored = agent.load(&key).await.ok();
    output.line(&json!({"agent": stored.as_ref().map(told)}))?;
    Ok(print(&key, &history, output)?)
}

/// How far an agent's run has come.
pub(crate) fn told(stored: &StoredRun) -> Value {
    let doubts = stored.in_doubt().into_iter().map(|doubt| {
        json!({
            "call": doubt.call,
            "call_id": doubt.tool_call.id,
            "name": doubt.tool_call.name,
            "arguments": crate::output::arguments_of(&doubt.tool_call.arguments),
            "key": doubt.key,
        })
    });
    json!({
        "status": stored.status().as_str(),
        "steps": stored.run().counts().steps,
        "in_doubt": doubts.collect::<Vec<_>>(),
    })
}

pub(super) async fn replay(arguments: &Replay, output: &mut Output) -> Result<(), Failure> {
    let (checkpoints, key) = open(&arguments.at, Durability::ProcessSafe).await?;
    let span = arguments.upto.map_or(Span::ALL, |upto| Span::ALL.upto(upto));
    let load = async || {
        let history = checkpoints.load(&key, span).await?;
        let entries: Result<Vec<Entry>, JournalError> = history.records.iter().map(Entry::read).collect();
        Ok::<_, JournalError>((history, entries?))
    };
    let (history, entries) = load().await.map_err(peregrine_core::Error::from)?;
    for (found, entry) in history.records.iter().zip(&entries) {
        let mut line = record(found);
        line["what"] = entry.what.name().into();
        output.line(&line)?;
    }
    let replayed = match arguments.upto {
        None => looking(&checkpoints).replay(&key).await?,
        Some(_) => {
            let copy = copy(&checkpoints, &key, &history).await;
            looking(&copy.map_err(peregrine_core::Error::from)?)
                .replay(&key)
                .await?
        }
    };
    let mut done = json!({
        "run": key.run,
        "records": replayed.records,
        "calls": replayed.calls,
        "over": replayed.outcome.is_some(),
    });
    match &replayed.outcome {
        Some(Ok(finished)) => {
            done["text"] = finished.text().into();
            done["finish"] = json!(finished.response.finish);
            done["report"] = crate::agent::report(&finished.report);
        }
        Some(Err(error)) => {
            done["failed"] = json!({"code": error.error().code(), "message": error.error().to_string()});
            done["report"] = crate::agent::report(error.report());
        }
        None => {}
    }
    Ok(output.line(&json!({ "done": done }))?)
}

/// The first records of a run alone, in memory.
async fn copy(
    checkpoints: &Checkpoints,
    key: &RunKey,
    history: &History,
) -> Result<Checkpoints, JournalError> {
    let copy = Checkpoints::new(Arc::new(MemoryStore::new()), Options::default());
    let mut journal = copy.create(key).await?;
    for found in &history.records {
        let mut draft = Draft::raw(found.kind, found.schema, found.payload.clone()).with_time(found.at);
        for part in &found.parts {
            draft = draft.with_part(match part {
                Part::Inline(bytes) => bytes.clone(),
                Part::Stored(part) => checkpoints.part(key, *part).await?,
                _ => return Err(JournalError::config("a part of a kind that is newer than this")),
            });
        }
        journal.append_draft(&draft).await?;
    }
    journal.finish().await?;
    Ok(copy)
}
