//! Keywords about objects.

use serde_json::{Map, Value};

use super::check::{Checker, Seen};
use super::node::{Keyword, NodeId, ObjectRule};
use super::path::{Path, Problem, excerpt};
use super::words;

impl Checker<'_> {
    pub(super) fn object<'v>(
        &mut self,
        keyword: &Keyword,
        value: &'v Value,
        map: &'v Map<String, Value>,
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        match keyword {
            Keyword::Object(rule) => self.properties(rule, map, at, seen),
            Keyword::UnevaluatedProperties(node) => self.unevaluated_properties(*node, map, at, seen),
            Keyword::PropertyNames(node) => self.property_names(*node, map, at),
            Keyword::DependentSchemas(pairs) => {
                let mut holds = true;
                for (_, node) in pairs.iter().filter(|(given, _)| map.contains_key(given)) {
                    holds &= self.node(*node, value, at, seen.as_deref_mut());
                }
                holds
            }
            _ => self.names_and_size(keyword, value, map, at),
        }
    }

    /// The keywords that need no other schema. They stand apart to keep the frames of the recursion small.
    fn names_and_size(
        &mut self,
        keyword: &Keyword,
        value: &Value,
        map: &Map<String, Value>,
        at: &Path<'_>,
    ) -> bool {
        let size = map.len() as u64;
        match keyword {
            Keyword::Required(names) => {
                let mut holds = true;
                for needed in names.iter().filter(|needed| !map.contains_key(&needed.name)) {
                    let nodes = self.nodes;
                    let what = || {
                        needed
                            .node
                            .map_or("a value".to_owned(), |node| words::summary(nodes, node))
                    };
                    holds = self.missing(&needed.name, at, || format!("{} (required)", what()));
                }
                holds
            }
            Keyword::DependentRequired(pairs) => {
                let mut holds = true;
                for (given, names) in pairs.iter().filter(|(given, _)| map.contains_key(given)) {
                    for name in names.iter().filter(|name| !map.contains_key(*name)) {
                        let expected = || format!("a value (required beside `{}`)", excerpt(given));
                        holds = self.missing(name, at, expected);
                    }
                }
                holds
            }
            Keyword::MinProperties(least) => {
                size >= *least || self.size(value, at, || format!("at least {}", words::properties(*least)))
            }
            Keyword::MaxProperties(most) => {
                size <= *most || self.size(value, at, || format!("at most {}", words::properties(*most)))
            }
            _ => true,
        }
    }

    fn property_names(&mut self, node: NodeId, map: &Map<String, Value>, at: &Path<'_>) -> bool {
        let mut holds = true;
        for name in map.keys() {
            let path = Path::Key(at, name);
            holds &= self.node(node, &Value::from(name.as_str()), &path, None);
            if !holds && !self.is_collecting() {
                return false;
            }
        }
        holds
    }

    fn unevaluated_properties<'v>(
        &mut self,
        node: NodeId,
        map: &'v Map<String, Value>,
        at: &Path<'_>,
        seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let mut holds = true;
        for (name, item) in map {
            let looked_at = seen
                .as_ref()
                .is_some_and(|seen| seen.properties.contains(name.as_str()));
            holds &= looked_at || self.other_property(node, name, item, at, std::iter::empty());
        }
        if let Some(seen) = seen {
            seen.properties.extend(map.keys().map(String::as_str));
        }
        holds
    }

    fn properties<'v>(
        &mut self,
        rule: &ObjectRule,
        map: &'v Map<String, Value>,
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let mut holds = true;
        for (name, item) in map {
            let path = Path::Key(at, name);
            let mut looked_at = false;
            if let Some(node) = rule.properties.get(name) {
                looked_at = true;
                holds &= self.node(*node, item, &path, None);
            }
            for (pattern, node) in &rule.patterns {
                if self.spend(1) && pattern.matches(name) {
                    looked_at = true;
                    holds &= self.node(*node, item, &path, None);
                }
            }
            if let (false, Some(node)) = (looked_at, rule.additional) {
                looked_at = true;
                holds &= self.other_property(node, name, item, at, rule.properties.keys());
            }
            if let (true, Some(seen)) = (looked_at, seen.as_deref_mut()) {
                seen.properties.insert(name);
            }
            if !holds && !self.is_collecting() {
                return false;
            }
        }
        holds
    }

    /// A property that is not named: mostly not wanted at all.
    fn other_property<'a>(
        &mut self,
        node: NodeId,
        name: &str,
        item: &Value,
        at: &Path<'_>,
        known: impl ExactSizeIterator<Item = &'a String>,
    ) -> bool {
        let path = Path::Key(at, name);
        if !matches!(self.nodes[node].keywords.as_slice(), [Keyword::Never]) {
            return self.node(node, item, &path, None);
        }
        self.fail(|| {
            let expected = match known.len() {
                0 => "no such property".to_owned(),
                _ => format!("no such property; there are {}", words::names(known)),
            };
            Problem::at(&path, expected, words::found(item))
        })
    }

    fn missing(&mut self, name: &str, at: &Path<'_>, expected: impl FnOnce() -> String) -> bool {
        self.fail(|| Problem::at(&Path::Key(at, name), expected(), "nothing"))
    }

    pub(super) fn size(&mut self, value: &Value, at: &Path<'_>, expected: impl FnOnce() -> String) -> bool {
        self.fail(|| Problem::at(at, expected(), words::found(value)))
    }
}
