//! The text form of signatures.
//!
//! Grammar, whitespace free between tokens:
//!
//! ```text
//! signature = fields "->" fields
//! fields    = field { "," field }
//! field     = name [ ":" type ] [ string ]             the string describes the field
//! type      = base [ "?" ]
//! base      = word | ("list" | "dict" | "optional") "[" types "]" | "literal" "[" values "]"
//! ```

use serde_json::Value;

use crate::TextError;
use crate::spec::{Field, SignatureSpec, Type};

const MAX_BYTES: usize = 16 * 1024;
const MAX_FIELDS: usize = 128;
const MAX_DEPTH: usize = 16;

const TYPES: &str = "str, int, float, bool, any, date, datetime, list[..], dict[str, ..], optional[..], \
                     literal['a', 'b'], image, audio or document";

pub(crate) fn parse(text: &str) -> Result<SignatureSpec, TextError> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > MAX_BYTES {
        return Err(parser.error(format!(
            "it has more than {MAX_BYTES} bytes; use `SignatureSpec` for large signatures"
        )));
    }
    let mut spec = SignatureSpec::new("signature");
    spec.inputs = parser.fields("an input")?;
    if !parser.takes("->") {
        return Err(parser.expected("`->` between the inputs and the outputs, or `,` and another input"));
    }
    spec.outputs = parser.fields("an output")?;
    parser.skip_space();
    match parser.rest() {
        "" => Ok(spec),
        _ => Err(parser.expected("`,` and another output, or the end")),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn error(&self, problem: impl Into<String>) -> TextError {
        TextError::new(self.text, self.at, problem)
    }

    fn expected(&self, what: &str) -> TextError {
        match self.rest().chars().next() {
            Some(found) => self.error(format!("expected {what}, found `{}`", found.escape_debug())),
            None => self.error(format!("expected {what}, found the end")),
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.skip_space();
        let takes = self.rest().starts_with(token);
        if takes {
            self.at += token.len();
        }
        takes
    }

    fn fields(&mut self, what: &str) -> Result<Vec<Field>, TextError> {
        let mut fields: Vec<Field> = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            let name = self
                .word()
                .ok_or_else(|| self.expected(&format!("the name of {what}")))?;
            if fields.iter().any(|field| field.name == name) || fields.len() == MAX_FIELDS {
                self.at = start;
                return Err(match fields.len() {
                    MAX_FIELDS => self.error(format!("more than {MAX_FIELDS} fields")),
                    _ => self.error(format!("`{name}` stands here twice; rename one of them")),
                });
            }
            let ty = if self.takes(":") { self.ty(0)? } else { Type::Text };
            let mut field = Field::new(name, ty);
            self.skip_space();
            if self.rest().starts_with(['"', '\'']) {
                field = field.with_description(self.string()?);
            }
            fields.push(field);
            if !self.takes(",") {
                return Ok(fields);
            }
        }
    }

    fn ty(&mut self, depth: usize) -> Result<Type, TextError> {
        self.skip_space();
        let start = self.at;
        if depth == MAX_DEPTH {
            return Err(self.error("types nested too deeply"));
        }
        let word = self
            .word()
            .ok_or_else(|| self.expected(&format!("a type: {TYPES}")))?;
        let mut ty = match word.to_ascii_lowercase().as_str() {
            "str" | "string" | "text" => Type::Text,
            "int" | "integer" => Type::Integer,
            "float" | "number" => Type::Number,
            "bool" | "boolean" => Type::Boolean,
            "any" | "json" => Type::Any,
            "date" => Type::Date,
            "datetime" => Type::DateTime,
            "image" => Type::Image,
            "audio" => Type::Audio,
            "document" => Type::Document,
            "list" | "array" => self.bracketed("a type", |parser| parser.ty(depth + 1).map(Type::list))?,
            "optional" => self.bracketed("a type", |parser| parser.ty(depth + 1).map(Type::optional))?,
            "dict" | "map" => self.bracketed("`str, ` and a type", |parser| parser.dict(depth))?,
            "literal" | "enum" => self.bracketed("values", Self::literal)?,
            _ => {
                self.at = start;
                return Err(self.error(format!("unknown type `{word}`; use {TYPES}")));
            }
        };
        if self.takes("?") {
            ty = Type::optional(ty);
        }
        Ok(ty)
    }

    fn dict(&mut self, depth: usize) -> Result<Type, TextError> {
        self.skip_space();
        let start = self.at;
        let key = self.ty(depth + 1)?;
        if !matches!(key, Type::Text) {
            self.at = start;
            return Err(self.error("the keys of a dict are `str`"));
        }
        if !self.takes(",") {
            return Err(self.expected("`,` and the type of the values"));
        }
        self.ty(depth + 1).map(Type::map)
    }

    fn literal(&mut self) -> Result<Type, TextError> {
        let mut values: Vec<Value> = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            let value = if self.rest().starts_with(['"', '\'']) {
                Value::from(self.string()?)
            } else {
                let end = self.rest().find([',', ']']).unwrap_or(self.rest().len());
                let word = self.rest()[..end].trim_end();
                let value = serde_json::from_str(word)
                    .ok()
                    .filter(|value: &Value| value.is_number() || value.is_boolean());
                let value = value.ok_or_else(|| self.expected("a value in quotes, a number or a boolean"))?;
                self.at += word.len();
                value
            };
            if values.contains(&value) {
                self.at = start;
                return Err(self.error(format!("{value} stands here twice")));
            }
            values.push(value);
            if !self.takes(",") {
                return Ok(Type::OneOf(values));
            }
        }
    }

    fn bracketed<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&mut Self) -> Result<T, TextError>,
    ) -> Result<T, TextError> {
        if !self.takes("[") {
            return Err(self.expected(&format!("`[` and {what}")));
        }
        let inner = read(self)?;
        if !self.takes("]") {
            return Err(self.expected("`]`"));
        }
        Ok(inner)
    }

    fn word(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.at += end;
        Some(word)
    }

    /// A text in quotes of either kind; `\` takes the next character as it is.
    fn string(&mut self) -> Result<String, TextError> {
        let start = self.at;
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|(_, quote)| quote);
        let mut read = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => read.extend(chars.next().map(|(_, escaped)| escaped)),
                c if Some(c) == quote => {
                    self.at = start + at + c.len_utf8();
                    return Ok(read);
                }
                c => read.push(c),
            }
        }
        Err(self.error("a text without its closing quote"))
    }
}
