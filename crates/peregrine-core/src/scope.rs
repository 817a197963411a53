//! The scope of data: tenant and session.
//!
//! Invariant: every key of a cache, memory or checkpoint starts with [`Scope::key`], which is prefix-free:
//! no scope's key is a prefix of another's, whatever characters the names hold.

use serde::{Deserialize, Serialize};

use crate::{InvalidId, SessionId, TenantId};

/// Whose data, and in which session. Two scopes never see each other's data.
///
/// # Examples
///
/// ```
/// use peregrine_core::Scope;
///
/// let scope = Scope::new("acme", "ticket-17")?;
/// assert_ne!(scope.key(), Scope::new("acme", "ticket-18")?.key());
/// # Ok::<(), peregrine_core::InvalidId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantId,
    /// The session; `None` is what the tenant shares among all its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

impl Scope {
    /// The scope of one session.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if a name is empty, too long or holds control characters.
    pub fn new(tenant: impl AsRef<str>, session: impl AsRef<str>) -> Result<Self, InvalidId> {
        Ok(Self {
            tenant: TenantId::new(tenant)?,
            session: Some(SessionId::new(session)?),
        })
    }

    /// What a tenant shares among its sessions.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] as for [`Scope::new`].
    pub fn tenant(tenant: impl AsRef<str>) -> Result<Self, InvalidId> {
        Ok(Self {
            tenant: TenantId::new(tenant)?,
            session: None,
        })
    }

    /// The bytes that begin every key of this scope: each name behind its length (two bytes, big-endian);
    /// length 0 stands for "no session", which no session's name can have.
    pub fn key(&self) -> Vec<u8> {
        let session = self.session.as_ref().map_or("", SessionId::as_str);
        let mut key = Vec::with_capacity(4 + self.tenant.as_str().len() + session.len());
        for name in [self.tenant.as_str(), session] {
            // An id has at most 256 bytes, so two bytes hold its length.
            key.extend_from_slice(&(name.len() as u16).to_be_bytes());
            key.extend_from_slice(name.as_bytes());
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_prefix_free() {
        let scopes = [
            Scope::new("a", "bc").unwrap(),
            Scope::new("ab", "c").unwrap(),
            Scope::tenant("a").unwrap(),
            Scope::tenant("abc").unwrap(),
            Scope::new("a", "b").unwrap(),
        ];
        for (i, one) in scopes.iter().enumerate() {
            for (j, two) in scopes.iter().enumerate() {
                assert_eq!(two.key().starts_with(&one.key()), i == j, "{one:?} {two:?}");
            }
        }
    }
}
