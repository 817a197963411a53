//! A value against nodes.
//!
//! Algorithm: plain recursion over the nodes. In quiet mode the first thing that does not fit ends the check and
//! nothing is allocated; in collecting mode siblings go on, up to the bound of problems. Steps and depth are counted:
//! a value that needs more of them than allowed does not fit, so no schema and no value can make a check endless.
//!
//! Where a schema says `unevaluated..`, each keyword notes which properties and items it looked at; only what was
//! noted by keywords that held counts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::node::{Keyword, Node, NodeId};
use super::number::equal;
use super::path::{Kind, Path, Problem, excerpt};
use super::{Validator, words};

/// How many steps may go into the explanation. To explain costs more than to check, and half of one is enough.
const EXPLAIN_STEPS: u32 = 20_000;

/// Whether a value fits, or why that could not be told.
pub(super) fn fits(nodes: &[Node], root: NodeId, value: &Value) -> Result<bool, Exhausted> {
    let mut checker = Checker::new(nodes, Validator::MAX_STEPS);
    let holds = checker.node(root, value, &Path::Root, None);
    if checker.is_exhausted() {
        Err(Exhausted)
    } else {
        Ok(holds)
    }
}

/// The value needs more steps or levels than allowed.
#[derive(Debug)]
pub(super) struct Exhausted;

impl Exhausted {
    pub(super) fn problem(&self, value: &Value) -> Problem {
        let (steps, levels) = (Validator::MAX_STEPS, Validator::MAX_DEPTH);
        let expected = format!("a value that can be checked in {steps} steps and {levels} levels");
        Problem::at(&Path::Root, expected, words::found(value))
    }
}

/// What does not fit.
pub(super) fn problems(nodes: &[Node], root: NodeId, value: &Value) -> Vec<Problem> {
    let mut checker = Checker::new(nodes, EXPLAIN_STEPS);
    checker.problems = Some(Vec::new());
    checker.node(root, value, &Path::Root, None);
    let mut problems = checker.problems.unwrap_or_default();
    if problems.is_empty() {
        // The explanation ran out of steps before it came to a point.
        let expected = words::summary(nodes, root);
        problems.push(Problem::at(&Path::Root, expected, words::found(value)));
    }
    problems
}

pub(super) struct Checker<'n> {
    pub(super) nodes: &'n [Node],
    steps_left: u32,
    depth_left: u32,
    too_deep: bool,
    /// Where problems are collected; `None` in quiet mode.
    pub(super) problems: Option<Vec<Problem>>,
}

/// What was looked at in one value.
#[derive(Debug, Default)]
pub(super) struct Seen<'v> {
    pub(super) properties: BTreeSet<&'v str>,
    /// So many items from the start.
    pub(super) prefix: usize,
    /// And these.
    pub(super) items: BTreeSet<usize>,
}

impl<'v> Seen<'v> {
    fn merge(&mut self, other: Seen<'v>) {
        self.properties.extend(other.properties);
        self.prefix = self.prefix.max(other.prefix);
        self.items.extend(other.items);
    }
}

impl<'n> Checker<'n> {
    fn new(nodes: &'n [Node], steps: u32) -> Self {
        Self {
            nodes,
            steps_left: steps,
            depth_left: Validator::MAX_DEPTH,
            too_deep: false,
            problems: None,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.steps_left == 0 || self.too_deep
    }

    /// Takes some steps; `false` when there are none left.
    pub(super) fn spend(&mut self, steps: usize) -> bool {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps_left = self.steps_left.saturating_sub(steps);
        self.steps_left > 0
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.problems.is_some()
    }

    /// Notes a problem, and says `false`.
    pub(super) fn fail(&mut self, problem: impl FnOnce() -> Problem) -> bool {
        if let Some(problems) = self
            .problems
            .as_mut()
            .filter(|problems| problems.len() < Validator::MAX_PROBLEMS)
        {
            problems.push(problem());
        }
        false
    }

    /// Checks without collecting.
    pub(super) fn quietly<T>(&mut self, check: impl FnOnce(&mut Self) -> T) -> T {
        let problems = self.problems.take();
        let result = check(self);
        self.problems = problems;
        result
    }

    /// Whether all keywords of a node hold. What they looked at is added to `seen`, if they do.
    pub(super) fn node<'v>(
        &mut self,
        id: NodeId,
        value: &'v Value,
        at: &Path<'_>,
        seen: Option<&mut Seen<'v>>,
    ) -> bool {
        if !self.spend(1) {
            return false;
        }
        if self.depth_left == 0 {
            self.too_deep = true;
            return false;
        }
        self.depth_left -= 1;
        let node = &self.nodes[id];
        let mut own = (node.tracks || seen.is_some()).then(Seen::default);
        let mut holds = true;
        for keyword in &node.keywords {
            if self.keyword(keyword, value, at, own.as_mut()) {
                continue;
            }
            holds = false;
            // What follows a wrong type would only repeat it.
            if !self.is_collecting() || matches!(keyword, Keyword::Never | Keyword::Type(_)) {
                break;
            }
        }
        self.depth_left += 1;
        if let (true, Some(seen), Some(own)) = (holds, seen, own) {
            seen.merge(own);
        }
        holds
    }

    fn keyword<'v>(
        &mut self,
        keyword: &Keyword,
        value: &'v Value,
        at: &Path<'_>,
        seen: Option<&mut Seen<'v>>,
    ) -> bool {
        match keyword {
            Keyword::Ref(node) => self.node(*node, value, at, seen),
            Keyword::AllOf(nodes) => self.all_of(nodes, value, at, seen),
            Keyword::AnyOf(nodes) => self.any_of(nodes, value, at, seen),
            Keyword::OneOf(nodes) => self.one_of(nodes, value, at, seen),
            Keyword::Not(node) => self.not(*node, value, at),
            Keyword::If(rule) => self.conditional(rule, value, at, seen),
            Keyword::Never | Keyword::Type(_) | Keyword::Enum(_) | Keyword::Const(_) => {
                self.kind(keyword, value, at)
            }
            _ => match value {
                Value::Object(map) => self.object(keyword, value, map, at, seen),
                Value::Array(items) => self.array(keyword, value, items, at, seen),
                Value::String(text) => self.string(keyword, value, text, at),
                Value::Number(_) => self.number(keyword, value, at),
                Value::Null | Value::Bool(_) => true,
            },
        }
    }

    // Keywords about the value as a whole.

    fn kind(&mut self, keyword: &Keyword, value: &Value, at: &Path<'_>) -> bool {
        let (holds, kind) = match keyword {
            Keyword::Never => (false, Kind::Type),
            Keyword::Type(types) => (types.contains(value), Kind::Type),
            Keyword::Const(wanted) => (equal(wanted, value), Kind::Const),
            Keyword::Enum(wanted) => {
                let holds = self.spend(wanted.len()) && wanted.iter().any(|wanted| equal(wanted, value));
                (holds, Kind::Const)
            }
            _ => (true, Kind::Other),
        };
        holds
            || self.fail(|| {
                let expected = match keyword {
                    Keyword::Type(types) => words::types(*types),
                    Keyword::Const(wanted) => words::literal(wanted),
                    Keyword::Enum(wanted) => words::one_of(wanted.iter()),
                    _ => "nothing here".to_owned(),
                };
                let problem = Problem::at(at, expected, words::found(value)).of_kind(kind);
                match value {
                    Value::String(text) => problem.with_detail(format!("{:?}", excerpt(text))),
                    _ => problem,
                }
            })
    }
}
