//! Calls of a signature to a model: whole, or field by field.

use std::marker::PhantomData;
use std::sync::Arc;

use peregrine_core::{ChatModel, ChatRequest};

use crate::compiled::Compiled;
use crate::contract::Contract;
use crate::extract::{DEFAULT_REPAIRS, Extraction, Prediction, Step};
use crate::inputs::{Fields, Inputs};
use crate::parse::Reading;
use crate::plan::Plan;
use crate::predict_stream::PredictStream;
use crate::signature::{Outputs, Signature};
use crate::{Error, InputError};

/// Calls a signature once, with at most two repairs. [`Predict`] has the settings.
///
/// # Errors
///
/// [`Error`]: the definition, the input, the call, or an answer that does not fit.
///
/// # Cancel safety
///
/// Dropping the future cancels the call that is under way.
pub async fn predict<S: Signature>(
    model: &impl ChatModel,
    inputs: &S::Input,
) -> Result<Prediction<S::Output>, Error> {
    Predict::<S::Input, S::Output>::of::<S>()?
        .call(model, inputs)
        .await
}

/// A signature with settings, ready to be called with any model. Cheap to clone.
///
/// # Examples
///
/// A run-time signature, called with a model that knows one answer:
///
/// ```
/// use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
/// use peregrine_signatures::{Fields, Predict, parse};
///
/// struct Oracle(ModelInfo);
///
/// impl ChatModel for Oracle {
///     fn info(&self) -> &ModelInfo {
///         &self.0
///     }
///     async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
///         Ok(ChatResponse::text(r#"{"answer": "forty-two"}"#))
///     }
/// }
///
/// # futures_util::FutureExt::now_or_never(async {
/// let oracle = Oracle(ModelInfo::new("example", "oracle"));
/// let inputs = Fields::from_iter([("question".to_owned(), "what is the answer?".into())]);
/// let prediction = Predict::new(parse("question -> answer")?).with_max_repairs(0).call(&oracle, &inputs).await?;
/// assert_eq!(prediction.output["answer"], "forty-two");
/// # Ok::<(), peregrine_signatures::Error>(())
/// # }).unwrap().unwrap();
/// ```
#[derive(Debug)]
pub struct Predict<I = Fields, O = Fields> {
    signature: Arc<Compiled>,
    plan: Option<Plan>,
    reading: Reading,
    max_repairs: u32,
    early_abort: bool,
    settings: ChatRequest,
    types: PhantomData<fn(&I) -> O>,
}

impl<I, O> Clone for Predict<I, O> {
    fn clone(&self) -> Self {
        Self {
            signature: self.signature.clone(),
            plan: self.plan,
            reading: self.reading,
            max_repairs: self.max_repairs,
            early_abort: self.early_abort,
            settings: self.settings.clone(),
            types: PhantomData,
        }
    }
}

impl Predict {
    /// Calls of a run-time signature.
    pub fn new(signature: Arc<Compiled>) -> Self {
        Self::typed(signature)
    }
}

impl<I, O> Predict<I, O> {
    /// Calls of a derived signature.
    ///
    /// # Errors
    ///
    /// [`Error::Definition`] if the signature cannot be compiled.
    pub fn of<S: Signature<Input = I, Output = O>>() -> Result<Self, Error> {
        Ok(Self::typed(S::compiled()?.clone()))
    }

    fn typed(signature: Arc<Compiled>) -> Self {
        Self {
            signature,
            plan: None,
            reading: Reading::default(),
            max_repairs: DEFAULT_REPAIRS,
            early_abort: true,
            settings: ChatRequest::default(),
            types: PhantomData,
        }
    }

    /// Brings models to answer in this way, whatever they can do.
    #[must_use]
    pub fn with_plan(mut self, plan: Plan) -> Self {
        self.plan = Some(plan);
        self
    }

    /// Bounds how often the model is asked again; 2 unless said otherwise.
    #[must_use]
    pub fn with_max_repairs(mut self, max_repairs: u32) -> Self {
        self.max_repairs = max_repairs;
        self
    }

    /// Says how answers are read.
    #[must_use]
    pub fn with_reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Whether a streamed answer is ended at its first misfit, which saves its rest; so it is unless said otherwise.
    /// Else it is read to its end, and as tolerantly as a whole answer.
    #[must_use]
    pub fn with_early_abort(mut self, early_abort: bool) -> Self {
        self.early_abort = early_abort;
        self
    }

    /// Takes everything but the form of the answer from a request: sampling, reasoning, scope, metadata. Its messages
    /// come before the inputs; the instruction stands behind those of the system. It must not offer tools: nobody runs
    /// them here.
    #[must_use]
    pub fn with_settings(mut self, settings: ChatRequest) -> Self {
        self.settings = settings;
        self
    }

    /// The signature.
    pub fn signature(&self) -> &Arc<Compiled> {
        &self.signature
    }
}

impl<I: Inputs, O: Outputs> Predict<I, O> {
    /// Asks the model, checks its answer, and asks again where it does not fit.
    ///
    /// # Errors
    ///
    /// [`Error`]: the input, the call, or an answer that does not fit after all repairs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call that is under way.
    pub async fn call(&self, model: &impl ChatModel, inputs: &I) -> Result<Prediction<O>, Error> {
        let mut extraction = self.extraction(model, inputs)?;
        loop {
            let response = model.complete(extraction.request()).await?;
            let step = extraction.answered(response)?;
            if let Some(prediction) = advance(&mut extraction, step)? {
                return Ok(prediction);
            }
        }
    }

    /// Asks the model and tells its answer field by field.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if the inputs do not fit. Everything else comes with the stream.
    pub fn stream<'m, M: ChatModel>(
        &self,
        model: &'m M,
        inputs: &I,
    ) -> Result<PredictStream<'m, M, O>, Error> {
        let extraction = self.extraction(model, inputs)?;
        Ok(PredictStream::new(model, extraction, self.early_abort))
    }

    fn extraction(&self, model: &impl ChatModel, inputs: &I) -> Result<Extraction<O>, Error> {
        let signature = &self.signature;
        if !self.settings.tools.is_empty() {
            return Err(InputError {
                signature: signature.name().to_owned(),
                field: "tools".to_owned(),
                problem: "the settings offer tools, which a prediction does not run; use an agent".to_owned(),
            }
            .into());
        }
        let plan = self
            .plan
            .unwrap_or_else(|| Plan::choose(model.info().capabilities(), false));
        let contract = Contract::new(signature.clone(), plan).with_reading(self.reading);
        let request = contract.ask(self.settings.clone(), inputs)?;
        Ok(Extraction::new(contract, request).with_max_repairs(self.max_repairs))
    }
}

/// The prediction, if the step was the last. Else the model is to be asked again.
pub(crate) fn advance<O: Outputs>(
    extraction: &mut Extraction<O>,
    step: Step<O>,
) -> Result<Option<Prediction<O>>, Error> {
    match step {
        Step::Ask => Ok(None),
        // No tools were offered, so the model made one up.
        Step::Tools => extraction.no_such_tools().map(|()| None),
        Step::Done(prediction) => Ok(Some(*prediction)),
    }
}
