//! Builds shapes, from run-time types and from JSON Schemas.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::read::Document;
use super::{
    Choice, Format, Kind, Length, ListRule, Node, NodeId, NumberRule, ObjectField, ObjectRule, Rest, Shape,
    TextRule,
};
use crate::DefinitionError;
use crate::spec::{Field, Side, Type};

/// How many nodes a signature's side may have.
const MAX_NODES: usize = 20_000;
/// How deep run-time types may be nested.
const MAX_DEPTH: usize = 32;

/// An arena in the making.
#[derive(Debug)]
pub(crate) struct Builder {
    nodes: Vec<Node>,
    side: Side,
}

impl Builder {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            nodes: Vec::new(),
            side,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(super) fn push_node(&mut self, node: Node) -> NodeId {
        let id =
            NodeId(u32::try_from(self.nodes.len()).expect("bounded by `MAX_NODES` before it can overflow"));
        self.nodes.push(node);
        id
    }

    pub(super) fn push(&mut self, kind: Kind) -> NodeId {
        self.push_node(Node {
            kind,
            description: None,
            name: None,
        })
    }

    /// The node of a field: its type with its constraints.
    pub(crate) fn field(&mut self, field: &Field) -> Result<NodeId, DefinitionError> {
        self.field_within(field, 0)
    }

    fn field_within(&mut self, field: &Field, depth: usize) -> Result<NodeId, DefinitionError> {
        let mut id = self.typed(&field.name, &field.ty, depth)?;
        for constraint in &field.constraints {
            id = self.constrain(&field.name, id, constraint)?;
        }
        Ok(id)
    }

    fn typed(&mut self, field: &str, ty: &Type, depth: usize) -> Result<NodeId, DefinitionError> {
        if depth > MAX_DEPTH || self.nodes.len() > MAX_NODES {
            return Err(schema_error(
                field,
                "",
                "it is nested too deeply or too large: simplify it",
            ));
        }
        let below = depth + 1;
        let kind = match ty {
            Type::Any => Kind::Any,
            Type::Boolean => Kind::Bool,
            Type::Integer => Kind::Number(NumberRule {
                integer: true,
                width: Some((i128::from(i64::MIN), i128::from(u64::MAX))),
                ..NumberRule::default()
            }),
            Type::Number => Kind::Number(NumberRule::default()),
            Type::Text => Kind::Text(TextRule::default()),
            Type::Date => formatted(Format::Date),
            Type::DateTime => formatted(Format::DateTime),
            Type::OneOf(values) => Kind::OneOf(choices(field, values)?),
            Type::List(items) => Kind::List(ListRule {
                items: self.typed(field, items, below)?,
                length: Length::default(),
                unique: false,
            }),
            Type::Map(values) => Kind::Object(ObjectRule {
                fields: Vec::new(),
                rest: Rest::Each(self.typed(field, values, below)?),
                length: Length::default(),
            }),
            Type::Optional(inner) => {
                let inner = self.typed(field, inner, below)?;
                let null = self.push(Kind::Null);
                return Ok(self.union(&[inner, null]));
            }
            Type::Object(fields) => Kind::Object(self.object(fields, below)?),
            Type::Schema(schema) => return Document::new(field, schema.value()).read(self),
            Type::Rust(rust) => {
                let schema = rust.schema(self.side);
                return Document::of_rust(field, schema.as_value(), self.side).read(self);
            }
            Type::Image | Type::Audio | Type::Document => {
                return Err(DefinitionError::InputOnly {
                    field: field.to_owned(),
                    what: "an image, audio or document",
                });
            }
        };
        Ok(self.push(kind))
    }

    fn object(&mut self, fields: &[Field], depth: usize) -> Result<ObjectRule, DefinitionError> {
        let mut built = Vec::with_capacity(fields.len());
        for field in fields {
            let node = self.field_within(field, depth)?;
            built.push(object_field(field, node));
        }
        Ok(ObjectRule {
            fields: built,
            rest: Rest::Closed,
            length: Length::default(),
        })
    }

    /// A node for what fits one of several. Unions in it are flattened, as are choices.
    pub(super) fn union(&mut self, variants: &[NodeId]) -> NodeId {
        let mut flat: Vec<NodeId> = Vec::new();
        for variant in variants {
            let inner = match &self.node(*variant).kind {
                Kind::Union(inner) => inner.as_slice(),
                _ => std::slice::from_ref(variant),
            };
            for id in inner {
                if !flat.contains(id) {
                    flat.push(*id);
                }
            }
        }
        let described = |id: NodeId| self.node(id).description.clone();
        let choices: Option<Vec<Choice>> = flat
            .iter()
            .map(|id| match &self.node(*id).kind {
                // The words about a variant are about its one value.
                Kind::OneOf(choices) if choices.len() == 1 => Some(vec![Choice {
                    value: choices[0].value.clone(),
                    description: choices[0].description.clone().or_else(|| described(*id)),
                }]),
                Kind::OneOf(choices) if described(*id).is_none() => Some(choices.clone()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(|choices| choices.concat());
        match (choices, flat.as_slice()) {
            (_, [only]) => *only,
            (Some(choices), _) => self.push(Kind::OneOf(choices)),
            (None, _) => self.push(Kind::Union(flat)),
        }
    }

    /// The whole side of a signature.
    pub(crate) fn finish(mut self, fields: Vec<ObjectField>) -> Result<Shape, DefinitionError> {
        if self.nodes.len() > MAX_NODES {
            return Err(schema_error("", "", "it is too large: simplify it"));
        }
        let root = self.push(Kind::Object(ObjectRule {
            fields,
            rest: Rest::Closed,
            length: Length::default(),
        }));
        let shape = Shape {
            nodes: self.nodes,
            root,
        };
        match endless_union(&shape) {
            None => Ok(shape),
            Some(name) => Err(schema_error(
                &name,
                "",
                "a union that contains itself directly fits nothing or everything",
            )),
        }
    }
}

/// A field of an object.
pub(crate) fn object_field(field: &Field, node: NodeId) -> ObjectField {
    ObjectField {
        name: Arc::from(field.name.as_str()),
        node,
        required: true,
        description: Some(field.description.as_str())
            .filter(|text| !text.is_empty())
            .map(Arc::from),
    }
}

pub(super) fn schema_error(field: &str, place: &str, problem: impl Into<String>) -> DefinitionError {
    DefinitionError::Schema {
        field: field.to_owned(),
        place: if place.is_empty() {
            "#".to_owned()
        } else {
            place.to_owned()
        },
        problem: problem.into(),
    }
}

fn formatted(format: Format) -> Kind {
    Kind::Text(TextRule {
        format: Some(format),
        ..TextRule::default()
    })
}

fn choices(field: &str, values: &[Value]) -> Result<Vec<Choice>, DefinitionError> {
    if values.is_empty() {
        return Err(DefinitionError::Constraint {
            field: field.to_owned(),
            constraint: "one_of",
            problem: "it lists no value".to_owned(),
        });
    }
    let choice = |value: &Value| Choice {
        value: value.clone(),
        description: None,
    };
    Ok(values.iter().map(choice).collect())
}

/// The name of a union that can be reached from itself through unions only.
fn endless_union(shape: &Shape) -> Option<String> {
    let mut settled: HashMap<NodeId, bool> = HashMap::new();
    (0..shape.nodes.len())
        .map(|place| NodeId(place as u32))
        .find(|id| is_endless(shape, *id, &mut settled))
        .map(|id| shape.node(id).name.as_deref().unwrap_or("").to_owned())
}

/// Depth first; `false` in `settled` marks a union that is being looked at.
fn is_endless(shape: &Shape, id: NodeId, settled: &mut HashMap<NodeId, bool>) -> bool {
    let Kind::Union(variants) = shape.kind(id) else {
        return false;
    };
    match settled.get(&id) {
        Some(true) => return false,
        Some(false) => return true,
        None => {}
    }
    settled.insert(id, false);
    if variants
        .iter()
        .any(|variant| is_endless(shape, *variant, settled))
    {
        return true;
    }
    settled.insert(id, true);
    false
}
