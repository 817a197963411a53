//! How a model is brought to answer in the form of a signature.
//!
//! The strongest means that the model has is taken: a schema its provider guarantees, else a tool it must call, else
//! JSON mode, else the prompt alone. Whichever it is, the answer is checked afterwards in the same way.

use std::fmt;

use peregrine_core::{Capabilities, ChatRequest, ResponseFormat, ToolChoice};
use serde::{Deserialize, Serialize};

use crate::compiled::Compiled;
use crate::{Error, InputError};

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
    /// ([`Compiled::is_strict`]).
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

impl Compiled {
    /// Makes a request ask for this signature's form: its response format, its tools and tool choice. Messages are
    /// left as they are; [`system`](Self::system) has what the plan needs to be said.
    ///
    /// The caller's own tools stay. With [`Plan::ForcedTool`] beside them, the model must call one of them or
    /// [`ANSWER_TOOL`] at each turn; if the caller forces a tool of its own, or forbids tools, that counts first: the
    /// former is kept, the latter makes the answer the only thing left to call.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if one of the caller's tools has the name [`ANSWER_TOOL`].
    pub fn prepare(&self, plan: Plan, mut request: ChatRequest) -> Result<ChatRequest, Error> {
        match plan {
            Plan::NativeSchema => request.response_format = self.format().clone(),
            Plan::JsonMode => request.response_format = ResponseFormat::Json,
            Plan::Prompt => {}
            Plan::ForcedTool | Plan::OfferedTool => {
                if request.tools.iter().any(|tool| tool.name == ANSWER_TOOL) {
                    return Err(InputError {
                        signature: self.name().to_owned(),
                        field: ANSWER_TOOL.to_owned(),
                        problem: "a tool has this name, which is kept for the answer; rename the tool"
                            .to_owned(),
                    }
                    .into());
                }
                let alone = request.tools.is_empty();
                request.tool_choice = match std::mem::take(&mut request.tool_choice) {
                    ToolChoice::None => ToolChoice::Tool(ANSWER_TOOL.to_owned()),
                    ToolChoice::Auto if plan == Plan::ForcedTool && alone => {
                        ToolChoice::Tool(ANSWER_TOOL.to_owned())
                    }
                    ToolChoice::Auto if plan == Plan::ForcedTool => ToolChoice::Required,
                    as_asked => as_asked,
                };
                request.tools = if alone {
                    self.answer_tool().clone()
                } else {
                    request
                        .tools
                        .iter()
                        .chain(self.answer_tool().iter())
                        .cloned()
                        .collect()
                };
            }
        }
        Ok(request)
    }
}
