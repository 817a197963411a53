//! From messages to turns: for dialects in which consecutive messages of one side form one turn.
//!
//! Algorithm: a turn is opened by the first item that is really written and closed when the other side
//! speaks, so a message of which nothing can be sent leaves no trace. Within a run of user and tool messages
//! the tool results come first, as providers demand. The encoded prefix that may be remembered ends where the
//! last turn begins: only that turn can still grow, so everything before it never changes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use peregrine_core::{Error, Message, Messages, Part, Result, Role};

use super::EncodedPrefix;

/// What a dialect says about turns.
pub(crate) trait TurnDialect {
    /// The name of the list of items in a turn.
    const LIST: &'static str;

    /// What the dialect calls the side that this role is on; `None` for messages that stand elsewhere.
    fn role(&self, role: Role) -> Option<&'static str>;

    /// Appends what the part at `index` of a message means.
    fn item(&self, message: &Message, index: usize, out: &mut Vec<u8>) -> Result<Written>;

    /// What is put before the closing brace of the last item of a message with a cache breakpoint, for
    /// dialects that mark breakpoints.
    fn mark(&self) -> Option<&[u8]>;
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing: it means nothing to this provider.
    Nothing,
    /// An object that cannot carry a cache breakpoint.
    Object,
    /// An object that can.
    Markable,
}

/// Appends the turns of `messages` from the message `start` on, separated by commas, without the brackets
/// around them. `key` stands for everything beside the messages that the bytes depend on.
pub(crate) fn write<D: TurnDialect>(
    dialect: &D,
    messages: &Messages,
    start: usize,
    key: u64,
    out: &mut Vec<u8>,
) -> Result<Option<EncodedPrefix>> {
    let begin = out.len();
    let remembered = super::body::resume(out, messages, key, start);
    let mut at = remembered.unwrap_or(start);
    let mut turns = Turns {
        resumed: out.len() > begin,
        // What was taken from the memo goes back there, also if nothing new is stable.
        stable: remembered.map(|count| (count, out.len())),
        out,
        open: None,
    };
    while let Some(message) = messages.get(at) {
        let end = run_end(messages, at, message.role);
        turns.run(dialect, messages, at, end)?;
        at = end;
    }
    if turns.open.is_some() {
        turns.out.extend_from_slice(b"]}");
    }
    Ok(turns.stable.map(|(count, end)| EncodedPrefix {
        key,
        count,
        range: begin..end,
    }))
}

/// A key for [`write`]: the same for the same inputs in every process of one build.
pub(crate) fn prefix_key(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Whether a breakpoint was asked for anywhere, and how often.
pub(crate) fn count_breakpoints(messages: &Messages) -> usize {
    messages.iter().filter(|message| message.cache_breakpoint).count()
}

/// User and tool messages that stand together form a run; any other message is one by itself.
fn run_end(messages: &Messages, at: usize, role: Role) -> usize {
    let asks = |role: Role| matches!(role, Role::User | Role::Tool);
    let mut end = at + 1;
    while asks(role) && messages.get(end).is_some_and(|message| asks(message.role)) {
        end += 1;
    }
    end
}

struct Turns<'a> {
    out: &'a mut Vec<u8>,
    /// Something stands before the first turn that is written here.
    resumed: bool,
    open: Option<&'static str>,
    /// How many messages the bytes before the newest turn encode, and where they end.
    stable: Option<(usize, usize)>,
}

impl Turns<'_> {
    fn run<D: TurnDialect>(
        &mut self,
        dialect: &D,
        messages: &Messages,
        from: usize,
        to: usize,
    ) -> Result<()> {
        // For each message with a breakpoint, where the last object that can carry it ends.
        let mut marks: Vec<(usize, Option<usize>)> = Vec::new();
        for results in [true, false] {
            for index in from..to {
                let Some((message, role)) = messages
                    .get(index)
                    .and_then(|message| Some((message, dialect.role(message.role)?)))
                else {
                    continue;
                };
                let mut end = None;
                for (part, _) in message
                    .parts
                    .iter()
                    .enumerate()
                    .filter(|(_, part)| matches!(part, Part::ToolResult(_)) == results)
                {
                    let written = self.item::<D>(from, role, |out| dialect.item(message, part, out))?;
                    if written == Written::Markable {
                        end = Some(self.out.len());
                    }
                }
                if message.cache_breakpoint {
                    marks.push((index, end));
                }
            }
        }
        match dialect.mark() {
            Some(mark) if !marks.is_empty() => self.insert_marks(mark, &marks),
            _ => Ok(()),
        }
    }

    /// Writes an item, in a new turn if the role is not the open one's. An item that writes nothing leaves
    /// no trace.
    fn item<D: TurnDialect>(
        &mut self,
        first_of_run: usize,
        role: &'static str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written>,
    ) -> Result<Written> {
        let before = self.out.len();
        let opens = self.open != Some(role);
        let mut turn_begins = before;
        if opens {
            if self.open.is_some() {
                self.out.extend_from_slice(b"]}");
                turn_begins = self.out.len();
            }
            if self.open.is_some() || self.resumed {
                self.out.push(b',');
            }
            for piece in ["{\"role\":\"", role, "\",\"", D::LIST, "\":["] {
                self.out.extend_from_slice(piece.as_bytes());
            }
        } else {
            self.out.push(b',');
        }
        let written = write(self.out)?;
        if written == Written::Nothing {
            self.out.truncate(before);
        } else if opens {
            if self.open.is_some() {
                self.stable = Some((first_of_run, turn_begins));
            }
            self.open = Some(role);
        }
        Ok(written)
    }

    fn insert_marks(&mut self, mark: &[u8], marks: &[(usize, Option<usize>)]) -> Result<()> {
        let mut ends: Vec<(usize, usize)> = Vec::with_capacity(marks.len());
        for (index, end) in marks {
            let other = ends.iter_mut().find(|(known, _)| known == index);
            match (other, end) {
                (Some((_, known)), Some(end)) => *known = *end,
                (None, Some(end)) => ends.push((*index, *end)),
                (_, None) => {}
            }
        }
        if let Some((index, _)) = marks
            .iter()
            .find(|(index, _)| !ends.iter().any(|(known, _)| known == index))
        {
            return Err(Error::invalid_request(format!(
                "message {index} has a cache breakpoint but no part that can carry one; put it on another message"
            )));
        }
        // From the back, so that the places before stay true.
        ends.sort_unstable_by_key(|(_, end)| std::cmp::Reverse(*end));
        for (_, end) in ends {
            self.out.splice(end - 1..end - 1, mark.iter().copied());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use peregrine_core::{ReasoningPart, ToolCall, ToolResult};

    /// Texts as `{t}`, results as `{r:id}`, calls as `{c}` (without a breakpoint), nothing else.
    struct Toy;

    impl TurnDialect for Toy {
        const LIST: &'static str = "l";

        fn role(&self, role: Role) -> Option<&'static str> {
            match role {
                Role::System => None,
                Role::Assistant => Some("a"),
                _ => Some("u"),
            }
        }

        fn item(&self, message: &Message, index: usize, out: &mut Vec<u8>) -> Result<Written> {
            let (text, written) = match &message.parts[index] {
                Part::Text(part) => (part.text.clone(), Written::Markable),
                Part::ToolResult(result) => (format!("r:{}", result.call_id), Written::Markable),
                Part::ToolCall(_) => ("c".to_owned(), Written::Object),
                _ => return Ok(Written::Nothing),
            };
            out.extend_from_slice(format!("{{{text}}}").as_bytes());
            Ok(written)
        }

        fn mark(&self) -> Option<&[u8]> {
            Some(b"!")
        }
    }

    fn encode(messages: &Messages) -> (String, Option<EncodedPrefix>) {
        let mut out = b"[".to_vec();
        let prefix = write(&Toy, messages, 0, 1, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), prefix)
    }

    fn result(id: &str) -> Message {
        Message::tool(ToolResult::new(&ToolCall::new(id, "n", "{}"), ""))
    }

    fn thinking() -> Message {
        Message::new(Role::Assistant, vec![Part::Reasoning(ReasoningPart::default())])
    }

    fn call() -> Message {
        Message::new(
            Role::Assistant,
            vec![Part::ToolCall(ToolCall::new("i", "n", "{}"))],
        )
    }

    #[test]
    fn sides_are_merged_results_come_first_and_what_is_not_sent_leaves_no_trace() {
        let messages = Messages::from(vec![
            Message::system("s"),
            Message::user("a"),
            thinking(),
            Message::user("b"),
            call(),
            Message::assistant("t"),
            Message::user("c"),
            result("1"),
            result("2"),
            Message::user("d"),
        ]);
        let (text, prefix) = encode(&messages);
        assert_eq!(
            text,
            r#"[{"role":"u","l":[{a},{b}]},{"role":"a","l":[{c},{t}]},{"role":"u","l":[{r:1},{r:2},{c},{d}]}"#
        );
        let prefix = prefix.unwrap();
        assert_eq!(prefix.count, 6);
        assert_eq!(
            &text[prefix.range],
            r#"{"role":"u","l":[{a},{b}]},{"role":"a","l":[{c},{t}]}"#
        );
    }

    #[test]
    fn marks_stand_in_the_last_object_of_their_message() {
        let messages = Messages::from(vec![
            Message::user("a").with_cache_breakpoint(),
            Message::assistant("t")
                .with_part(Part::ToolCall(ToolCall::new("i", "n", "{}")))
                .with_cache_breakpoint(),
            Message::user("b").with_cache_breakpoint(),
            result("1").with_cache_breakpoint(),
        ]);
        assert_eq!(
            encode(&messages).0,
            r#"[{"role":"u","l":[{a!}]},{"role":"a","l":[{t!},{c}]},{"role":"u","l":[{r:1!},{b!}]}"#
        );
        let unmarkable = Messages::from(vec![call().with_cache_breakpoint()]);
        let error = write(&Toy, &unmarkable, 0, 1, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("message 0"), "{error}");
    }

    #[test]
    fn a_remembered_prefix_gives_the_same_bytes_at_every_length() {
        let script = [
            Message::system("s"),
            Message::user("a"),
            thinking(),
            call(),
            result("1"),
            result("2").with_cache_breakpoint(),
            thinking(),
            call(),
            Message::user("x"),
            result("3"),
            Message::assistant("t"),
            Message::assistant("t"),
            Message::user("y"),
        ];
        let mut kept = Messages::new();
        let mut resumed = 0;
        for message in script {
            kept.push(message);
            let fresh = Messages::from(kept.iter().cloned().collect::<Vec<_>>());
            resumed += usize::from(kept.encoded_prefix(1).is_some());
            let (text, prefix) = encode(&kept);
            assert_eq!(text, encode(&fresh).0, "{} messages", kept.len());
            if let Some(prefix) = prefix {
                kept.remember_prefix(1, prefix.count, Bytes::from(text[prefix.range].to_owned()));
            }
        }
        assert!(resumed > 5, "the prefix was used {resumed} times");
    }
}
