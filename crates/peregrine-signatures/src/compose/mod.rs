//! Signatures in sequence and in parallel, wired by name and checked before anything runs.
//!
//! Invariant: a [`Composition`] that could be built has a value for every input of every stage, and every value that
//! can flow over a wire fits where it arrives.

mod join;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use peregrine_core::{ChatModel, Usage};

use crate::compiled::Compiled;
use crate::extract::Prediction;
use crate::inputs::Fields;
use crate::predict::Predict;
use crate::signature::{OutputReader, Outputs};
use crate::{Error, InputError, OutputError};
use wire::Port;

/// A signature or a composition at its place in a composition.
#[derive(Debug, Clone)]
pub struct Stage {
    name: String,
    work: Work,
    /// Input to where its value comes from.
    wires: Vec<(String, String)>,
    asked: Vec<String>,
    /// Output to the name it has outside.
    renamed: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Work {
    Predict(Box<Predict>),
    Composition(Composition),
}

impl Stage {
    /// A signature.
    pub fn new(signature: Arc<Compiled>) -> Self {
        Self::predict(Predict::new(signature))
    }

    /// A signature with settings.
    pub fn predict(predict: Predict) -> Self {
        let name = predict.signature().name().to_owned();
        Self::of(name, Work::Predict(Box::new(predict)))
    }

    /// A composition.
    pub fn composition(composition: Composition) -> Self {
        Self::of(composition.name.to_string(), Work::Composition(composition))
    }

    fn of(name: String, work: Work) -> Self {
        Self {
            name,
            work,
            wires: Vec::new(),
            asked: Vec::new(),
            renamed: Vec::new(),
        }
    }

    /// Names the stage, for errors and results.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Wires an input to the field of another name.
    #[must_use]
    pub fn with_input(mut self, input: impl Into<String>, from: impl Into<String>) -> Self {
        self.wires.push((input.into(), from.into()));
        self
    }

    /// Makes an input of a later stage an input of the whole sequence.
    #[must_use]
    pub fn with_asked(mut self, input: impl Into<String>) -> Self {
        self.asked.push(input.into());
        self
    }

    /// Gives an output another name outside of the stage.
    #[must_use]
    pub fn with_output(mut self, output: impl Into<String>, name: impl Into<String>) -> Self {
        self.renamed.push((output.into(), name.into()));
        self
    }

    fn outside<'a>(&'a self, output: &'a str) -> &'a str {
        self.renamed
            .iter()
            .find(|(inner, _)| inner == output)
            .map_or(output, |(_, outer)| outer)
    }

    fn source<'a>(&'a self, input: &'a str) -> &'a str {
        self.wires
            .iter()
            .find(|(inner, _)| inner == input)
            .map_or(input, |(_, outer)| outer)
    }
}

/// A checked composition, ready to be called with any model. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Composition {
    name: Arc<str>,
    inputs: Arc<[Port]>,
    outputs: Arc<[Port]>,
    stages: Arc<[Stage]>,
    is_parallel: bool,
}

/// What a composition gave.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Composed {
    /// The outputs.
    pub output: Fields,
    /// Every call, by the name of its stage, in the order of the stages.
    pub predictions: Vec<(String, Prediction)>,
    /// What all calls together used; `None` if no provider said.
    pub usage: Option<Usage>,
}

impl Composed {
    /// The outputs as the output type of a signature, such as that of the last stage.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if it has other fields or its types refuse a value.
    pub fn into_output<O: Outputs>(self) -> Result<O, Error> {
        let text = serde_json::Value::Object(self.output.clone()).to_string();
        O::read(OutputReader::new(self.output))
            .map_err(|problem| OutputError::new("composition", vec![problem], &text).into())
    }
}

impl Composition {
    /// Stages that run one after the other. An input of a later stage gets the output, or the input of the whole, that
    /// has its name or that it is wired to.
    ///
    /// The inputs of the first stage are inputs of the whole, as are those that later stages
    /// [ask](Stage::with_asked) for; the outputs of the last stage are the outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Definition`] with a [`WiringError`](crate::WiringError) that names the stage and the field.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_signatures::{Composition, Stage, parse};
    ///
    /// let translate = Stage::new(parse("text, language -> translation")?);
    /// let report = Composition::sequential("report", [
    ///     Stage::new(parse("article -> summary")?),
    ///     translate.with_input("text", "summary").with_asked("language"),
    /// ])?;
    /// let inputs: Vec<&str> = report.input_names().collect();
    /// assert_eq!(inputs, ["article", "language"]);
    ///
    /// let judge = Stage::new(parse("rank: int -> verdict")?).with_input("rank", "score");
    /// let error = Composition::sequential("report", [Stage::new(parse("article -> score: float")?), judge]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`score` does not fit input `rank` of `signature`: not every number is integer",
    /// );
    /// # Ok::<(), peregrine_signatures::Error>(())
    /// ```
    pub fn sequential(
        name: impl Into<String>,
        stages: impl IntoIterator<Item = Stage>,
    ) -> Result<Self, Error> {
        wire::sequential(name.into(), stages.into_iter().collect())
    }

    /// Stages that run at the same time, on the caller's task. Inputs of one name are one input of the whole; the outputs
    /// of all are the outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Definition`] with a [`WiringError`](crate::WiringError) if stages cannot share an input, or share an
    /// output.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_signatures::{Composition, Stage, parse};
    ///
    /// let review = Composition::parallel("review", [
    ///     Stage::new(parse("text -> tone: literal['kind', 'harsh']")?),
    ///     Stage::new(parse("text -> errors: list[str]")?),
    /// ])?;
    /// assert_eq!(review.input_names().collect::<Vec<_>>(), ["text"]);
    /// assert_eq!(review.output_names().collect::<Vec<_>>(), ["tone", "errors"]);
    /// # Ok::<(), peregrine_signatures::Error>(())
    /// ```
    pub fn parallel(name: impl Into<String>, stages: impl IntoIterator<Item = Stage>) -> Result<Self, Error> {
        wire::parallel(name.into(), stages.into_iter().collect())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of its inputs.
    pub fn input_names(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(Port::name)
    }

    /// The names of its outputs.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(Port::name)
    }

    /// Runs it. [`Compiled::fields`] makes the fields from a signature's input type.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first stage that fails; those that run beside it are cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the calls that are under way.
    pub async fn call(&self, model: &impl ChatModel, inputs: &Fields) -> Result<Composed, Error> {
        let error = |field: &str, problem: String| InputError {
            signature: self.name.to_string(),
            field: field.to_owned(),
            problem,
        };
        if let Some((name, _)) = inputs
            .iter()
            .find(|(name, _)| !self.input_names().any(|known| known == *name))
        {
            let known: Vec<&str> = self.input_names().collect();
            return Err(error(name, format!("there is no such input, only {}", known.join(", "))).into());
        }
        if let Some(missing) = self.input_names().find(|name| !inputs.contains_key(*name)) {
            return Err(error(missing, "it is missing".to_owned()).into());
        }
        self.run(model, inputs.clone()).await
    }

    /// Boxed, because compositions can hold compositions.
    fn run<'a, M: ChatModel>(
        &'a self,
        model: &'a M,
        inputs: Fields,
    ) -> Pin<Box<dyn Future<Output = Result<Composed, Error>> + Send + 'a>> {
        Box::pin(async move {
            let mut composed = Composed {
                output: Fields::new(),
                predictions: Vec::new(),
                usage: None,
            };
            if self.is_parallel {
                let stages = self
                    .stages
                    .iter()
                    .map(|stage| stage.run(model, &inputs))
                    .collect();
                for done in join::all(stages).await? {
                    composed.absorb(done);
                }
            } else {
                let mut known = inputs;
                for stage in self.stages.iter() {
                    let done = stage.run(model, &known).await?;
                    known.extend(done.output.clone());
                    composed.output.clear();
                    composed.absorb(done);
                }
            }
            Ok(composed)
        })
    }
}

impl Composed {
    fn absorb(&mut self, other: Self) {
        self.output.extend(other.output);
        self.predictions.extend(other.predictions);
        self.usage = match (self.usage, other.usage) {
            (Some(sum), Some(usage)) => Some(sum + usage),
            (sum, usage) => sum.or(usage),
        };
    }
}

impl Stage {
    /// Runs the work on the fields that are known, and gives its outputs under their outer names.
    fn run<'a, M: ChatModel>(
        &'a self,
        model: &'a M,
        known: &Fields,
    ) -> Pin<Box<dyn Future<Output = Result<Composed, Error>> + Send + 'a>> {
        let inputs: Fields = wire::inputs_of(&self.work)
            .filter_map(|input| Some((input.to_owned(), known.get(self.source(input))?.clone())))
            .collect();
        Box::pin(async move {
            let mut done = match &self.work {
                Work::Composition(composition) => composition.run(model, inputs).await?,
                Work::Predict(predict) => {
                    let prediction = predict.call(model, &inputs).await?;
                    Composed {
                        output: prediction.output.clone(),
                        usage: prediction.usage,
                        predictions: vec![(self.name.clone(), prediction)],
                    }
                }
            };
            let renamed = std::mem::take(&mut done.output).into_iter();
            done.output = renamed
                .map(|(name, value)| (self.outside(&name).to_owned(), value))
                .collect();
            Ok(done)
        })
    }
}
