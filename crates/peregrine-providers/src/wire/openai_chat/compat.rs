//! What sets the servers of the Chat Completions dialect apart, as data.
//!
//! Invariant: the codec has one path; every difference between servers is a field here with a consumer in the
//! encoder. Reading needs no data: the decoder takes what any of them sends.

use crate::wire::ToolIds;

/// How one server speaks Chat Completions.
///
/// The default is OpenAI itself. For a server without a preset start from the nearest one:
///
/// ```
/// use peregrine_providers::wire::openai_chat::ChatCompat;
///
/// let mut house = ChatCompat::vllm();
/// house.top_k = false;
/// assert_ne!(house, ChatCompat::vllm());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ChatCompat {
    /// The field for the bound of the output: `max_completion_tokens` or `max_tokens`.
    pub max_tokens_field: &'static str,
    /// The field for the seed, if there is one.
    pub seed_field: Option<&'static str>,
    /// Whether `top_k` is taken.
    pub top_k: bool,
    /// Whether `presence_penalty` and `frequency_penalty` are taken.
    pub penalties: bool,
    /// The role of instructions: `system` or `developer`.
    pub system_role: &'static str,
    /// Whether a message of several texts must be sent as one text (joined without a separator).
    pub joined_text: bool,
    /// Whether a refusal of the model goes back in the field `refusal`; else it goes back as text.
    pub refusal_field: bool,
    /// Whether images that the model made go back in the field `images`.
    pub images_field: bool,
    /// Which fields that the decoder keeps beside the content of an assistant message go back: `audio`,
    /// `extra_content` (in which Gemini wants its thought signatures back, also on tool calls).
    pub echoed_fields: &'static [&'static str],
    /// How audio is sent.
    pub audio: AudioForm,
    /// How documents are sent.
    pub documents: DocumentForm,
    /// The form of tool call ids.
    pub tool_ids: ToolIds,
    /// Whether `strict` is understood in tools. Where it is not, the schema is sent as its author wrote it.
    pub strict_tools: bool,
    /// Whether `tool_choice` is honoured.
    pub tool_choice: bool,
    /// The word for "some tool must be called": `required` or `any`.
    pub required_word: &'static str,
    /// Whether `parallel_tool_calls` is taken.
    pub parallel_tool_calls: bool,
    /// Whether results of tools may hold more than text.
    pub tool_result_media: bool,
    /// How the effort of reasoning is said.
    pub reasoning: ReasoningForm,
    /// Whether the server shows its reasoning.
    pub reasoning_shown: ReasoningShown,
    /// How the model's reasoning goes back to it.
    pub reasoning_echo: ReasoningEcho,
    /// Whether `response_format` knows `json_object`.
    pub json_object: bool,
    /// Whether `response_format` knows `json_schema`.
    pub json_schema: bool,
    /// Whether an answer with a `response_format` can be streamed.
    pub streamed_format: bool,
    /// Whether usage in streams must be asked for with `stream_options`; servers where this is false send it
    /// unasked.
    pub stream_usage_option: bool,
    /// Whether `prompt_cache_key` is taken.
    pub prompt_cache_key: bool,
    /// How breakpoints and lifetimes of the prompt cache are said.
    pub prompt_cache: PromptCacheForm,
}

/// How audio is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AudioForm {
    /// It is not.
    None,
    /// `input_audio: {data, format}`.
    DataAndFormat,
    /// `input_audio: "<base64 or address>"` (Mistral).
    Plain,
}

/// How documents that are no plain text are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DocumentForm {
    /// They are not.
    None,
    /// `file: {file_data, filename}` or `file: {file_id}`.
    File,
    /// As [`File`](Self::File), and `file_data` may be an address (OpenRouter).
    FileOrUrl,
    /// `document_url` or `file_id` (Mistral).
    DocumentUrl,
}

/// How the effort of reasoning is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReasoningForm {
    /// It is not.
    None,
    /// `reasoning_effort: ".."`.
    Effort,
    /// `thinking: {type: enabled | disabled}` and `reasoning_effort` (DeepSeek, Z.ai).
    Thinking,
    /// `reasoning: {effort | max_tokens, exclude}` (OpenRouter).
    Object,
}

/// Whether the server shows its reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReasoningShown {
    /// Never.
    Never,
    /// Whenever there is some.
    Always,
    /// As `include_reasoning` says.
    IncludeReasoning,
}

/// How reasoning that came in this dialect goes back to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReasoningEcho {
    /// Not at all.
    Never,
    /// In this field of every assistant message.
    Field(&'static str),
    /// In this field of assistant messages that call tools (DeepSeek answers 400 without it).
    FieldWithToolCalls(&'static str),
    /// As `reasoning_details`, word for word; as `reasoning` where there are none (OpenRouter).
    Details,
    /// As a `thinking` piece of the content (Mistral).
    ThinkingPiece,
}

/// How breakpoints and lifetimes of the prompt cache are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PromptCacheForm {
    /// They are not: the server caches by itself or not at all.
    None,
    /// `prompt_cache_breakpoint` on pieces and `prompt_cache_options` for models that take breakpoints
    /// ([`Capabilities::prompt_cache_breakpoints`](peregrine_core::Capabilities::prompt_cache_breakpoints)),
    /// `prompt_cache_retention` for the others (OpenAI).
    OpenAi,
    /// `cache_control` on pieces, and at the top level for automatic breakpoints (OpenRouter).
    CacheControl,
}

impl Default for ChatCompat {
    fn default() -> Self {
        Self::openai()
    }
}

impl ChatCompat {
    /// OpenAI. Instructions are sent as `system`, which its reasoning models read as `developer`, because some
    /// of its models refuse `developer`.
    pub const fn openai() -> Self {
        Self {
            max_tokens_field: "max_completion_tokens",
            seed_field: Some("seed"),
            top_k: false,
            penalties: true,
            system_role: "system",
            joined_text: false,
            refusal_field: true,
            images_field: false,
            echoed_fields: &["audio"],
            audio: AudioForm::DataAndFormat,
            documents: DocumentForm::File,
            tool_ids: ToolIds::AtMost(40),
            strict_tools: true,
            tool_choice: true,
            required_word: "required",
            parallel_tool_calls: true,
            tool_result_media: false,
            reasoning: ReasoningForm::Effort,
            reasoning_shown: ReasoningShown::Never,
            reasoning_echo: ReasoningEcho::Never,
            json_object: true,
            json_schema: true,
            streamed_format: true,
            stream_usage_option: true,
            prompt_cache_key: true,
            prompt_cache: PromptCacheForm::OpenAi,
        }
    }

    /// What most compatible servers share: OpenAI as it was before its own extensions.
    const fn plain() -> Self {
        Self {
            max_tokens_field: "max_tokens",
            refusal_field: false,
            echoed_fields: &[],
            audio: AudioForm::None,
            documents: DocumentForm::None,
            tool_ids: ToolIds::Any,
            strict_tools: false,
            parallel_tool_calls: false,
            reasoning_shown: ReasoningShown::Always,
            prompt_cache_key: false,
            prompt_cache: PromptCacheForm::None,
            ..Self::openai()
        }
    }

    /// Groq. It cannot stream an answer that has a format, and sends usage in streams unasked.
    pub const fn groq() -> Self {
        Self {
            max_tokens_field: "max_completion_tokens",
            strict_tools: true,
            parallel_tool_calls: true,
            tool_result_media: true,
            reasoning_shown: ReasoningShown::IncludeReasoning,
            streamed_format: false,
            stream_usage_option: false,
            ..Self::plain()
        }
    }

    /// Mistral. Unknown fields are errors there.
    pub const fn mistral() -> Self {
        Self {
            seed_field: Some("random_seed"),
            top_k: true,
            audio: AudioForm::Plain,
            documents: DocumentForm::DocumentUrl,
            tool_ids: ToolIds::Nine,
            strict_tools: true,
            required_word: "any",
            parallel_tool_calls: true,
            tool_result_media: true,
            reasoning_echo: ReasoningEcho::ThinkingPiece,
            stream_usage_option: false,
            prompt_cache_key: true,
            ..Self::plain()
        }
    }

    /// DeepSeek. It has no `json_schema`, and takes content as one text only.
    pub const fn deepseek() -> Self {
        Self {
            seed_field: None,
            joined_text: true,
            reasoning: ReasoningForm::Thinking,
            reasoning_echo: ReasoningEcho::FieldWithToolCalls("reasoning_content"),
            json_schema: false,
            ..Self::plain()
        }
    }

    /// OpenRouter.
    pub const fn openrouter() -> Self {
        Self {
            max_tokens_field: "max_completion_tokens",
            top_k: true,
            refusal_field: true,
            images_field: true,
            echoed_fields: &["audio"],
            audio: AudioForm::DataAndFormat,
            documents: DocumentForm::FileOrUrl,
            strict_tools: true,
            parallel_tool_calls: true,
            tool_result_media: true,
            reasoning: ReasoningForm::Object,
            reasoning_echo: ReasoningEcho::Details,
            prompt_cache_key: true,
            prompt_cache: PromptCacheForm::CacheControl,
            ..Self::plain()
        }
    }

    /// Cerebras.
    pub const fn cerebras() -> Self {
        Self {
            max_tokens_field: "max_completion_tokens",
            strict_tools: true,
            parallel_tool_calls: true,
            reasoning_echo: ReasoningEcho::Field("reasoning"),
            prompt_cache_key: true,
            ..Self::plain()
        }
    }

    /// vLLM.
    pub const fn vllm() -> Self {
        Self {
            top_k: true,
            audio: AudioForm::DataAndFormat,
            parallel_tool_calls: true,
            reasoning_shown: ReasoningShown::IncludeReasoning,
            reasoning_echo: ReasoningEcho::FieldWithToolCalls("reasoning"),
            ..Self::plain()
        }
    }

    /// The server of llama.cpp.
    pub const fn llama_cpp() -> Self {
        Self {
            top_k: true,
            audio: AudioForm::DataAndFormat,
            parallel_tool_calls: true,
            reasoning: ReasoningForm::None,
            reasoning_echo: ReasoningEcho::FieldWithToolCalls("reasoning_content"),
            ..Self::plain()
        }
    }

    /// LM Studio. It knows `json_schema` but not `json_object`.
    pub const fn lm_studio() -> Self {
        Self {
            top_k: true,
            json_object: false,
            ..Self::plain()
        }
    }

    /// Ollama's `/v1`. It takes no notice of `tool_choice`; its own API can do more.
    pub const fn ollama() -> Self {
        Self {
            tool_choice: false,
            reasoning_echo: ReasoningEcho::Field("reasoning"),
            ..Self::plain()
        }
    }

    /// Gemini's `/v1beta/openai`. Unknown fields are errors there.
    pub const fn gemini() -> Self {
        Self {
            seed_field: None,
            penalties: false,
            echoed_fields: &["extra_content"],
            audio: AudioForm::DataAndFormat,
            reasoning_shown: ReasoningShown::Never,
            ..Self::plain()
        }
    }

    /// xAI.
    pub const fn xai() -> Self {
        Self {
            max_tokens_field: "max_completion_tokens",
            parallel_tool_calls: true,
            ..Self::plain()
        }
    }

    /// Together. It sends usage in streams unasked.
    pub const fn together() -> Self {
        Self {
            top_k: true,
            reasoning_echo: ReasoningEcho::FieldWithToolCalls("reasoning"),
            stream_usage_option: false,
            ..Self::plain()
        }
    }

    /// The router of Hugging Face, which hands requests on to servers of several kinds.
    pub const fn huggingface() -> Self {
        Self::plain()
    }

    /// Z.ai. Its only tool choice is `auto`, and it has no `json_schema`.
    pub const fn zai() -> Self {
        Self {
            penalties: false,
            tool_choice: false,
            reasoning: ReasoningForm::Thinking,
            reasoning_echo: ReasoningEcho::Field("reasoning_content"),
            json_schema: false,
            ..Self::plain()
        }
    }

    /// The preset for a provider by its usual name, such as `groq` or `llama.cpp`.
    pub fn of_provider(name: &str) -> Option<Self> {
        Some(match name {
            "openai" => Self::openai(),
            "groq" => Self::groq(),
            "mistral" => Self::mistral(),
            "deepseek" => Self::deepseek(),
            "openrouter" => Self::openrouter(),
            "cerebras" => Self::cerebras(),
            "vllm" => Self::vllm(),
            "llama.cpp" | "llama_cpp" | "llama-cpp" | "llamacpp" => Self::llama_cpp(),
            "lmstudio" | "lm_studio" | "lm-studio" => Self::lm_studio(),
            "ollama" => Self::ollama(),
            "gemini" => Self::gemini(),
            "xai" => Self::xai(),
            "together" => Self::together(),
            "huggingface" => Self::huggingface(),
            "zai" => Self::zai(),
            _ => return None,
        })
    }
}
