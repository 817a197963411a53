//! Signatures before they are compiled: fields, types and constraints, as the derive macro, the text form and callers
//! state them.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use peregrine_core::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::compiled::Compiled;
use crate::shape::{Constraint, Length, Limit, Number};
use crate::signature::Judge;
use crate::{DefinitionError, TextError};

/// A signature in the making: what the model is to do, from which inputs, to which outputs.
///
/// # Examples
///
/// ```
/// use peregrine_signatures::{Field, SignatureSpec, Type};
///
/// let triage = SignatureSpec::new("Triage")
///     .with_instruction("Sort a support ticket.")
///     .with_input(Field::new("ticket", Type::Text).with_description("what the customer wrote"))
///     .with_output(Field::new("urgency", Type::Integer).with_range(1..=5))
///     .with_output(Field::new("queue", Type::one_of(["billing", "technical"])))
///     .compile()?;
/// assert_eq!(triage.outputs().len(), 2);
/// # Ok::<(), peregrine_signatures::DefinitionError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SignatureSpec {
    pub(crate) name: String,
    pub(crate) instruction: String,
    pub(crate) inputs: Vec<Field>,
    pub(crate) outputs: Vec<Field>,
}

impl SignatureSpec {
    /// A signature without fields. The name is 1 to 64 characters of `[A-Za-z0-9_-]`; providers see it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            instruction: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Reads the text form, such as `"question, context: list[str] -> answer, confidence: float"`; see
    /// [`parse`](crate::parse) for its grammar.
    ///
    /// # Errors
    ///
    /// [`TextError`], which names the place.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        crate::text::parse(text)
    }

    /// Names it.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Says what the model is to do. Without it, the model is told to produce the outputs from the inputs.
    #[must_use]
    pub fn with_instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = instruction.into();
        self
    }

    /// Adds an input.
    #[must_use]
    pub fn with_input(mut self, field: Field) -> Self {
        self.inputs.push(field);
        self
    }

    /// Adds an output. Models write outputs in the order in which they stand here.
    #[must_use]
    pub fn with_output(mut self, field: Field) -> Self {
        self.outputs.push(field);
        self
    }

    /// Compiles it: checks it, and makes the schema, the instruction and the hash once.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`] if a name, a type or a constraint does not work.
    pub fn compile(self) -> Result<Arc<Compiled>, DefinitionError> {
        Compiled::new(&self, None).map(Arc::new)
    }

    /// Compiles it for outputs of types that may refuse what fits the schema.
    pub(crate) fn compile_for(self, judge: Judge) -> Result<Arc<Compiled>, DefinitionError> {
        Compiled::new(&self, Some(judge)).map(Arc::new)
    }
}

/// An input or output of a signature.
#[derive(Debug, Clone)]
pub struct Field {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) ty: Type,
    pub(crate) constraints: Vec<Constraint>,
}

impl Field {
    /// A field. The name is 1 to 64 characters of `[A-Za-z0-9_]`, the first of them no digit.
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            ty,
            constraints: Vec::new(),
        }
    }

    /// A field of a Rust type.
    pub fn of<T: schemars::JsonSchema>(name: impl Into<String>) -> Self {
        Self::new(name, Type::of::<T>())
    }

    /// Says what it holds.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Bounds a number, or each number of a list.
    #[must_use]
    pub fn with_range<N: Into<Number> + Clone>(self, range: impl RangeBounds<N>) -> Self {
        let limit = |bound: Bound<&N>| match bound {
            Bound::Unbounded => None,
            Bound::Included(value) => Some(Limit {
                value: value.clone().into(),
                exclusive: false,
            }),
            Bound::Excluded(value) => Some(Limit {
                value: value.clone().into(),
                exclusive: true,
            }),
        };
        let constraint = Constraint::Range {
            min: limit(range.start_bound()),
            max: limit(range.end_bound()),
        };
        self.with_constraint(constraint)
    }

    /// Bounds the characters of a text, the items of a list or the keys of a map.
    #[must_use]
    pub fn with_length(self, range: impl RangeBounds<usize>) -> Self {
        let length = Length {
            min: match range.start_bound() {
                Bound::Unbounded | Bound::Included(0) => None,
                Bound::Included(min) => Some(*min),
                Bound::Excluded(min) => Some(min.saturating_add(1)),
            },
            max: match range.end_bound() {
                Bound::Unbounded => None,
                Bound::Included(max) => Some(*max),
                Bound::Excluded(max) => Some(max.saturating_sub(1)),
            },
        };
        self.with_constraint(Constraint::Length(length))
    }

    /// Requires a match of a regular expression somewhere in the text, or in each text of a list.
    #[must_use]
    pub fn with_pattern(self, pattern: impl Into<String>) -> Self {
        self.with_constraint(Constraint::Pattern(pattern.into()))
    }

    /// Allows these values only.
    #[must_use]
    pub fn with_one_of<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Self {
        self.with_constraint(Constraint::OneOf(values.into_iter().map(Into::into).collect()))
    }

    fn with_constraint(mut self, constraint: Constraint) -> Self {
        self.constraints.push(constraint);
        self
    }
}

/// A field's type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Type {
    /// A text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Any JSON value.
    Any,
    /// A date: a text like `2026-01-31`.
    Date,
    /// A moment: a text like `2026-01-31T09:30:00Z`.
    DateTime,
    /// One of these values.
    OneOf(Vec<Value>),
    /// A list.
    List(Box<Type>),
    /// An object with any keys and values of one type.
    Map(Box<Type>),
    /// A value or `null`.
    Optional(Box<Type>),
    /// An object of these fields.
    Object(Vec<Field>),
    /// What fits a JSON Schema.
    Schema(JsonSchema),
    /// A Rust type; see [`Type::of`].
    Rust(RustType),
    /// An image (inputs only).
    Image,
    /// Audio (inputs only).
    Audio,
    /// A document (inputs only).
    Document,
}

impl Type {
    /// A Rust type, by its `JsonSchema`.
    pub fn of<T: schemars::JsonSchema>() -> Self {
        Self::Rust(RustType {
            name: T::schema_name,
            schema: |side| {
                let settings = SchemaSettings::draft2020_12();
                let settings = match side {
                    Side::Input => settings.for_serialize(),
                    Side::Output => settings.for_deserialize(),
                };
                settings.into_generator().into_root_schema_for::<T>()
            },
        })
    }

    /// A list of a type.
    pub fn list(items: Self) -> Self {
        Self::List(Box::new(items))
    }

    /// An object with any keys and values of a type.
    pub fn map(values: Self) -> Self {
        Self::Map(Box::new(values))
    }

    /// A value of a type, or `null`.
    pub fn optional(inner: Self) -> Self {
        Self::Optional(Box::new(inner))
    }

    /// One of these values.
    pub fn one_of<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Self {
        Self::OneOf(values.into_iter().map(Into::into).collect())
    }

    /// An object of these fields.
    pub fn object(fields: impl IntoIterator<Item = Field>) -> Self {
        Self::Object(fields.into_iter().collect())
    }
}

/// A Rust type as the type of a field.
#[derive(Clone, Copy)]
pub struct RustType {
    name: fn() -> Cow<'static, str>,
    schema: fn(Side) -> schemars::Schema,
}

impl RustType {
    pub(crate) fn schema(&self, side: Side) -> schemars::Schema {
        (self.schema)(side)
    }
}

impl fmt::Debug for RustType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.name)())
    }
}

/// Inputs are serialised, outputs deserialised; a type's schema can differ between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Input,
    Output,
}
