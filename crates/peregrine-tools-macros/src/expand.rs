//! The code that is written for a tool.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ExprLit, ItemFn, Lit, LitStr, Path, Result, ReturnType};

use crate::options::{Fallback, Options, is_tool_name};
use crate::signature::{Arg, Field, Function};

/// The tool, or the errors that say why there is none.
pub(crate) fn expand(options: TokenStream, function: TokenStream, krate: &Path) -> TokenStream {
    let read = match (Options::parse(options), Function::parse(function)) {
        (Ok(options), Ok(function)) => write(&options, &function, krate),
        (Err(mut one), Err(two)) => {
            one.combine(two);
            Err(one)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    read.unwrap_or_else(|error| error.to_compile_error())
}

fn write(options: &Options, function: &Function, krate: &Path) -> Result<TokenStream> {
    let krate = options.krate.as_ref().unwrap_or(krate);
    let Function {
        item,
        docs,
        conditions,
        args,
    } = function;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = item;
    let (ident, tool) = (&sig.ident, function.tool_type());
    let (output, asyncness, inputs) = (&sig.output, &sig.asyncness, &sig.inputs);

    let info = info(options, function, krate)?;
    let arguments = arguments(args, krate);
    let returned = returned(function);
    let conversion = conversion(&sig.output);
    let context = format_ident!("context");
    Ok(quote! {
        #(#conditions)*
        #(#docs)*
        #[must_use]
        #vis const fn #ident() -> #tool {
            #tool
        }

        /// What the function of the same name gives.
        #(#conditions)*
        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "named so that it meets no other name")]
        #[derive(Clone, Copy, Debug)]
        #vis struct #tool;

        #(#conditions)*
        impl #tool {
            #(#docs)*
            #(#attrs)*
            #[allow(
                clippy::missing_errors_doc,
                clippy::missing_panics_doc,
                clippy::too_many_arguments,
                clippy::unused_self,
                dead_code,
                reason = "what the function documents is for the model, and it may be called by the model alone"
            )]
            #vis #asyncness fn run(self, #inputs) #output #block
        }

        #(#conditions)*
        const _: () = {
            #arguments

            #[automatically_derived]
            impl #krate::Tool for #tool {
                fn info(&self) -> &#krate::ToolInfo {
                    static INFO: ::std::sync::LazyLock<#krate::ToolInfo> = ::std::sync::LazyLock::new(|| #info);
                    &INFO
                }

                #[allow(
                    unused_variables,
                    clippy::let_unit_value,
                    clippy::needless_borrow,
                    clippy::unused_unit,
                    reason = "one form for all signatures"
                )]
                fn call<'life0, 'async_trait>(
                    &'life0 self,
                    #context: #krate::ToolContext,
                    arguments: #krate::private::Value,
                ) -> ::core::pin::Pin<::std::boxed::Box<
                    dyn ::core::future::Future<Output = ::core::result::Result<#krate::ToolOutput, #krate::ToolError>>
                        + ::core::marker::Send
                        + 'async_trait,
                >>
                where
                    'life0: 'async_trait,
                    Self: 'async_trait,
                {
                    #[allow(unused_imports, reason = "which of them is used depends on the types")]
                    use #krate::private::{
                        ErrorByDisplay as _, ErrorByInto as _, OutputByInto as _, OutputBySerialize as _,
                        ResultShape as _, Returned, ValueShape as _,
                    };
                    ::std::boxed::Box::pin(async move {
                        let arguments: Arguments = #krate::private::arguments(
                            #krate::Tool::info(self).name(),
                            arguments,
                        )?;
                        let returned = #returned;
                        #conversion
                    })
                }
            }
        };
    })
}

fn info(options: &Options, function: &Function, krate: &Path) -> Result<TokenStream> {
    let ident = &function.item.sig.ident;
    let name = match &options.name {
        Some(name) => name.value(),
        None => ident.unraw().to_string(),
    };
    if !is_tool_name(&name) {
        return Err(Error::new(
            ident.span(),
            "this cannot be the name of a tool, which has 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`; give \
             `#[tool(name = \"..\")]`",
        ));
    }
    let description = match &options.description {
        Some(description) => description.value(),
        None => function.documentation(),
    };
    if description.is_empty() {
        return Err(Error::new(
            ident.span(),
            "a tool needs a description, by which a model knows when to use it: write a documentation comment",
        ));
    }
    let version = match &options.version {
        Some(version) => quote!(#version),
        // Another release of the package may do something else, and whoever approved the old one has not seen it.
        None => quote!(::core::option_env!("CARGO_PKG_VERSION").unwrap_or("")),
    };
    let constant = |name: &str| {
        let name = format_ident!("{name}");
        quote!(#krate::private::#name)
    };
    let effect = constant(options.effect.unwrap_or("SIDE_EFFECT"));
    let danger = constant(options.danger.unwrap_or("MEDIUM"));
    let timeout = options
        .timeout_ms
        .map(|timeout| quote!(.with_timeout(::core::time::Duration::from_millis(#timeout))));
    let strict = options.strict.map(|strict| quote!(.with_strict(#strict)));
    Ok(quote! {
        #krate::ToolInfo::of::<Arguments>(#name, #description)
            .with_effect(#effect)
            .with_danger(#danger)
            .with_version(#version)
            #timeout
            #strict
    })
}

/// The struct that the arguments are read into.
fn arguments(args: &[Arg], krate: &Path) -> TokenStream {
    let serde = path_text(&quote!(#krate::private::serde));
    let schemars = path_text(&quote!(#krate::schemars));
    let fields = args.iter().filter_map(Arg::field).map(|field| {
        let Field {
            ident,
            ty,
            attributes,
            name,
            description,
            default,
            ..
        } = field;
        let name = name.as_ref().map(|name| quote!(#[serde(rename = #name)]));
        let description = description
            .as_ref()
            .map(|text| quote!(#[schemars(description = #text)]));
        let default = default.as_ref().map(|default| match default {
            Fallback::OfType => quote!(#[serde(default)]),
            Fallback::Value(_) => {
                let function = field.default_function().to_string();
                quote!(#[serde(default = #function)])
            }
        });
        quote!(#(#attributes)* #name #description #default #ident: #ty)
    });
    let defaults = args.iter().filter_map(Arg::field).filter_map(|field| {
        let Some(Fallback::Value(value)) = &field.default else {
            return None;
        };
        let (function, ty) = (field.default_function(), &field.ty);
        let value = match value {
            // The one literal whose type is seldom the argument's.
            Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }) => quote!(::core::convert::Into::into(#text)),
            other => quote!(#other),
        };
        Some(quote_spanned!(value.span()=> fn #function() -> #ty { #value }))
    });
    quote! {
        #[derive(#krate::private::serde::Deserialize, #krate::schemars::JsonSchema)]
        #[serde(crate = #serde, deny_unknown_fields)]
        #[schemars(crate = #schemars)]
        struct Arguments {
            #(#fields,)*
        }

        #(#defaults)*
    }
}

/// A path as the derives take it: text.
fn path_text(path: &TokenStream) -> LitStr {
    let text: String = path.to_string().split_whitespace().collect();
    LitStr::new(&text, proc_macro2::Span::call_site())
}

/// The call of the function.
fn returned(function: &Function) -> TokenStream {
    let tool = function.tool_type();
    let args = function.args.iter().map(|arg| match arg {
        Arg::Context { by_reference: true } => quote!(&context),
        Arg::Context { by_reference: false } => quote!(::core::clone::Clone::clone(&context)),
        Arg::Field(field) => {
            let name = &field.ident;
            if field.by_reference {
                quote!(&arguments.#name)
            } else {
                quote!(arguments.#name)
            }
        }
    });
    let awaited = function.item.sig.asyncness.map(|_| quote!(.await));
    quote!(#tool.run(#(#args),*) #awaited)
}

/// From what the function returned to what a tool returns. Spanned to the type, so that the compiler points there if it
/// is not one that a tool can return.
fn conversion(output: &ReturnType) -> TokenStream {
    let span = match output {
        ReturnType::Default => proc_macro2::Span::call_site(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    quote_spanned! {span=>
        match (&Returned::of(&returned)).shape().split(returned) {
            ::core::result::Result::Ok(value) => (&Returned::of(&value)).output().convert(value),
            ::core::result::Result::Err(error) => {
                ::core::result::Result::Err((&Returned::of(&error)).error().convert(error))
            }
        }
    }
}

impl Arg {
    fn field(&self) -> Option<&Field> {
        match self {
            Self::Context { .. } => None,
            Self::Field(field) => Some(field),
        }
    }
}
