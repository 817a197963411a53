//! What a benchmark is to the runner.

use std::future::Future;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use peregrine_harness::protocol::Role;
use peregrine_harness::samples::Recorder;
use tokio::runtime::{Builder, Runtime};

/// One operation on one input, done by several variants.
pub struct Group {
    /// `suite/op/param`.
    pub name: String,
    /// What is done, in words. Change them when the work changes: results of other work are not compared.
    pub workload: String,
    /// Who does it.
    pub variants: Vec<Variant>,
    /// Makes ready what the variants need, in their order. Runs once in a process, after it was pinned.
    pub make: Box<dyn Fn() -> Vec<Work>>,
    /// How many operations are counted at once.
    pub counted_operations: u64,
    /// Whether everything shares one core.
    pub pinned: bool,
    /// Whether it is part of no suite.
    pub hidden: bool,
}

/// Who does the work.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The last part of its name.
    pub name: &'static str,
    /// Whose work it is.
    pub role: Role,
    /// Whether allocations and instructions of an operation are the same each time: all of it on the calling thread, and
    /// nothing that depends on time. What is done outside the timed part must then not depend on the number of operations.
    pub counted: bool,
}

/// Does as many operations as the meter wants, and tells it how long they took.
pub type Work = Box<dyn FnMut(&mut Meter)>;

impl Group {
    /// A group that is pinned, part of its suite, and counts a hundred operations at once.
    pub fn new(
        name: impl Into<String>,
        workload: impl Into<String>,
        variants: &[Variant],
        make: impl Fn() -> Vec<Work> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            workload: workload.into(),
            variants: variants.to_vec(),
            make: Box::new(make),
            counted_operations: 100,
            pinned: true,
            hidden: false,
        }
    }

    /// Counts so many operations at once: fewer where one takes long.
    #[must_use]
    pub fn with_counted_operations(mut self, operations: u64) -> Self {
        self.counted_operations = operations;
        self
    }

    /// Uses all cores.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.pinned = false;
        self
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Ours.
pub const fn ours(name: &'static str) -> Variant {
    variant(name, Role::Ours)
}

/// The least that the work could take.
pub const fn floor(name: &'static str) -> Variant {
    variant(name, Role::Floor)
}

/// What one would use instead.
pub const fn rival(name: &'static str) -> Variant {
    variant(name, Role::Rival)
}

const fn variant(name: &'static str, role: Role) -> Variant {
    Variant {
        name,
        role,
        counted: false,
    }
}

impl Variant {
    /// Its allocations and instructions are counted.
    pub const fn counted(mut self) -> Self {
        self.counted = true;
        self
    }
}

/// Says how much is to be done, and takes what it took.
#[derive(Debug, Default)]
pub struct Meter {
    operations: u64,
    recorder: Option<Recorder>,
    elapsed: Duration,
    done: u64,
    together: Option<(u64, Duration)>,
    figures: Vec<(&'static str, f64)>,
}

impl Meter {
    /// Keeps samples.
    pub(crate) fn recording() -> Self {
        Self {
            recorder: Some(Recorder::new()),
            ..Self::default()
        }
    }

    pub(crate) fn want(&mut self, operations: u64) {
        self.operations = operations;
    }

    /// How many operations are to be done now.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Some of them took so long, one after the other: one sample.
    pub fn took(&mut self, elapsed: Duration, operations: u64) {
        self.elapsed += elapsed;
        self.done += operations;
        if let Some(recorder) = &mut self.recorder {
            recorder.push(elapsed, operations);
        }
    }

    /// So many, of which each was told by [`took`](Self::took), ran at the same time and took so long together.
    pub fn took_together(&mut self, elapsed: Duration, operations: u64) {
        let (before, so_far) = self.together.unwrap_or_default();
        self.together = Some((before + operations, so_far + elapsed));
    }

    /// A figure of its own.
    pub fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.retain(|(known, _)| *known != name);
        self.figures.push((name, value));
    }

    /// How long all operations took, added up, and how many they were.
    pub(crate) fn total(&self) -> (Duration, u64) {
        (self.elapsed, self.done)
    }

    pub(crate) fn throughput(&self) -> Option<f64> {
        let (operations, elapsed) = self.together?;
        Some(operations as f64 / elapsed.as_secs_f64())
    }

    pub(crate) fn into_parts(self) -> (Recorder, Vec<(&'static str, f64)>) {
        (self.recorder.unwrap_or_default(), self.figures)
    }
}

/// Work that calls a function for each operation and checks what the last one gave.
pub fn each<T: 'static>(mut operation: impl FnMut() -> T + 'static, check: impl Fn(&T) + 'static) -> Work {
    Box::new(move |meter| {
        let mut last = None;
        let begun = Instant::now();
        for _ in 0..meter.operations() {
            last = Some(black_box(operation()));
        }
        meter.took(begun.elapsed(), meter.operations());
        check(&last.expect("at least one operation is wanted"));
    })
}

/// Work that awaits a future for each operation, on one thread, and checks what the last one gave.
pub fn each_async<T: 'static, F: Future<Output = T>>(
    runtime: &Rc<Runtime>,
    mut operation: impl FnMut() -> F + 'static,
    check: impl Fn(&T) + 'static,
) -> Work {
    let runtime = Rc::clone(runtime);
    Box::new(move |meter| {
        let (last, elapsed) = runtime.block_on(async {
            let mut last = None;
            let begun = Instant::now();
            for _ in 0..meter.operations() {
                last = Some(black_box(operation().await));
            }
            (last, begun.elapsed())
        });
        meter.took(elapsed, meter.operations());
        check(&last.expect("at least one operation is wanted"));
    })
}

/// A runtime on this thread.
pub fn runtime() -> Rc<Runtime> {
    Rc::new(Builder::new_current_thread().enable_all().build().unwrap())
}

/// A runtime whose only task runs on a thread of its own, as a service has it.
pub fn runtime_beside() -> Rc<Runtime> {
    Rc::new(
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap(),
    )
}
