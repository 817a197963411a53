//! What the code that `#[tool]` writes needs. Not public: it changes without notice.
//!
//! Algorithm of the conversions: the attribute sees the text of a return type, not the type, so the choice between
//! "becomes an output" and "serialises" is made by method lookup. Each choice has a trait for `Returned<T>` and one for
//! `&Returned<T>`; `(&Returned::of(&value)).method()` finds the first if its bounds hold, and the second, one automatic
//! reference further away, if they do not.

use std::fmt::Display;
use std::marker::PhantomData;

use peregrine_core::{Danger, Effect};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ToolError, ToolOutput};

pub use async_trait::async_trait;
pub use peregrine_tools_macros::facade_tool;
pub use serde;
pub use serde_json::Value;

/// The arguments as a Rust type.
///
/// # Errors
///
/// Invalid arguments, if the type is narrower than its schema.
pub fn arguments<A: DeserializeOwned>(tool: &str, arguments: Value) -> Result<A, ToolError> {
    crate::arguments::typed(tool, arguments)
}

pub const READ_ONLY: Effect = Effect::ReadOnly;
pub const IDEMPOTENT: Effect = Effect::Idempotent;
pub const SIDE_EFFECT: Effect = Effect::SideEffect;
pub const SAFE: Danger = Danger::Safe;
pub const LOW: Danger = Danger::Low;
pub const MEDIUM: Danger = Danger::Medium;
pub const HIGH: Danger = Danger::High;
pub const CRITICAL: Danger = Danger::Critical;

/// Stands for a value's type.
#[derive(Debug)]
pub struct Returned<T>(PhantomData<fn() -> T>);

impl<T> Returned<T> {
    pub fn of(_: &T) -> Self {
        Self(PhantomData)
    }
}

// A `Result`, or a plain value.

#[derive(Debug)]
pub struct IsResult;
#[derive(Debug)]
pub struct IsValue;
/// The error of what cannot fail. Not an empty type: an arm for it must not be unreachable.
#[derive(Debug)]
pub struct NoError;

impl Display for NoError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

pub trait ResultShape {
    fn shape(&self) -> IsResult {
        IsResult
    }
}
impl<T, E> ResultShape for Returned<Result<T, E>> {}

pub trait ValueShape {
    fn shape(&self) -> IsValue {
        IsValue
    }
}
impl<T> ValueShape for &Returned<T> {}

impl IsResult {
    /// # Errors
    ///
    /// The error that it was.
    pub fn split<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        result
    }
}
impl IsValue {
    /// # Errors
    ///
    /// None.
    pub fn split<T>(self, value: T) -> Result<T, NoError> {
        Ok(value)
    }
}

// An output.

#[derive(Debug)]
pub struct BecomesOutput;
#[derive(Debug)]
pub struct Serialises;

pub trait OutputByInto {
    fn output(&self) -> BecomesOutput {
        BecomesOutput
    }
}
impl<T: Into<ToolOutput>> OutputByInto for Returned<T> {}

pub trait OutputBySerialize {
    fn output(&self) -> Serialises {
        Serialises
    }
}
impl<T: Serialize> OutputBySerialize for &Returned<T> {}

impl BecomesOutput {
    /// # Errors
    ///
    /// None.
    pub fn convert(self, value: impl Into<ToolOutput>) -> Result<ToolOutput, ToolError> {
        Ok(value.into())
    }
}
impl Serialises {
    /// # Errors
    ///
    /// A value that has no form in JSON.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "the same form as the other conversion"
    )]
    pub fn convert(self, value: impl Serialize) -> Result<ToolOutput, ToolError> {
        ToolOutput::json(&value)
    }
}

// An error.

#[derive(Debug)]
pub struct BecomesError;
#[derive(Debug)]
pub struct Displays;

pub trait ErrorByInto {
    fn error(&self) -> BecomesError {
        BecomesError
    }
}
impl<E: Into<ToolError>> ErrorByInto for Returned<E> {}

pub trait ErrorByDisplay {
    fn error(&self) -> Displays {
        Displays
    }
}
impl<E: Display> ErrorByDisplay for &Returned<E> {}

impl BecomesError {
    pub fn convert(self, error: impl Into<ToolError>) -> ToolError {
        error.into()
    }
}
impl Displays {
    pub fn convert(self, error: impl Display) -> ToolError {
        ToolError::model(error)
    }
}
