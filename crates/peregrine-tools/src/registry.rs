//! The tools that there are.
//!
//! Invariant: names are unique and such as every provider takes, every schema was compiled, and the specifications that
//! go into a prompt are made once, in the order in which the tools were given: the same bytes in every request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use peregrine_core::{Timer, ToolCall, ToolSpec};

use crate::call::ValidCall;
use crate::{RegistryError, Tool, ToolContext, ToolError, ToolInfo, ToolOutput, arguments};

/// The longest name that every provider takes.
const MAX_NAME_BYTES: usize = 64;

/// A set of tools, in a fixed order. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_tools::{Effect, Registry, tool};
///
/// /// Reads a file.
/// #[tool(effect = "read_only")]
/// async fn read_file(path: String) -> Result<String, std::io::Error> {
///     std::fs::read_to_string(path)
/// }
///
/// /// Writes a file.
/// #[tool(effect = "idempotent", danger = "high")]
/// async fn write_file(path: String, text: String) -> Result<(), std::io::Error> {
///     std::fs::write(path, text)
/// }
///
/// let registry = Registry::builder().with(read_file()).with(write_file()).build()?;
/// let harmless = registry.filter(|tool| tool.effect() == Effect::ReadOnly);
/// assert_eq!(registry.names().collect::<Vec<_>>(), ["read_file", "write_file"]);
/// assert_eq!(harmless.names().collect::<Vec<_>>(), ["read_file"]);
/// # Ok::<(), peregrine_tools::RegistryError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry(Arc<Inner>);

struct Inner {
    tools: Vec<Arc<dyn Tool>>,
    places: HashMap<String, usize>,
    specs: Arc<[ToolSpec]>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            places: HashMap::new(),
            specs: Arc::from([]),
        }
    }
}

impl Registry {
    /// No tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Some tools, to be named one by one.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The tool of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.0.places.get(name).map(|place| &self.0.tools[*place])
    }

    /// The tools, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<dyn Tool>> {
        self.0.tools.iter()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.tools.iter().map(|tool| tool.info().name())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.tools.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.tools.is_empty()
    }

    /// What goes into a request ([`ChatRequest::tools`](peregrine_core::ChatRequest::tools)): made once, shared.
    pub fn specs(&self) -> Arc<[ToolSpec]> {
        self.0.specs.clone()
    }

    /// The tools of which `keep` is true, in the same order.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&ToolInfo) -> bool) -> Self {
        Self::assemble(self.iter().filter(|tool| keep(tool.info())).cloned().collect())
    }

    /// These tools, and then those of another.
    ///
    /// # Errors
    ///
    /// [`RegistryError::DuplicateName`] if both have a tool of one name.
    pub fn merge(&self, other: &Self) -> Result<Self, RegistryError> {
        Self::builder().with_all(self).with_all(other).build()
    }

    /// Looks up the tool of a call and checks its arguments.
    ///
    /// # Errors
    ///
    /// [`ToolError::NotFound`], or [`ToolError::InvalidArguments`] with the place, the expectation and the finding of
    /// everything that is wrong.
    pub fn validate(&self, call: &ToolCall) -> Result<ValidCall, ToolError> {
        let Some(tool) = self.get(&call.name) else {
            return Err(ToolError::not_found(&call.name, self.names()));
        };
        let arguments = arguments::check(tool.info(), call)?;
        Ok(ValidCall::new(tool.clone(), &call.id, arguments))
    }

    /// Checks a call and runs it. Whether it may be run at all is the caller's to decide, before: see
    /// [`Allowance`](crate::Allowance).
    ///
    /// # Errors
    ///
    /// As for [`validate`](Self::validate) and [`ValidCall::run`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the tool where it is.
    pub async fn run(
        &self,
        call: &ToolCall,
        context: ToolContext,
        timer: Option<&dyn Timer>,
    ) -> Result<ToolOutput, ToolError> {
        self.validate(call)?.run(context, timer).await
    }

    /// The tools must be fit for a registry together.
    fn assemble(tools: Vec<Arc<dyn Tool>>) -> Self {
        let names = tools.iter().map(|tool| tool.info().name().to_owned());
        Self(Arc::new(Inner {
            places: names.enumerate().map(|(place, name)| (name, place)).collect(),
            specs: tools.iter().map(|tool| tool.info().spec().clone()).collect(),
            tools,
        }))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|tool| tool.info()))
            .finish()
    }
}

/// Collects tools; [`build`](Self::build) checks them.
#[derive(Clone, Default)]
pub struct RegistryBuilder(Vec<Arc<dyn Tool>>);

impl RegistryBuilder {
    /// Adds a tool.
    #[must_use]
    pub fn with(self, tool: impl Tool) -> Self {
        self.with_shared(Arc::new(tool))
    }

    /// Adds a tool that is in use elsewhere too.
    #[must_use]
    pub fn with_shared(mut self, tool: Arc<dyn Tool>) -> Self {
        self.0.push(tool);
        self
    }

    /// Adds all tools of a registry.
    #[must_use]
    pub fn with_all(mut self, registry: &Registry) -> Self {
        self.0.extend(registry.iter().cloned());
        self
    }

    /// Checks names and schemas.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] for the first tool that is wrong.
    pub fn build(self) -> Result<Registry, RegistryError> {
        let mut names = std::collections::BTreeSet::new();
        for tool in &self.0 {
            let info = tool.info();
            let name = info.name();
            if !is_name(name) {
                return Err(RegistryError::InvalidName {
                    name: name.to_owned(),
                });
            }
            if !names.insert(name) {
                return Err(RegistryError::DuplicateName {
                    name: name.to_owned(),
                });
            }
            info.validator().map_err(|source| RegistryError::Schema {
                tool: name.to_owned(),
                source: source.clone(),
            })?;
        }
        Ok(Registry::assemble(self.0))
    }
}

impl fmt::Debug for RegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|tool| tool.info()))
            .finish()
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
