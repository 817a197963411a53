//! Keywords about arrays.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{Checker, Seen};
use super::node::{ArrayRule, ContainsRule, Keyword, NodeId};
use super::number::canonical;
use super::path::{Path, Problem};
use super::words;

impl Checker<'_> {
    pub(super) fn array<'v>(
        &mut self,
        keyword: &Keyword,
        value: &'v Value,
        items: &'v [Value],
        at: &Path<'_>,
        seen: Option<&mut Seen<'v>>,
    ) -> bool {
        match keyword {
            Keyword::Array(rule) => self.items(rule, items, at, seen),
            Keyword::Contains(rule) => self.contains(rule, value, items, at, seen),
            Keyword::UnevaluatedItems(node) => self.unevaluated_items(*node, items, at, seen),
            _ => self.count_and_kind(keyword, value, items, at),
        }
    }

    /// The keywords that need no other schema. They stand apart to keep the frames of the recursion small.
    fn count_and_kind(&mut self, keyword: &Keyword, value: &Value, items: &[Value], at: &Path<'_>) -> bool {
        let size = items.len() as u64;
        match keyword {
            Keyword::MinItems(least) => {
                size >= *least || self.size(value, at, || format!("at least {}", words::items(*least)))
            }
            Keyword::MaxItems(most) => {
                size <= *most || self.size(value, at, || format!("at most {}", words::items(*most)))
            }
            Keyword::UniqueItems => {
                let mut texts = BTreeSet::new();
                match items.iter().position(|item| !texts.insert(canonical(item))) {
                    None => true,
                    Some(index) => self.fail(|| {
                        let path = Path::Index(at, index);
                        Problem::at(
                            &path,
                            "an item that is not there before",
                            words::found(&items[index]),
                        )
                    }),
                }
            }
            _ => true,
        }
    }

    fn unevaluated_items<'v>(
        &mut self,
        node: NodeId,
        items: &'v [Value],
        at: &Path<'_>,
        seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let mut holds = true;
        for (index, item) in items.iter().enumerate() {
            let looked_at = seen
                .as_ref()
                .is_some_and(|seen| index < seen.prefix || seen.items.contains(&index));
            holds &= looked_at || self.node(node, item, &Path::Index(at, index), None);
        }
        if let Some(seen) = seen {
            seen.prefix = items.len();
        }
        holds
    }

    fn items<'v>(
        &mut self,
        rule: &ArrayRule,
        items: &'v [Value],
        at: &Path<'_>,
        seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let mut holds = true;
        let nodes = rule
            .prefix
            .iter()
            .copied()
            .map(Some)
            .chain(std::iter::repeat(rule.rest));
        let mut looked_at = 0;
        for ((index, item), node) in items.iter().enumerate().zip(nodes) {
            let Some(node) = node else { break };
            looked_at = index + 1;
            holds &= self.node(node, item, &Path::Index(at, index), None);
            if !holds && !self.is_collecting() {
                return false;
            }
        }
        if let Some(seen) = seen {
            seen.prefix = seen.prefix.max(looked_at);
        }
        holds
    }

    fn contains<'v>(
        &mut self,
        rule: &ContainsRule,
        value: &Value,
        items: &'v [Value],
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let mut fitting = 0;
        for (index, item) in items.iter().enumerate() {
            if self.quietly(|quiet| quiet.node(rule.node, item, &Path::Index(at, index), None)) {
                fitting += 1;
                if let Some(seen) = seen.as_deref_mut() {
                    seen.items.insert(index);
                }
            }
        }
        if fitting >= rule.least && rule.most.is_none_or(|most| fitting <= most) {
            return true;
        }
        let nodes = self.nodes;
        self.fail(|| {
            let bound = match rule.most {
                Some(most) if fitting > most => format!("at most {}", words::items(most)),
                _ => format!("at least {}", words::items(rule.least)),
            };
            let expected = format!("{bound} that must be {}", words::summary(nodes, rule.node));
            Problem::at(
                at,
                expected,
                format!("{} of which {fitting} fit", words::found(value)),
            )
        })
    }
}
