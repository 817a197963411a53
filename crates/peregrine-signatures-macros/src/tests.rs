//! What the derive writes, and what it says about misuse, and where.

use proc_macro2::{TokenStream, TokenTree};

use crate::derive;

/// The messages of a derive that fails, each with the text that it points at.
fn misuse(source: &str) -> Vec<(String, String)> {
    let output = derive(
        source.parse().expect("the test's source is made of tokens"),
        &syn::parse_quote!(::peregrine_signatures),
    );
    let mut found = Vec::new();
    collect(source, output, &mut found);
    found
}

/// `compile_error! { "message" }`, wherever it stands. Its tokens carry the place.
fn collect(source: &str, tokens: TokenStream, found: &mut Vec<(String, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) if ident == "compile_error" => {
                let Some(TokenTree::Group(message)) = tokens.get(place + 2) else {
                    continue;
                };
                let literal: syn::LitStr = syn::parse2(message.stream()).expect("a message");
                let first = ident.span().start();
                let last = tokens[place + 2].span().end();
                let text = match first.line == last.line && last.column > first.column {
                    // Columns count characters.
                    true => {
                        let line = source.lines().nth(first.line - 1).unwrap_or_default();
                        line.chars()
                            .skip(first.column)
                            .take(last.column - first.column)
                            .collect()
                    }
                    false => format!("{first:?} to {last:?}"),
                };
                found.push((literal.value(), text));
            }
            TokenTree::Group(group) => collect(source, group.stream(), found),
            _ => {}
        }
    }
}

#[test]
fn misuse_is_reported_in_words_at_its_place() {
    for (fields, place, message) in [
        (
            "a: String, #[output] b: u8",
            "a",
            "say what this field is: `#[input]` or `#[output]`",
        ),
        (
            "#[input] #[output] a: String",
            "#[output]",
            "a field is an input or an output, once; to pass a value through, give the output another name",
        ),
        (
            "#[input] a: u8, #[output(range = 1..=5)] b: String",
            "1..=5",
            "`range` bounds numbers, and this is text; use `length` or `pattern`",
        ),
        (
            "#[input] a: u8, #[output(range = 5)] b: u8",
            "5",
            "`range` takes a range, such as `1..=5` or `0.0..=1.0`",
        ),
        (
            "#[input] a: u8, #[output(range = ..)] b: u8",
            "..",
            "`range` takes a range, such as `1..=5` or `0.0..=1.0`",
        ),
        (
            "#[input] a: u8, #[output(range = 5..=1)] b: u8",
            "5..=1",
            "nothing lies in this range",
        ),
        (
            "#[input] a: u8, #[output(range = 1..1)] b: u8",
            "1..1",
            "nothing lies in this range",
        ),
        (
            "#[input] a: u8, #[output(length = 1..)] b: Option<u8>",
            "1..",
            "`length` bounds texts, lists and maps, and this is a number; use `range`",
        ),
        (
            "#[input] a: u8, #[output(length = -1..)] b: String",
            "-1",
            "a length is a whole number from 0",
        ),
        (
            "#[input] a: u8, #[output(pattern = \"(\")] b: String",
            "\"(\"",
            "not a regular expression",
        ),
        (
            "#[input] a: u8, #[output(pattern = \"x\")] b: Vec<u8>",
            "\"x\"",
            "`pattern` is for texts",
        ),
        (
            "#[input] a: u8, #[output(one_of = \"x\")] b: String",
            "\"x\"",
            "`one_of` takes a list of values, such as `[\"yes\", \"no\"]`",
        ),
        (
            "#[input] a: u8, #[output(image)] b: MediaPart",
            "image",
            "`image` can be an input only",
        ),
        (
            "#[input] a: MediaPart, #[output] b: u8",
            "MediaPart",
            "say what this is: `#[input(image)]` or `#[input(audio)]`",
        ),
        (
            "#[input(image, audio)] a: MediaPart, #[output] b: u8",
            "audio",
            "media is of one kind",
        ),
        (
            "#[input(image, length = 1..)] a: Vec<MediaPart>, #[output] b: u8",
            "1..",
            "`length` does not apply to media",
        ),
        (
            "#[input] a: u8, #[output(rename = \"a b\")] b: u8",
            "\"a b\"",
            "models see this name",
        ),
        (
            "#[input] a: u8, #[output(rename = \"\")] b: u8",
            "\"\"",
            "models see this name",
        ),
        (
            "#[input] größe: u8, #[output] b: u8",
            "größe",
            "models see this name",
        ),
        (
            "#[input] a: u8, #[output] b: u8, #[output(rename = \"b\")] c: u8",
            "c",
            "there is another field named `b`",
        ),
        (
            "#[input] a: u8, #[output(rang = 1..=5)] b: u8",
            "rang = 1..=5",
            "Unknown field: `rang`",
        ),
        (
            "#[input] a: u8, #[output] #[serde(rename = \"x\")] b: u8",
            "#[serde(rename = \"x\")]",
            "`#[serde]` on a",
        ),
        (
            "#[input] a: u8",
            "S",
            "a signature has at least one output: mark a field `#[output]`",
        ),
        (
            "#[output] a: u8",
            "S",
            "a signature has at least one input: mark a field `#[input]`",
        ),
    ] {
        let found = misuse(&format!("struct S {{ {fields} }}"));
        let [(said, at)] = found.as_slice() else {
            panic!("{fields}: {found:?}")
        };
        assert!(said.starts_with(message), "{fields}: {said}");
        assert_eq!(at, place, "{fields}: {said}");
    }
    for (source, place, message) in [
        ("enum E { A }", "E", "a signature is a struct with named fields"),
        ("struct S;", "S", "a signature is a struct with named fields"),
        (
            "struct S(u8);",
            "(u8)",
            "a signature is a struct with named fields",
        ),
        (
            "struct S<T> { #[input] a: T, #[output] b: u8 }",
            "<T>",
            "a signature has no type parameters or lifetimes",
        ),
        (
            "#[signature(nam = \"x\")] struct S { #[input] a: u8, #[output] b: u8 }",
            "nam = \"x\"",
            "Unknown field: `nam`",
        ),
        (
            "#[signature(name = \"9\")] struct S { #[input] a: u8, #[output] b: u8 }",
            "\"9\"",
            "models see this name",
        ),
    ] {
        let found = misuse(source);
        let [(said, at)] = found.as_slice() else {
            panic!("{source}: {found:?}")
        };
        assert!(said.starts_with(message), "{source}: {said}");
        assert_eq!(at, place, "{source}: {said}");
    }
}

#[test]
fn all_misuse_is_reported_at_once() {
    let found =
        misuse("struct S { a: u8, #[input(range = 2..1, pattern = \"[\")] b: u8, #[output(image)] c: u8 }");
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn authors_own_types_are_left_to_compilation() {
    for fields in [
        "#[input] a: Mine, #[output(range = 1..=5)] b: Mine",
        "#[input] a: u8, #[output(length = 3, pattern = \"x\")] b: Option<Box<Name>>",
        "#[input] a: u8, #[output(range = MIN..=MAX)] b: Vec<u8>",
    ] {
        assert_eq!(misuse(&format!("struct S {{ {fields} }}")), []);
    }
}

#[test]
fn the_code_is_this() {
    let source = r#"
        /// Sort it.
        #[signature(crate = "peregrine::signatures", derive(PartialEq))]
        pub(crate) struct Triage {
            /// what came in
            #[input]
            ticket: String,
            #[input(image)]
            shot: Option<MediaPart>,
            /// how urgent
            #[output(range = -1..=5, one_of = [1, 2])]
            r#type: u8,
        }
    "#;
    let file: syn::File = syn::parse2(derive(
        source.parse().unwrap(),
        &syn::parse_quote!(::peregrine_signatures),
    ))
    .unwrap();
    assert_eq!(prettyplease::unparse(&file), include_str!("tests/expanded.txt"));
}
