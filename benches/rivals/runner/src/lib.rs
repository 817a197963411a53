//! One framework, measured: the work, the trait that a framework implements, and the program that runs it.
//!
//! Each framework is a program of its own that calls [`main`](run::main) with its [`Framework`]; one process measures one
//! operation, so that its memory is that framework's and that operation's. `cargo xtask bench --rivals` starts them in
//! turns against one server, and compares. They speak the protocol of `peregrine-harness`.

pub mod run;
pub mod work;

pub use peregrine_harness::protocol::Role;

/// A framework, or the lack of one.
///
/// Every function does its work as the documentation of the framework does it, with one client for all, and gives the text
/// of the answer, which the runner checks outside the timed part.
#[allow(async_fn_in_trait, reason = "one thread runs it all")]
pub trait Framework: 'static {
    /// The last part of the names of its benchmarks.
    const NAME: &'static str;
    /// Whose work it is.
    const ROLE: Role;
    /// What a reader has to know: what its programming interface cannot do, and what was written by hand instead.
    const NOTES: &'static [&'static str];
    /// Whether it has agents at all. What has none is left out where agents are made.
    const HAS_AGENTS: bool = true;
    /// What answers questions, with [instructions](work::SYSTEM) and without tools.
    type Agent: 'static;
    /// The same with the [tool that adds](work::add).
    type ToolAgent: 'static;

    /// The client, made once in a process.
    fn connect(base_url: &str) -> Self;

    /// An agent from scratch, over the client that there is.
    async fn agent(&self) -> Self::Agent;

    /// An agent with a tool from scratch, over the client that there is.
    async fn agent_with_tool(&self) -> Self::ToolAgent;

    /// One question, one answer.
    async fn ask(&self, agent: &Self::Agent, question: &str) -> String;

    /// One question, which the model answers after it has called the tool once.
    async fn use_tool(&self, agent: &Self::ToolAgent, question: &str) -> String;

    /// Questions in a row in one new conversation; the last answer.
    async fn converse(&self, agent: &Self::Agent, questions: &[&str]) -> String;

    /// One question, the answer to which comes in pieces. `first` is called when the first of them is handed on.
    async fn stream(&self, agent: &Self::Agent, question: &str, first: &mut dyn FnMut()) -> String;
}
