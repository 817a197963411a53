//! The test server as a program: `llm_server [PORT]` prints its URL and serves until it is killed.
//!
//! It echoes, with a few words for trying clients out: a user message that begins with `/think`, `/parallel`,
//! `/refuse`, `/length`, `/usage`, `/error` or `/break` gets reasoning, two tool calls, a refusal, an answer
//! cut at the token limit, an answer with cache figures, a 429, or an error in mid-stream.

use std::io::{self, Write as _};

use peregrine_testkit::server::{ApiError, At, Fault, Finish, LlmServer, Reply, SeenRequest, Usage};
use serde_json::json;

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(text) => text
            .parse()
            .map_err(|_| io::Error::other(format!("the port must be a number, not {text:?}")))?,
        None => 0,
    };
    let server = LlmServer::builder()
        .with_port(port)
        .with_models(["test-model"])
        .start_blocking()?;
    server.set_responder(respond);
    writeln!(io::stdout(), "{}", server.url())?;
    io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

fn respond(request: &SeenRequest) -> Reply {
    if !request.endpoint.is_generation() || request.tool_result().is_some() {
        return Reply::standard();
    }
    match request.last_user_text().split_whitespace().next() {
        Some("/think") => {
            Reply::text("The answer is 4.").with_reasoning("Two and two.", Some("c2lnbmF0dXJl"))
        }
        Some("/parallel") => Reply::text("Both at once.")
            .with_tool_call("call_one", "weather", json!({"city": "Paris"}))
            .with_tool_call("call_two", "weather", json!({"city": "Rome"})),
        Some("/refuse") => Reply::refusal("I can not help with that."),
        Some("/length") => Reply::text("It stops in the midd").with_finish(Finish::Length),
        Some("/usage") => {
            Reply::text("Counted.").with_usage(Usage::new(100, 40).with_reasoning(15).with_cache(30, 20))
        }
        Some("/error") => Reply::error(429, "slow down").with_retry_after("0"),
        Some("/break") => Reply::text("one two three").with_fault(Fault::error_event(
            At::AfterPieces(1),
            ApiError::new(529, "overloaded"),
        )),
        _ => Reply::standard(),
    }
}
