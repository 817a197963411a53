//! Draws a shape as a commented outline, for models that cannot be held to a schema.
//!
//! An outline takes a fraction of the tokens of a JSON Schema, and small models follow it better. Types that contain
//! themselves are named and drawn once, below.

use std::fmt::Write as _;

use super::describe::length;
use super::{Kind, NodeId, ObjectField, ObjectRule, Rest, Shape};

/// How long an outline may get before deeper objects are only named by their kind.
const MAX_BYTES: usize = 64 * 1024;

impl Shape {
    /// The outline of the root. Descriptions of the root's own fields are left out: they stand in the instruction.
    pub(crate) fn sketch(&self) -> String {
        let mut artist = Artist {
            shape: self,
            recursive: self.recursive(),
            out: String::new(),
            named: Vec::new(),
        };
        artist.object(self.root_object(), 0, false);
        // Drawing a named type can name more.
        let mut drawn = 0;
        while let Some(id) = artist.named.get(drawn).copied() {
            let name = self.node(id).name.as_deref().unwrap_or("Value");
            let _ = write!(artist.out, "\nwhere {name} is ");
            artist.kind(id, 0);
            drawn += 1;
        }
        artist.out
    }
}

struct Artist<'s> {
    shape: &'s Shape,
    recursive: Vec<bool>,
    out: String,
    named: Vec<NodeId>,
}

impl Artist<'_> {
    fn node(&mut self, id: NodeId, indent: usize) {
        match self.shape.node(id).name.as_deref() {
            Some(name) if self.recursive[id.0 as usize] => {
                self.out.push_str(name);
                if !self.named.contains(&id) {
                    self.named.push(id);
                }
            }
            _ => self.kind(id, indent),
        }
    }

    fn kind(&mut self, id: NodeId, indent: usize) {
        let shape = self.shape;
        if self.out.len() > MAX_BYTES {
            self.out.push_str(&shape.describe(id));
            return;
        }
        match shape.kind(id) {
            Kind::List(rule) => {
                self.out.push('[');
                self.node(rule.items, indent);
                self.out.push_str(", ...]");
                // The brackets say it is a list; what else is known of it follows in words.
                let unique = if rule.unique { "without duplicates" } else { "" };
                let length = length(rule.length, "item", if rule.unique { ", " } else { "" });
                if !unique.is_empty() || !length.is_empty() {
                    let _ = write!(self.out, " ({unique}{length})");
                }
            }
            Kind::Tuple(nodes) => {
                self.out.push('[');
                for (place, node) in nodes.iter().enumerate() {
                    self.out.push_str(if place == 0 { "" } else { ", " });
                    self.node(*node, indent);
                }
                self.out.push(']');
            }
            Kind::Object(rule) => self.object(rule, indent, true),
            Kind::Union(variants) => {
                for (place, variant) in variants.iter().enumerate() {
                    self.out.push_str(if place == 0 { "" } else { " or " });
                    self.node(*variant, indent);
                }
            }
            _ => self.out.push_str(&shape.describe(id)),
        }
    }

    fn object(&mut self, rule: &ObjectRule, indent: usize, comments: bool) {
        self.out.push_str("{\n");
        let rest: Vec<(&str, Option<NodeId>)> = match &rule.rest {
            Rest::Closed => Vec::new(),
            Rest::Open => vec![("any key", None)],
            Rest::Each(node) => vec![("any key", Some(*node))],
            Rest::Patterns(patterns) => patterns
                .iter()
                .map(|(pattern, node)| (pattern.as_str(), Some(*node)))
                .collect(),
        };
        for (place, field) in rule.fields.iter().enumerate() {
            self.indent(indent + 1);
            let _ = write!(self.out, "{}: ", serde_json::Value::from(&*field.name));
            self.node(field.node, indent + 1);
            // Models write what they see, so no comma stands before a bracket.
            let is_last = place + 1 == rule.fields.len() && rest.is_empty();
            self.out.push_str(if is_last { "" } else { "," });
            let remarks = self.remarks(field, comments);
            if !remarks.is_empty() {
                let _ = write!(self.out, " // {}", remarks.join("; "));
            }
            self.out.push('\n');
        }
        for (key, node) in rest {
            self.indent(indent + 1);
            let _ = write!(self.out, "<{key}>: ");
            match node {
                Some(node) => self.node(node, indent + 1),
                None => self.out.push_str("any JSON value"),
            }
            self.out.push_str(", ...\n");
        }
        self.indent(indent);
        self.out.push('}');
    }

    /// What is said behind a field.
    fn remarks(&self, field: &ObjectField, comments: bool) -> Vec<String> {
        let node = self.shape.node(field.node);
        let description = field.description.as_deref().or(node.description.as_deref());
        let described = description
            .filter(|_| comments)
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut remarks: Vec<String> = described.into_iter().collect();
        if let Kind::OneOf(choices) = &node.kind
            && comments
        {
            remarks.extend(
                choices
                    .iter()
                    .filter_map(|c| Some(format!("{}: {}", c.value, c.description.as_deref()?))),
            );
        }
        if !field.required {
            remarks.push("may be left out".to_owned());
        }
        remarks
    }

    fn indent(&mut self, indent: usize) {
        for _ in 0..indent {
            self.out.push_str("  ");
        }
    }
}
