//! Keywords that combine schemas, and the choice of what to say when no alternative fits.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{Checker, Seen};
use super::node::{IfRule, NodeId};
use super::path::{Kind, Path, Problem};
use super::words;

impl Checker<'_> {
    pub(super) fn all_of<'v>(
        &mut self,
        nodes: &[NodeId],
        value: &'v Value,
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let mut holds = true;
        for node in nodes {
            holds &= self.node(*node, value, at, seen.as_deref_mut());
            if !holds && !self.is_collecting() {
                return false;
            }
        }
        holds
    }

    pub(super) fn any_of<'v>(
        &mut self,
        nodes: &[NodeId],
        value: &'v Value,
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let holds = self.quietly(|quiet| {
            let mut holds = false;
            for node in nodes {
                holds |= quiet.node(*node, value, at, seen.as_deref_mut());
                // Where it matters what was looked at, every branch that holds counts.
                if holds && seen.is_none() {
                    break;
                }
            }
            holds
        });
        holds || self.no_branch(nodes, value, at)
    }

    pub(super) fn one_of<'v>(
        &mut self,
        nodes: &[NodeId],
        value: &'v Value,
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let fitting = self.quietly(|quiet| {
            let mut fitting = Vec::new();
            for (index, node) in nodes.iter().enumerate() {
                if quiet.node(*node, value, at, seen.as_deref_mut()) {
                    fitting.push(index + 1);
                }
                if fitting.len() == 2 {
                    break;
                }
            }
            fitting
        });
        match fitting.as_slice() {
            [] => self.no_branch(nodes, value, at),
            [_] => true,
            [one, two, ..] => self.fail(|| {
                let expected = format!("exactly one of {} alternatives to fit", nodes.len());
                Problem::at(
                    at,
                    expected,
                    format!("{} that fits number {one} and {two}", words::found(value)),
                )
            }),
        }
    }

    /// Says why none of some alternatives fits: by the one that was meant, if that can be told.
    fn no_branch(&mut self, nodes: &[NodeId], value: &Value, at: &Path<'_>) -> bool {
        let Some(outer) = self.problems.take() else {
            return false;
        };
        let mut branches = Vec::with_capacity(nodes.len());
        for node in nodes {
            self.problems = Some(Vec::new());
            self.node(*node, value, at, None);
            branches.push(self.problems.take().unwrap_or_default());
        }
        self.problems = Some(outer);
        let here = at.depth();
        // A wrong type or value right here: not meant. A wrong constant one step below, such as a tag: hardly meant.
        let distance = |problems: &Vec<Problem>| {
            let wrong = |kind: fn(Kind) -> bool, depth: usize| {
                problems
                    .iter()
                    .any(|problem| kind(problem.kind) && problem.depth == depth)
            };
            match () {
                () if wrong(|kind| kind != Kind::Other, here) => 2,
                () if wrong(|kind| kind == Kind::Const, here + 1) => 1,
                () => 0,
            }
        };
        let nearest = branches.iter().map(distance).min().unwrap_or(2);
        let mut meant = branches.iter().filter(|problems| distance(problems) == nearest);
        if let (Some(problems), None, true) = (meant.next(), meant.next(), nearest < 2 || branches.len() == 1)
        {
            for problem in problems {
                self.fail(|| problem.clone());
            }
            return false;
        }
        if nearest == 1
            && let Some(problem) = unknown_tag(&branches)
        {
            return self.fail(|| problem);
        }
        let expected = words::any_of(self.nodes, nodes);
        self.fail(|| Problem::at(at, expected, words::found(value)))
    }

    pub(super) fn not(&mut self, node: NodeId, value: &Value, at: &Path<'_>) -> bool {
        let fits = self.quietly(|quiet| quiet.node(node, value, at, None));
        // Running out of steps within counts as not fitting, and so as holding; the check as a whole says so then.
        if !fits {
            return true;
        }
        let nodes = self.nodes;
        self.fail(|| {
            let unwanted = words::summary(nodes, node);
            Problem::at(at, format!("anything but {unwanted}"), words::found(value))
        })
    }

    pub(super) fn conditional<'v>(
        &mut self,
        rule: &IfRule,
        value: &'v Value,
        at: &Path<'_>,
        mut seen: Option<&mut Seen<'v>>,
    ) -> bool {
        let condition = self.quietly(|quiet| quiet.node(rule.condition, value, at, seen.as_deref_mut()));
        let branch = if condition { rule.then } else { rule.otherwise };
        branch.is_none_or(|node| self.node(node, value, at, seen))
    }
}

/// Where every alternative wants another constant at the same place: all of these constants.
fn unknown_tag(branches: &[Vec<Problem>]) -> Option<Problem> {
    let tags: Option<Vec<_>> = branches
        .iter()
        .map(|problems| problems.iter().find(|problem| problem.kind == Kind::Const))
        .collect();
    let tags = tags?;
    let first = *tags.first()?;
    if tags.iter().any(|tag| tag.path != first.path) {
        return None;
    }
    let wanted: BTreeSet<_> = tags
        .iter()
        .map(|tag| tag.expected.trim_start_matches("one of "))
        .collect();
    let wanted = wanted.into_iter().collect::<Vec<_>>().join(", ");
    let mut problem = first.clone();
    problem.expected = excerpt_list(&wanted);
    Some(problem)
}

/// A list that is not longer than it helps.
fn excerpt_list(list: &str) -> String {
    match list.char_indices().nth(400) {
        None => format!("one of {list}"),
        Some((end, _)) => format!("one of {}…", &list[..end]),
    }
}
