//! What a schema compiles to.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::format::Format;
use super::pattern::Pattern;

/// The place of a node in the list.
pub(super) type NodeId = usize;

/// One schema: all of its keywords must hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// In the order in which they are checked: types first, `unevaluated..` last.
    pub(super) keywords: Vec<Keyword>,
    /// Whether one of them needs to know what the others looked at.
    pub(super) tracks: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Keyword {
    /// The schema `false`.
    Never,
    Type(Types),
    Enum(Vec<Value>),
    Const(Value),

    Minimum(Number),
    Maximum(Number),
    ExclusiveMinimum(Number),
    ExclusiveMaximum(Number),
    MultipleOf(Number),

    MinLength(u64),
    MaxLength(u64),
    Pattern(Pattern),
    Format(Format),

    Required(Vec<Needed>),
    Object(ObjectRule),
    PropertyNames(NodeId),
    MinProperties(u64),
    MaxProperties(u64),
    DependentRequired(Vec<(String, Vec<String>)>),
    DependentSchemas(Vec<(String, NodeId)>),

    Array(ArrayRule),
    Contains(ContainsRule),
    MinItems(u64),
    MaxItems(u64),
    UniqueItems,

    Ref(NodeId),
    AllOf(Vec<NodeId>),
    AnyOf(Vec<NodeId>),
    OneOf(Vec<NodeId>),
    Not(NodeId),
    If(IfRule),

    UnevaluatedProperties(NodeId),
    UnevaluatedItems(NodeId),
}

/// A property that must be there, and what it is, where that is said beside it.
#[derive(Debug, Clone)]
pub(super) struct Needed {
    pub(super) name: String,
    pub(super) node: Option<NodeId>,
}

/// `properties`, `patternProperties` and `additionalProperties`, which look at each other.
#[derive(Debug, Clone, Default)]
pub(super) struct ObjectRule {
    pub(super) properties: BTreeMap<String, NodeId>,
    pub(super) patterns: Vec<(Pattern, NodeId)>,
    pub(super) additional: Option<NodeId>,
}

/// `prefixItems` and `items`.
#[derive(Debug, Clone, Default)]
pub(super) struct ArrayRule {
    pub(super) prefix: Vec<NodeId>,
    pub(super) rest: Option<NodeId>,
}

/// `contains`, `minContains` and `maxContains`.
#[derive(Debug, Clone)]
pub(super) struct ContainsRule {
    pub(super) node: NodeId,
    pub(super) least: u64,
    pub(super) most: Option<u64>,
}

/// `if`, `then` and `else`.
#[derive(Debug, Clone)]
pub(super) struct IfRule {
    pub(super) condition: NodeId,
    pub(super) then: Option<NodeId>,
    pub(super) otherwise: Option<NodeId>,
}

impl Keyword {
    /// The nodes that are applied to the same place of the value as this keyword.
    pub(super) fn in_place(&self) -> Vec<NodeId> {
        match self {
            Self::Ref(node) | Self::Not(node) => vec![*node],
            Self::AllOf(nodes) | Self::AnyOf(nodes) | Self::OneOf(nodes) => nodes.clone(),
            Self::DependentSchemas(pairs) => pairs.iter().map(|(_, node)| *node).collect(),
            Self::If(rule) => {
                let branches = rule.then.into_iter().chain(rule.otherwise);
                std::iter::once(rule.condition).chain(branches).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A set of the types of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Types(u8);

/// The names of the types, in the order of their bits.
const TYPE_NAMES: [&str; 7] = [
    "boolean", "integer", "number", "string", "array", "object", "null",
];
const INTEGER: u8 = 1 << 1;
const NUMBER: u8 = 1 << 2;

impl Types {
    /// Adds a type by its name; `None` if there is none of that name.
    #[must_use]
    pub(super) fn with(self, name: &str) -> Option<Self> {
        let bit = TYPE_NAMES.iter().position(|known| *known == name)?;
        Some(Self(self.0 | 1 << bit))
    }

    pub(super) fn contains(self, value: &Value) -> bool {
        let bit = match value {
            Value::Bool(_) => 1,
            Value::Number(number) => {
                let is_integer = self.0 & INTEGER != 0 && super::number::is_integer(number);
                return self.0 & NUMBER != 0 || is_integer;
            }
            Value::String(_) => 1 << 3,
            Value::Array(_) => 1 << 4,
            Value::Object(_) => 1 << 5,
            Value::Null => 1 << 6,
        };
        self.0 & bit != 0
    }

    /// The names of its types.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        let bits = self.0;
        TYPE_NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| bits & (1 << bit) != 0)
            .map(|(_, name)| name)
    }
}
