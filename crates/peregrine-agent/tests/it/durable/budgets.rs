//! What a run used before it was interrupted counts against its own budget when it goes on.

use peregrine_agent::{Agent, Budget, BudgetLimits, Error, Input, Limits, More, Resource};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Effect, ModelInfo, NanoUsd, Price, PriceTable};

use super::support::{Ledger, acting, id, moody, poll_out, poll_times, scope, wait};
use crate::support::{Script, calls, results};

/// Is not ready at once.
struct Slow(Script);

impl ChatModel for Slow {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        wait(2).await;
        self.0.complete(request).await
    }
}

/// Never comes to an end by itself.
fn agent(ledger: &Ledger, checkpoints: peregrine_checkpoints::Checkpoints) -> Agent {
    let limits = Limits {
        max_steps: 1_000,
        max_tool_calls: 1_000,
        ..Limits::default()
    };
    Agent::new(Slow(Script::new(|_, _| Ok(calls(&[("look", "{}")])))))
        .with_scope(scope())
        .with_limits(limits)
        .with_tool(acting("look", Effect::ReadOnly, ledger))
        .with_checkpoints(checkpoints)
}

/// Interrupts a run again and again; how it ends.
fn interrupted(agent: &Agent) -> (Error, usize) {
    let run = agent.run(Input::from("Go.").with_run_id(id(1)));
    assert!(poll_times(run, 8).is_none());
    for times in 1..200 {
        let stored = poll_out(agent.load(id(1))).unwrap();
        if let Some(outcome) = poll_times(stored.resume(More::default()), 7) {
            return (outcome.unwrap_err().into_error(), times);
        }
    }
    panic!("it goes on for ever");
}

#[test]
fn calls_of_tools_are_counted_over_interruptions() {
    let (_, checkpoints) = moody(0);
    let ledger = Ledger::default();
    let agent = agent(&ledger, checkpoints).with_budget(BudgetLimits::default().with_tool_calls(9));
    let (error, times) = interrupted(&agent);
    assert!(times > 2, "{times}");
    let Error::Limit(limit) = error else {
        panic!("{error}")
    };
    assert_eq!(
        (limit.resource, limit.limit, limit.used),
        (Resource::ToolCalls, 9, 9)
    );
    // A call that is made again is the same call.
    let stored = poll_out(agent.load(id(1))).unwrap();
    let request = ChatRequest {
        messages: stored.run().messages(),
        ..ChatRequest::default()
    };
    assert_eq!(results(&request).len(), 9);
    assert!(ledger.lines().len() > 9, "some were made again");
}

#[test]
fn tokens_and_money_are_counted_over_interruptions_and_not_twice_above() {
    let prices = PriceTable::new().with(
        "test",
        "script",
        Price::per_million(NanoUsd(1_000_000), NanoUsd(1_000_000)),
    );
    for limits in [
        BudgetLimits::default().with_tokens(6_000),
        BudgetLimits::default().with_cost(NanoUsd(6_000)),
    ] {
        let (_, checkpoints) = moody(0);
        let ledger = Ledger::default();
        let team = Budget::named("team", BudgetLimits::default());
        let agent = agent(&ledger, checkpoints)
            .with_prices(prices.clone())
            .with_budget(limits)
            .with_shared_budget(team.clone());
        let (error, times) = interrupted(&agent);
        assert!(times > 2, "{times}");
        let Error::Limit(limit) = error else {
            panic!("{error}")
        };
        assert_eq!(limit.budget, "run");
        // All of it was spent in this process, so the budget above saw each call once.
        let spent = team.status().spent;
        let used = match limit.resource {
            Resource::Tokens => spent.tokens,
            _ => spent.cost.0,
        };
        assert_eq!(used, limit.used, "{limit}");
    }
}
