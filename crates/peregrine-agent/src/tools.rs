//! Tools, in each form in which an agent takes them.

use peregrine_tools::{Registry, RegistryBuilder, RegistryError};

/// Tools for an agent: made from a [`Registry`] or a builder of one.
#[derive(Debug, Clone)]
pub struct Tools(RegistryBuilder);

impl Tools {
    pub(crate) fn merge_into(self, known: &Registry) -> Result<Registry, RegistryError> {
        match known.is_empty() {
            true => self.0.build(),
            false => known.merge(&self.0.build()?),
        }
    }
}

impl From<RegistryBuilder> for Tools {
    fn from(builder: RegistryBuilder) -> Self {
        Self(builder)
    }
}

impl From<Registry> for Tools {
    fn from(registry: Registry) -> Self {
        Self::from(&registry)
    }
}

impl From<&Registry> for Tools {
    fn from(registry: &Registry) -> Self {
        Self(Registry::builder().with_all(registry))
    }
}
