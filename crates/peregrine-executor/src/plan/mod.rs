//! Plans: steps whose dependencies are known, checked and in order.

mod compile;
mod decoder;
mod order;
mod problem;
mod shape;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

pub(crate) use compile::{Compiled, Compiler};
pub use decoder::PlanDecoder;
pub use problem::{PlanError, Problem};
pub(crate) use problem::{Problems, known_names};
pub(crate) use shape::dangling;

use crate::{Reference, Step};

/// How many steps a plan may have.
pub const MAX_STEPS: usize = 1_000_000;
/// How deep parameters and results may nest, so that what is recorded of them can be read again (`serde_json` reads 128
/// levels, and a record has some of its own).
pub const MAX_DEPTH: usize = 100;

/// A plan: steps, and which of them wait for which.
///
/// What can be known without the actions has been checked: ids, references, dependencies, cycles. Cheap to clone; may be
/// run any number of times.
///
/// # Examples
///
/// ```
/// use peregrine_executor::Plan;
///
/// let plan = Plan::from_json(r#"[
///     {"id": "search", "action": "search", "parameters": {"query": "falcons"}},
///     {"id": "first", "action": "fetch", "parameters": {"url": "$search.hits[0].url"}},
///     {"id": "second", "action": "fetch", "parameters": {"url": "$search.hits[1].url"}},
///     {"id": "answer", "action": "write", "parameters": {"sources": ["$first", "$second"], "style": "about $$5"}}
/// ]"#)?;
/// assert_eq!(plan.dependencies("answer").collect::<Vec<_>>(), ["first", "second"]);
///
/// let error = Plan::from_json(r#"[
///     {"id": "a", "action": "x", "depends_on": ["b"]},
///     {"id": "b", "action": "x", "parameters": "$a.text and $c"}
/// ]"#).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the plan cannot run: step `b` depends on `c` in its parameters, and no step is called that; \
///      these steps wait for each other: a -> b -> a"
/// );
/// # Ok::<(), peregrine_executor::PlanError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    steps: Vec<Arc<Compiled>>,
    /// The places of the steps, each behind all that it waits for, otherwise in the order of the plan.
    order: Vec<u32>,
    compiler: Compiler,
}

impl Plan {
    /// Checks steps and puts them in order.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the steps, at most 64 problems of it: ids that are no ids or given twice,
    /// references that are malformed or lead nowhere, steps that wait for each other, parameters that nest more than
    /// [`MAX_DEPTH`] deep, more than [`MAX_STEPS`] steps.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Result<Self, PlanError> {
        let steps: Vec<Step> = steps.into_iter().take(MAX_STEPS + 1).collect();
        if steps.len() > MAX_STEPS {
            let (what, max) = ("steps", MAX_STEPS);
            return Err(PlanError::one(Problem::TooLarge { what, max }));
        }
        let mut problems = Problems::default();
        let mut compiler = Compiler::new();
        for step in &steps {
            compiler.add_id(&step.id, &mut problems);
        }
        let compiled = steps.into_iter().enumerate();
        let steps: Vec<Arc<Compiled>> = compiled
            .map(|(place, step)| Arc::new(compiler.compile(place, step, false, &mut problems)))
            .collect();
        let order = match order::topological(&steps) {
            Ok(order) => order,
            Err(cycle) => {
                let names = cycle
                    .into_iter()
                    .map(|place| steps[place as usize].id.to_string());
                problems.push(|| Problem::Cycle(names.collect()));
                Vec::new()
            }
        };
        problems.into_result()?;
        let inner = Arc::new(Inner {
            steps,
            order,
            compiler,
        });
        Ok(Self { inner })
    }

    /// Reads a plan: a JSON list of steps, or an object with the list as `steps`. Texts beside `steps`, such as a goal,
    /// are for people and not kept.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, naming the step; else as [`new`](Self::new).
    pub fn from_json(json: &str) -> Result<Self, PlanError> {
        let syntax = |step: Option<String>, error: &serde_json::Error| Problem::Syntax {
            step,
            message: error.to_string(),
        };
        let list: Vec<&RawValue> = if json.trim_start().starts_with('{') {
            serde_json::from_str(json).map(|Wrapper { steps }| steps)
        } else {
            serde_json::from_str(json)
        }
        .map_err(|error| PlanError::one(syntax(None, &error)))?;
        let mut problems = Problems::default();
        let mut steps = Vec::with_capacity(list.len());
        for (place, text) in list.into_iter().enumerate() {
            match serde_json::from_str(text.get()) {
                Ok(step) => steps.push(step),
                Err(error) => problems.push(|| syntax(Some(decoder::name_of(place, text.get())), &error)),
            }
        }
        problems.into_result()?;
        Self::new(steps)
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.inner.steps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.steps.is_empty()
    }

    /// The steps, in the order in which they were given.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.inner.steps.iter().map(|compiled| &compiled.step)
    }

    /// The ids of the steps in an order in which one after the other could run: each behind all that it waits for,
    /// otherwise as given.
    pub fn order(&self) -> impl Iterator<Item = &str> {
        let Inner { steps, order, .. } = &*self.inner;
        order.iter().map(|&place| &*steps[place as usize].id)
    }

    /// The ids of the steps that a step depends on, explicitly or by reference, each once, in the order of the plan.
    /// Nothing for an id that there is not.
    pub fn dependencies(&self, id: &str) -> impl Iterator<Item = &str> {
        let Inner { steps, compiler, .. } = &*self.inner;
        let found = compiler.find(id).map(|place| &steps[place as usize]);
        let places = found.map_or(&[][..], |compiled| &compiled.dependencies[..]);
        places.iter().map(|&place| &*steps[place as usize].id)
    }

    /// The references in the parameters of a step, in the order in which they stand. Nothing for an id that there is not.
    pub fn references(&self, id: &str) -> impl Iterator<Item = &Reference> {
        let Inner { steps, compiler, .. } = &*self.inner;
        let mut references = Vec::new();
        if let Some(place) = compiler.find(id) {
            let parameters = &steps[place as usize].parameters;
            parameters.references(&mut |bound| references.push(&bound.reference));
        }
        references.into_iter()
    }

    pub(crate) fn compiled(&self) -> &[Arc<Compiled>] {
        &self.inner.steps
    }

    pub(crate) fn places(&self) -> &[u32] {
        &self.inner.order
    }
}

/// An object around the list.
struct Wrapper<'a> {
    steps: Vec<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Wrapper<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Wrapper<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object with a list of `steps`, and texts beside it")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Wrapper<'de>, A::Error> {
                use serde::de::Error as _;
                let mut steps = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "steps" {
                        if steps.replace(map.next_value()?).is_some() {
                            return Err(A::Error::duplicate_field("steps"));
                        }
                    } else {
                        let note: &RawValue = map.next_value()?;
                        if !note.get().starts_with('"') {
                            return Err(A::Error::custom(format!(
                                "`{key}` is not known: beside `steps` there may be texts for people only"
                            )));
                        }
                    }
                }
                let steps = steps.ok_or_else(|| A::Error::missing_field("steps"))?;
                Ok(Wrapper { steps })
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
