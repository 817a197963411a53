//! From steps to nodes and edges: dependencies, gates, resources.
//!
//! A step is a node, each of its checks another one behind it. What depends on a step also depends on its gates, several
//! of which are gathered in one node. For gates of effects each step hands on to its dependants what they have to wait
//! for, as one node: its own checks of that kind and what it was handed itself. A step with effects waits for what it is
//! handed, so hands on only its own. That keeps the edges linear in the plan. Resources are edges that only order: a write
//! is behind the last write and the reads since, a read behind the last write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::{Compiled, Plan, PlanError, Problem, Problems, dangling, known_names};
use crate::reference::Expression;
use crate::scheduler::{Edge, Kind, Limits, NONE, NodeSpec, Scheduler};
use crate::{Actions, CheckPolicy, Effect, Order};

/// How long a step is thought to take about which nothing is known: a call over a network.
const USUAL_ESTIMATE: Duration = Duration::from_secs(1);

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The step at this place of the plan.
    Step(u32),
    /// A check of the step at `place`.
    Check { place: u32, index: u32 },
    /// Nothing; it gathers gates.
    Join,
}

#[derive(Debug)]
pub(crate) struct Graph {
    steps: Steps,
    actions: Arc<Actions>,
    slots: Vec<Slot>,
    roles: Vec<Role>,
    scheduler: Scheduler,
    resources: HashMap<String, Usage>,
    /// Checks that refer to a step which is not there yet, by its place.
    deferred: HashMap<u32, Vec<(u32, u32)>>,
    /// Empty; what comes before a node is gathered here.
    before: Vec<(u32, Edge)>,
    /// The last action that was looked for by its name: the next step often asks for the same.
    last_action: Option<(String, u32)>,
}

/// Those of a plan, or those that have come so far.
#[derive(Debug)]
enum Steps {
    Plan(Plan),
    Came(Vec<Arc<Compiled>>),
}

impl Steps {
    fn all(&self) -> &[Arc<Compiled>] {
        match self {
            Self::Plan(plan) => plan.compiled(),
            Self::Came(steps) => steps,
        }
    }
}

/// A step in the graph.
#[derive(Debug)]
struct Slot {
    node: u32,
    action: u32,
    effect: Effect,
    /// What dependants wait for besides the step; found out when the first dependant comes.
    gate: Gate,
    /// The same, for dependants with effects.
    gate_of_effects: Gate,
    /// What it was handed.
    handed: Vec<u32>,
    checks: Vec<CheckSlot>,
}

#[derive(Debug, Clone, Copy)]
enum Gate {
    Unknown,
    Known(u32),
}

#[derive(Debug, Clone, Copy)]
struct CheckSlot {
    node: u32,
    action: u32,
}

#[derive(Debug)]
struct Usage {
    writer: u32,
    /// Since the last write.
    readers: Vec<u32>,
}

impl Graph {
    /// A graph without nodes.
    pub(crate) fn new(actions: Arc<Actions>, limits: Limits, order: Order) -> Self {
        Self {
            steps: Steps::Came(Vec::new()),
            actions,
            slots: Vec::new(),
            roles: Vec::new(),
            scheduler: Scheduler::new(limits, order),
            resources: HashMap::new(),
            deferred: HashMap::new(),
            before: Vec::new(),
            last_action: None,
        }
    }

    /// Adds a whole plan.
    ///
    /// # Errors
    ///
    /// There is no such action, or a reference points at what an action never gives.
    pub(crate) fn add_plan(&mut self, plan: &Plan) -> Result<(), PlanError> {
        let mut problems = Problems::default();
        self.steps = Steps::Plan(plan.clone());
        self.slots.reserve(plan.len());
        for compiled in plan.compiled() {
            self.bind(compiled, &mut problems);
        }
        problems.into_result()?;
        let edges = plan.compiled().iter().map(|compiled| compiled.dependencies.len());
        self.scheduler.reserve(plan.len(), edges.sum());
        self.roles.reserve(plan.len());
        for &place in plan.places() {
            self.add_nodes(place, &plan.compiled()[place as usize]);
        }
        Ok(())
    }

    /// Adds one more step, behind those that are there.
    ///
    /// # Errors
    ///
    /// As [`add_plan`](Self::add_plan).
    pub(crate) fn add_step(&mut self, compiled: Compiled) -> Result<(), PlanError> {
        let mut problems = Problems::default();
        let compiled = Arc::new(compiled);
        let Steps::Came(steps) = &mut self.steps else {
            return Err(PlanError::unreadable("the plan is complete"));
        };
        steps.push(Arc::clone(&compiled));
        let place = u32::try_from(steps.len() - 1).expect("plans have at most a million steps");
        self.bind(&compiled, &mut problems);
        if let Err(error) = problems.into_result() {
            self.slots.pop();
            if let Steps::Came(steps) = &mut self.steps {
                steps.pop();
            }
            return Err(error);
        }
        self.add_nodes(place, &compiled);
        Ok(())
    }

    /// Finds the actions of a step and checks its references against what they give.
    fn bind(&mut self, compiled: &Compiled, problems: &mut Problems) {
        let action = self.find_action(compiled, &compiled.step.action, problems);
        let checks = compiled.checks.iter();
        let checks: Vec<CheckSlot> = checks
            .map(|template| CheckSlot {
                node: NONE,
                action: self.find_action(compiled, &template.check.action, problems),
            })
            .collect();
        let expressions = std::iter::once(&compiled.parameters);
        for expression in expressions.chain(compiled.checks.iter().map(|check| &check.parameters)) {
            self.check_references(compiled, expression, problems);
        }
        let effect = if action == NONE {
            Effect::SideEffect
        } else {
            self.actions.info_at(action).effect
        };
        self.slots.push(Slot {
            node: NONE,
            action,
            effect,
            gate: Gate::Unknown,
            gate_of_effects: Gate::Unknown,
            handed: Vec::new(),
            checks,
        });
    }

    fn find_action(&mut self, compiled: &Compiled, name: &str, problems: &mut Problems) -> u32 {
        if let Some((last, action)) = &self.last_action
            && last == name
        {
            return *action;
        }
        let Some(action) = self.actions.find(name) else {
            problems.push(|| Problem::UnknownAction {
                step: compiled.id.to_string(),
                action: name.to_owned(),
                known: known_names(self.actions.names()),
            });
            return NONE;
        };
        self.last_action = Some((name.to_owned(), action));
        action
    }

    fn check_references(&self, compiled: &Compiled, expression: &Expression, problems: &mut Problems) {
        if matches!(expression, Expression::Plain(_)) {
            return;
        }
        expression.references(&mut |bound| {
            if bound.reference.path.is_empty() {
                return;
            }
            let message = dangling(self.steps.all(), &self.actions, bound.step, &bound.reference.path);
            if let Some(message) = message {
                problems.push(|| Problem::DanglingField {
                    step: compiled.id.to_string(),
                    reference: bound.reference.to_string(),
                    message,
                });
            }
        });
    }

    fn add_nodes(&mut self, place: u32, compiled: &Compiled) {
        let at = place as usize;
        let effect = self.slots[at].effect;
        let mut before = std::mem::take(&mut self.before);
        let mut handed = Vec::new();
        for &needed in &compiled.dependencies {
            let slot = &self.slots[needed as usize];
            before.push((slot.node, Edge::Requires));
            if slot.checks.is_empty() && slot.handed.is_empty() {
                continue;
            }
            match self.gate(needed) {
                NONE => {}
                gate => before.push((gate, Edge::Requires)),
            }
            match self.gate_of_effects(needed) {
                NONE => {}
                gate if effect == Effect::ReadOnly => handed.push(gate),
                gate => before.push((gate, Edge::Requires)),
            }
        }
        handed.sort_unstable();
        handed.dedup();
        self.slots[at].handed = handed;
        self.use_resources(compiled, &mut before);

        let action = self.slots[at].action;
        let spec = NodeSpec {
            kind: Kind::Step,
            is_model_call: self.actions.info_at(action).is_model_call,
            estimate: self.estimate(compiled, action),
            rank: place,
        };
        let node = self.scheduler.add(spec, before.drain(..));
        self.before = before;
        self.roles.push(Role::Step(place));
        self.slots[at].node = node;
        for index in (0..).take(compiled.checks.len()) {
            self.add_check(place, index);
        }
        // Checks of earlier steps that waited for this one.
        if !self.deferred.is_empty() {
            for (place, index) in self.deferred.remove(&place).unwrap_or_default() {
                self.add_check(place, index);
            }
        }
    }

    /// Adds a check behind its step and what it refers to, as soon as all of that is there.
    fn add_check(&mut self, place: u32, index: u32) {
        let at = place as usize;
        let compiled = Arc::clone(&self.steps.all()[at]);
        let template = &compiled.checks[index as usize];
        let missing = |needed: &&u32| self.slots[**needed as usize].node == NONE;
        if let Some(&missing) = template.dependencies.iter().find(missing) {
            self.deferred.entry(missing).or_default().push((place, index));
            return;
        }
        let needed = std::iter::once(&place).chain(&template.dependencies);
        let before: Vec<(u32, Edge)> = needed
            .map(|&needed| (self.slots[needed as usize].node, Edge::Requires))
            .collect();
        let action = self.slots[at].checks[index as usize].action;
        let spec = NodeSpec {
            kind: Kind::Check,
            is_model_call: self.actions.info_at(action).is_model_call,
            estimate: micros(
                self.actions
                    .at(action)
                    .estimate(&template.check.parameters)
                    .unwrap_or(USUAL_ESTIMATE),
            ),
            rank: place,
        };
        let node = self.scheduler.add(spec, before);
        self.roles.push(Role::Check { place, index });
        self.slots[at].checks[index as usize].node = node;
    }

    /// The nodes of a step's checks of this policy.
    fn gates_of(&self, place: u32, policy: CheckPolicy) -> impl Iterator<Item = u32> {
        let at = place as usize;
        let checks = self.steps.all()[at].checks.iter().zip(&self.slots[at].checks);
        checks
            .filter(move |(template, _)| template.check.policy == policy)
            .map(|(_, slot)| slot.node)
    }

    /// What every dependant of the step waits for; `NONE` if nothing.
    fn gate(&mut self, place: u32) -> u32 {
        if let Gate::Known(gate) = self.slots[place as usize].gate {
            return gate;
        }
        let sources = self.gates_of(place, CheckPolicy::Gate).collect();
        let gate = self.join(place, sources);
        self.slots[place as usize].gate = Gate::Known(gate);
        gate
    }

    /// What a dependant of the step waits for if it has effects; `NONE` if nothing.
    fn gate_of_effects(&mut self, place: u32) -> u32 {
        let slot = &self.slots[place as usize];
        if let Gate::Known(gate) = slot.gate_of_effects {
            return gate;
        }
        let mut sources = slot.handed.clone();
        sources.extend(self.gates_of(place, CheckPolicy::GateEffects));
        let gate = self.join(place, sources);
        self.slots[place as usize].gate_of_effects = Gate::Known(gate);
        gate
    }

    /// One node for several; `NONE` for none.
    fn join(&mut self, place: u32, sources: Vec<u32>) -> u32 {
        match sources[..] {
            [] => NONE,
            [only] => only,
            _ => {
                let spec = NodeSpec {
                    kind: Kind::Join,
                    is_model_call: false,
                    estimate: 0,
                    rank: place,
                };
                let before = sources.into_iter().map(|source| (source, Edge::Requires));
                self.roles.push(Role::Join);
                self.scheduler.add(spec, before)
            }
        }
    }

    fn use_resources(&mut self, compiled: &Compiled, before: &mut Vec<(u32, Edge)>) {
        let resources = &compiled.step.resources;
        // The number that the node will have.
        let node = u32::try_from(self.scheduler.len()).expect("plans have at most a million steps");
        let unused = || Usage {
            writer: NONE,
            readers: Vec::new(),
        };
        for name in &resources.write {
            let usage = self.resources.entry(name.clone()).or_insert_with(unused);
            if usage.writer == node {
                continue;
            }
            before.extend(usage.readers.drain(..).map(|reader| (reader, Edge::After)));
            if usage.writer != NONE {
                before.push((usage.writer, Edge::After));
            }
            usage.writer = node;
        }
        for name in &resources.read {
            let usage = self.resources.entry(name.clone()).or_insert_with(unused);
            if usage.writer == node || usage.readers.last() == Some(&node) {
                continue;
            }
            if usage.writer != NONE {
                before.push((usage.writer, Edge::After));
            }
            usage.readers.push(node);
        }
    }

    fn estimate(&self, compiled: &Compiled, action: u32) -> u64 {
        let said = compiled.step.estimate;
        let estimate = said.or_else(|| self.actions.at(action).estimate(&compiled.step.parameters));
        micros(estimate.unwrap_or(USUAL_ESTIMATE))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn compiled(&self) -> &[Arc<Compiled>] {
        self.steps.all()
    }

    pub(crate) fn actions(&self) -> &Actions {
        &self.actions
    }

    pub(crate) fn role(&self, node: u32) -> Role {
        self.roles[node as usize]
    }

    pub(crate) fn node_of(&self, place: usize) -> u32 {
        self.slots[place].node
    }

    pub(crate) fn check_node(&self, place: usize, index: usize) -> u32 {
        self.slots[place].checks[index].node
    }

    pub(crate) fn action(&self, place: usize) -> u32 {
        self.slots[place].action
    }

    pub(crate) fn check_action(&self, place: usize, index: usize) -> u32 {
        self.slots[place].checks[index].action
    }

    pub(crate) fn effect(&self, place: usize) -> Effect {
        self.slots[place].effect
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    pub(crate) fn scheduler_mut(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    pub(crate) fn settle(&mut self, node: u32, passed: bool, now: Duration) {
        self.scheduler.settle(node, passed, now);
    }

    pub(crate) fn take_up(&mut self, place: usize) -> bool {
        let node = self.node_of(place);
        self.scheduler.take_up(node)
    }

    pub(crate) fn release(&mut self, whole: bool, now: Duration) {
        self.scheduler.release(whole, now);
    }
}

/// At least 1: what runs takes time.
fn micros(estimate: Duration) -> u64 {
    u64::try_from(estimate.as_micros()).unwrap_or(u64::MAX).max(1)
}
