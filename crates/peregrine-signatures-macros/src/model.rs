//! What a signature's author wrote, checked.

use darling::ast::NestedMeta;
use darling::util::{Flag, PathList};
use darling::{Error, FromMeta, Result};
use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Data, DeriveInput, Expr, Fields, Ident, Lit, LitStr, Meta, Path, RangeLimits, Type, Visibility,
};

use crate::types::{self, Kind};

pub(crate) struct Signature {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    pub(crate) krate: Path,
    pub(crate) name: String,
    pub(crate) instruction: Docs,
    pub(crate) input: Ident,
    pub(crate) output: Ident,
    pub(crate) derives: Vec<Path>,
    pub(crate) inputs: Vec<Field>,
    pub(crate) outputs: Vec<Field>,
    /// The identifiers of all fields, in the order of the struct.
    pub(crate) order: Vec<Ident>,
}

pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) name: String,
    pub(crate) description: Docs,
    pub(crate) media: Option<Media>,
    pub(crate) constraints: Vec<Constraint>,
}

/// The text of doc comments.
pub(crate) enum Docs {
    Text(String),
    /// Some of it is known to the compiler only, as in `#[doc = include_str!("instruction.md")]`.
    Made(Vec<Expr>),
}

#[derive(Clone, Copy)]
pub(crate) enum Media {
    Image,
    Audio,
    Document,
}

pub(crate) enum Constraint {
    Range(Box<Expr>),
    Length(Box<Expr>),
    Pattern(LitStr),
    OneOf(Vec<Expr>),
}

#[derive(Default, FromMeta)]
#[darling(default)]
struct StructOptions {
    #[darling(rename = "crate")]
    krate: Option<Path>,
    name: Option<LitStr>,
    input: Option<Ident>,
    output: Option<Ident>,
    derive: PathList,
}

#[derive(Default, FromMeta)]
#[darling(default)]
struct FieldOptions {
    image: Flag,
    audio: Flag,
    document: Flag,
    rename: Option<LitStr>,
    range: Option<Expr>,
    length: Option<Expr>,
    pattern: Option<LitStr>,
    one_of: Option<Expr>,
}

const UNMARKED: &str = "say what this field is: `#[input]` or `#[output]`";

impl Signature {
    pub(crate) fn read(item: DeriveInput, krate: &Path) -> Result<Self> {
        let DeriveInput {
            attrs,
            vis,
            ident,
            generics,
            data,
        } = item;
        let fields = match data {
            Data::Struct(data) => match data.fields {
                Fields::Named(fields) => fields.named,
                other => {
                    let span = if matches!(other, Fields::Unit) {
                        ident.span()
                    } else {
                        other.span()
                    };
                    return Err(Error::custom("a signature is a struct with named fields").with_span(&span));
                }
            },
            Data::Enum(_) | Data::Union(_) => {
                return Err(Error::custom("a signature is a struct with named fields").with_span(&ident));
            }
        };
        // From here on, everything that is wrong is collected.
        let mut errors = Error::accumulator();
        if !generics.params.is_empty() {
            let what =
                "a signature has no type parameters or lifetimes: it is compiled once; use owned types";
            errors.push(Error::custom(what).with_span(&generics));
        }
        let options = errors.handle(struct_options(&attrs)).unwrap_or_default();
        if let Some(name) = &options.name {
            errors.handle(check_name(&name.value(), '-', name.span()));
        }
        let (mut inputs, mut outputs, mut order) = (Vec::new(), Vec::new(), Vec::new());
        for field in fields {
            let Some(field_ident) = field.ident.clone() else {
                continue;
            };
            order.push(field_ident);
            match errors.handle(read_field(field)) {
                Some((Side::Input, field)) => inputs.push(field),
                Some((Side::Output, field)) => outputs.push(field),
                None => {}
            }
        }
        for side in [&inputs, &outputs] {
            for (place, field) in side.iter().enumerate() {
                if side[..place].iter().any(|earlier| earlier.name == field.name) {
                    let what = format!("there is another field named `{}`", field.name);
                    errors.push(Error::custom(what).with_span(&field.ident));
                }
            }
        }
        errors = errors.checkpoint()?;
        for (side, word) in [(&inputs, "input"), (&outputs, "output")] {
            if side.is_empty() {
                let what = format!("a signature has at least one {word}: mark a field `#[{word}]`");
                errors.push(Error::custom(what).with_span(&ident));
            }
        }
        errors.finish()?;
        let derived = |suffix: &str| Ident::new(&format!("{}{suffix}", plain(&ident)), ident.span());
        Ok(Self {
            input: options.input.unwrap_or_else(|| derived("Input")),
            output: options.output.unwrap_or_else(|| derived("Output")),
            name: options.name.map_or_else(|| plain(&ident), |name| name.value()),
            krate: options.krate.unwrap_or_else(|| krate.clone()),
            derives: options.derive.iter().cloned().collect(),
            instruction: docs(&attrs),
            ident,
            vis,
            inputs,
            outputs,
            order,
        })
    }
}

fn struct_options(attrs: &[Attribute]) -> Result<StructOptions> {
    let mut found = attrs.iter().filter(|attr| attr.path().is_ident("signature"));
    let Some(attr) = found.next() else {
        return Ok(StructOptions::default());
    };
    match found.next() {
        Some(second) => Err(Error::custom("write one `#[signature(..)]` with all options").with_span(second)),
        None => StructOptions::from_list(&options(attr)?),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Input,
    Output,
}

fn read_field(field: syn::Field) -> Result<(Side, Field)> {
    let ident = field
        .ident
        .clone()
        .ok_or_else(|| Error::custom("a field has a name").with_span(&field))?;
    let side = |attr: &Attribute| match attr.path() {
        path if path.is_ident("input") => Some(Side::Input),
        path if path.is_ident("output") => Some(Side::Output),
        _ => None,
    };
    let mut marks = field.attrs.iter().filter_map(|attr| Some((side(attr)?, attr)));
    let Some((side, attr)) = marks.next() else {
        return Err(Error::custom(UNMARKED).with_span(&ident));
    };
    if let Some((_, second)) = marks.next() {
        let what =
            "a field is an input or an output, once; to pass a value through, give the output another name";
        return Err(Error::custom(what).with_span(second));
    }
    if let Some(serde) = field.attrs.iter().find(|attr| attr.path().is_ident("serde")) {
        let what = "`#[serde]` on a signature's field does not reach the model; use `rename` inside `#[input(..)]` or \
                    `#[output(..)]`, or a type of its own";
        return Err(Error::custom(what).with_span(serde));
    }
    let options = match attr.meta {
        Meta::Path(_) => FieldOptions::default(),
        _ => FieldOptions::from_list(&options(attr)?)?,
    };
    let mut errors = Error::accumulator();
    let media = errors.handle(media(&options, side, &field.ty)).flatten();
    let name = options
        .rename
        .as_ref()
        .map_or_else(|| plain(&ident), LitStr::value);
    let name_span = options.rename.as_ref().map_or(ident.span(), LitStr::span);
    errors.handle(check_name(&name, '_', name_span));
    let constraints = constraints(options, &field.ty, media.is_some(), &mut errors);
    errors.finish()?;
    let read = Field {
        name,
        description: docs(&field.attrs),
        media,
        constraints,
        ty: field.ty,
        ident,
    };
    Ok((side, read))
}

fn media(options: &FieldOptions, side: Side, ty: &Type) -> Result<Option<Media>> {
    let flags = [
        (&options.image, Media::Image, "image"),
        (&options.audio, Media::Audio, "audio"),
        (&options.document, Media::Document, "document"),
    ];
    let mut set = flags.into_iter().filter(|(flag, ..)| flag.is_present());
    let chosen = match (set.next(), types::kind(ty)) {
        (None, Kind::Document) if side == Side::Input => return Ok(Some(Media::Document)),
        (None, Kind::Media) if side == Side::Input => {
            let what = "say what this is: `#[input(image)]` or `#[input(audio)]`";
            return Err(Error::custom(what).with_span(ty));
        }
        (None, _) => return Ok(None),
        (Some(chosen), _) => chosen,
    };
    let (flag, media, word) = chosen;
    if side == Side::Output {
        return Err(Error::custom(format!("`{word}` can be an input only")).with_span(&flag.span()));
    }
    match set.next() {
        Some((second, ..)) => Err(Error::custom("media is of one kind").with_span(&second.span())),
        None => Ok(Some(media)),
    }
}

fn constraints(
    options: FieldOptions,
    ty: &Type,
    is_media: bool,
    errors: &mut darling::error::Accumulator,
) -> Vec<Constraint> {
    let FieldOptions {
        range,
        length,
        pattern,
        one_of,
        image: _,
        audio: _,
        document: _,
        rename: _,
    } = options;
    let mut read = Vec::new();
    let fits = |word: &str, span: Span, errors: &mut darling::error::Accumulator| {
        let problem = if is_media {
            Some(format!("`{word}` does not apply to media"))
        } else {
            types::refuses(ty, word)
        };
        if let Some(problem) = problem {
            errors.push(Error::custom(problem).with_span(&span));
        }
    };
    if let Some(range) = range {
        fits("range", range.span(), errors);
        read.extend(
            errors
                .handle(numbers(range, "range"))
                .map(|range| Constraint::Range(Box::new(range))),
        );
    }
    if let Some(length) = length {
        fits("length", length.span(), errors);
        read.extend(
            errors
                .handle(lengths(length))
                .map(|length| Constraint::Length(Box::new(length))),
        );
    }
    if let Some(pattern) = pattern {
        fits("pattern", pattern.span(), errors);
        match regex_lite::Regex::new(&pattern.value()) {
            Ok(_) => read.push(Constraint::Pattern(pattern)),
            Err(problem) => {
                errors
                    .push(Error::custom(format!("not a regular expression: {problem}")).with_span(&pattern));
            }
        }
    }
    if let Some(one_of) = one_of {
        fits("one_of", one_of.span(), errors);
        match one_of {
            Expr::Array(array) if !array.elems.is_empty() => {
                read.push(Constraint::OneOf(array.elems.into_iter().collect()));
            }
            other => {
                let what = "`one_of` takes a list of values, such as `[\"yes\", \"no\"]`";
                errors.push(Error::custom(what).with_span(&other));
            }
        }
    }
    read
}

/// A range of numbers. Literals get one type, so that their inference never asks the author for help.
fn numbers(range: Expr, word: &str) -> Result<Expr> {
    let wanted = format!("`{word}` takes a range, such as `1..=5` or `0.0..=1.0`");
    let Expr::Range(mut range) = range else {
        return Err(Error::custom(wanted).with_span(&range));
    };
    if range.start.is_none() && range.end.is_none() {
        return Err(Error::custom(wanted).with_span(&range));
    }
    let start = range.start.as_deref().and_then(literal);
    let end = range.end.as_deref().and_then(literal);
    if let (Some(start), Some(end)) = (start, end) {
        let is_closed = matches!(range.limits, RangeLimits::Closed(_));
        if start.value > end.value || (start.value == end.value && !is_closed) {
            return Err(Error::custom("nothing lies in this range").with_span(&range));
        }
    }
    let is_float = start.into_iter().chain(end).any(|literal| literal.is_float);
    let suffix = if is_float { "f64" } else { "i128" };
    for bound in [&mut range.start, &mut range.end].into_iter().flatten() {
        give_type(bound, suffix);
    }
    Ok(Expr::Range(range))
}

fn lengths(length: Expr) -> Result<Expr> {
    match length {
        Expr::Lit(exact) if matches!(exact.lit, Lit::Int(_)) => Ok(syn::parse_quote!(#exact..=#exact)),
        Expr::Range(range) => {
            for bound in [&range.start, &range.end].into_iter().flatten() {
                if let Some(literal) = literal(bound)
                    && (literal.is_float || literal.value < 0.0)
                {
                    return Err(Error::custom("a length is a whole number from 0").with_span(bound));
                }
            }
            let checked = numbers(Expr::Range(range.clone()), "length");
            checked.map(|_| Expr::Range(range))
        }
        other => {
            Err(Error::custom("`length` takes a number or a range, such as `1..=280`").with_span(&other))
        }
    }
}

#[derive(Clone, Copy)]
struct Literal {
    value: f64,
    is_float: bool,
}

fn literal(expr: &Expr) -> Option<Literal> {
    match expr {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Int(int) => Some(Literal {
                value: int.base10_parse().ok()?,
                is_float: false,
            }),
            Lit::Float(float) => Some(Literal {
                value: float.base10_parse().ok()?,
                is_float: true,
            }),
            _ => None,
        },
        Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Neg(_)) => {
            let inner = literal(&unary.expr)?;
            Some(Literal {
                value: -inner.value,
                ..inner
            })
        }
        Expr::Group(group) => literal(&group.expr),
        Expr::Paren(paren) => literal(&paren.expr),
        _ => None,
    }
}

/// Gives a literal without a suffix one.
fn give_type(expr: &mut Expr, suffix: &str) {
    match expr {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Int(int) if int.suffix().is_empty() => {
                let text = int.base10_digits();
                lit.lit = if suffix == "f64" {
                    Lit::Float(syn::LitFloat::new(&format!("{text}.0{suffix}"), int.span()))
                } else {
                    Lit::Int(syn::LitInt::new(&format!("{text}{suffix}"), int.span()))
                };
            }
            Lit::Float(float) if float.suffix().is_empty() => {
                let text = float.base10_digits();
                lit.lit = Lit::Float(syn::LitFloat::new(&format!("{text}{suffix}"), float.span()));
            }
            _ => {}
        },
        Expr::Unary(unary) => give_type(&mut unary.expr, suffix),
        Expr::Group(group) => give_type(&mut group.expr, suffix),
        Expr::Paren(paren) => give_type(&mut paren.expr, suffix),
        _ => {}
    }
}

fn options(attr: &Attribute) -> Result<Vec<NestedMeta>> {
    match &attr.meta {
        Meta::List(list) => NestedMeta::parse_meta_list(list.tokens.clone()).map_err(Error::from),
        other => Err(Error::custom("options stand in parentheses").with_span(other)),
    }
}

fn docs(attrs: &[Attribute]) -> Docs {
    let values: Vec<&Expr> = attrs
        .iter()
        .filter_map(|attr| match &attr.meta {
            Meta::NameValue(doc) if doc.path.is_ident("doc") => Some(&doc.value),
            _ => None,
        })
        .collect();
    let lines: Option<Vec<String>> = values.iter().map(|value| doc_text(value)).collect();
    match lines {
        Some(lines) => Docs::Text(lines.join("\n").trim().to_owned()),
        None => Docs::Made(values.into_iter().cloned().collect()),
    }
}

fn doc_text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(lit) => match &lit.lit {
            // A block comment is one attribute of several lines.
            Lit::Str(doc) => Some(
                doc.value()
                    .split('\n')
                    .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            _ => None,
        },
        Expr::Group(group) => doc_text(&group.expr),
        _ => None,
    }
}

/// An identifier without `r#`.
fn plain(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#")
        .map_or_else(|| text.clone(), str::to_owned)
}

/// The rule that compiling a signature checks again.
fn check_name(name: &str, also: char, span: Span) -> Result<()> {
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == also);
    let begins_well = name.starts_with(|c: char| !c.is_ascii_digit());
    if is_plain && begins_well && name.len() <= 64 {
        return Ok(());
    }
    let what =
        "models see this name: 1 to 64 letters, digits and `_`, the first of them no digit; use `rename`";
    Err(Error::custom(what).with_span(&span))
}
