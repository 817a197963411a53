//! What is in the parentheses of `#[tool(..)]` and `#[arg(..)]`.

use proc_macro2::TokenStream;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Attribute, Error, Expr, LitBool, LitInt, LitStr, Path, Result};

/// The options of a tool.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) description: Option<LitStr>,
    /// The name of a constant of the private module.
    pub(crate) effect: Option<&'static str>,
    /// The name of a constant of the private module.
    pub(crate) danger: Option<&'static str>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) version: Option<LitStr>,
    pub(crate) strict: Option<bool>,
    pub(crate) krate: Option<Path>,
}

/// What can be declared, and the constants that it means.
type Choices = [(&'static str, &'static str)];

const EFFECTS: &Choices = &[
    ("read_only", "READ_ONLY"),
    ("idempotent", "IDEMPOTENT"),
    ("side_effect", "SIDE_EFFECT"),
];
const DANGERS: &Choices = &[
    ("safe", "SAFE"),
    ("low", "LOW"),
    ("medium", "MEDIUM"),
    ("high", "HIGH"),
    ("critical", "CRITICAL"),
];

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = Self::default();
        let parser = syn::meta::parser(|meta| {
            let this = &mut options;
            match name_of(&meta).as_str() {
                "name" => set(&mut this.name, &meta, tool_name(meta.value()?.parse()?)?),
                "description" => set(&mut this.description, &meta, not_empty(meta.value()?.parse()?)?),
                "effect" => set(&mut this.effect, &meta, choice(&meta.value()?.parse()?, EFFECTS)?),
                "danger" => set(&mut this.danger, &meta, choice(&meta.value()?.parse()?, DANGERS)?),
                "timeout_ms" => set(&mut this.timeout_ms, &meta, milliseconds(&meta.value()?.parse()?)?),
                "version" => set(&mut this.version, &meta, meta.value()?.parse()?),
                "strict" => set(&mut this.strict, &meta, meta.value()?.parse::<LitBool>()?.value),
                "crate" => set(&mut this.krate, &meta, meta.value()?.call(Path::parse_mod_style)?),
                _ => Err(meta.error(
                    "unknown option; there are `name`, `description`, `effect`, `danger`, `timeout_ms`, `version`, \
                     `strict` and `crate`",
                )),
            }
        });
        parser.parse2(tokens)?;
        Ok(options)
    }
}

/// The options of an argument.
#[derive(Default)]
pub(crate) struct ArgOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) description: Option<LitStr>,
    pub(crate) default: Option<Fallback>,
    pub(crate) is_context: bool,
}

/// What an argument is if it is left out.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each argument of a function, while it is compiled"
)]
pub(crate) enum Fallback {
    /// The default of its type.
    OfType,
    Value(Expr),
}

impl ArgOptions {
    /// Adds what one `#[arg(..)]` says.
    pub(crate) fn read(&mut self, attribute: &Attribute) -> Result<()> {
        attribute.parse_nested_meta(|meta| match name_of(&meta).as_str() {
            "name" => set(&mut self.name, &meta, not_empty(meta.value()?.parse()?)?),
            "description" => set(&mut self.description, &meta, not_empty(meta.value()?.parse()?)?),
            "default" => {
                let has_value = meta.input.peek(syn::Token![=]);
                let fallback = if has_value {
                    Fallback::Value(meta.value()?.parse()?)
                } else {
                    Fallback::OfType
                };
                set(&mut self.default, &meta, fallback)
            }
            "context" => {
                self.is_context = true;
                Ok(())
            }
            _ => Err(meta.error("unknown option; there are `name`, `description`, `default` and `context`")),
        })
    }
}

fn name_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(ToString::to_string).unwrap_or_default()
}

fn set<T>(place: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("this option is given twice")),
    }
}

fn not_empty(text: LitStr) -> Result<LitStr> {
    if text.value().trim().is_empty() {
        return Err(Error::new(text.span(), "this must not be empty"));
    }
    Ok(text)
}

/// Whether every provider takes a name.
pub(crate) fn is_tool_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn tool_name(name: LitStr) -> Result<LitStr> {
    if is_tool_name(&name.value()) {
        return Ok(name);
    }
    Err(Error::new(
        name.span(),
        "a name has 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`",
    ))
}

fn choice(given: &LitStr, choices: &Choices) -> Result<&'static str> {
    let value = given.value();
    if let Some((_, constant)) = choices.iter().find(|(name, _)| *name == value) {
        return Ok(constant);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    Err(Error::new(
        given.span(),
        format!("expected one of {}", names.join(", ")),
    ))
}

fn milliseconds(number: &LitInt) -> Result<u64> {
    match number.base10_parse() {
        Ok(0) => Err(Error::new(
            number.span(),
            "a call cannot end in no time; leave it out for no limit",
        )),
        Ok(milliseconds) => Ok(milliseconds),
        Err(_) => Err(Error::new(
            number.span(),
            "expected a whole number of milliseconds",
        )),
    }
}
