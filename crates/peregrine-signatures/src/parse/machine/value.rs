//! What a value must fit, from its first character to its last, and where it goes when it is complete.

use std::collections::HashSet;

use serde_json::Value;

use super::outer::unasked;
use super::{Close, Fail, Frame, Machine, Rule, State};
use crate::error::{Violation, ViolationKind};
use crate::inputs::Fields;
use crate::parse::fields::{FieldEvent, FieldPath};
use crate::parse::{UnknownFields, exact, too_deep};
use crate::shape::{Checker, Kind, NodeId, Start, found_text};

impl Machine {
    /// A key and its colon are there: finds out what its value must fit.
    pub(super) fn commit_key(&mut self) -> Result<(), Fail> {
        self.committed = true;
        if self.stack.len() == 1 {
            self.commit_outer()?;
        }
        self.state = State::Value(Close::No);
        let is_outermost = self.stack.len() == 1;
        let reading = self.reading;
        let Some(Frame::Object {
            rule,
            map,
            dropped,
            key,
            next,
            value_rule,
            value_optional,
        }) = self.stack.last_mut()
        else {
            unreachable!("a key stands in an object");
        };
        let is_twice = map.contains_key(key.as_str()) || dropped.contains(key.as_str());
        *value_optional = false;
        *value_rule = match (*rule, self.shape.as_ref()) {
            (Rule::Node(id), Some(shape)) => {
                let Kind::Object(object) = shape.kind(id) else {
                    unreachable!("an object is resolved to an object's node");
                };
                let is_named = |place: &usize| object.fields.get(*place).is_some_and(|f| *f.name == **key);
                // Models write fields in order, so the next one is looked at first.
                let place = Some(*next)
                    .filter(is_named)
                    .or_else(|| (0..object.fields.len()).find(is_named));
                match place {
                    Some(place) => {
                        let field = &object.fields[place];
                        *next = place + 1;
                        *value_optional = !field.required;
                        if is_outermost {
                            self.field = Some(field.name.clone());
                        }
                        Rule::Node(field.node)
                    }
                    None => match object.rest(key) {
                        Some(Some(node)) => Rule::Node(node),
                        Some(None) => Rule::Free,
                        None if reading.unknown_fields == UnknownFields::Ignore => Rule::Skip,
                        None => {
                            let problem = unasked(object, key);
                            return Err(self.within_outer(problem).into());
                        }
                    },
                }
            }
            (Rule::Skip, _) => Rule::Skip,
            _ => Rule::Free,
        };
        if is_twice {
            let problem = exact::duplicate(key);
            return Err(self.within_outer(problem).into());
        }
        Ok(())
    }

    /// A value begins: what it must fit, now that its first character is known.
    pub(super) fn begin(&mut self, start: Start) -> Result<Rule, Violation> {
        let Some(shape) = &self.shape else {
            return Ok(Rule::Free);
        };
        let (rule, optional) = match self.stack.last() {
            Some(Frame::Object {
                value_rule,
                value_optional,
                ..
            }) => (*value_rule, *value_optional),
            Some(Frame::List { rule, items }) => match *rule {
                Rule::Node(id) => {
                    let item = match shape.kind(id) {
                        Kind::List(list) if list.length.max.is_none_or(|max| items.len() < max) => {
                            Some(list.items)
                        }
                        Kind::Tuple(nodes) => nodes.get(items.len()).copied(),
                        _ => None,
                    };
                    let Some(item) = item else {
                        let found = format!("more than {} items", items.len());
                        let problem = Violation::new(ViolationKind::Length, shape.describe(id), found);
                        return Err(self.within_outer(problem));
                    };
                    (Rule::Node(item), false)
                }
                Rule::Skip => (Rule::Skip, false),
                _ => (Rule::Free, false),
            },
            None => (Rule::Free, false),
        };
        let Rule::Node(id) = rule else {
            return Ok(rule);
        };
        let resolved = match shape.kind(id) {
            Kind::Any => return Ok(Rule::Free),
            Kind::Union(_) => match shape.alternatives(id, start)[..] {
                [] => None,
                [only] if matches!(shape.kind(only), Kind::Any) => return Ok(Rule::Free),
                [only] => Some(Rule::Node(only)),
                _ => Some(Rule::Deferred(id)),
            },
            _ => shape.accepts(id, start).then_some(Rule::Node(id)),
        };
        match resolved {
            Some(rule) => Ok(rule),
            None if optional && start == Start::Null => Ok(Rule::Absent),
            None => {
                let problem = Violation::new(ViolationKind::Type, shape.describe(id), start.describe());
                Err(self.at_path(problem))
            }
        }
    }

    pub(super) fn deepen(&self) -> Result<(), Violation> {
        match self.stack.len() < self.reading.max_depth {
            true => Ok(()),
            false => Err(self.at_path(too_deep(self.reading.max_depth))),
        }
    }

    pub(super) fn open_object(&mut self, rule: Rule) {
        self.stack.push(Frame::Object {
            rule,
            map: Fields::new(),
            dropped: HashSet::new(),
            key: String::new(),
            next: 0,
            value_rule: Rule::Free,
            value_optional: false,
        });
        self.state = State::Key(Close::Empty);
    }

    /// Checks what is known of a list or object only at its end; its elements were checked as they came.
    pub(super) fn check_closed(
        &self,
        rule: Rule,
        check: impl FnOnce(&mut Checker<'_>, NodeId, &Kind),
    ) -> Result<(), Violation> {
        let (Rule::Node(id), Some(shape)) = (rule, &self.shape) else {
            return Ok(());
        };
        let mut checker = Checker::new(shape, self.reading.unknown_fields);
        check(&mut checker, id, shape.kind(id));
        self.first_problem(checker)
    }

    /// A value is complete: checks what is still to be checked, tells it and puts it where it belongs.
    pub(super) fn complete(
        &mut self,
        mut value: Value,
        rule: Rule,
        is_scalar: bool,
        events: &mut Vec<FieldEvent>,
    ) -> Result<(), Fail> {
        match (rule, &self.shape) {
            (Rule::Node(id), Some(shape)) if is_scalar => {
                let mut checker = Checker::new(shape, self.reading.unknown_fields);
                checker.visit(id, &mut value);
                self.first_problem(checker)?;
            }
            (Rule::Deferred(id), Some(shape)) => {
                let mut checker = Checker::new(shape, self.reading.unknown_fields);
                checker.visit(id, &mut value);
                self.first_problem(checker)?;
            }
            _ => {}
        }
        let is_kept = !matches!(rule, Rule::Skip | Rule::Absent);
        if is_kept && let Some(path) = self.told_path() {
            events.push(FieldEvent::Completed {
                path,
                value: value.clone(),
            });
        }
        self.state = State::CommaOrClose;
        match (self.stack.last_mut(), value) {
            (Some(Frame::Object { map, key, .. }), value) if is_kept => {
                map.insert(std::mem::take(key), value);
            }
            (Some(Frame::Object { dropped, key, .. }), _) => {
                dropped.insert(std::mem::take(key));
            }
            (Some(Frame::List { items, .. }), value) if is_kept => items.push(value),
            (Some(Frame::List { .. }), _) => {}
            (None, Value::Object(map)) => {
                self.close_outer(map)?;
                self.committed = false;
                self.state = State::Seek;
            }
            (None, _) => unreachable!("only objects are sought"),
        }
        Ok(())
    }

    pub(super) fn first_problem(&self, checker: Checker<'_>) -> Result<(), Violation> {
        match checker.finish() {
            Ok(()) => Ok(()),
            Err(problems) => match problems.into_iter().next() {
                Some(problem) => Err(self.at_path(problem)),
                None => Ok(()),
            },
        }
    }

    /// Whether a text that must fit this is told piece by piece: free texts of fields and of items of fields.
    pub(super) fn is_told(&self, rule: Rule) -> bool {
        let is_free = match (rule, &self.shape) {
            (Rule::Node(id), Some(shape)) => matches!(shape.kind(id), Kind::Text(_)),
            (Rule::Free, Some(_)) => true,
            _ => false,
        };
        is_free && self.told_path().is_some()
    }

    /// The path under which the value that stands here is told: a field, or an item of a field that is a list.
    pub(super) fn told_path(&self) -> Option<FieldPath> {
        let field = self.field.clone().filter(|_| self.shape.is_some())?;
        match self.stack.as_slice() {
            [_] => Some(FieldPath::field(field)),
            [_, Frame::List { rule, items }] if *rule != Rule::Skip => {
                Some(FieldPath::item(field, items.len()))
            }
            _ => None,
        }
    }

    /// Tells what is new of a text, and checks what can be checked before its end.
    pub(super) fn tell_text(&mut self, events: &mut Vec<FieldEvent>) -> Result<(), Violation> {
        let (State::Text(_), false, Some(rule)) = (self.state, self.token.is_key, self.token.rule) else {
            return Ok(());
        };
        if let (Rule::Node(id), Some(shape)) = (rule, &self.shape) {
            let text = &self.token.text;
            let problem = match shape.kind(id) {
                Kind::OneOf(choices) => {
                    let can_match = |choice: &Value| {
                        choice
                            .as_str()
                            .is_some_and(|choice| choice.starts_with(text.as_str()))
                    };
                    match choices.iter().any(|choice| can_match(&choice.value)) {
                        true => None,
                        false => Some((ViolationKind::Choice, found_text(text))),
                    }
                }
                Kind::Text(rule) => rule.length.max.and_then(|max| {
                    let (bytes, chars) = self.token.counted;
                    self.token.counted = (text.len(), chars + text[bytes..].chars().count());
                    (self.token.counted.1 > max)
                        .then(|| (ViolationKind::Length, format!("more than {max} characters")))
                }),
                _ => None,
            };
            if let Some((kind, found)) = problem {
                let problem = Violation::new(kind, shape.describe(id), found);
                return Err(self.at_path(problem));
            }
        }
        if let Some(told) = self.token.told
            && told < self.token.text.len()
            && let Some(path) = self.told_path()
        {
            let text = self.token.text[told..].to_owned();
            self.token.told = Some(self.token.text.len());
            events.push(FieldEvent::Partial { path, text });
        }
        Ok(())
    }
}
