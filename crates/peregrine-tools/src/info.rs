//! What a tool says about itself.
//!
//! Invariant: what is not declared is assumed to be dangerous: a tool has [`Effect::SideEffect`] and
//! [`Danger::Medium`] until it says otherwise.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{Danger, Effect, JsonSchema, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::{SchemaError, Validator};

/// The most bytes of arguments that a tool takes, unless it says otherwise.
const MAX_ARGUMENTS_BYTES: usize = 1 << 20;

/// What a tool is, as data. Cheap to clone.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_core::{Danger, Effect, JsonSchema, ToolSpec};
/// use peregrine_tools::ToolInfo;
///
/// let info = ToolInfo::new(ToolSpec::new("now", "Tells the time.", JsonSchema::empty_object()))
///     .with_effect(Effect::ReadOnly)
///     .with_danger(Danger::Safe)
///     .with_timeout(Duration::from_secs(1))
///     .with_version("1.2.0");
/// assert_eq!(info.name(), "now");
/// ```
#[derive(Clone)]
pub struct ToolInfo(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    spec: ToolSpec,
    effect: Effect,
    danger: Danger,
    timeout: Option<Duration>,
    version: String,
    max_arguments_bytes: usize,
    validator: Result<Arc<Validator>, SchemaError>,
}

impl ToolInfo {
    /// A tool, with the cautious defaults. Its schema is compiled here, once; if it cannot be, the registry says so.
    pub fn new(spec: ToolSpec) -> Self {
        let validator = compile(spec.parameters.value());
        Self(Arc::new(Inner {
            spec,
            effect: Effect::SideEffect,
            danger: Danger::Medium,
            timeout: None,
            version: String::new(),
            max_arguments_bytes: MAX_ARGUMENTS_BYTES,
            validator,
        }))
    }

    /// A tool whose arguments are a Rust type.
    pub fn of<A: schemars::JsonSchema>(name: impl Into<String>, description: impl Into<String>) -> Self {
        let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
            // The same in every schema, and so of no use to a model.
            settings.meta_schema = None;
        });
        let mut schema = settings.into_generator().into_root_schema_for::<A>();
        schema.remove("title");
        Self::new(ToolSpec::new(
            name,
            description,
            JsonSchema::new(schema.to_value()),
        ))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Declares what running it does to the world.
    #[must_use]
    pub fn with_effect(self, effect: Effect) -> Self {
        self.change(|inner| inner.effect = effect)
    }

    /// Declares how much harm it can do.
    #[must_use]
    pub fn with_danger(self, danger: Danger) -> Self {
        self.change(|inner| inner.danger = danger)
    }

    /// Bounds how long one call may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        self.change(|inner| inner.timeout = Some(timeout))
    }

    /// States its version. An approval holds for one version.
    #[must_use]
    pub fn with_version(self, version: impl Into<String>) -> Self {
        self.change(|inner| inner.version = version.into())
    }

    /// Asks the provider to guarantee (or not) that arguments fit the schema.
    #[must_use]
    pub fn with_strict(self, strict: bool) -> Self {
        self.change(|inner| inner.spec.strict = Some(strict))
    }

    /// Bounds the JSON text of the arguments; 1 MiB unless set.
    #[must_use]
    pub fn with_max_arguments_bytes(self, bytes: usize) -> Self {
        self.change(|inner| inner.max_arguments_bytes = bytes)
    }

    /// The tool as the model sees it.
    pub fn spec(&self) -> &ToolSpec {
        &self.0.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// What it does and when to use it.
    pub fn description(&self) -> &str {
        &self.0.spec.description
    }

    /// What running it does to the world.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// How much harm it can do.
    pub fn danger(&self) -> Danger {
        self.0.danger
    }

    /// How long one call may take, if that is bounded.
    pub fn timeout(&self) -> Option<Duration> {
        self.0.timeout
    }

    /// Its version; empty if it has none.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// The most bytes of arguments that it takes.
    pub fn max_arguments_bytes(&self) -> usize {
        self.0.max_arguments_bytes
    }

    /// The compiled schema of its arguments.
    ///
    /// # Errors
    ///
    /// Why the schema cannot be enforced. A tool in a [`Registry`](crate::Registry) has none of this.
    pub fn validator(&self) -> Result<&Validator, &SchemaError> {
        self.0.validator.as_deref()
    }

    /// The digest of all that a person or a policy goes by when they judge the tool: name, description, schema, effect,
    /// danger and version. Another digest is another tool.
    pub fn digest(&self) -> Digest {
        let Inner {
            spec,
            effect,
            danger,
            // How long it may take and how much it takes does not change what it does.
            timeout: _,
            version,
            max_arguments_bytes: _,
            validator: _,
        } = &*self.0;
        let ToolSpec {
            name,
            description,
            parameters,
            // How the provider writes the arguments; they are checked in any case.
            strict: _,
        } = spec;
        let (effect, danger) = (format!("{effect:?}"), format!("{danger:?}"));
        Digest::of(
            "peregrine tool 1",
            [name, description, parameters.as_str(), &effect, &danger, version],
        )
    }
}

/// The root must be an object: providers take nothing else as arguments.
fn compile(schema: &Value) -> Result<Arc<Validator>, SchemaError> {
    if schema.get("type").is_none_or(|name| name != "object") {
        return Err(SchemaError::NotAnObject);
    }
    Validator::new(schema).map(Arc::new)
}

impl fmt::Debug for ToolInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolInfo")
            .field("name", &self.name())
            .field("effect", &self.effect())
            .field("danger", &self.danger())
            .field("timeout", &self.timeout())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// 256 bits that stand for a tool, or for a call with its arguments (BLAKE3). Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some texts. Each stands behind its length, so that no two lists run together to the same bytes.
    pub(crate) fn of<'a>(
        domain: &str,
        texts: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        for text in texts {
            let bytes = text.as_ref().as_bytes();
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: 64 hexadecimal digits are expected")]
pub struct InvalidDigest;

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| InvalidDigest)?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
