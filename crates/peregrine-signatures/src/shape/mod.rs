//! Shapes: the compiled form of a type, against which answers are checked.
//!
//! A [`Shape`] is an arena of nodes with one root. It is read once from a JSON Schema or built from a run-time type;
//! everything that depends on a type walks it: the schema sent to providers, the sketch in prompts, the check of a
//! whole answer, the check of an answer that is still arriving, and the comparison of two types. One tree, so that
//! these can not disagree.
//!
//! Invariant: no cycle of unions only, so that finding the alternatives for a value ends.

mod build;
mod check;
mod constrain;
mod describe;
mod fits;
mod number;
mod read;
mod sketch;
mod text;
mod trial;
mod write;

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use build::{Builder, object_field};
pub(crate) use check::{Checker, check, found, found_text, unknown_field};
pub(crate) use constrain::Constraint;
pub(crate) use fits::fits;
pub use number::Number;
pub(crate) use number::{Limit, NumberRule};
pub(crate) use text::{Format, Pattern, TextRule};

/// A node's place in its arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

/// A compiled type.
#[derive(Debug)]
pub(crate) struct Shape {
    nodes: Vec<Node>,
    root: NodeId,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) description: Option<Arc<str>>,
    /// The type's name, for types that contain themselves.
    pub(crate) name: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Any,
    Null,
    Bool,
    Number(NumberRule),
    Text(TextRule),
    /// One of these values.
    OneOf(Vec<Choice>),
    List(ListRule),
    Tuple(Vec<NodeId>),
    Object(ObjectRule),
    /// A value that fits one of these. Never empty.
    Union(Vec<NodeId>),
}

#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) value: Value,
    pub(crate) description: Option<Arc<str>>,
}

impl Choice {
    /// Whether a value is this one; numbers are compared by what they say, so `1` is `1.0`.
    pub(crate) fn is(&self, value: &Value) -> bool {
        match (&self.value, value) {
            (Value::Number(one), Value::Number(other)) => {
                Number::of(one).compare(Number::of(other)) == Some(Ordering::Equal)
            }
            (one, other) => one == other,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ListRule {
    pub(crate) items: NodeId,
    pub(crate) length: Length,
    pub(crate) unique: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct ObjectRule {
    pub(crate) fields: Vec<ObjectField>,
    pub(crate) rest: Rest,
    pub(crate) length: Length,
}

#[derive(Debug, Clone)]
pub(crate) struct ObjectField {
    pub(crate) name: Arc<str>,
    pub(crate) node: NodeId,
    pub(crate) required: bool,
    /// What stands at the field; else the node's own description counts.
    pub(crate) description: Option<Arc<str>>,
}

/// Keys that are not among an object's fields.
#[derive(Debug, Clone)]
pub(crate) enum Rest {
    Closed,
    Open,
    Each(NodeId),
    Patterns(Vec<(Pattern, NodeId)>),
}

impl ObjectRule {
    /// Whether the object takes a key that is not among its fields, and the node of its value if it has one.
    pub(crate) fn rest(&self, key: &str) -> Option<Option<NodeId>> {
        match &self.rest {
            Rest::Closed => None,
            Rest::Open => Some(None),
            Rest::Each(node) => Some(Some(*node)),
            Rest::Patterns(patterns) => {
                let found = patterns.iter().find(|(pattern, _)| pattern.is_match(key));
                found.map(|(_, node)| Some(*node))
            }
        }
    }
}

/// How many characters, elements or keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) min: Option<usize>,
    pub(crate) max: Option<usize>,
}

impl Length {
    pub(crate) fn admits(self, length: usize) -> bool {
        self.min.is_none_or(|min| length >= min) && self.max.is_none_or(|max| length <= max)
    }
}

/// What a JSON value starts as, which is known from its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

impl Start {
    pub(crate) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        }
    }

    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

impl Shape {
    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn kind(&self, id: NodeId) -> &Kind {
        &self.node(id).kind
    }

    /// The root's rule; the root of a signature's side is always an object.
    pub(crate) fn root_object(&self) -> &ObjectRule {
        match self.kind(self.root) {
            Kind::Object(rule) => rule,
            _ => unreachable!("`Builder::finish` makes the root an object"),
        }
    }

    /// Whether a value that starts so can fit the node.
    pub(crate) fn accepts(&self, id: NodeId, start: Start) -> bool {
        match self.kind(id) {
            Kind::Any => true,
            Kind::Null => start == Start::Null,
            Kind::Bool => start == Start::Bool,
            Kind::Number(_) => start == Start::Number,
            Kind::Text(_) => start == Start::Text,
            Kind::OneOf(choices) => choices.iter().any(|choice| Start::of(&choice.value) == start),
            Kind::List(_) | Kind::Tuple(_) => start == Start::List,
            Kind::Object(_) => start == Start::Object,
            Kind::Union(variants) => variants.iter().any(|variant| self.accepts(*variant, start)),
        }
    }

    /// The nodes, none of them a union, that a value that starts so can fit.
    pub(crate) fn alternatives(&self, id: NodeId, start: Start) -> Vec<NodeId> {
        let mut found = Vec::new();
        self.collect_alternatives(id, start, &mut found);
        found
    }

    fn collect_alternatives(&self, id: NodeId, start: Start, found: &mut Vec<NodeId>) {
        match self.kind(id) {
            Kind::Union(variants) => {
                for variant in variants {
                    self.collect_alternatives(*variant, start, found);
                }
            }
            _ if self.accepts(id, start) && !found.contains(&id) => found.push(id),
            _ => {}
        }
    }

    /// The nodes directly below.
    fn children(&self, id: NodeId) -> Vec<NodeId> {
        match self.kind(id) {
            Kind::List(rule) => vec![rule.items],
            Kind::Tuple(nodes) | Kind::Union(nodes) => nodes.clone(),
            Kind::Object(rule) => {
                let mut nodes: Vec<NodeId> = rule.fields.iter().map(|field| field.node).collect();
                match &rule.rest {
                    Rest::Each(node) => nodes.push(*node),
                    Rest::Patterns(patterns) => nodes.extend(patterns.iter().map(|(_, node)| *node)),
                    Rest::Closed | Rest::Open => {}
                }
                nodes
            }
            _ => Vec::new(),
        }
    }

    /// Which nodes contain themselves.
    fn recursive(&self) -> Vec<bool> {
        // Signatures have tens of nodes, so the plain search from each of them is quick enough.
        let reaches_itself = |start: NodeId| {
            let mut seen = vec![false; self.nodes.len()];
            let mut open = self.children(start);
            while let Some(node) = open.pop() {
                if node == start {
                    return true;
                }
                if !std::mem::replace(&mut seen[node.0 as usize], true) {
                    open.extend(self.children(node));
                }
            }
            false
        };
        (0..self.nodes.len())
            .map(|place| reaches_itself(NodeId(place as u32)))
            .collect()
    }

    /// Whether providers' strict modes can guarantee it: objects of named fields, no maps, tuples or free values.
    pub(crate) fn can_be_strict(&self) -> bool {
        !self.any_below(self.root, |kind| match kind {
            Kind::Any | Kind::Tuple(_) => true,
            Kind::Object(rule) => !matches!(rule.rest, Rest::Closed) || rule.fields.is_empty(),
            _ => false,
        })
    }

    /// Whether the node or one below it is such a one.
    pub(crate) fn any_below(&self, from: NodeId, is_such: impl Fn(&Kind) -> bool) -> bool {
        let mut seen = vec![false; self.nodes.len()];
        let mut open = vec![from];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id.0 as usize], true) {
                continue;
            }
            if is_such(self.kind(id)) {
                return true;
            }
            open.extend(self.children(id));
        }
        false
    }
}
