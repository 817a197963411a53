//! The providers as data: where they answer, how they take a key, which dialect they speak.

use crate::http::Auth;

/// A dialect of chat completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI Chat Completions, with the quirks that go by the profile's name.
    OpenAiChat,
    /// OpenAI Responses.
    OpenAiResponses,
    /// Anthropic Messages.
    Anthropic,
    /// Google Gemini.
    Gemini,
    /// Ollama's native API.
    Ollama,
}

/// What is known of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The name before the slash in `openai/gpt-4o`.
    pub name: &'static str,
    /// The dialect it speaks.
    pub dialect: Dialect,
    /// Where it answers unless told otherwise.
    pub base_url: &'static str,
    /// The environment variables that may hold its key, in order; none if it takes no key.
    pub key_variables: &'static [&'static str],
    /// The environment variable that may hold another base URL.
    pub base_url_variable: Option<&'static str>,
    /// How it takes the key.
    pub auth: Auth,
    /// Headers that every call carries.
    pub headers: &'static [(&'static str, &'static str)],
    /// The model that is asked if only the provider was named.
    pub default_model: Option<&'static str>,
    /// The embedding model that is asked if only the provider was named; `None` without an embedding API.
    pub default_embedder: Option<&'static str>,
}

impl Profile {
    /// The profile of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// All profiles, in the order in which [`from_env`](crate::from_env) looks for keys.
    pub fn all() -> &'static [Self] {
        PROFILES
    }

    /// Whether it runs on the user's own machine by default.
    pub fn is_local(&self) -> bool {
        self.base_url.starts_with("http://127.0.0.1")
    }
}

const ANTHROPIC_VERSION: &[(&str, &str)] = &[("anthropic-version", "2023-06-01")];

/// An OpenAI-compatible server behind one key variable.
const fn compatible(
    name: &'static str,
    base_url: &'static str,
    key_variables: &'static [&'static str],
    default_model: Option<&'static str>,
) -> Profile {
    Profile {
        name,
        dialect: Dialect::OpenAiChat,
        base_url,
        key_variables,
        base_url_variable: None,
        auth: Auth::Bearer,
        headers: &[],
        default_model,
        default_embedder: None,
    }
}

static PROFILES: &[Profile] = &[
    Profile {
        base_url_variable: Some("OPENAI_BASE_URL"),
        default_embedder: Some("text-embedding-3-small"),
        ..compatible(
            "openai",
            "https://api.openai.com/v1",
            &["OPENAI_API_KEY"],
            Some("gpt-5-mini"),
        )
    },
    Profile {
        name: "anthropic",
        dialect: Dialect::Anthropic,
        base_url: "https://api.anthropic.com",
        key_variables: &["ANTHROPIC_API_KEY"],
        base_url_variable: Some("ANTHROPIC_BASE_URL"),
        auth: Auth::Header("x-api-key"),
        headers: ANTHROPIC_VERSION,
        default_model: Some("claude-haiku-4-5"),
        default_embedder: None,
    },
    Profile {
        name: "gemini",
        dialect: Dialect::Gemini,
        base_url: "https://generativelanguage.googleapis.com/v1beta",
        key_variables: &["GOOGLE_API_KEY", "GEMINI_API_KEY"],
        base_url_variable: Some("GOOGLE_GEMINI_BASE_URL"),
        auth: Auth::Header("x-goog-api-key"),
        headers: &[],
        default_model: Some("gemini-2.5-flash"),
        default_embedder: Some("gemini-embedding-001"),
    },
    compatible(
        "groq",
        "https://api.groq.com/openai/v1",
        &["GROQ_API_KEY"],
        Some("llama-3.3-70b-versatile"),
    ),
    Profile {
        default_embedder: Some("mistral-embed"),
        ..compatible(
            "mistral",
            "https://api.mistral.ai/v1",
            &["MISTRAL_API_KEY"],
            Some("mistral-small-latest"),
        )
    },
    compatible(
        "deepseek",
        "https://api.deepseek.com",
        &["DEEPSEEK_API_KEY"],
        Some("deepseek-chat"),
    ),
    compatible(
        "openrouter",
        "https://openrouter.ai/api/v1",
        &["OPENROUTER_API_KEY"],
        Some("openrouter/auto"),
    ),
    compatible(
        "cerebras",
        "https://api.cerebras.ai/v1",
        &["CEREBRAS_API_KEY"],
        Some("gpt-oss-120b"),
    ),
    compatible("xai", "https://api.x.ai/v1", &["XAI_API_KEY"], None),
    compatible(
        "together",
        "https://api.together.xyz/v1",
        &["TOGETHER_API_KEY"],
        None,
    ),
    compatible(
        "huggingface",
        "https://router.huggingface.co/v1",
        &["HF_TOKEN"],
        None,
    ),
    compatible("zai", "https://api.z.ai/api/paas/v4", &["ZAI_API_KEY"], None),
    Profile {
        dialect: Dialect::OpenAiResponses,
        base_url_variable: Some("OPENAI_BASE_URL"),
        ..compatible(
            "openai-responses",
            "https://api.openai.com/v1",
            &["OPENAI_API_KEY"],
            Some("gpt-5-mini"),
        )
    },
    Profile {
        dialect: Dialect::OpenAiResponses,
        ..compatible(
            "openrouter-responses",
            "https://openrouter.ai/api/v1",
            &["OPENROUTER_API_KEY"],
            None,
        )
    },
    Profile {
        dialect: Dialect::OpenAiResponses,
        ..compatible(
            "deepseek-responses",
            "https://api.deepseek.com",
            &["DEEPSEEK_API_KEY"],
            None,
        )
    },
    Profile {
        dialect: Dialect::OpenAiResponses,
        ..compatible(
            "llama-cpp-responses",
            "http://127.0.0.1:8080/v1",
            &["LLAMA_API_KEY"],
            Some("default"),
        )
    },
    Profile {
        dialect: Dialect::Ollama,
        base_url_variable: Some("OLLAMA_HOST"),
        default_embedder: Some("nomic-embed-text"),
        ..compatible("ollama", "http://127.0.0.1:11434", &[], None)
    },
    Profile {
        default_embedder: Some("default"),
        ..compatible("vllm", "http://127.0.0.1:8000/v1", &["VLLM_API_KEY"], None)
    },
    Profile {
        default_embedder: Some("default"),
        ..compatible(
            "llama-cpp",
            "http://127.0.0.1:8080/v1",
            &["LLAMA_API_KEY"],
            Some("default"),
        )
    },
    Profile {
        default_embedder: Some("default"),
        ..compatible("lm-studio", "http://127.0.0.1:1234/v1", &["LM_API_TOKEN"], None)
    },
];
