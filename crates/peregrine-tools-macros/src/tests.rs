//! What is refused, and in which words; and what is written.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand::expand;

fn expanded(options: TokenStream, function: TokenStream) -> String {
    let text = expand(options, function, &syn::parse_quote!(::peregrine_tools)).to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The messages of all errors.
fn errors(options: TokenStream, function: TokenStream) -> Vec<String> {
    let text = expanded(options, function);
    let messages = text.split("compile_error ! {").skip(1).map(|rest| {
        let literal = rest.split(" }").next().unwrap_or_default().trim();
        syn::parse_str::<syn::LitStr>(literal)
            .expect("an error is a literal")
            .value()
    });
    messages.collect()
}

#[track_caller]
fn refused(options: TokenStream, function: TokenStream, message: &str) {
    let found = errors(options, function);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(message), "{found:?}");
}

#[test]
fn options_are_checked() {
    let function = || {
        quote!(
            #[doc = " Adds."]
            async fn add(a: f64) {}
        )
    };
    for (options, message) in [
        (
            quote!(effect = "readonly"),
            r#"expected one of "read_only", "idempotent", "side_effect""#,
        ),
        (
            quote!(danger = "none"),
            r#"expected one of "safe", "low", "medium", "high", "critical""#,
        ),
        (quote!(effect = read_only), "expected string literal"),
        (quote!(timeout_ms = 0), "leave it out for no limit"),
        (quote!(timeout_ms = -1), "expected a whole number of milliseconds"),
        (quote!(timeout_ms = "1s"), "expected integer literal"),
        (quote!(name = "add numbers"), "1 to 64 characters"),
        (quote!(name = ""), "1 to 64 characters"),
        (quote!(description = " "), "must not be empty"),
        (quote!(timeout = 5), "unknown option; there are `name`"),
        (quote!(effect = "read_only", effect = "read_only"), "given twice"),
        (quote!(strict), "expected `=`"),
    ] {
        refused(options, function(), message);
    }
    assert!(errors(quote!(), function()).is_empty());
}

#[test]
fn functions_are_checked() {
    let doc = quote!(#[doc = " Does."]);
    for (function, message) in [
        (
            quote!(
                async fn f() {}
            ),
            "a tool needs a description",
        ),
        (
            quote!(
                #[doc = "  "]
                async fn f() {}
            ),
            "a tool needs a description",
        ),
        (quote!(#doc async fn f<T>(a: T) {}), "a tool cannot be generic"),
        (
            quote!(#doc async fn f(a: impl Sized) {}),
            "a tool cannot be generic: name the type",
        ),
        (quote!(#doc async fn f(&self) {}), "for state use `FnTool::new`"),
        (quote!(#doc async unsafe fn f() {}), "anyone may call it"),
        (quote!(#doc const fn f() {}), "cannot be `const`"),
        (quote!(#doc extern "C" fn f() {}), "cannot be `extern`"),
        (
            quote!(#doc async fn f((a, b): (u8, u8)) {}),
            "an argument needs a name",
        ),
        (quote!(#doc async fn f(_: u8) {}), "an argument needs a name"),
        (
            quote!(#doc async fn f(_a: u8) {}),
            "the model would see this name",
        ),
        (quote!(#doc async fn f(a: &mut u8) {}), "take it by value"),
        (
            quote!(#doc async fn f(#[arg(defualt)] a: u8) {}),
            "unknown option; there are `name`",
        ),
        (
            quote!(#doc async fn f(#[cfg(unix)] a: u8) {}),
            "an argument takes documentation",
        ),
        (
            quote!(#doc async fn f(#[arg(default)] context: ToolContext) {}),
            "the context is not the model's",
        ),
        (
            quote!(#doc async fn größe() {}),
            "this cannot be the name of a tool",
        ),
        (
            quote!(
                struct NotAFunction;
            ),
            "expected `fn`",
        ),
    ] {
        refused(quote!(), function, message);
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let found = errors(
        quote!(effect = "none"),
        quote!(
            #[doc = "Does."]
            async unsafe fn f<T>(&self, (a, b): (u8, u8), #[arg(x)] c: T) {}
        ),
    );
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn what_is_not_declared_is_assumed_to_be_dangerous() {
    let written = expanded(
        quote!(),
        quote!(
            #[doc = "Does."]
            fn f() {}
        ),
    );
    assert!(
        written.contains("with_effect (:: peregrine_tools :: private :: SIDE_EFFECT)"),
        "{written}"
    );
    assert!(
        written.contains("with_danger (:: peregrine_tools :: private :: MEDIUM)"),
        "{written}"
    );
    assert!(!written.contains("with_timeout"), "{written}");
}

#[test]
fn the_crate_can_be_elsewhere() {
    let written = expanded(
        quote!(crate = my::tools),
        quote!(
            #[doc = "Does."]
            fn f() {}
        ),
    );
    assert!(!written.contains("peregrine_tools"), "{written}");
    assert!(
        written.contains(r#"crate = "my::tools::private::serde""#),
        "{written}"
    );
    assert!(written.contains(r#"crate = "my::tools::schemars""#), "{written}");
}

#[test]
fn conditions_stand_on_every_item() {
    let written = expanded(
        quote!(),
        quote!(
            #[doc = "Does."]
            #[cfg(unix)]
            #[inline]
            pub(super) async fn f() {}
        ),
    );
    assert_eq!(written.matches("# [cfg (unix)]").count(), 4, "{written}");
    assert_eq!(written.matches("# [inline]").count(), 1, "{written}");
    assert!(
        written.contains("pub (super) const fn f ()")
            && written.contains("pub (super) async fn run (self ,)"),
        "{written}"
    );
}
