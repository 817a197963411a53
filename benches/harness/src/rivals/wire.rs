//! What each framework really sends, and how it differs from what is sent by hand.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::protocol::Descriptor;

/// More differences than these are only counted.
const MOST: usize = 8;

/// The requests of one operation of one framework.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) group: String,
    pub(super) name: String,
    pub(super) requests: Vec<Request>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) head_bytes: u64,
    pub(super) body_bytes: u64,
    digest: String,
    body: Value,
}

/// Whether what a group sends is told: not again for each latency, nor for a thousand at once.
pub(super) fn is_told(group: &str) -> bool {
    !(group.ends_with("/50ms") || group.contains("/concurrent") || group.contains("/stream_first"))
}

impl Sent {
    pub(super) fn new(descriptor: &Descriptor, requests: Vec<Value>) -> Self {
        let request = |seen: Value| Request {
            head_bytes: seen["head_bytes"].as_u64().unwrap_or(0),
            body_bytes: seen["body_bytes"].as_u64().unwrap_or(0),
            digest: seen["digest"].as_str().unwrap_or_default().to_owned(),
            body: serde_json::from_str(seen["body"].as_str().unwrap_or_default()).unwrap_or(Value::Null),
        };
        Self {
            group: descriptor.id.group().to_owned(),
            name: descriptor.id.parts()[3].to_owned(),
            requests: requests.into_iter().map(request).collect(),
        }
    }

    /// In what its requests differ from those of another, in words.
    pub(super) fn differences(&self, other: &Self) -> String {
        if self.requests.len() != other.requests.len() {
            return format!("{} requests, not {}", self.requests.len(), other.requests.len());
        }
        let pairs = || self.requests.iter().zip(&other.requests);
        if pairs().all(|(one, other)| one.digest == other.digest) {
            return "the same bytes".to_owned();
        }
        let mut found = BTreeSet::new();
        for (one, other) in pairs() {
            differ("", &one.body, &other.body, &mut found);
        }
        match found.len() {
            0 => "the same JSON in another order".to_owned(),
            many => {
                let mut told: Vec<_> = found.into_iter().take(MOST).collect();
                if many > MOST {
                    told.push(format!("{} more", many - MOST));
                }
                told.join(", ")
            }
        }
    }
}

/// Notes where two values differ, without numbers of places in arrays.
fn differ(path: &str, one: &Value, other: &Value, found: &mut BTreeSet<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let below = |key: &str| {
                if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                }
            };
            for (key, value) in one {
                match other.get(key) {
                    Some(theirs) => differ(&below(key), value, theirs, found),
                    None => {
                        found.insert(format!("+ `{}: {}`", below(key), short(value)));
                    }
                }
            }
            for key in other.keys().filter(|key| !one.contains_key(*key)) {
                found.insert(format!("- `{}`", below(key)));
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (one, other) in one.iter().zip(other) {
                differ(&format!("{path}[]"), one, other, found);
            }
        }
        _ if one == other => {}
        _ => {
            found.insert(format!("`{path}: {}` for `{}`", short(one), short(other)));
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string().replace(['|', '`'], " ");
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(bodies: &[&str]) -> Sent {
        let requests = bodies
            .iter()
            .map(|body| json!({"body_bytes": body.len(), "digest": body, "body": body}));
        let descriptor = Descriptor {
            id: "rivals/single_call/0ms/x".parse().unwrap(),
            role: crate::protocol::Role::Rival,
            workload: String::new(),
            counted: false,
            hidden: false,
        };
        Sent::new(&descriptor, requests.collect())
    }

    #[test]
    fn differences_are_named() {
        let floor = sent(&[r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#]);
        let difference = |body: &str| sent(&[body]).differences(&floor);
        assert_eq!(
            difference(r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#),
            "the same bytes"
        );
        assert_eq!(
            difference(r#"{"messages":[{"content":"a","role":"user"}],"model":"m"}"#),
            "the same JSON in another order"
        );
        assert_eq!(
            difference(r#"{"messages":[{"content":[1],"role":"user"}],"stream":false}"#),
            r#"+ `stream: false`, - `model`, `messages[].content: [1]` for `"a"`"#
        );
        assert_eq!(sent(&[]).differences(&floor), "0 requests, not 1");
    }
}
