//! The derive macro of `peregrine-signatures`, which re-exports and documents it.
//!
//! Algorithm: attributes are read into a model of the signature (`model`), which reports everything that is wrong at
//! once, each at its place; the model is written as code (`expand`). Nothing is decided from names of types that
//! cannot be checked again when the signature is compiled: what is known of a type here only makes errors earlier.

mod expand;
mod model;
mod types;

use proc_macro::TokenStream;

/// Derives `Signature` for a struct whose fields are marked `#[input]` or `#[output]`.
///
/// The doc comment of the struct is the instruction, those of the fields say what they hold; a long one can be kept in a
/// file, by `#[doc = include_str!("instruction.md")]`. For `struct Triage` the
/// derive makes `TriageInput`, with a `new` of all inputs, and `TriageOutput`; their fields are as visible as the
/// struct. The struct itself is a record of both: `From` turns it into the pair and back.
///
/// On the struct:
///
/// | attribute | meaning |
/// |---|---|
/// | `#[signature(name = "triage")]` | the name that providers see; else the struct's |
/// | `#[signature(input = Ask, output = Reply)]` | names for the types |
/// | `#[signature(derive(PartialEq, Serialize))]` | derives for both types, besides `Debug` and `Clone` |
/// | `#[signature(crate = "my_facade::signatures")]` | where this crate is found |
///
/// On a field, inside `#[input(..)]` or `#[output(..)]`:
///
/// | attribute | meaning |
/// |---|---|
/// | `range = 1..=5` | bounds a number, or each number of a list |
/// | `length = ..=280` | bounds the characters of a text, the items of a list, the keys of a map |
/// | `pattern = r"^\d+$"` | a regular expression that must match somewhere in the text, or in each of a list |
/// | `one_of = ["a", "b"]` | the only values allowed |
/// | `rename = "type"` | the name that the model sees |
/// | `image`, `audio`, `document` | the kind of media (inputs only) |
///
/// Constraints go through `Option` to the value.
///
/// Misuse is an error at its place:
///
/// ```text
/// error: `range` bounds numbers, and this is text; use `length` or `pattern`
///   |
/// 7 |     #[output(range = 1..=5)]
///   |                      ^^^^^
/// ```
#[proc_macro_derive(Signature, attributes(signature, input, output))]
pub fn derive_signature(item: TokenStream) -> TokenStream {
    derive(item.into(), &syn::parse_quote!(::peregrine_signatures)).into()
}

/// As `Signature`, for programs that depend on the facade alone, which re-exports it under that name.
#[doc(hidden)]
#[proc_macro_derive(FacadeSignature, attributes(signature, input, output))]
pub fn derive_facade_signature(item: TokenStream) -> TokenStream {
    derive(item.into(), &syn::parse_quote!(::peregrine::signatures)).into()
}

/// The derive, on tokens that tests can make; `krate` is where the crate is found unless the item says so.
fn derive(item: proc_macro2::TokenStream, krate: &syn::Path) -> proc_macro2::TokenStream {
    let model = syn::parse2(item)
        .map_err(darling::Error::from)
        .and_then(|item| model::Signature::read(item, krate));
    match model {
        Ok(model) => expand::signature(&model),
        Err(error) => error.write_errors(),
    }
}

#[cfg(test)]
mod tests;
