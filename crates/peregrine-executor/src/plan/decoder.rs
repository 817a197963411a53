//! Steps out of a plan that is still being written: bytes in, whole steps out, however the bytes are cut.
//!
//! The decoder only finds where a step begins and ends, by counting brackets outside of strings; what is between is read
//! by the same parser as a whole plan, and what is around it is put back together and checked in the end. Linear in the
//! bytes, and holds one step at a time.

use serde_json::value::RawValue;

use super::{MAX_STEPS, PlanError, Problem, Wrapper};
use crate::Step;
use crate::reference::is_id;

/// How long one step, or what stands around the list, may be in bytes unless something else is asked for.
const MAX_STEP_BYTES: usize = 4 << 20;

/// Reads steps from the text of a plan as it comes: a JSON list, an object with the list as `steps`, or one step after
/// the other (JSON lines).
///
/// # Examples
///
/// ```
/// use peregrine_executor::PlanDecoder;
///
/// let mut decoder = PlanDecoder::new();
/// assert!(decoder.push(br#"{"goal": "..", "steps": [{"id": "a", "act"#)?.is_empty());
/// let steps = decoder.push(br#"ion": "echo"}, {"id": "b""#)?;
/// assert_eq!(steps[0].id, "a");
/// let steps = decoder.push(br#", "action": "echo"}]}"#)?;
/// assert_eq!(steps[0].id, "b");
/// decoder.finish()?;
/// # Ok::<(), peregrine_executor::PlanError>(())
/// ```
#[derive(Debug)]
pub struct PlanDecoder {
    state: State,
    /// What has come of the current step, or of what stands around the list.
    buffer: Vec<u8>,
    /// Where the list was taken out of what stands around it.
    around: Option<Vec<u8>>,
    brackets: Brackets,
    steps: usize,
    max_step_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come, or whole steps one after the other.
    Outside,
    /// In an object that is a step, or has a list of steps.
    Object,
    /// In the list, where a step may begin or the list end.
    First,
    /// In the list, behind a step.
    Behind,
    /// In the list, behind a comma.
    Next,
    /// In a step of the list.
    Step,
    /// Behind a list that stands alone.
    Closed,
    /// Behind a list within an object.
    Tail,
}

impl Default for PlanDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl PlanDecoder {
    /// A decoder that has read nothing.
    pub fn new() -> Self {
        Self {
            state: State::Outside,
            buffer: Vec::new(),
            around: None,
            brackets: Brackets::default(),
            steps: 0,
            max_step_bytes: MAX_STEP_BYTES,
        }
    }

    /// How long one step may be, in bytes; 4 MiB unless this is called.
    pub fn with_max_step_bytes(mut self, max_step_bytes: usize) -> Self {
        self.max_step_bytes = max_step_bytes;
        self
    }

    /// Takes the next piece of the text; what became whole by it.
    ///
    /// # Errors
    ///
    /// The text is not that of a plan, a step is not one, or larger than allowed. Nothing can be read after that.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Step>, PlanError> {
        let mut steps = Vec::new();
        for &byte in bytes {
            self.byte(byte, &mut steps)?;
        }
        Ok(steps)
    }

    /// Says that the text has ended.
    ///
    /// # Errors
    ///
    /// It has ended in the middle, or what stands around the list is not JSON.
    pub fn finish(self) -> Result<(), PlanError> {
        match self.state {
            State::Closed => Ok(()),
            State::Outside if self.steps > 0 || self.around.is_some() => Ok(()),
            State::Outside => Err(self.wrong("there is no plan in it")),
            _ => Err(self.wrong("it ends in the middle of the plan")),
        }
    }

    fn byte(&mut self, byte: u8, steps: &mut Vec<Step>) -> Result<(), PlanError> {
        let is_space = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        match (self.state, byte) {
            (State::Outside | State::First | State::Behind | State::Next | State::Closed, _) if is_space => {
                Ok(())
            }
            (State::Outside, b'[') if self.steps == 0 && self.around.is_none() => {
                self.state = State::First;
                Ok(())
            }
            (State::Outside, b'{') if self.around.is_none() => self.begin(State::Object),
            (State::First | State::Next, b'{') => self.begin(State::Step),
            (State::First | State::Behind, b']') => {
                self.state = match &mut self.around {
                    None => State::Closed,
                    Some(around) => {
                        around.push(b']');
                        std::mem::swap(around, &mut self.buffer);
                        // Within the object again.
                        self.brackets = Brackets {
                            depth: 1,
                            ..Brackets::default()
                        };
                        State::Tail
                    }
                };
                Ok(())
            }
            (State::Behind, b',') => {
                self.state = State::Next;
                Ok(())
            }
            (State::Step, _) => {
                if self.take(byte)? {
                    steps.push(self.step()?);
                    self.state = State::Behind;
                }
                Ok(())
            }
            (State::Object, _) => {
                if self.take(byte)? {
                    steps.push(self.step()?);
                    self.state = State::Outside;
                } else if byte == b'[' && self.brackets.depth == 2 && self.steps == 0 && self.is_the_list() {
                    self.around = Some(std::mem::take(&mut self.buffer));
                    self.state = State::First;
                }
                Ok(())
            }
            (State::Tail, _) => {
                if self.take(byte)? {
                    let around = std::mem::take(&mut self.buffer);
                    serde_json::from_slice::<Wrapper<'_>>(&around)
                        .map_err(|error| self.wrong(&error.to_string()))?;
                    self.state = State::Outside;
                }
                Ok(())
            }
            (State::Closed, _) => Err(self.wrong("something follows the list of steps")),
            (State::Outside, _) if self.around.is_some() => Err(self.wrong("something follows the plan")),
            (State::Outside, _) => Err(self.wrong("a list of steps was expected, or an object with one")),
            (State::First | State::Next, _) => Err(self.wrong("a step was expected, as an object")),
            (State::Behind, _) => {
                Err(self.wrong("a comma or the end of the list was expected behind a step"))
            }
        }
    }

    fn begin(&mut self, state: State) -> Result<(), PlanError> {
        self.state = state;
        self.buffer.clear();
        self.brackets = Brackets::default();
        self.take(b'{').map(|_| ())
    }

    /// Takes a byte of an object; whether it is the last one.
    fn take(&mut self, byte: u8) -> Result<bool, PlanError> {
        if self.buffer.len() >= self.max_step_bytes {
            let message = format!("it is longer than {} bytes", self.max_step_bytes);
            return Err(PlanError::one(Problem::Syntax {
                step: (self.state != State::Tail).then(|| self.steps.to_string()),
                message,
            }));
        }
        self.buffer.push(byte);
        Ok(self.brackets.closes(byte))
    }

    /// Whether the bracket that has just come opens the list of steps: whether its key is `steps`.
    fn is_the_list(&self) -> bool {
        let before = self.buffer[..self.buffer.len() - 1].trim_ascii_end();
        let key = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end);
        let before = key.and_then(|key| key.strip_suffix(b"\"steps\""));
        // The key begins there, and is not the end of a longer one.
        before.is_some_and(|before| matches!(before.trim_ascii_end().last(), Some(b'{' | b',')))
    }

    fn step(&mut self) -> Result<Step, PlanError> {
        let place = self.steps;
        self.steps += 1;
        if self.steps > MAX_STEPS {
            let (what, max) = ("steps", MAX_STEPS);
            return Err(PlanError::one(Problem::TooLarge { what, max }));
        }
        serde_json::from_slice(&self.buffer).map_err(|error| {
            let text = std::str::from_utf8(&self.buffer).unwrap_or_default();
            PlanError::one(Problem::Syntax {
                step: Some(name_of(place, text)),
                message: error.to_string(),
            })
        })
    }

    fn wrong(&self, message: &str) -> PlanError {
        PlanError::one(Problem::Syntax {
            step: None,
            message: format!("{message} (after {} steps)", self.steps),
        })
    }
}

/// Where one is in JSON, as far as brackets and strings go.
#[derive(Debug, Default)]
struct Brackets {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Brackets {
    /// Whether this byte closes the bracket that was opened first.
    fn closes(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// What to call a step that could not be read: its id, if that can be, else its place.
pub(super) fn name_of(place: usize, text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let id = serde_json::from_str::<Named<'_>>(text).ok();
    let id = id.and_then(|named| serde_json::from_str::<String>(named.id.get()).ok());
    match id.filter(|id| is_id(id)) {
        Some(id) => format!("`{id}`"),
        None => place.to_string(),
    }
}
