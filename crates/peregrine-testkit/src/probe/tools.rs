//! The tools of `agent`: enough to see what an agent does with tools, and no more.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ConfigError, JsonSchema, ToolSpec};
use peregrine_tools::{Danger, Effect, FnTool, Registry, RegistryBuilder, ToolError, ToolInfo, tool};
use serde_json::json;

/// The tools. `write_line` is among them if there is a file for its effects.
///
/// # Errors
///
/// That the file cannot be opened.
pub(crate) fn tools(effects: Option<&Path>) -> Result<RegistryBuilder, ConfigError> {
    let tools = Registry::builder().with(add()).with(echo()).with(sleep());
    let Some(path) = effects else {
        return Ok(tools);
    };
    let file = File::options().append(true).create(true).open(path);
    let file = file.map_err(|error| ConfigError::new(format!("--effects {}: {error}", path.display())))?;
    Ok(tools.with(write_line(file)))
}

/// Adds two whole numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> Result<String, ToolError> {
    match a.checked_add(b) {
        Some(sum) => Ok(sum.to_string()),
        None => Err(ToolError::model("the sum has more than 64 bits")),
    }
}

/// Gives a text back.
#[tool(effect = "read_only", danger = "safe")]
async fn echo(text: String) -> String {
    text
}

/// Waits so many milliseconds.
#[tool(effect = "read_only", danger = "safe")]
async fn sleep(ms: u32) -> String {
    tokio::time::sleep(Duration::from_millis(ms.into())).await;
    format!("slept {ms} ms")
}

/// Appends a line for each call to the file of effects.
fn write_line(file: File) -> FnTool {
    let schema = JsonSchema::new(json!({
        "type": "object",
        "properties": {"text": {"type": "string", "description": "What to write."}},
        "required": ["text"],
        "additionalProperties": false,
    }));
    let spec = ToolSpec::new("write_line", "Writes a line that stays.", schema);
    let info = ToolInfo::new(spec)
        .with_effect(Effect::SideEffect)
        .with_danger(Danger::Low);
    let file = Arc::new(file);
    FnTool::raw(info, move |context, arguments| {
        let file = Arc::clone(&file);
        async move {
            let effect = json!({
                "tool": "write_line",
                "text": arguments["text"],
                "call_id": context.call_id,
                "idempotency_key": context.idempotency_key,
            });
            // In one write and without a wait: whoever stops the run finds the whole line or none.
            match (&*file).write_all(format!("{effect}\n").as_bytes()) {
                Ok(()) => Ok("written"),
                Err(error) => Err(ToolError::fatal(format!(
                    "the effect could not be written: {error}"
                ))),
            }
        }
    })
}
