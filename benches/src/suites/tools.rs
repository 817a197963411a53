//! Calls of tools: a person approves, and the call itself. Decisions by rules join with their crate.

use peregrine_agent::{Agent, Approval, ApprovalRequest, Approver, async_trait};
use peregrine_core::{ChatModel as _, ToolCall};
use peregrine_tools::{Registry, ToolContext};

use crate::bench::{Group, each, each_async, floor, ours, runtime};
use crate::fake::{FAKE_TEXT, Fake, add, change};
use crate::hand::Sum;
use crate::serve::QUESTION;

pub(super) fn groups() -> Vec<Group> {
    vec![approval(), execution()]
}

/// Somebody who approves at once, having looked at the call.
struct Yes;

#[async_trait]
impl Approver for Yes {
    async fn decide(&self, request: &ApprovalRequest) -> Approval {
        assert_eq!(request.call.name, "change");
        Approval::Approved
    }
}

fn approval() -> Group {
    Group::new(
        "tools/approval/granted",
        "a run of two turns with one call of a tool with side effects, which is approved at once; the floor allows it by name",
        &[ours("peregrine").counted(), floor("allowed").counted()],
        || {
            let runtime = runtime();
            let model = Fake::new(2).calling("change").into_handle();
            let agent = Agent::new(model).with_tool(change());
            let agents = [agent.clone().with_approver(Yes), agent.with_allowed("change")];
            agents
                .into_iter()
                .map(|agent| {
                    each_async(
                        &runtime,
                        move || {
                            let agent = agent.clone();
                            async move { agent.run(QUESTION).await.unwrap() }
                        },
                        |output| {
                            assert_eq!(output.text(), FAKE_TEXT);
                            let calls = &output.report.tool_calls;
                            assert!(calls.len() == 1 && calls[0].ok);
                        },
                    )
                })
                .collect()
        },
    )
}

fn execution() -> Group {
    Group::new(
        "tools/execution/one_call",
        "a call is looked up, its arguments are checked, it runs; the floor reads the arguments and adds",
        &[ours("peregrine").counted(), floor("hand").counted()],
        || {
            let runtime = runtime();
            let tools = Registry::builder().with(add()).with(change()).build().unwrap();
            let call = ToolCall::new("call", "add", r#"{"a": 40, "b": 2}"#);
            let by_hand = call.clone();
            vec![
                each_async(
                    &runtime,
                    move || {
                        let (tools, call) = (tools.clone(), call.clone());
                        async move { tools.run(&call, ToolContext::new("call"), None).await.unwrap() }
                    },
                    |output| assert_eq!(output.text(), "42"),
                ),
                each(
                    move || {
                        let call = by_hand.clone();
                        let Sum { a, b } = serde_json::from_str(&call.arguments).unwrap();
                        (a + b).to_string()
                    },
                    |text| assert_eq!(text, "42"),
                ),
            ]
        },
    )
}
