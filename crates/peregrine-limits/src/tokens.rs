//! How many tokens a text has: an estimate that costs nothing, and a count where the vocabulary is known.
//!
//! The estimate of whole requests of `peregrine-core` is `peregrine_core::tokens`, which the layer uses.

/// The estimated tokens of a text: a quarter of its UTF-8 bytes, rounded up. Mostly within a third of the count.
///
/// # Examples
///
/// ```
/// assert_eq!(peregrine_limits::tokens::estimate("Why is the sky blue?"), 5);
/// ```
pub const fn estimate(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

#[cfg(feature = "tiktoken")]
#[cfg_attr(docsrs, doc(cfg(feature = "tiktoken")))]
pub use exact::{Tokenizer, UnknownModel};

#[cfg(feature = "tiktoken")]
mod exact {
    use std::fmt;

    /// Counts tokens with a vocabulary of OpenAI, as its models do.
    ///
    /// The first use of a vocabulary unpacks it, which takes a tenth of a second and tens of megabytes; it is shared from
    /// then on. For models of others the count is an estimate too, and what they report is what counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_limits::tokens::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::for_model("gpt-4o")?;
    /// assert_eq!(tokenizer.count("Why is the sky blue?"), 6);
    /// # Ok::<(), peregrine_limits::tokens::UnknownModel>(())
    /// ```
    #[derive(Clone, Copy)]
    pub struct Tokenizer(&'static tiktoken_rs::CoreBPE);

    /// No vocabulary is known for a model.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("no vocabulary is known for the model `{model}`; estimate its tokens instead")]
    pub struct UnknownModel {
        /// The model.
        pub model: String,
    }

    impl Tokenizer {
        /// The vocabulary of a model.
        ///
        /// # Errors
        ///
        /// [`UnknownModel`] if none is known.
        pub fn for_model(model: &str) -> Result<Self, UnknownModel> {
            tiktoken_rs::bpe_for_model(model)
                .map(Self)
                .map_err(|_| UnknownModel {
                    model: model.to_owned(),
                })
        }

        /// The tokens of a text, in which nothing is special.
        pub fn count(&self, text: &str) -> u64 {
            self.0.encode_ordinary(text).len() as u64
        }
    }

    impl fmt::Debug for Tokenizer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Tokenizer")
        }
    }
}
