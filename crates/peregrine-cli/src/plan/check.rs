//! `peregrine plan check`: everything that is wrong with a plan, or what waits for what.

use std::collections::BTreeMap;
use std::process::ExitCode;

use peregrine::executor::{Executor, Plan, PlanError, VirtualTimer, builtin};
use serde_json::{Value, json};

use super::read;
use super::text::{PlanText, Wrong};
use crate::args::PlanCheckArgs;
use crate::failure::{FOUND, Failure};
use crate::interrupt::Interrupts;
use crate::json::failed;
use crate::output::Console;

/// Checks a plan and shows what was found.
///
/// # Errors
///
/// [`Failure`] if the plan cannot be read. That it is wrong is what this command is there to show.
pub(crate) async fn check(args: &PlanCheckArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let interrupts = Interrupts::new()?;
    let text = match read(&args.file, &interrupts).await {
        Ok(text) => text,
        Err(failure) => {
            if args.json {
                console.line(&failed(&failure))?;
            }
            return Err(failure);
        }
    };
    let checked = Plan::from_json(&text).and_then(|plan| {
        if !args.any_action {
            Executor::new(builtin::actions(), VirtualTimer::new()).check(&plan)?;
        }
        Ok(plan)
    });
    match checked {
        Ok(plan) => {
            let shown = Shown::of(&plan);
            match args.json {
                true => console.line(&shown.to_json().to_string())?,
                false => console.answer(&shown.to_text())?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let wrong = PlanText::new(&text).explain(&error);
            match args.json {
                true => console.line(&to_json(&wrong, &error).to_string())?,
                false => console.answer(&to_text(&wrong, &error))?,
            }
            Ok(ExitCode::from(FOUND))
        }
    }
}

/// What is wrong, a line each.
pub(super) fn to_text(wrong: &[Wrong], error: &PlanError) -> String {
    let mut text = String::new();
    for Wrong { line, message, .. } in wrong {
        match line {
            Some(line) => text.push_str(&format!("line {line}: {message}\n")),
            None => text.push_str(&format!("{message}\n")),
        }
    }
    match error.more() {
        0 => {}
        more => text.push_str(&format!("and {more} more\n")),
    }
    text
}

fn to_json(wrong: &[Wrong], error: &PlanError) -> Value {
    json!({"ok": false, "problems": wrong, "more": error.more()})
}

/// A plan that can run: what waits for what.
struct Shown<'p> {
    plan: &'p Plan,
    references: usize,
    /// How many steps the longest chain has of steps that wait for each other.
    longest_chain: usize,
}

impl<'p> Shown<'p> {
    fn of(plan: &'p Plan) -> Self {
        let mut chains: BTreeMap<&str, usize> = BTreeMap::new();
        for id in plan.order() {
            let before = plan
                .dependencies(id)
                .filter_map(|needed| chains.get(needed))
                .max();
            let chain = before.map_or(1, |before| before + 1);
            chains.insert(id, chain);
        }
        Self {
            references: plan.steps().map(|step| plan.references(&step.id).count()).sum(),
            longest_chain: chains.values().copied().max().unwrap_or_default(),
            plan,
        }
    }

    /// A step a line: its id, its action, what its parameters refer to, and what it waits for besides.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for step in self.plan.steps() {
            text.push_str(&format!("{}: {}", step.id, step.action));
            let references: Vec<String> = self.plan.references(&step.id).map(ToString::to_string).collect();
            if !references.is_empty() {
                text.push_str(&format!(" of {}", references.join(", ")));
            }
            if !step.depends_on.is_empty() {
                text.push_str(&format!(" after {}", step.depends_on.join(", ")));
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "the plan can run: {} steps, {} references, the longest chain has {} steps\n",
            self.plan.len(),
            self.references,
            self.longest_chain
        ));
        text
    }

    fn to_json(&self) -> Value {
        let steps = self.plan.steps().map(|step| {
            let references = self.plan.references(&step.id).map(ToString::to_string);
            json!({
                "id": step.id,
                "action": step.action,
                "waits_for": self.plan.dependencies(&step.id).collect::<Vec<_>>(),
                "references": references.collect::<Vec<_>>(),
            })
        });
        json!({
            "ok": true,
            "steps": steps.collect::<Vec<_>>(),
            "order": self.plan.order().collect::<Vec<_>>(),
            "references": self.references,
            "longest_chain": self.longest_chain,
        })
    }
}
