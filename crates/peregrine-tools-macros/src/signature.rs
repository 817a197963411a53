//! The function that is to become a tool, taken apart.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, FnArg, Ident, ItemFn, LitStr, Pat, PatType, Result, Signature, Type};

use crate::options::{ArgOptions, Fallback};

/// A function and its arguments.
pub(crate) struct Function {
    /// As it was, without what only the attribute understands. Its documentation is in `docs`.
    pub(crate) item: ItemFn,
    pub(crate) docs: Vec<Attribute>,
    /// Conditions under which all of it is there.
    pub(crate) conditions: Vec<Attribute>,
    pub(crate) args: Vec<Arg>,
}

/// One argument, in the order of the function.
pub(crate) enum Arg {
    Context { by_reference: bool },
    Field(Box<Field>),
}

/// An argument that the model gives: a field of the arguments' struct.
pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: TokenStream,
    pub(crate) by_reference: bool,
    /// Documentation, `serde` and `schemars`.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) name: Option<LitStr>,
    pub(crate) description: Option<LitStr>,
    pub(crate) default: Option<Fallback>,
}

impl Function {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut item: ItemFn = syn::parse2(tokens)?;
        let mut errors = Errors::default();
        errors.note(check(&item.sig));
        let (docs, others): (Vec<_>, Vec<_>) = std::mem::take(&mut item.attrs)
            .into_iter()
            .partition(|attribute| attribute.path().is_ident("doc"));
        let (conditions, others) = others
            .into_iter()
            .partition(|attribute| attribute.path().is_ident("cfg"));
        item.attrs = others;
        let mut args = Vec::new();
        for input in &mut item.sig.inputs {
            match input {
                FnArg::Receiver(receiver) => errors.note(Err(Error::new(
                    receiver.span(),
                    "a tool is a free function; for state use `FnTool::new`, or implement `Tool`",
                ))),
                FnArg::Typed(typed) => match read_arg(typed) {
                    Ok(arg) => args.push(arg),
                    Err(error) => errors.note(Err(error)),
                },
            }
        }
        errors.finish()?;
        Ok(Self {
            item,
            docs,
            conditions,
            args,
        })
    }

    /// The type of the tool. The name of the function would be taken where a module has it too, and a unit struct of a
    /// common name could no longer be the name of a variable beside it.
    pub(crate) fn tool_type(&self) -> Ident {
        format_ident!("__tool_{}", self.item.sig.ident.unraw())
    }

    /// The documentation as text: a line for a line, without the space that comments begin with.
    pub(crate) fn documentation(&self) -> String {
        let lines = self.docs.iter().filter_map(|attribute| {
            let syn::Meta::NameValue(pair) = &attribute.meta else {
                return None;
            };
            let syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) = &pair.value
            else {
                return None;
            };
            Some(text.value())
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
            .collect();
        lines.join("\n").trim().to_owned()
    }
}

/// Several errors, told at once.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            match &mut self.0 {
                Some(first) => first.combine(error),
                none => *none = Some(error),
            }
        }
    }

    fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

fn check(signature: &Signature) -> Result<()> {
    let mut errors = Errors::default();
    let mut refuse = |span: Option<Span>, message| {
        if let Some(span) = span {
            errors.note(Err(Error::new(span, message)));
        }
    };
    let generics = &signature.generics;
    refuse(
        (!generics.params.is_empty()).then(|| generics.span()),
        "a tool cannot be generic: the model must know the types of its arguments",
    );
    refuse(
        generics.where_clause.as_ref().map(|clause| clause.span()),
        "a tool cannot have a `where` clause",
    );
    refuse(
        signature.constness.as_ref().map(|word| word.span()),
        "a tool cannot be `const`",
    );
    refuse(
        signature.abi.as_ref().map(|word| word.span()),
        "a tool cannot be `extern`",
    );
    refuse(
        signature.variadic.as_ref().map(|dots| dots.span()),
        "a tool cannot be variadic",
    );
    let is_unsafe = signature
        .to_token_stream()
        .into_iter()
        .find(|token| token.to_string() == "unsafe");
    refuse(
        is_unsafe.map(|word| word.span()),
        "a tool cannot be `unsafe`: anyone may call it",
    );
    errors.finish()
}

/// Reads an argument, and strips it of what the compiler does not take there.
fn read_arg(typed: &mut PatType) -> Result<Arg> {
    let mut options = ArgOptions::default();
    let mut errors = Errors::default();
    let (mut attributes, mut kept) = (Vec::new(), Vec::new());
    for attribute in std::mem::take(&mut typed.attrs) {
        let name = attribute
            .path()
            .get_ident()
            .map(ToString::to_string)
            .unwrap_or_default();
        match name.as_str() {
            "arg" => errors.note(options.read(&attribute)),
            "doc" | "serde" | "schemars" => attributes.push(attribute),
            "allow" | "expect" | "warn" | "deny" => kept.push(attribute),
            _ => errors.note(Err(Error::new(
                attribute.span(),
                "an argument takes documentation, `arg`, `serde`, `schemars` and lint levels",
            ))),
        }
    }
    typed.attrs = kept;
    errors.finish()?;

    let ArgOptions {
        name,
        description,
        default,
        is_context,
    } = options;
    let (ty, by_reference) = owned(&typed.ty)?;
    if is_context || is_context_type(&ty) {
        if name.is_some() || description.is_some() || default.is_some() {
            return Err(Error::new(
                typed.span(),
                "the context is not the model's: it has no name and no default",
            ));
        }
        return Ok(Arg::Context { by_reference });
    }
    let ident = match &*typed.pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => pat.ident.clone(),
        other => {
            return Err(Error::new(
                other.span(),
                "an argument needs a name: take it apart in the function, or use one type for all arguments",
            ));
        }
    };
    if ident.unraw().to_string().starts_with('_') && name.is_none() {
        return Err(Error::new(
            ident.span(),
            "the model would see this name; call it something, or give `#[arg(name = \"..\")]`",
        ));
    }
    Ok(Arg::Field(Box::new(Field {
        ident,
        ty: ty.into_tokens(),
        by_reference,
        attributes,
        name,
        description,
        default,
    })))
}

/// The type of a field that an argument can be taken from.
enum Owned<'a> {
    Itself(&'a Type),
    Text(Span),
    List(&'a Type),
}

impl Owned<'_> {
    fn into_tokens(self) -> TokenStream {
        match self {
            Self::Itself(ty) => ty.to_token_stream(),
            Self::Text(span) => quote_spanned!(span=> ::std::string::String),
            Self::List(ty) => quote_spanned!(ty.span()=> ::std::vec::Vec<#ty>),
        }
    }
}

fn owned(ty: &Type) -> Result<(Owned<'_>, bool)> {
    let (target, by_reference) = match ty {
        Type::Reference(reference) => {
            if let Some(word) = &reference.mutability {
                return Err(Error::new(
                    word.span(),
                    "the arguments of a tool are its own; take it by value",
                ));
            }
            (&*reference.elem, true)
        }
        other => (other, false),
    };
    let owned = match target {
        Type::ImplTrait(_) => {
            return Err(Error::new(
                target.span(),
                "a tool cannot be generic: name the type",
            ));
        }
        Type::Path(path) if by_reference && path.path.is_ident("str") => Owned::Text(target.span()),
        Type::Slice(slice) if by_reference => Owned::List(&slice.elem),
        _ => Owned::Itself(target),
    };
    Ok((owned, by_reference))
}

fn is_context_type(ty: &Owned<'_>) -> bool {
    let Owned::Itself(Type::Path(path)) = ty else {
        return false;
    };
    path.path
        .segments
        .last()
        .is_some_and(|segment| segment.ident == "ToolContext")
}

impl Field {
    /// The function that makes the default.
    pub(crate) fn default_function(&self) -> Ident {
        format_ident!("default_{}", self.ident.unraw())
    }
}
