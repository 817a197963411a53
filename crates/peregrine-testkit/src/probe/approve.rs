//! `--approve stdin`: whoever drives the probe decides which tools may be called.
//!
//! Standard input is lines then. The first is the request; each of the others decides about a call. Calls are decided in the
//! order in which they come, unless a line names its call.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};

use peregrine_agent::run::Approval;
use peregrine_agent::{ApprovalRequest, Approver};
use peregrine_core::{Error, Result};
use peregrine_tools::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::output::{Output, arguments_of};

/// How long a line may be.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// So many decisions about calls that were not asked about yet are kept.
const MAX_EARLY: usize = 1_024;

/// The lines of standard input.
pub(crate) struct Lines(mpsc::Receiver<Result<Value>>);

impl Lines {
    /// Reads lines on a thread of its own, because a read cannot be cancelled.
    pub(crate) fn read() -> Self {
        let (sender, receiver) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut line = Vec::new();
                let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
                let refuse =
                    |why: String| Err(Error::invalid_request(format!("a line of standard input: {why}")));
                let value = match read {
                    Ok(0) => return,
                    Ok(_) if line.trim_ascii().is_empty() => continue,
                    Ok(_) => serde_json::from_slice(&line).or_else(|error| refuse(error.to_string())),
                    Err(error) => refuse(error.to_string()),
                };
                let failed = value.is_err();
                if sender.blocking_send(value).is_err() || failed {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line.
    ///
    /// # Errors
    ///
    /// That it is no JSON, or that there is none.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        let ended = || Err(Error::invalid_request("standard input is at its end"));
        self.0.recv().await.unwrap_or_else(ended)
    }
}

/// A decision. A key that is not known is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    call_id: Option<String>,
    approve: bool,
    reason: Option<String>,
}

/// Asks on standard output, and reads what is decided.
pub(crate) struct Asking(Mutex<State>);

struct State {
    lines: Lines,
    early: BTreeMap<String, Approval>,
}

impl Asking {
    pub(crate) fn new(lines: Lines) -> Self {
        Self(Mutex::new(State {
            lines,
            early: BTreeMap::new(),
        }))
    }
}

impl State {
    async fn decision(&mut self, call_id: &str) -> Result<Approval> {
        loop {
            if let Some(approval) = self.early.remove(call_id) {
                return Ok(approval);
            }
            let line = self.lines.next().await?;
            if line.get("input").is_some() || line.get("messages").is_some() {
                // The request of a run that goes on, which is not asked again.
                continue;
            }
            let decision: Decision = serde_json::from_value(line)
                .map_err(|error| Error::invalid_request(format!("a decision: {error}")))?;
            let approval = match decision.approve {
                true => Approval::Approved,
                false => Approval::Denied {
                    reason: decision
                        .reason
                        .unwrap_or_else(|| "it was not approved".to_owned()),
                },
            };
            match decision.call_id {
                Some(other) if other != call_id => {
                    if self.early.len() < MAX_EARLY {
                        self.early.insert(other, approval);
                    }
                }
                _ => return Ok(approval),
            }
        }
    }
}

#[async_trait]
impl Approver for Asking {
    async fn decide(&self, request: &ApprovalRequest) -> Approval {
        let call = &request.call;
        let asked = Output::stdout().line(&json!({"approval": {
            "run": request.run,
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments_of(&call.arguments),
            "effect": request.tool.effect(),
            "danger": request.tool.danger(),
        }}));
        let decided = match asked {
            Ok(()) => self.0.lock().await.decision(&call.id).await,
            Err(error) => Err(error),
        };
        // Who cannot be asked approves nothing.
        decided.unwrap_or_else(|error| Approval::Denied {
            reason: format!("nobody decided: {error}"),
        })
    }
}
