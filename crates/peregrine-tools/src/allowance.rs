//! Which tools may run, as long as there are no policies: the read-only ones, and those that the caller names.
//!
//! Invariant: deny beats allow, and what is not known is refused.

use std::collections::BTreeSet;
use std::fmt;

use peregrine_core::Effect;

use crate::{Registry, ToolError, ToolInfo};

/// Which tools may run.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Effect, JsonSchema, ToolSpec};
/// use peregrine_tools::{Allowance, ToolInfo};
///
/// let tool = |name: &str| ToolInfo::new(ToolSpec::new(name, "", JsonSchema::empty_object()));
/// let allowance = Allowance::read_only().with_allowed("write_file").with_denied("read_secrets");
/// assert!(allowance.decide(&tool("read_file").with_effect(Effect::ReadOnly)).is_allowed());
/// assert!(allowance.decide(&tool("write_file")).is_allowed());
/// let decision = allowance.decide(&tool("send_mail"));
/// assert_eq!(
///     decision.into_result().unwrap_err().to_string(),
///     "the tool `send_mail` may not be called: it has side effects and was not allowed by name"
/// );
/// assert!(!allowance.permits(&tool("read_secrets").with_effect(Effect::ReadOnly)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    read_only: bool,
    allowed: BTreeSet<String>,
    denied: BTreeSet<String>,
}

/// [`Allowance::read_only`].
impl Default for Allowance {
    fn default() -> Self {
        Self::read_only()
    }
}

impl Allowance {
    /// Tools that declare [`Effect::ReadOnly`], and no others.
    pub fn read_only() -> Self {
        Self {
            read_only: true,
            ..Self::nothing()
        }
    }

    /// No tools.
    pub fn nothing() -> Self {
        Self {
            read_only: false,
            allowed: BTreeSet::new(),
            denied: BTreeSet::new(),
        }
    }

    /// Allows a tool by its name, whatever it declares.
    #[must_use]
    pub fn with_allowed(mut self, name: impl Into<String>) -> Self {
        self.allowed.insert(name.into());
        self
    }

    /// Denies a tool by its name, whatever else allows it.
    #[must_use]
    pub fn with_denied(mut self, name: impl Into<String>) -> Self {
        self.denied.insert(name.into());
        self
    }

    /// Whether a tool may run, without saying why: for those who ask often. Allocates nothing.
    pub fn permits(&self, tool: &ToolInfo) -> bool {
        self.reason(tool).permits()
    }

    /// Whether a tool may run, and why.
    pub fn decide(&self, tool: &ToolInfo) -> Decision {
        Decision {
            tool: tool.name().to_owned(),
            reason: self.reason(tool),
        }
    }

    fn reason(&self, tool: &ToolInfo) -> Reason {
        let name = tool.name();
        if self.denied.contains(name) {
            Reason::DeniedByName
        } else if self.allowed.contains(name) {
            Reason::AllowedByName
        } else if !self.read_only {
            Reason::NotAllowed
        } else if tool.effect() == Effect::ReadOnly {
            Reason::ReadOnly
        } else {
            Reason::HasEffects(tool.effect())
        }
    }

    /// Whether the tool of a name may run. One that is not there may not.
    pub fn decide_name(&self, registry: &Registry, name: &str) -> Decision {
        match registry.get(name) {
            Some(tool) => self.decide(tool.info()),
            None => Decision {
                tool: name.to_owned(),
                reason: Reason::Unknown,
            },
        }
    }

    /// The names in it that no tool has: most likely misspelt, and then not what its author thinks it is.
    pub fn unknown_names<'a>(&'a self, registry: &'a Registry) -> impl Iterator<Item = &'a str> {
        let names = self.allowed.union(&self.denied).map(String::as_str);
        names.filter(|name| registry.get(name).is_none())
    }
}

/// Whether a tool may run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The tool.
    pub tool: String,
    /// Why it may, or may not.
    pub reason: Reason,
}

/// Why a tool may run, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It may: it declares that it only reads.
    ReadOnly,
    /// It may: its name is on the list.
    AllowedByName,
    /// It may not: its name is on the other list.
    DeniedByName,
    /// It may not: it declares an effect, or declares none, which counts as one.
    HasEffects(Effect),
    /// It may not: nothing is allowed but what is named.
    NotAllowed,
    /// It may not: there is no such tool.
    Unknown,
}

impl Decision {
    /// Whether it may run.
    pub fn is_allowed(&self) -> bool {
        self.reason.permits()
    }

    /// The refusal as an error.
    ///
    /// # Errors
    ///
    /// [`ToolError::Refused`] if it may not run.
    pub fn into_result(self) -> Result<(), ToolError> {
        if self.is_allowed() {
            return Ok(());
        }
        Err(ToolError::Refused {
            reason: self.reason.to_string(),
            tool: self.tool,
        })
    }
}

impl Reason {
    fn permits(self) -> bool {
        matches!(self, Self::ReadOnly | Self::AllowedByName)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "it only reads",
            Self::AllowedByName => "it was allowed by name",
            Self::DeniedByName => "it was denied by name",
            Self::HasEffects(Effect::Idempotent) => "it changes something and was not allowed by name",
            Self::HasEffects(_) => "it has side effects and was not allowed by name",
            Self::NotAllowed => "it was not allowed by name",
            Self::Unknown => "there is no such tool",
        })
    }
}
