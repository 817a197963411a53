//! Which object in a text is the answer.
//!
//! The first one, if nothing but white space stands before it. One behind prose may be a part of the prose, so it is
//! passed over if none of its fields was asked for. Objects behind the answer are read to see whether they say
//! something else. Whole texts are judged in the same way, except that there a first object without any field that was
//! asked for may also be passed over when nothing stands before it.

use serde_json::Value;

use super::{Fail, Frame, Machine, Outer, Rule, State};
use crate::error::Violation;
use crate::inputs::Fields;
use crate::parse::{UnknownFields, ambiguous};
use crate::shape::{Checker, ObjectRule, Shape, unknown_field};

impl Machine {
    /// An outermost object may begin: what it must fit.
    pub(super) fn begin_outer(&mut self) -> Rule {
        self.field = None;
        self.outer = Outer::Answer;
        let Some(shape) = &self.shape else {
            return Rule::Free;
        };
        if !self.found.is_empty() {
            self.outer = Outer::Later;
            self.tolerated = true;
            return Rule::Free;
        }
        if self.tolerated && self.reading.unknown_fields == UnknownFields::Reject {
            self.outer = Outer::Undecided;
        }
        Rule::Node(shape.root())
    }

    /// A key of the outermost object and its colon are there.
    pub(super) fn commit_outer(&mut self) -> Result<(), Fail> {
        let (Some(shape), Some(Frame::Object { key, rule, .. })) = (&self.shape, self.stack.first_mut())
        else {
            return Ok(());
        };
        let is_field = is_field(shape, key);
        match &self.outer {
            Outer::Undecided if is_field => self.outer = Outer::Answer,
            Outer::Undecided => {
                self.outer = Outer::Passed(key.clone());
                *rule = Rule::Free;
            }
            Outer::Passed(first) if is_field => return Err(unasked(shape.root_object(), first).into()),
            Outer::Passed(_) | Outer::Answer | Outer::Later => {}
        }
        Ok(())
    }

    /// An outermost object is complete.
    pub(super) fn close_outer(&mut self, map: Fields) -> Result<(), Fail> {
        match (std::mem::replace(&mut self.outer, Outer::Answer), &self.shape) {
            (Outer::Passed(first), Some(shape)) => {
                self.passed
                    .get_or_insert_with(|| unasked(shape.root_object(), &first));
            }
            (Outer::Later, Some(shape)) => {
                let means_answer = map.keys().any(|key| is_field(shape, key));
                if means_answer && !self.is_answer_again(shape, map) {
                    return Err(ambiguous().into());
                }
            }
            _ => self.found.push(map),
        }
        Ok(())
    }

    /// The answer, if nothing but its own closing bracket was cut off: every field is there, the last one to its end, and
    /// no comma promises more. Within a list or a map that was cut off, more could have followed. Where other objects
    /// stand before it, the text is not taken for one answer that lacks its end.
    pub(super) fn all_but_its_bracket(&mut self, shape: &Shape) -> Option<Fields> {
        let [Frame::Object { map, .. }] = self.stack.as_mut_slice() else {
            return None;
        };
        let mut fields = shape.root_object().fields.iter();
        let is_whole = self.committed
            && self.found.is_empty()
            && self.passed.is_none()
            && self.state == State::CommaOrClose
            && fields.all(|field| map.contains_key(&*field.name));
        if !is_whole {
            return None;
        }
        self.tolerated = true;
        let answer = std::mem::take(map);
        self.stack.clear();
        Some(answer)
    }

    fn is_answer_again(&self, shape: &Shape, map: Fields) -> bool {
        let mut again = Value::Object(map);
        let mut checker = Checker::new(shape, self.reading.unknown_fields);
        checker.visit(shape.root(), &mut again);
        checker.finish().is_ok() && again.as_object() == self.found.first()
    }
}

fn is_field(shape: &Shape, key: &str) -> bool {
    shape.root_object().fields.iter().any(|field| *field.name == *key)
}

/// What is wrong with a key that nobody asked for, before its value is there.
pub(super) fn unasked(rule: &ObjectRule, key: &str) -> Violation {
    let mut problem = unknown_field(rule, key, &Value::Null);
    "a value".clone_into(&mut problem.found);
    problem
}
