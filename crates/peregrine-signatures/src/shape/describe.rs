//! Types in words, for prompts and errors: `integer from 1 to 5`, `list of string`, `"a" | "b"`.

use super::{Kind, Length, Limit, NodeId, NumberRule, Rest, Shape, TextRule};

/// How many values of a choice are named before the rest is only counted.
const MAX_CHOICES: usize = 24;
/// How deep types are named.
const MAX_DEPTH: usize = 4;

impl Shape {
    /// The type of a node in a few words.
    pub(crate) fn describe(&self, id: NodeId) -> String {
        self.describe_within(id, MAX_DEPTH)
    }

    fn describe_within(&self, id: NodeId, depth: usize) -> String {
        let Some(below) = depth.checked_sub(1) else {
            return "value".to_owned();
        };
        match self.kind(id) {
            Kind::Any => "any JSON value".to_owned(),
            Kind::Null => "null".to_owned(),
            Kind::Bool => "boolean".to_owned(),
            Kind::Number(rule) => number(rule),
            Kind::Text(rule) => text(rule),
            Kind::OneOf(choices) => {
                let mut named: Vec<String> = choices
                    .iter()
                    .take(MAX_CHOICES)
                    .map(|choice| choice.value.to_string())
                    .collect();
                if choices.len() > MAX_CHOICES {
                    named.push(format!("{} more", choices.len() - MAX_CHOICES));
                }
                named.join(" | ")
            }
            Kind::List(rule) => {
                let items = self.describe_one(rule.items, below);
                let what = if rule.unique {
                    "list without duplicates"
                } else {
                    "list"
                };
                format!("{what} of {items}{}", length(rule.length, "item", ", "))
            }
            Kind::Tuple(nodes) => {
                let items: Vec<String> = nodes
                    .iter()
                    .map(|node| self.describe_within(*node, below))
                    .collect();
                format!("list [{}]", items.join(", "))
            }
            Kind::Object(rule) => match &rule.rest {
                Rest::Each(node) if rule.fields.is_empty() => {
                    let values = self.describe_one(*node, below);
                    format!("object of string to {values}{}", length(rule.length, "key", ", "))
                }
                _ => "object".to_owned(),
            },
            Kind::Union(variants) => {
                let mut named = Vec::new();
                for variant in variants {
                    let name = self.describe_within(*variant, below);
                    if !named.contains(&name) {
                        named.push(name);
                    }
                }
                named.join(" or ")
            }
        }
    }

    /// The type of what stands behind `of` or `to`: alternatives in parentheses, so that nothing behind them belongs to
    /// one of them only.
    fn describe_one(&self, id: NodeId, depth: usize) -> String {
        let told = self.describe_within(id, depth);
        match self.kind(id) {
            Kind::Union(variants) if variants.len() > 1 => format!("({told})"),
            Kind::OneOf(choices) if choices.len() > 1 => format!("({told})"),
            _ => told,
        }
    }
}

fn number(rule: &NumberRule) -> String {
    let name = if rule.integer { "integer" } else { "number" };
    let mut told = match (rule.min, rule.max) {
        (None, None) => name.to_owned(),
        (Some(min), Some(max)) if !min.exclusive && !max.exclusive => {
            format!("{name} from {} to {}", min.value, max.value)
        }
        (min, max) => {
            let min = min.map(|limit| bound(limit, "above", "of at least"));
            let max = max.map(|limit| bound(limit, "below", "of at most"));
            let bounds: Vec<String> = min.into_iter().chain(max).collect();
            format!("{name} {}", bounds.join(" and "))
        }
    };
    if let Some(step) = rule.multiple_of {
        told.push_str(&format!(", a multiple of {step}"));
    }
    told
}

fn bound(limit: Limit, exclusive: &str, inclusive: &str) -> String {
    let word = if limit.exclusive { exclusive } else { inclusive };
    format!("{word} {}", limit.value)
}

fn text(rule: &TextRule) -> String {
    let mut told = match (rule.format, &rule.hint) {
        (Some(format), _) => format.describe().to_owned(),
        (None, Some(hint)) => format!("string ({hint})"),
        (None, None) => "string".to_owned(),
    };
    told.push_str(&length(rule.length, "character", " of "));
    for pattern in &rule.patterns {
        told.push_str(&format!(" matching `{}`", pattern.as_str()));
    }
    told
}

pub(super) fn length(length: Length, unit: &str, before: &str) -> String {
    let s = |count: usize| if count == 1 { "" } else { "s" };
    match (length.min, length.max) {
        (None, None) => String::new(),
        (Some(min), Some(max)) if min == max => format!("{before}{min} {unit}{}", s(min)),
        (Some(min), Some(max)) => format!("{before}{min} to {max} {unit}s"),
        (Some(min), None) => format!("{before}at least {min} {unit}{}", s(min)),
        (None, Some(max)) => format!("{before}at most {max} {unit}{}", s(max)),
    }
}
