//! What models can do, by family: a table that can be extended at run time.
//!
//! Algorithm: of the entries whose provider fits (`*` fits all) and whose family is a prefix of the model's
//! name, the one with the longest family wins; among equals the one added last. A model of no known family
//! gets what its provider's usual models can do. The table is advice for planners: nothing is refused because
//! of it.

use peregrine_core::Capabilities;

/// A table of what models can do.
///
/// # Examples
///
/// ```
/// use peregrine_core::Capabilities;
/// use peregrine_providers::CapabilityTable;
///
/// let mut table = CapabilityTable::builtin();
/// assert!(table.find("openai", "gpt-4o-mini").images);
/// assert!(!table.find("ollama", "our-own:7b").tools);
///
/// let mut ours = Capabilities::default();
/// ours.tools = true;
/// table.insert("ollama", "our-own", ours);
/// assert!(table.find("ollama", "our-own:7b").tools);
/// ```
#[derive(Debug, Clone)]
pub struct CapabilityTable(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    provider: String,
    family: String,
    capabilities: Capabilities,
}

impl CapabilityTable {
    /// A table that knows nothing: every model only completes text.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// The families known when this version was written.
    pub fn builtin() -> Self {
        let mut table = Self::empty();
        for (provider, family, words, context, output) in FAMILIES {
            table.insert(*provider, *family, from_words(words, *context, *output));
        }
        table
    }

    /// Adds a family of a provider's models; provider `*` stands for all, family `""` for every model.
    pub fn insert(
        &mut self,
        provider: impl Into<String>,
        family: impl Into<String>,
        capabilities: Capabilities,
    ) {
        self.0.push(Entry {
            provider: provider.into(),
            family: family.into(),
            capabilities,
        });
    }

    /// What a model can do. A path before the model's name (`openai/gpt-4o` at a router) is passed over if
    /// the whole name is of no known family.
    pub fn find(&self, provider: &str, model: &str) -> Capabilities {
        let short = model.rsplit('/').next().unwrap_or(model);
        self.longest(provider, model)
            .or_else(|| self.longest(provider, short))
            .cloned()
            .unwrap_or_default()
    }

    fn longest(&self, provider: &str, model: &str) -> Option<&Capabilities> {
        let fits = |entry: &&Entry| {
            (entry.provider == provider || entry.provider == "*") && model.starts_with(entry.family.as_str())
        };
        let rank = |entry: &&Entry| (entry.family.len(), entry.provider != "*");
        self.0
            .iter()
            .filter(fits)
            .max_by_key(rank)
            .map(|entry| &entry.capabilities)
    }
}

impl Default for CapabilityTable {
    fn default() -> Self {
        Self::builtin()
    }
}

/// s streaming, t tools, p parallel tools, c tool choice, j JSON Schema, m JSON mode, i images, a audio,
/// d documents, r reasoning, b prompt-cache breakpoints.
fn from_words(words: &str, context: u32, output: u32) -> Capabilities {
    let has = |word: char| words.contains(word);
    let mut capabilities = Capabilities::default();
    capabilities.streaming = has('s');
    capabilities.tools = has('t');
    capabilities.parallel_tools = has('p');
    capabilities.tool_choice = has('c');
    capabilities.json_schema = has('j');
    capabilities.json_mode = has('m');
    capabilities.images = has('i');
    capabilities.audio = has('a');
    capabilities.documents = has('d');
    capabilities.reasoning = has('r');
    capabilities.prompt_cache_breakpoints = has('b');
    capabilities.context_tokens = (context > 0).then_some(context);
    capabilities.max_output_tokens = (output > 0).then_some(output);
    capabilities
}

/// Provider, family, what it can do (see [`from_words`]), context tokens, output tokens; 0 is unknown.
const FAMILIES: &[(&str, &str, &str, u32, u32)] = &[
    ("openai", "", "stpcjmid", 128_000, 0),
    ("openai", "gpt-3.5-turbo", "stpcm", 16_385, 4_096),
    ("openai", "gpt-4", "stpcm", 8_192, 8_192),
    ("openai", "gpt-4-turbo", "stpcmi", 128_000, 4_096),
    ("openai", "gpt-4o", "stpcjmid", 128_000, 16_384),
    ("openai", "gpt-4o-audio", "stpcma", 128_000, 16_384),
    ("openai", "gpt-4.1", "stpcjmid", 1_047_576, 32_768),
    ("openai", "gpt-5", "stpcjmidr", 400_000, 128_000),
    ("openai", "o1", "stcjmidr", 200_000, 100_000),
    ("openai", "o3", "stpcjmidr", 200_000, 100_000),
    ("openai", "o4", "stpcjmidr", 200_000, 100_000),
    ("openai-responses", "", "stpcjmid", 128_000, 0),
    ("openai-responses", "gpt-4o", "stpcjmid", 128_000, 16_384),
    ("openai-responses", "gpt-4.1", "stpcjmid", 1_047_576, 32_768),
    ("openai-responses", "gpt-5", "stpcjmidr", 400_000, 128_000),
    ("openai-responses", "o", "stpcjmidr", 200_000, 100_000),
    ("anthropic", "", "stpcjidrb", 200_000, 0),
    ("anthropic", "claude-3-", "stpcidb", 200_000, 4_096),
    ("anthropic", "claude-3-5", "stpcidb", 200_000, 8_192),
    ("anthropic", "claude-3-7", "stpcidrb", 200_000, 64_000),
    ("anthropic", "claude-sonnet-4", "stpcidrb", 200_000, 64_000),
    ("anthropic", "claude-sonnet-4-5", "stpcjidrb", 200_000, 64_000),
    ("anthropic", "claude-opus-4", "stpcidrb", 200_000, 32_000),
    ("anthropic", "claude-opus-4-1", "stpcjidrb", 200_000, 32_000),
    ("anthropic", "claude-opus-4-5", "stpcjidrb", 200_000, 64_000),
    ("anthropic", "claude-haiku-4-5", "stpcjidrb", 200_000, 64_000),
    ("gemini", "", "stpcjmiad", 1_048_576, 65_536),
    ("gemini", "gemini-2.0", "stpcjmiad", 1_048_576, 8_192),
    ("gemini", "gemini-2.5", "stpcjmiadr", 1_048_576, 65_536),
    ("gemini", "gemini-3", "stpcjmiadr", 1_048_576, 65_536),
    ("groq", "", "stpcm", 131_072, 0),
    ("groq", "openai/gpt-oss", "stcjmr", 131_072, 65_536),
    ("mistral", "", "stpcjm", 128_000, 0),
    ("mistral", "pixtral", "stpcjmi", 128_000, 0),
    ("mistral", "magistral", "stpcjmr", 128_000, 0),
    ("deepseek", "", "stpcm", 128_000, 8_192),
    ("deepseek", "deepseek-reasoner", "stmr", 128_000, 64_000),
    ("openrouter", "", "stpcjmi", 0, 0),
    ("cerebras", "", "stpcjm", 128_000, 0),
    ("cerebras", "gpt-oss", "stpcjmr", 131_072, 0),
    ("xai", "", "stpcjmir", 131_072, 0),
    ("together", "", "stcjm", 0, 0),
    ("huggingface", "", "stcm", 0, 0),
    ("zai", "", "stcmr", 128_000, 0),
    ("vllm", "", "stpcjm", 0, 0),
    ("llama-cpp", "", "stpcjm", 0, 0),
    ("lm-studio", "", "stcjm", 0, 0),
    ("ollama", "", "sjm", 0, 0),
    ("ollama", "llama3.1", "stpjm", 131_072, 0),
    ("ollama", "llama3.2", "stpjm", 131_072, 0),
    ("ollama", "llama3.2-vision", "sjmi", 131_072, 0),
    ("ollama", "llama3.3", "stpjm", 131_072, 0),
    ("ollama", "qwen2.5", "stpjm", 32_768, 0),
    ("ollama", "qwen3", "stpjmr", 40_960, 0),
    ("ollama", "mistral", "stpjm", 32_768, 0),
    ("ollama", "gemma3", "sjmi", 131_072, 0),
    ("ollama", "deepseek-r1", "sjmr", 131_072, 0),
    ("ollama", "gpt-oss", "stpjmr", 131_072, 0),
    ("ollama", "llava", "sjmi", 4_096, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_family_wins_and_routers_paths_are_passed_over() {
        let table = CapabilityTable::builtin();
        assert_eq!(
            table.find("openai", "gpt-4o-2024-08-06").max_output_tokens,
            Some(16_384)
        );
        assert_eq!(table.find("openai", "gpt-4-0613").context_tokens, Some(8_192));
        assert!(table.find("groq", "openai/gpt-oss-120b").json_schema);
        assert!(!table.find("groq", "llama-3.3-70b-versatile").json_schema);
        assert_eq!(table.find("nobody", "nothing"), Capabilities::default());
    }

    #[test]
    fn the_table_can_be_extended_and_overruled() {
        let mut table = CapabilityTable::builtin();
        let mut mine = Capabilities::default();
        mine.context_tokens = Some(7);
        table.insert("*", "my-", mine.clone());
        table.insert("openai", "gpt-4o", mine.clone());
        assert_eq!(
            table.find("vllm", "org/my-model"),
            table.find("vllm", ""),
            "a known provider's own default comes first"
        );
        assert_eq!(table.find("elsewhere", "org/my-model"), mine);
        assert_eq!(table.find("openai", "gpt-4o"), mine, "the last one added wins");
    }
}
