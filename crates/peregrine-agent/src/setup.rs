//! Whether an agent can run as it is set up, and what its runs begin with.

use std::sync::Arc;

use peregrine_core::ChatModel as _;
use peregrine_signatures::Contract;
use peregrine_tools::Reason;

use crate::agent::Inner;
use crate::budget::BudgetLimits;
use crate::error::{ConfigProblem, Error};
use crate::forms;
use crate::input::Input;
use crate::run::{Form, RunSpec, Strategy, ToolRule};

impl Inner {
    pub(crate) fn capabilities(&self) -> &peregrine_core::Capabilities {
        self.models[0].info().capabilities()
    }

    /// Whether the main thread is offered tools.
    pub(crate) fn offers_tools(&self) -> bool {
        !self.registry.is_empty()
            && !matches!(
                self.spec.strategy,
                Strategy::SingleShot | Strategy::PlanAndExecute(_)
            )
    }

    pub(crate) fn refresh_tools(&mut self) {
        let spec = Arc::make_mut(&mut self.spec);
        spec.template.tools = self.registry.specs();
        let asks = self.approver.is_some();
        let rules = self.registry.iter().map(|tool| {
            let info = tool.info();
            let decision = self.allowance.decide(info);
            // Nobody is asked for what they cannot allow.
            let ask = asks && !decision.is_allowed() && decision.reason != Reason::DeniedByName;
            let rule = ToolRule {
                effect: info.effect(),
                ask,
            };
            (info.name().to_owned(), rule)
        });
        spec.tools = rules.collect();
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.problem()
            .map_or(Ok(()), |problem| Err(Error::Config(problem)))
    }

    fn problem(&self) -> Option<ConfigProblem> {
        if self.problem.is_some() {
            return self.problem.clone();
        }
        if let Some(name) = self.allowance.unknown_names(&self.registry).next() {
            return Some(ConfigProblem::UnknownTool {
                name: name.to_owned(),
            });
        }
        if self.timer.is_none() {
            let needs = |what: &str| {
                Some(ConfigProblem::NoTimer {
                    what: what.to_owned(),
                })
            };
            if self.budget_limits.wall_time.is_some() {
                return needs("the limit on time");
            }
            if !self.hooks.is_empty() {
                return needs("the time that a hook may take");
            }
            if let Some(tool) = self.registry.iter().find(|tool| tool.info().timeout().is_some()) {
                return needs(&format!("the time limit of the tool `{}`", tool.info().name()));
            }
        }
        if self.budget_limits.cost.is_some() {
            for model in &self.models {
                let info = model.info();
                let prices = self.prices.as_deref();
                if prices
                    .and_then(|prices| prices.price(info.provider(), info.model()))
                    .is_none()
                {
                    return Some(ConfigProblem::NoPrice {
                        provider: info.provider().to_owned(),
                        model: info.model().to_owned(),
                    });
                }
            }
        }
        let problem = match &self.spec.strategy {
            Strategy::BestOfN(numbers) if numbers.n == 0 || numbers.n > 256 => {
                "a vote needs 1 to 256 answers"
            }
            Strategy::BestOfN(numbers) if numbers.min_answers > numbers.n => {
                "a vote cannot need more answers than it makes"
            }
            Strategy::PlanAndExecute(numbers) if numbers.max_plan_steps == 0 => {
                "a plan needs at least one step"
            }
            _ if self.spec.limits.max_steps == 0 => "a run needs at least one step",
            _ => return None,
        };
        Some(ConfigProblem::Strategy {
            problem: problem.to_owned(),
        })
    }

    /// The rules of a run, with what its form adds.
    pub(crate) fn ready_spec(&self, contract: Option<&Contract>) -> Arc<RunSpec> {
        let needs_forms = matches!(
            self.spec.strategy,
            Strategy::PlanAndExecute(_) | Strategy::Reflection(_)
        );
        if contract.is_none() && !needs_forms {
            return Arc::clone(&self.spec);
        }
        let mut spec = (*self.spec).clone();
        if needs_forms {
            let form = |signature| Contract::for_model(signature, self.capabilities(), false);
            spec.planner = Some(Arc::clone(form(Arc::clone(forms::plan())).system()));
            spec.critic = Some(Arc::clone(form(Arc::clone(forms::critique())).system()));
        }
        if let Some(contract) = contract {
            spec.form = Form::Answer;
            spec.head.push(Arc::clone(contract.system()));
        }
        Arc::new(spec)
    }

    /// Whether nothing of what a run can do is needed between its input and the model.
    pub(crate) fn is_direct(&self, input: &Input) -> bool {
        let Self {
            models,
            spec,
            registry,
            allowance: _,
            approver: _,
            budget,
            budget_limits,
            prices: _,
            hooks,
            memory,
            timer: _,
            direct,
            grace: _,
            problem,
        } = self;
        *direct
            && models.len() == 1
            && registry.is_empty()
            && budget.is_none()
            && input.budget.is_none()
            && *budget_limits == BudgetLimits::default()
            && hooks.is_empty()
            && memory.is_none()
            && input.cancellation.can_never_fire()
            && input.interrupts.is_none()
            && problem.is_none()
            && spec.is_direct()
            && self.allowance.unknown_names(registry).next().is_none()
    }
}
