//! Compiled run-time signatures, kept by their text.
//!
//! Invariant: bounded. The least recently used one is forgotten first; who still holds it keeps it.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lru::LruCache;

use crate::compiled::Compiled;
use crate::spec::SignatureSpec;
use crate::{DefinitionError, Error};

/// How many signatures the process-wide registry keeps. Together with the bound on a text's length, this bounds its
/// memory.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");

static GLOBAL: LazyLock<Registry> = LazyLock::new(|| Registry::new(CAPACITY));

/// Compiles the text form of a signature, or gives it back compiled if that was done before.
///
/// ```text
/// question, context: list[str] -> answer, confidence: float
/// ```
///
/// - Inputs stand before `->`, outputs after it, separated by commas. A field is a name, a type behind a colon (`str`
///   if there is none) and, if you like, a description in quotes.
/// - Types are `str`, `int`, `float`, `bool`, `any`, `date`, `datetime`, `list[T]`, `dict[str, T]`, `optional[T]` or
///   `T?`, `literal['a', 'b']`, and for inputs `image`, `audio`, `document`.
///
/// # Examples
///
/// ```
/// let signature = peregrine_signatures::parse("question -> answer 'one sentence', confidence: float")?;
/// assert_eq!(signature.outputs()[0].description(), "one sentence");
///
/// let error = peregrine_signatures::parse("question -> answer: strng").unwrap_err();
/// assert!(error.to_string().contains("unknown type `strng`"));
/// # Ok::<(), peregrine_signatures::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Definition`], with the place for what is wrong with the text.
///
/// # Performance
///
/// The last 256 texts are kept compiled; finding one is a lock and a hash of the text.
pub fn parse(text: &str) -> Result<Arc<Compiled>, Error> {
    GLOBAL.parse(text)
}

/// Run-time signatures, kept compiled by their text. [`parse`] uses one for the whole process.
#[derive(Debug)]
pub struct Registry(Mutex<LruCache<String, Arc<Compiled>>>);

impl Registry {
    /// A registry that keeps this many.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(capacity)))
    }

    /// Compiles a text, or gives it back compiled if it is kept.
    ///
    /// # Errors
    ///
    /// As [`parse`].
    pub fn parse(&self, text: &str) -> Result<Arc<Compiled>, Error> {
        if let Some(known) = self.entries().get(text) {
            return Ok(known.clone());
        }
        // Compiled outside the lock: the same text may be compiled twice, but nobody waits for another's text.
        let spec = SignatureSpec::parse(text).map_err(DefinitionError::from)?;
        let compiled = spec.compile()?;
        let mut entries = self.entries();
        let kept = entries.get_or_insert(text.to_owned(), || compiled);
        Ok(kept.clone())
    }

    /// How many it keeps now.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether it keeps none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, LruCache<String, Arc<Compiled>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
