//! Why a schema cannot be enforced.

/// Why a schema was refused. Places are JSON pointers into the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Something that is neither an object nor a boolean stands where a schema must.
    #[error("cannot read the schema at `{at}`: expected an object or a boolean, found {found}")]
    NotASchema {
        /// Where.
        at: String,
        /// What stands there.
        found: String,
    },
    /// A keyword has a value that it cannot have.
    #[error("cannot read the schema at `{at}`: `{keyword}` must be {expected}")]
    Malformed {
        /// Where the keyword stands.
        at: String,
        /// The keyword.
        keyword: String,
        /// What its value must be.
        expected: &'static str,
    },
    /// A keyword is not known. Ignoring it might let a value pass that its author meant to refuse.
    #[error(
        "cannot enforce the schema at `{at}`: `{keyword}` is not a keyword of JSON Schema 2020-12; remove it, or call \
         it `x-..` if it is a note"
    )]
    UnknownKeyword {
        /// Where the keyword stands.
        at: String,
        /// The keyword.
        keyword: String,
    },
    /// A keyword is known but not enforced here.
    #[error("cannot enforce the schema at `{at}`: {what}")]
    Unsupported {
        /// Where it stands.
        at: String,
        /// What is not enforced, and what would help.
        what: String,
    },
    /// A reference that leads nowhere, or out of the document.
    #[error(
        "cannot follow the reference `{reference}` at `{at}`: only places in the same schema can be referred to, such as `#/$defs/Name`"
    )]
    Reference {
        /// Where it stands.
        at: String,
        /// The reference.
        reference: String,
    },
    /// References that lead in a circle without going into the value.
    #[error("cannot follow the references at `{at}`: they lead in a circle")]
    CircularReference {
        /// Where one of them stands.
        at: String,
    },
    /// A regular expression that cannot be enforced.
    #[error("cannot enforce the pattern `{pattern}` at `{at}`: {why}")]
    Pattern {
        /// Where it stands.
        at: String,
        /// The expression.
        pattern: String,
        /// Why not.
        why: String,
    },
    /// The schema nests too deeply.
    #[error("cannot read the schema at `{at}`: it nests more than {limit} levels")]
    TooDeep {
        /// Where the limit was reached.
        at: String,
        /// The limit.
        limit: usize,
    },
    /// The arguments of a tool are not described as an object.
    #[error("the schema of a tool's arguments must say `\"type\": \"object\"` at its top")]
    NotAnObject,
}
