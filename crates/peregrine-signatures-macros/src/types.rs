//! What can be known of a type from how it is written, to report misuse early. Types of the author's own are unknown
//! and never refused here; compiling the signature checks every constraint against the real type.

use syn::{GenericArgument, PathArguments, Type};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Boolean,
    List,
    Map,
    /// `MediaPart`, or an `Option` or `Vec` of it.
    Media,
    /// `DocumentPart`, or an `Option` or `Vec` of it.
    Document,
    Unknown,
}

/// The kind of a type, seen through `Option` and `Box`.
pub(crate) fn kind(ty: &Type) -> Kind {
    let Some((name, argument)) = named(ty) else {
        return Kind::Unknown;
    };
    match (name.as_str(), argument) {
        ("Option" | "Box" | "Arc" | "Rc", Some(inner)) => kind(inner),
        ("Vec", Some(inner)) => match kind(inner) {
            media @ (Kind::Media | Kind::Document) => media,
            _ => Kind::List,
        },
        ("Vec" | "VecDeque" | "HashSet" | "BTreeSet" | "IndexSet", _) => Kind::List,
        ("HashMap" | "BTreeMap" | "IndexMap", _) => Kind::Map,
        ("String" | "char" | "PathBuf", None) => Kind::Text,
        ("bool", None) => Kind::Boolean,
        ("MediaPart", None) => Kind::Media,
        ("DocumentPart", None) => Kind::Document,
        (
            "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u8" | "u16" | "u32" | "u64" | "u128" | "usize"
            | "f32" | "f64",
            None,
        ) => Kind::Number,
        _ => Kind::Unknown,
    }
}

/// Why a constraint can not stand on a type, if that is certain.
pub(crate) fn refuses(ty: &Type, constraint: &str) -> Option<String> {
    // `range`, `pattern` and `one_of` are about the items of a list.
    let of = match (constraint, kind(ty)) {
        ("length", kind) => kind,
        (_, Kind::List) => items(ty).map_or(Kind::Unknown, kind),
        (_, kind) => kind,
    };
    let problem = match (constraint, of) {
        (_, Kind::Unknown) => return None,
        ("range", Kind::Number) | ("pattern", Kind::Text) => return None,
        ("length", Kind::Text | Kind::List | Kind::Map) => return None,
        ("one_of", Kind::Text | Kind::Number | Kind::Boolean) => return None,
        ("range", Kind::Text) => "`range` bounds numbers, and this is text; use `length` or `pattern`",
        ("range", _) => "`range` bounds numbers",
        ("length", Kind::Number) => {
            "`length` bounds texts, lists and maps, and this is a number; use `range`"
        }
        ("length", _) => "`length` bounds texts, lists and maps",
        ("pattern", _) => "`pattern` is for texts",
        _ => "`one_of` is for texts, numbers and booleans",
    };
    Some(problem.to_owned())
}

fn items(ty: &Type) -> Option<&Type> {
    match named(ty) {
        Some((name, Some(inner))) if matches!(name.as_str(), "Option" | "Box" | "Arc" | "Rc") => items(inner),
        Some((_, inner)) => inner,
        None => None,
    }
}

/// Whether the type is `String`, written so.
pub(crate) fn is_string(ty: &Type) -> bool {
    matches!(named(ty), Some((name, None)) if name == "String")
}

/// The last name of a path, and its first type argument.
fn named(ty: &Type) -> Option<(String, Option<&Type>)> {
    match ty {
        Type::Path(path) if path.qself.is_none() => {
            let last = path.path.segments.last()?;
            let argument = match &last.arguments {
                PathArguments::AngleBracketed(arguments) => {
                    arguments.args.iter().find_map(|argument| match argument {
                        GenericArgument::Type(ty) => Some(ty),
                        _ => None,
                    })
                }
                _ => None,
            };
            Some((last.ident.to_string(), argument))
        }
        Type::Group(group) => named(&group.elem),
        Type::Paren(paren) => named(&paren.elem),
        _ => None,
    }
}
