//! What is said of a plan: to planners, to whoever answers, and in the metadata of the answer.

use serde_json::{Map, Value, json};

use super::plan::Kept;
use super::{FailedStep, Flow, Triaged};

/// How much of a result a planner is shown; it can refer to the whole.
const SHOWN_BYTES: usize = 2_000;

impl Flow {
    /// What earlier plans found out, for a planner: by ids, to be referred to.
    pub(super) fn known(&self) -> String {
        let kept = self.kept.iter().map(|Kept { step, value }| {
            let text = text_of(value);
            let start = &text[..text.floor_char_boundary(SHOWN_BYTES)];
            let more = match text.len() - start.len() {
                0 => String::new(),
                left => format!(" .. ({left} bytes more; `${}` is the whole)", step.id),
            };
            format!("- `{}`, {} (done): {start}{more}", step.id, step.what())
        });
        let failed = self
            .failed
            .iter()
            .map(|FailedStep { what, problem }| format!("- {what} (failed): {problem}"));
        lines(kept.chain(failed))
    }

    /// What was found out, for whoever answers.
    pub(super) fn results(&self) -> String {
        let kept = self.kept.iter();
        let kept =
            kept.map(|Kept { step, value }| format!("- `{}`, {}: {}", step.id, step.what(), text_of(value)));
        let failed = self
            .failed
            .iter()
            .map(|FailedStep { what, problem }| format!("- {what} (failed): {problem}"));
        format!(
            "This came of the steps that were taken:\n{}\n\nNow do what was asked.",
            lines(kept.chain(failed))
        )
    }

    /// For the metadata of the answer.
    pub(super) fn facts(&self) -> Value {
        let mut facts = Map::new();
        facts.insert("plans".to_owned(), json!(self.plans));
        facts.insert("steps".to_owned(), json!(self.kept.len()));
        facts.insert("failed".to_owned(), json!(self.failed.len()));
        let triage = match self.triage {
            Triaged::Not => return Value::Object(facts),
            Triaged::NeedsPlan => "needs_plan",
            Triaged::NeedsNone => "needs_none",
            Triaged::Asked(_) | Triaged::Late => "late",
            Triaged::Failed => "failed",
        };
        facts.insert("triage".to_owned(), json!(triage));
        facts.insert(
            "model".to_owned(),
            json!(if self.fell_back { 0 } else { self.model }),
        );
        Value::Object(facts)
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    match lines.collect::<Vec<_>>() {
        none if none.is_empty() => "(nothing yet)".to_owned(),
        lines => lines.join("\n"),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
