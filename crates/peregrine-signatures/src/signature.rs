//! The trait behind `#[derive(Signature)]`, and outputs from checked fields.

use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::compiled::Compiled;
use crate::error::{Violation, ViolationKind, excerpt};
use crate::inputs::{Fields, Inputs};
use crate::shape::found;
use crate::spec::SignatureSpec;
use crate::{DefinitionError, Error};

/// A typed contract: what goes in, what comes out, and what the model is to do in between.
///
/// Derive it; see the [crate's page](crate).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a signature",
    note = "derive it: `#[derive(Signature)]` on a struct whose fields are marked `#[input]` or `#[output]`"
)]
pub trait Signature: 'static {
    /// The inputs of a call.
    type Input: Inputs + Send + Sync;
    /// The outputs of a call.
    type Output: Outputs + Send;

    /// The signature, compiled at the first use and kept for the life of the process.
    ///
    /// # Errors
    ///
    /// [`Error::Definition`] if its types or constraints do not work together; the same each time.
    fn compiled() -> Result<&'static Arc<Compiled>, Error>;
}

/// What can be made from the outputs of a signature.
///
/// Derived for the output type of a `#[derive(Signature)]`; implemented for [`Fields`].
pub trait Outputs: Sized {
    /// Takes the outputs, which fit the signature.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if a field's own type refuses its value.
    fn read(fields: OutputReader) -> Result<Self, Violation>;

    /// Whether these are fields, which know nothing of the types behind them.
    #[doc(hidden)]
    const IS_UNTYPED: bool = false;
}

impl Outputs for Fields {
    const IS_UNTYPED: bool = true;

    fn read(fields: OutputReader) -> Result<Self, Violation> {
        Ok(fields.0)
    }
}

/// Checked outputs, to be taken one by one. Used by implementations of [`Outputs`].
#[derive(Debug)]
pub struct OutputReader(Fields);

impl OutputReader {
    /// Outputs that were checked before.
    pub fn new(fields: Fields) -> Self {
        Self(fields)
    }

    /// Takes an output.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if it is not there, or if its type refuses the value.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Violation> {
        let Some(value) = self.0.get_mut(name).map(Value::take) else {
            let mut problem = Violation::new(ViolationKind::Missing, "a value", "nothing");
            problem.within_key(name);
            return Err(problem);
        };
        T::deserialize(&value).map_err(|_| refusal::<T>(name, &value))
    }
}

/// Why a type refuses a value, and which part of it.
#[cold]
fn refusal<T: DeserializeOwned>(name: &str, value: &Value) -> Violation {
    let Err(error) = serde_path_to_error::deserialize::<_, T>(value) else {
        return Violation::refused(name, "a value that its type takes", found(value));
    };
    let mut part = value;
    let mut places = Vec::new();
    for segment in error.path() {
        let below = match segment {
            Segment::Seq { index } => part.get(index),
            Segment::Map { key } | Segment::Enum { variant: key } => part.get(key),
            Segment::Unknown => None,
        };
        // What the path names beyond the value (a tag, an untagged variant) has no place in the answer.
        let Some(below) = below else { break };
        part = below;
        places.push(segment);
    }
    let why = excerpt(&error.inner().to_string(), MAX_REASON);
    let mut problem = Violation::refused("", format!("a value that its type takes ({why})"), found(part));
    for segment in places.into_iter().rev() {
        match segment {
            Segment::Seq { index } => problem.within_index(*index),
            Segment::Map { key } | Segment::Enum { variant: key } => problem.within_key(key),
            Segment::Unknown => {}
        }
    }
    problem.within_key(name);
    problem
}

/// How much of a type's own reason is told, in characters; it may repeat the value.
const MAX_REASON: usize = 300;

/// Whether the types of a derived signature's outputs take these, for callers that do not name the types.
pub(crate) type Judge = fn(Fields) -> Result<(), Violation>;

/// Where a derived signature keeps its compiled form.
#[doc(hidden)]
#[derive(Debug)]
pub struct Slot(OnceLock<Result<Arc<Compiled>, DefinitionError>>);

impl Slot {
    /// An empty place.
    #[doc(hidden)]
    #[allow(
        clippy::new_without_default,
        reason = "only derived code makes one, in a static"
    )]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What stands there, compiled now if nothing does.
    #[doc(hidden)]
    pub fn get<O: Outputs>(
        &'static self,
        spec: impl FnOnce() -> SignatureSpec,
    ) -> Result<&'static Arc<Compiled>, Error> {
        let judge: Judge = |fields| O::read(OutputReader::new(fields)).map(drop);
        match self.0.get_or_init(|| spec().compile_for(judge)) {
            Ok(compiled) => Ok(compiled),
            Err(error) => Err(error.clone().into()),
        }
    }
}
