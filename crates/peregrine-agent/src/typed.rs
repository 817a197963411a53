//! The input of a typed run.

use peregrine_signatures::Signature;

use crate::input::Input;

/// The inputs of a signature, with what was said before and whose run it is.
///
/// Made from the inputs alone, or from a pair of them and an [`Input`]: `(&inputs, Input::default().with_scope(..))`.
#[derive(Debug)]
pub struct TypedInput<'i, S: Signature> {
    pub(crate) values: &'i S::Input,
    pub(crate) input: Input,
}

impl<'i, S: Signature> TypedInput<'i, S> {
    /// These inputs.
    pub fn new(values: &'i S::Input) -> Self {
        Self {
            values,
            input: Input::default(),
        }
    }

    /// Says what was said before, whose run it is, what it draws on.
    #[must_use]
    pub fn with_input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }
}

impl<'i, S: Signature> From<&'i S::Input> for TypedInput<'i, S> {
    fn from(values: &'i S::Input) -> Self {
        Self::new(values)
    }
}

impl<'i, S: Signature> From<(&'i S::Input, Input)> for TypedInput<'i, S> {
    fn from((values, input): (&'i S::Input, Input)) -> Self {
        Self { values, input }
    }
}
