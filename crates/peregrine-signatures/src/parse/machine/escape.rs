//! Texts and their escapes, byte by byte.
//!
//! Runs without escapes are copied whole. A surrogate pair may be cut anywhere, so its first half is part of the
//! state.

use super::{Escape, Fail, Machine, State};
use crate::parse::fields::FieldEvent;

impl Machine {
    /// Looks at the next byte of a text, or at a run of plain ones.
    pub(super) fn text_step(
        &mut self,
        piece: &str,
        at: &mut usize,
        escape: Escape,
        events: &mut Vec<FieldEvent>,
    ) -> Result<(), Fail> {
        let byte = piece.as_bytes()[*at];
        let mut next = Escape::None;
        match escape {
            Escape::None => {
                let quote = self.token.quote;
                let rest = &piece.as_bytes()[*at..];
                let plain = rest
                    .iter()
                    .position(|byte| *byte == quote || *byte == b'\\' || *byte < 0x20);
                let plain = plain.unwrap_or(rest.len());
                // The run ends at an ASCII byte or at the end, and began behind one or at the start of a piece.
                self.token.text.push_str(&piece[*at..*at + plain]);
                *at += plain;
                match rest.get(plain) {
                    None => return Ok(()),
                    Some(byte) if *byte == quote => {
                        *at += 1;
                        return self.end_text(events);
                    }
                    Some(b'\\') => next = Escape::Backslash,
                    Some(control) => {
                        self.tolerated = true;
                        self.token.text.push(char::from(*control));
                    }
                }
            }
            Escape::Backslash => match byte {
                b'u' => {
                    next = Escape::Unicode {
                        high: None,
                        digits: 0,
                        value: 0,
                    }
                }
                _ => self.token.text.push(match byte {
                    b'"' | b'\\' | b'/' => char::from(byte),
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'\'' => {
                        self.tolerated = true;
                        '\''
                    }
                    _ => return Err(Fail::Syntax("a known escape behind `\\`")),
                }),
            },
            Escape::Unicode { high, digits, value } => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .ok_or(Fail::Syntax("four hexadecimal digits behind `\\u`"))?;
                let value = value << 4 | digit as u16;
                next = match (digits, high, value) {
                    (0..3, ..) => Escape::Unicode {
                        high,
                        digits: digits + 1,
                        value,
                    },
                    (_, None, 0xd800..=0xdbff) => Escape::LowBackslash { high: value },
                    (_, high, value) => {
                        let code = match (high, value) {
                            (None, code) => u32::from(code),
                            (Some(high), 0xdc00..=0xdfff) => {
                                0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(value) - 0xdc00)
                            }
                            (Some(_), _) => return Err(Fail::Syntax("the second half of a surrogate pair")),
                        };
                        self.token.text.push(
                            char::from_u32(code).ok_or(Fail::Syntax("the first half of a surrogate pair"))?,
                        );
                        Escape::None
                    }
                };
            }
            Escape::LowBackslash { high } if byte == b'\\' => next = Escape::LowU { high },
            Escape::LowU { high } if byte == b'u' => {
                next = Escape::Unicode {
                    high: Some(high),
                    digits: 0,
                    value: 0,
                };
            }
            Escape::LowBackslash { .. } | Escape::LowU { .. } => {
                return Err(Fail::Syntax("the second half of a surrogate pair"));
            }
        }
        self.state = State::Text(next);
        *at += 1;
        Ok(())
    }
}
