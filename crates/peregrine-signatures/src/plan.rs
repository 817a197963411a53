//! How a model is brought to answer in the form of a signature.
//!
//! The strongest means that the model has is taken: a schema its provider guarantees, else a tool it must call, else
//! JSON mode, else the prompt alone. Whichever it is, the answer is checked afterwards in the same way.

use std::fmt;

use peregrine_core::Capabilities;
use serde::{Deserialize, Serialize};

/// The name of the tool by which a model gives its answer.
pub const ANSWER_TOOL: &str = "final_answer";

/// How a model is brought to answer in the form of a signature.
///
/// # Examples
///
/// ```
/// use peregrine_core::Capabilities;
/// use peregrine_signatures::Plan;
///
/// let mut model = Capabilities::default();
/// assert_eq!(Plan::choose(&model, false), Plan::Prompt);
/// model.tools = true;
/// model.tool_choice = true;
/// assert_eq!(Plan::choose(&model, false), Plan::ForcedTool);
/// model.json_schema = true;
/// assert_eq!(Plan::choose(&model, false), Plan::NativeSchema);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Plan {
    /// The provider holds the model to the schema. Strictly, if the schema allows it
    /// ([`Compiled::is_strict`](crate::Compiled::is_strict)).
    NativeSchema,
    /// The model must call a tool whose arguments are the answer. Where it has other tools too, it must call one of
    /// them or this one at each turn.
    ForcedTool,
    /// The model has other tools and cannot be forced; it is offered a tool for the answer and asked to use it.
    OfferedTool,
    /// The model is held to JSON, and told the form.
    JsonMode,
    /// The model is told the form.
    Prompt,
}

impl Plan {
    /// Every plan, the strongest first.
    pub(crate) const ALL: [Self; 5] = [
        Self::NativeSchema,
        Self::ForcedTool,
        Self::OfferedTool,
        Self::JsonMode,
        Self::Prompt,
    ];

    /// The strongest plan for a model, which may have tools of its caller's besides.
    pub fn choose(model: &Capabilities, has_tools: bool) -> Self {
        if model.json_schema {
            Self::NativeSchema
        } else if model.tools && model.tool_choice {
            Self::ForcedTool
        } else if has_tools && model.tools {
            // Held to JSON, many servers no longer let a model call tools.
            Self::OfferedTool
        } else if model.json_mode && !has_tools {
            Self::JsonMode
        } else {
            Self::Prompt
        }
    }

    /// The word that is recorded in a response's metadata under `structured_output`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NativeSchema => "native_schema",
            Self::ForcedTool => "forced_tool",
            Self::OfferedTool => "offered_tool",
            Self::JsonMode => "json_mode",
            Self::Prompt => "prompt",
        }
    }

    /// What the model is told about the form of its answer, behind the instruction.
    pub(crate) fn told(self, sketch: &str) -> String {
        match self {
            Self::NativeSchema => String::new(),
            Self::ForcedTool => format!("\n\nGive the answer by calling `{ANSWER_TOOL}` once."),
            Self::OfferedTool => {
                format!(
                    "\n\nWhen you have all you need, give the answer by calling `{ANSWER_TOOL}`, not as text."
                )
            }
            Self::JsonMode | Self::Prompt => {
                format!("\n\nWrite one JSON object of this form, and nothing before or after it:\n{sketch}")
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
