//! Calls of tools: whether one may run, by names among many; a person approves; and the call itself.

use std::collections::HashSet;
use std::hint::black_box;

use peregrine_agent::{Agent, Approval, ApprovalRequest, Approver, async_trait};
use peregrine_core::{ChatModel as _, Effect, JsonSchema, ToolCall, ToolSpec};
use peregrine_tools::{Allowance, Registry, ToolContext, ToolInfo};

use crate::bench::{Group, each, each_async, floor, ours, runtime};
use crate::fake::{FAKE_TEXT, Fake, add, change};
use crate::hand::Sum;
use crate::serve::QUESTION;

pub(super) fn groups() -> Vec<Group> {
    vec![permission(), approval(), execution()]
}

const NAMES: usize = 10_000;

fn permission() -> Group {
    Group::new(
        "tools/permission/10000_names",
        "whether a tool with side effects may run, which is one of 5,000 that are allowed by name beside 5,000 that are denied; the \
         floor looks for the name in two hash sets",
        &[ours("peregrine").counted(), floor("hash_sets").counted()],
        || {
            let name = |kind: &str, n: usize| format!("{kind}_document_{n}");
            let (mut allowance, mut allowed, mut denied) =
                (Allowance::nothing(), HashSet::new(), HashSet::new());
            for n in 0..NAMES / 2 {
                let (yes, no) = (name("change", n), name("remove", n));
                allowance = allowance.with_allowed(&*yes).with_denied(&*no);
                allowed.insert(yes);
                denied.insert(no);
            }
            let tool = |name: String| {
                ToolInfo::new(ToolSpec::new(name, "", JsonSchema::empty_object())).with_effect(Effect::SideEffect)
            };
            let (yes, no) = (tool(name("change", 1_234)), tool(name("remove", 1_234)));
            assert!(!allowance.permits(&no) && denied.contains(no.name()));
            let by_hand = yes.clone();
            vec![
                each(move || allowance.permits(black_box(&yes)), |may| assert!(*may)),
                each(
                    move || {
                        let name = black_box(&by_hand).name();
                        !denied.contains(name) && allowed.contains(name)
                    },
                    |may| assert!(*may),
                ),
            ]
        },
    )
    .with_counted_operations(1_000)
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
