//! After which failures another model is asked: one table for agents and for layers.
//!
//! Invariant: what this side cancelled or refused is never a reason to ask somebody else.

use serde::{Deserialize, Serialize};

use crate::ErrorKind;

/// After which failures of a model the next one is asked.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ErrorKind, FallbackOn};
///
/// assert!(FallbackOn::default().covers(ErrorKind::Overloaded));
/// assert!(!FallbackOn::default().covers(ErrorKind::InvalidRequest));
/// assert!(!FallbackOn::Any.covers(ErrorKind::Cancelled));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FallbackOn {
    /// After those that another model may not have: the provider is away, overloaded, limits or withholds, the credential
    /// is wrong or used up, the context is too short, the answer makes no sense. Not after a request that is wrong in
    /// itself, nor after a veto or cancellation of this side.
    #[default]
    ProviderFailures,
    /// After these.
    Kinds(Vec<ErrorKind>),
    /// After every failure, but not after a veto or cancellation of this side.
    Any,
}

impl FallbackOn {
    /// Whether the next model is asked after a failure of this kind.
    pub fn covers(&self, kind: ErrorKind) -> bool {
        if matches!(kind, ErrorKind::Cancelled | ErrorKind::Refused) {
            return false;
        }
        match self {
            Self::Any => true,
            Self::Kinds(kinds) => kinds.contains(&kind),
            Self::ProviderFailures => !matches!(
                kind,
                ErrorKind::InvalidRequest | ErrorKind::Config | ErrorKind::NoRecording | ErrorKind::Internal
            ),
        }
    }
}
