//! Running calls: panics, time limits, cancellation, dropping.

use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peregrine_core::{JsonSchema, ToolCall, ToolSpec};
use peregrine_testkit::FakeClock;
use peregrine_tools::{
    Canceller, FnTool, Registry, Tool, ToolContext, ToolError, ToolErrorKind, ToolInfo, ToolOutput, tool,
};
use serde_json::Value;

use crate::{call, now, only};

fn info(name: &str) -> ToolInfo {
    ToolInfo::new(ToolSpec::new(name, "A tool.", JsonSchema::empty_object()))
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Sets a flag when it is dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[track_caller]
fn panicked(tool: impl Tool, message: &str) {
    let error = call(&only(tool), "{}").unwrap_err();
    let ToolError::Panicked { message: found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(found, message);
    let told = error.for_model().unwrap();
    assert!(
        !told.contains(message),
        "a model is not told what a program panicked with: {told}"
    );
}

#[test]
fn panics_are_errors() {
    panicked(
        FnTool::raw(info("t"), async |_, _| -> String {
            panic!("in the {}", "future")
        }),
        "in the future",
    );
    panicked(
        FnTool::raw(info("t"), |_, _| -> std::future::Ready<String> {
            panic!("before the future")
        }),
        "before the future",
    );
    panicked(
        FnTool::raw(info("t"), async |_, _| -> String { std::panic::panic_any(7) }),
        "something that is not text",
    );
    panicked(
        FnTool::raw(info("t"), async |_, _| -> String {
            panic!("{}", "é".repeat(1000))
        }),
        &"é".repeat(200),
    );

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("while dropping");
        }
    }
    /// A future that is ready, and panics only when it is dropped afterwards.
    struct Ends(Option<Bomb>);
    impl Future for Ends {
        type Output = Result<ToolOutput, ToolError>;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            assert!(self.0.is_some());
            Poll::Ready(Ok(ToolOutput::default()))
        }
    }
    struct EndsBadly(ToolInfo);
    impl Tool for EndsBadly {
        fn info(&self) -> &ToolInfo {
            &self.0
        }
        fn call<'life0, 'async_trait>(
            &'life0 self,
            _: ToolContext,
            _: Value,
        ) -> Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
        {
            Box::pin(Ends(Some(Bomb)))
        }
    }
    panicked(EndsBadly(info("t")), "while dropping");
}

#[test]
fn a_panic_does_not_spoil_the_registry() {
    /// Divides.
    #[tool(effect = "read_only")]
    fn divide(a: i64, b: i64) -> i64 {
        a / b
    }
    let registry = only(divide());
    assert_eq!(
        call(&registry, r#"{"a": 1, "b": 0}"#).unwrap_err().kind(),
        ToolErrorKind::Panicked
    );
    assert_eq!(call(&registry, r#"{"a": 6, "b": 3}"#).unwrap().text(), "2");
}

#[test]
fn a_time_limit_is_kept_where_there_is_a_timer() {
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = dropped.clone();
    let slow = FnTool::raw(info("slow"), move |_, _| {
        let guard = OnDrop(guard.clone());
        async move {
            let _guard = guard;
            pending::<String>().await
        }
    })
    .with_timeout(Duration::from_secs(5));
    let registry = only(slow);
    let valid = registry.validate(&ToolCall::new("1", "slow", "{}")).unwrap();

    let clock = FakeClock::new();
    let mut running = Box::pin(valid.clone().run(valid.context(), Some(&clock)));
    assert!(poll(running.as_mut()).is_pending());
    clock.advance(Duration::from_millis(4_999));
    assert!(poll(running.as_mut()).is_pending());
    clock.advance(Duration::from_millis(1));
    let Poll::Ready(Err(error)) = poll(running.as_mut()) else {
        panic!("it still runs");
    };
    assert!(
        matches!(error, ToolError::Timeout { limit, .. } if limit == Duration::from_secs(5)),
        "{error}"
    );
    assert!(error.is_retryable());
    assert!(dropped.load(Ordering::SeqCst), "the tool was stopped");

    // Without a timer there is no limit.
    let mut running = Box::pin(valid.clone().run(valid.context(), None));
    clock.advance(Duration::from_secs(60));
    assert!(poll(running.as_mut()).is_pending());
}

#[test]
fn what_is_ready_in_time_is_not_late() {
    let quick = FnTool::raw(info("quick"), |_, _| ready("done")).with_timeout(Duration::ZERO);
    let registry = only(quick);
    let clock = FakeClock::new();
    clock.advance(Duration::from_secs(9));
    let valid = registry.validate(&ToolCall::new("1", "quick", "{}")).unwrap();
    let context = valid.context();
    assert_eq!(now(valid.run(context, Some(&clock))).unwrap().text(), "done");
}

#[test]
fn dropping_stops_a_tool_even_one_that_panics_then() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("while dropping");
        }
    }
    let registry = only(FnTool::raw(info("t"), async |_, _| {
        let _bomb = Bomb;
        pending::<String>().await
    }));
    let valid = registry.validate(&ToolCall::new("1", "t", "{}")).unwrap();
    let context = valid.context();
    let mut running = Box::pin(valid.run(context, None));
    assert!(poll(running.as_mut()).is_pending());
    drop(running);
}

#[test]
fn a_tool_can_watch_for_cancellation_and_clean_up() {
    /// Waits until it is asked to stop.
    #[tool(effect = "read_only")]
    async fn wait(context: &ToolContext) -> Result<String, ToolError> {
        context.cancellation.cancelled().await;
        Err(ToolError::Cancelled)
    }
    let registry = only(wait());
    let canceller = Canceller::new();
    let context = ToolContext::new("1").with_cancellation(canceller.cancellation());
    let call = ToolCall::new("1", "wait", "");
    let mut running = pin!(registry.run(&call, context, None));
    assert!(poll(running.as_mut()).is_pending());
    canceller.cancel();
    let Poll::Ready(Err(error)) = poll(running.as_mut()) else {
        panic!("it still waits");
    };
    assert_eq!(
        (error.kind(), error.for_model()),
        (ToolErrorKind::Cancelled, None)
    );
}

#[test]
fn a_running_call_can_be_sent_anywhere() {
    fn check<T: Send + 'static>(_: &T) {}
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Registry>();
    shared::<ToolContext>();
    shared::<ToolError>();
    shared::<ToolInfo>();
    let registry = only(FnTool::raw(info("t"), |_, _| ready(())));
    let valid = registry.validate(&ToolCall::new("1", "t", "")).unwrap();
    drop(registry);
    let running = valid.clone().run(valid.context(), None);
    check(&running);
    assert_eq!(now(running).unwrap(), ToolOutput::default());
}

#[test]
fn closures_keep_state_and_take_typed_arguments() {
    #[derive(serde::Deserialize, peregrine_tools::schemars::JsonSchema)]
    struct Add {
        /// How much.
        by: u32,
    }
    let total = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = FnTool::new("count", "Counts.", {
        let total = total.clone();
        move |context, Add { by }: Add| {
            let total = total.fetch_add(by, Ordering::SeqCst) + by;
            async move {
                if total > 5 {
                    return Err(ToolError::model(format!(
                        "{total} is too much for {}",
                        context.call_id
                    )));
                }
                Ok(total.to_string())
            }
        }
    })
    .with_version("1");
    let registry = only(counter);
    assert_eq!(
        serde_json::to_string(&registry.specs()[0]).unwrap(),
        concat!(
            r#"{"name":"count","description":"Counts.","parameters":{"type":"object","properties":{"by":"#,
            r#"{"type":"integer","format":"uint32","minimum":0,"description":"How much."}},"required":["by"]}}"#
        )
    );
    assert_eq!(call(&registry, r#"{"by": 3.0}"#).unwrap().text(), "3");
    assert_eq!(
        call(&registry, r#"{"by": 3}"#).unwrap_err().to_string(),
        "6 is too much for call-1"
    );
    assert_eq!(
        call(&registry, r#"{"by": 4294967296}"#).unwrap_err().kind(),
        ToolErrorKind::InvalidArguments
    );
    assert_eq!(
        total.load(Ordering::SeqCst),
        6,
        "the tool was not called with what it does not take"
    );
}
