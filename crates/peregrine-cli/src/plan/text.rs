//! Where in the text of a plan its steps stand, so that what is wrong with one is told with its line.

use peregrine::executor::{PlanError, Problem, Step};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The text of a plan, with the places of its steps.
pub(super) struct PlanText<'t> {
    steps: Vec<Place<'t>>,
}

struct Place<'t> {
    text: &'t str,
    /// The line of the plan on which it begins, from 1.
    line: usize,
}

/// Something that is wrong with a plan.
#[derive(Debug, Serialize)]
pub(super) struct Wrong {
    pub(super) kind: &'static str,
    /// The step that it is about, if it has an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<String>,
    /// The line on which that step begins, or on which its text goes wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    pub(super) message: String,
    /// The steps that wait for each other, each for the next one and the last for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cycle: Option<Vec<String>>,
}

impl<'t> PlanText<'t> {
    /// Finds the steps. A text that is no plan has none.
    pub(super) fn new(text: &'t str) -> Self {
        #[derive(Deserialize)]
        struct Wrapped<'t> {
            #[serde(borrow)]
            steps: Vec<&'t RawValue>,
        }
        let list = match text.trim_start().starts_with('{') {
            true => serde_json::from_str::<Wrapped<'t>>(text).map(|wrapped| wrapped.steps),
            false => serde_json::from_str(text),
        };
        let (mut line, mut from) = (1, 0);
        let place = |step: &'t RawValue| {
            // A raw value is a piece of the text.
            let at = (step.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            let between = text.as_bytes().get(from..at).unwrap_or_default();
            line += between.iter().filter(|byte| **byte == b'\n').count();
            from = at;
            Place {
                text: step.get(),
                line,
            }
        };
        Self {
            steps: list.unwrap_or_default().into_iter().map(place).collect(),
        }
    }

    /// What is wrong, with its lines.
    pub(super) fn explain(&self, error: &PlanError) -> Vec<Wrong> {
        let problems = error.problems().iter();
        problems.map(|problem| self.explain_one(problem)).collect()
    }

    fn explain_one(&self, problem: &Problem) -> Wrong {
        let step = problem.step().map(str::to_owned);
        let place = problem.place().or_else(|| self.find(step.as_deref()?));
        let place = place.and_then(|place| self.steps.get(place));
        let mut message = problem.to_string();
        let mut line = place.map(|place| place.line);
        if let (Problem::Syntax { .. }, Some(place)) = (problem, place)
            && let Err(error) = serde_json::from_str::<Step>(place.text)
        {
            // Told from the start of the step; the lines of the file are of more use.
            line = Some(place.line + error.line().saturating_sub(1));
            if let Some(end) = message.rfind(" at line ") {
                message.truncate(end);
            }
        }
        Wrong {
            kind: problem.kind(),
            step,
            line,
            message,
            cycle: match problem {
                Problem::Cycle(steps) => Some(steps.clone()),
                _ => None,
            },
        }
    }

    fn find(&self, id: &str) -> Option<usize> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        self.steps.iter().position(|place| {
            // Looked at as text first: reading every step for every problem would take long in a large plan.
            place.text.contains(id)
                && serde_json::from_str::<Named>(place.text).is_ok_and(|named| named.id == id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine::executor::Plan;

    fn lines(text: &str) -> Vec<(Option<usize>, &'static str)> {
        let error = Plan::from_json(text).unwrap_err();
        let wrong = PlanText::new(text).explain(&error);
        wrong.iter().map(|wrong| (wrong.line, wrong.kind)).collect()
    }

    #[test]
    fn what_is_wrong_has_a_line() {
        let text =
            "{\"goal\": \"x\",\n\"steps\": [\n  {\"id\": \"a\",\n   \"action\": 7},\n  {\"id\": \"b\"}\n]}";
        assert_eq!(lines(text), [(Some(4), "syntax"), (Some(5), "syntax")]);
        let text = "[{\"id\": \"a\", \"action\": \"x\"},\n\n {\"id\": \"b\", \"action\": \"x\", \"depends_on\": [\"z\"]},\n \
                    {\"id\": \"a\", \"action\": \"x\"}]";
        assert_eq!(
            lines(text),
            [(Some(4), "duplicate_id"), (Some(3), "unknown_step")]
        );
        assert_eq!(lines("[1,"), [(None, "syntax")]);
    }
}
