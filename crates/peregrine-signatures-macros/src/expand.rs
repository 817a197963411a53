//! Writes a signature as code. Every path is absolute, so that nothing in the author's scope can change its meaning.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Ident, Path};

use crate::model::{Constraint, Docs, Field, Media, Signature};
use crate::types;

pub(crate) fn signature(signature: &Signature) -> TokenStream {
    let input = input(signature);
    let output = output(signature);
    let contract = contract(signature);
    let record = record(signature);
    quote! {
        #input
        #output
        #contract
        #record
    }
}

fn private(signature: &Signature) -> TokenStream {
    let krate = &signature.krate;
    quote!(#krate::__private)
}

/// The input type: its fields, `new`, and how they are handed over.
fn input(signature: &Signature) -> TokenStream {
    let Signature {
        ident, input, vis, ..
    } = signature;
    let private = private(signature);
    let declared = declare(signature, input, &signature.inputs, "inputs");
    let arguments = signature
        .inputs
        .iter()
        .map(|Field { ident, ty, .. }| match types::is_string(ty) {
            true => quote!(#ident: impl ::core::convert::Into<#ty>),
            false => quote!(#ident: #ty),
        });
    let values = signature
        .inputs
        .iter()
        .map(|Field { ident, ty, .. }| match types::is_string(ty) {
            true => quote!(#ident: ::core::convert::Into::into(#ident)),
            false => quote!(#ident),
        });
    let handed = signature.inputs.iter().map(|field| {
        let Field { ident, name, ty, .. } = field;
        match field.media {
            Some(_) => quote_spanned!(at(ty)=> writer.media(#name, &self.#ident)?;),
            None => quote_spanned!(at(ty)=> writer.value(#name, &self.#ident)?;),
        }
    });
    let doc = format!("The inputs of [`{ident}`], all of them.");
    quote! {
        #declared

        #[automatically_derived]
        impl #input {
            #[doc = #doc]
            #[allow(dead_code, clippy::too_many_arguments, reason = "generated; one argument for each input")]
            #vis fn new(#(#arguments),*) -> Self {
                Self { #(#values),* }
            }
        }

        #[automatically_derived]
        impl #private::Inputs for #input {
            fn write(
                &self,
                writer: &mut #private::InputWriter<'_>,
            ) -> ::core::result::Result<(), #private::InputError> {
                #(#handed)*
                ::core::result::Result::Ok(())
            }
        }
    }
}

/// The output type: its fields, and how they are taken.
fn output(signature: &Signature) -> TokenStream {
    let output = &signature.output;
    let private = private(signature);
    let declared = declare(signature, output, &signature.outputs, "outputs");
    let taken = signature
        .outputs
        .iter()
        .map(|Field { ident, name, ty, .. }| quote_spanned!(at(ty)=> #ident: fields.take(#name)?));
    quote! {
        #declared

        #[automatically_derived]
        impl #private::Outputs for #output {
            fn read(mut fields: #private::OutputReader) -> ::core::result::Result<Self, #private::Violation> {
                ::core::result::Result::Ok(Self { #(#taken),* })
            }
        }
    }
}

fn declare(signature: &Signature, name: &Ident, fields: &[Field], what: &str) -> TokenStream {
    let Signature {
        ident, vis, derives, ..
    } = signature;
    let doc = format!("The {what} of [`{ident}`].");
    let fields = fields.iter().map(
        |Field {
             ident,
             ty,
             description,
             name,
             ..
         }| {
            let docs = match description {
                Docs::Text(text) if text.is_empty() => {
                    let name = format!("`{name}`");
                    quote!(#[doc = #name])
                }
                Docs::Text(text) => quote!(#[doc = #text]),
                Docs::Made(pieces) => quote!(#(#[doc = #pieces])*),
            };
            quote! {
                #docs
                #vis #ident: #ty
            }
        },
    );
    quote! {
        #[doc = #doc]
        #[derive(::core::fmt::Debug, ::core::clone::Clone #(, #derives)*)]
        #vis struct #name {
            #(#fields),*
        }
    }
}

/// The implementation of `Signature`.
fn contract(signature: &Signature) -> TokenStream {
    let Signature {
        ident,
        input,
        output,
        name,
        instruction,
        ..
    } = signature;
    let private = private(signature);
    let instruction = text(signature, instruction);
    let inputs = signature.inputs.iter().map(|field| spec(signature, field));
    let outputs = signature.outputs.iter().map(|field| spec(signature, field));
    quote! {
        #[automatically_derived]
        impl #private::Signature for #ident {
            type Input = #input;
            type Output = #output;

            fn compiled() -> ::core::result::Result<&'static #private::Arc<#private::Compiled>, #private::Error> {
                static SLOT: #private::Slot = #private::Slot::new();
                SLOT.get::<#output>(|| {
                    #private::SignatureSpec::new(#name)
                        .with_instruction(#instruction)
                        #(.with_input(#inputs))*
                        #(.with_output(#outputs))*
                })
            }
        }
    }
}

fn spec(signature: &Signature, field: &Field) -> TokenStream {
    let private = private(signature);
    let Field {
        name,
        ty,
        description,
        ..
    } = field;
    let start = match field.media {
        Some(media) => {
            let media = match media {
                Media::Image => quote!(Image),
                Media::Audio => quote!(Audio),
                Media::Document => quote!(Document),
            };
            quote!(#private::Field::new(#name, #private::Type::#media))
        }
        // At the type's place, so that a missing `JsonSchema` is reported there.
        None => quote_spanned!(at(ty)=> #private::Field::of::<#ty>(#name)),
    };
    let described = match description {
        Docs::Text(text) if text.is_empty() => None,
        docs => Some(text(signature, docs)),
    }
    .map(|text| quote!(.with_description(#text)));
    let constraints = field.constraints.iter().map(|constraint| match constraint {
        Constraint::Range(range) => quote!(.with_range(#range)),
        Constraint::Length(length) => quote!(.with_length(#length)),
        Constraint::Pattern(pattern) => quote!(.with_pattern(#pattern)),
        Constraint::OneOf(values) => quote!(.with_one_of([#(#private::Value::from(#values)),*])),
    });
    quote!(#start #described #(#constraints)*)
}

fn text(signature: &Signature, docs: &Docs) -> TokenStream {
    let private = private(signature);
    match docs {
        Docs::Text(text) => quote!(#text),
        Docs::Made(pieces) => quote!(#private::docs(&[#(#pieces),*])),
    }
}

/// The struct itself as a record of inputs and outputs.
fn record(signature: &Signature) -> TokenStream {
    let Signature {
        ident,
        input,
        output,
        order,
        ..
    } = signature;
    let of = |fields: &[Field]| -> Vec<Ident> { fields.iter().map(|field| field.ident.clone()).collect() };
    let (inputs, outputs) = (of(&signature.inputs), of(&signature.outputs));
    let pair = pair(input, output);
    let (given, made) = (format_ident!("__input"), format_ident!("__output"));
    let joined = order.iter().map(|field| match inputs.contains(field) {
        true => quote!(#field: #given.#field),
        false => quote!(#field: #made.#field),
    });
    quote! {
        #[automatically_derived]
        impl ::core::convert::From<#pair> for #ident {
            fn from((#given, #made): #pair) -> Self {
                Self { #(#joined),* }
            }
        }

        #[automatically_derived]
        impl ::core::convert::From<#ident> for #pair {
            fn from(record: #ident) -> Self {
                (
                    #input { #(#inputs: record.#inputs),* },
                    #output { #(#outputs: record.#outputs),* },
                )
            }
        }
    }
}

/// The place of a type, for errors about it; names that are written there still mean what they mean here, also where
/// the type came through a macro by example.
fn at(ty: &syn::Type) -> Span {
    Span::call_site().located_at(ty.span())
}

fn pair(input: &Ident, output: &Ident) -> syn::Type {
    let (input, output): (Path, Path) = (input.clone().into(), output.clone().into());
    syn::parse_quote!((#input, #output))
}
