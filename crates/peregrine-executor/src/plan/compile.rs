//! From a step as it was written to one whose references are bound: the part that whole plans and plans given step by
//! step share.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{MAX_DEPTH, MAX_STEPS, Problem, Problems};
use crate::reference::{Expression, Found, excerpt, is_id};
use crate::{Check, Step};

/// A step with its dependencies.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) id: Arc<str>,
    pub(crate) step: Step,
    pub(crate) parameters: Expression,
    /// The places of the steps it depends on, sorted, each once.
    pub(crate) dependencies: Vec<u32>,
    pub(crate) checks: Vec<Template>,
    /// Of the id, the action and the parameters; the same in every process and for every order of keys.
    pub(crate) fingerprint: u64,
}

/// A check with its dependencies.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) check: Check,
    pub(crate) parameters: Expression,
    /// The places of the steps it depends on besides its own, sorted, each once.
    pub(crate) dependencies: Vec<u32>,
    /// Of the action and the parameters.
    pub(crate) fingerprint: u64,
}

/// Knows the ids of a plan.
#[derive(Debug)]
pub(crate) struct Compiler {
    places: HashMap<String, u32>,
    next: u32,
}

impl Compiler {
    pub(crate) fn new() -> Self {
        let places = HashMap::new();
        Self { places, next: 0 }
    }

    pub(crate) fn find(&self, id: &str) -> Option<u32> {
        self.places.get(id).copied()
    }

    /// Takes in the id of the next step.
    pub(crate) fn add_id(&mut self, id: &str, problems: &mut Problems) {
        let place = self.next;
        self.next += 1;
        if place as usize >= MAX_STEPS {
            let (what, max) = ("steps", MAX_STEPS);
            return problems.push(|| Problem::TooLarge { what, max });
        }
        if !is_id(id) {
            return problems.push(|| Problem::InvalidId {
                place: place as usize,
                id: excerpt(id).to_owned(),
            });
        }
        if let Some(first) = self.places.insert(id.to_owned(), place) {
            problems.push(|| Problem::DuplicateId {
                id: id.to_owned(),
                first: first as usize,
                second: place as usize,
            });
            self.places.insert(id.to_owned(), first);
        }
    }

    /// Binds what the step at `place` refers to. With `only_before`, only to steps before it.
    pub(crate) fn compile(
        &self,
        place: usize,
        step: Step,
        only_before: bool,
        problems: &mut Problems,
    ) -> Compiled {
        let find = |id: &str| {
            self.find(id)
                .filter(|found| !only_before || (*found as usize) < place)
        };
        let unknown = |unknown: &str, place: String| Problem::UnknownStep {
            step: step.id.clone(),
            unknown: excerpt(unknown).to_owned(),
            place,
            only_before,
            suggestion: self.suggestion(unknown),
        };
        let read = |parameters: &Value,
                    find: &mut dyn FnMut(&str) -> Option<u32>,
                    what: &str,
                    problems: &mut Problems| {
            let mut wrong = Vec::new();
            let expression = Expression::read(parameters, MAX_DEPTH, find, &mut wrong);
            for found in wrong {
                problems.push(|| match found {
                    Found::Malformed(pointer, error) => Problem::MalformedReference {
                        step: step.id.clone(),
                        place: place_in(what, &pointer),
                        error,
                    },
                    Found::Unknown(pointer, reference) => unknown(&reference.step, place_in(what, &pointer)),
                    Found::TooDeep => Problem::TooDeep {
                        step: step.id.clone(),
                        max_depth: MAX_DEPTH,
                    },
                });
            }
            expression
        };

        let mut dependencies = Vec::new();
        for id in &step.depends_on {
            match find(id) {
                Some(found) => dependencies.push(found),
                None => problems.push(|| unknown(id, "`depends_on`".to_owned())),
            }
        }
        let parameters = read(&step.parameters, &mut |id| find(id), "its parameters", problems);
        parameters.references(&mut |bound| dependencies.push(bound.step));
        tidy(&mut dependencies);

        let own = u32::try_from(place).ok();
        let mut checks = Vec::with_capacity(step.checks.len());
        for check in &step.checks {
            // A check comes after its step, so it may refer to it.
            let mut find_own =
                |id: &str| find(id).or_else(|| self.find(id).filter(|found| Some(*found) == own));
            let what = "the parameters of a check";
            let parameters = read(&check.parameters, &mut find_own, what, problems);
            let mut dependencies = Vec::new();
            parameters.references(&mut |bound| dependencies.push(bound.step));
            tidy(&mut dependencies);
            dependencies.retain(|&place| Some(place) != own);
            checks.push(Template {
                fingerprint: fingerprint(&step.id, &check.action, &check.parameters),
                check: check.clone(),
                parameters,
                dependencies,
            });
        }
        Compiled {
            id: Arc::from(step.id.as_str()),
            fingerprint: fingerprint(&step.id, &step.action, &step.parameters),
            parameters,
            dependencies,
            checks,
            step,
        }
    }

    /// A step that may have been meant: written with its dollar sign, or in other letters.
    fn suggestion(&self, unknown: &str) -> Option<String> {
        let bare = unknown.trim_start_matches('$');
        let same = |id: &str| id.eq_ignore_ascii_case(bare);
        // A reference with a dash behind it reads as one longer name.
        let shorter = bare.rsplit_once('-').map(|(start, _)| start);
        let alike = self.places.keys().filter(|id| same(id)).min();
        alike.cloned().or_else(|| {
            shorter
                .filter(|id| self.places.contains_key(*id))
                .map(str::to_owned)
        })
    }
}

fn place_in(what: &str, pointer: &str) -> String {
    if pointer.is_empty() {
        what.to_owned()
    } else {
        format!("{what} at `{}`", excerpt(pointer))
    }
}

fn tidy(places: &mut Vec<u32>) {
    places.sort_unstable();
    places.dedup();
}

/// FNV-1a with 64 bits (draft-eastlake-fnv): enough to notice an edited plan, no defence against a forged one.
fn fingerprint(id: &str, action: &str, parameters: &Value) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.bytes(id.as_bytes());
    hash.bytes(action.as_bytes());
    hash.value(parameters, MAX_DEPTH + 1);
    hash.0
}

struct Fnv(u64);

impl Fnv {
    /// The bytes and an end that occurs in no UTF-8.
    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// With the keys of objects sorted. The recursion is bounded by `depth`; what nests deeper is refused elsewhere.
    fn value(&mut self, value: &Value, depth: usize) {
        let Some(below) = depth.checked_sub(1) else {
            return;
        };
        match value {
            Value::Null => self.bytes(b"n"),
            Value::Bool(true) => self.bytes(b"t"),
            Value::Bool(false) => self.bytes(b"f"),
            Value::Number(number) => self.bytes(number.to_string().as_bytes()),
            Value::String(text) => {
                self.bytes(b"s");
                self.bytes(text.as_bytes());
            }
            Value::Array(items) => {
                self.bytes(b"[");
                items.iter().for_each(|item| self.value(item, below));
                self.bytes(b"]");
            }
            Value::Object(fields) => {
                let mut sorted: Vec<_> = fields.iter().collect();
                sorted.sort_unstable_by_key(|(name, _)| *name);
                self.bytes(b"{");
                for (name, value) in sorted {
                    self.bytes(name.as_bytes());
                    self.value(value, below);
                }
                self.bytes(b"}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fingerprint_is_of_what_a_step_does() {
        let of = |parameters: Value| fingerprint("a", "x", &parameters);
        assert_eq!(of(json!({"a": 1, "b": [2]})), of(json!({"b": [2], "a": 1})));
        let mut all = vec![
            of(json!({})),
            of(json!([])),
            of(json!(["a", "b"])),
            of(json!(["ab"])),
            of(json!([["a"], "b"])),
            of(json!(1)),
            of(json!("1")),
            of(json!(null)),
            fingerprint("ax", "", &json!({})),
            fingerprint("a", "y", &json!({})),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
    }
}
