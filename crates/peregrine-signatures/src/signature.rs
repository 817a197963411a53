//! The trait behind `#[derive(Signature)]`, and outputs from checked fields.

use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::compiled::Compiled;
use crate::error::{Violation, ViolationKind};
use crate::inputs::{Fields, Inputs};
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
}

impl Outputs for Fields {
    fn read(fields: OutputReader) -> Result<Self, Violation> {
        Ok(fields.0)
    }
}

/// Checked outputs, to be taken one by one. Used by implementations of [`Outputs`].
#[derive(Debug)]
pub struct OutputReader(Fields);

impl OutputReader {
    pub(crate) fn new(fields: Fields) -> Self {
        Self(fields)
    }

    /// Takes an output.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if it is not there, or if its type refuses the value.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Violation> {
        let found = |value: &Value| crate::shape::found(value);
        let Some(value) = self.0.get_mut(name).map(Value::take) else {
            let mut problem = Violation::new(ViolationKind::Missing, "a value", "nothing");
            problem.within_key(name);
            return Err(problem);
        };
        // Kept for the message; excerpts are short, but lists and objects are not looked through twice.
        let shown = found(&value);
        T::deserialize(value).map_err(|error| Violation::refused(name, error.to_string(), shown))
    }
}

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
    pub fn get(&'static self, spec: impl FnOnce() -> SignatureSpec) -> Result<&'static Arc<Compiled>, Error> {
        match self.0.get_or_init(|| spec().compile()) {
            Ok(compiled) => Ok(compiled),
            Err(error) => Err(error.clone().into()),
        }
    }
}
