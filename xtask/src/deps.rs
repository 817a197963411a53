//! What each crate may pull in: the allow-lists below, checked against `cargo tree` for every feature alone.
//!
//! Three kinds of rule. Layers: which of our crates a crate may name. Gates: crates of others that may be reached only
//! through a certain feature of a certain crate; the check walks the graph without the gates and must not arrive.
//! Sizes: how many other packages a user of the crate compiles. A crate that does not exist yet has rules all the
//! same; they apply from its first day. A crate without a row is an error.

mod licences;
mod rules;
mod sizes;
mod tree;

use std::collections::BTreeMap;

use tree::{Features, Graph};

use crate::checks::rivals_are_locked;
use crate::command::{cargo, cargo_has};
use crate::metadata;
use crate::report::{Done, Outcome, Problem, say};

const CORE: &[&str] = &["peregrine-core"];
/// Useful with nothing else of ours.
const L1: &[&str] = &[
    "peregrine-cache",
    "peregrine-limits",
    "peregrine-executor",
    "peregrine-interrupts",
];
const L2: &[&str] = &[
    "peregrine-providers",
    "peregrine-signatures",
    "peregrine-memory",
    "peregrine-tools",
    "peregrine-checkpoints",
    "peregrine-telemetry",
];
const L3: &[&str] = &["peregrine-agent", "peregrine-routing"];
const FACADE: &[&str] = &["peregrine"];
const TESTKIT: &[&str] = &["peregrine-testkit"];

/// Which of our crates a crate may depend on; development dependencies are free.
const LAYERS: &[(&str, &[&[&str]])] = &[
    ("peregrine-core", &[]),
    ("peregrine-cache", &[CORE]),
    ("peregrine-limits", &[CORE]),
    ("peregrine-executor", &[]),
    ("peregrine-interrupts", &[]),
    ("peregrine-providers", &[CORE, &["peregrine-limits"]]),
    ("peregrine-signatures-macros", &[]),
    ("peregrine-signatures", &[CORE, &["peregrine-signatures-macros"]]),
    ("peregrine-memory", &[CORE]),
    ("peregrine-tools-macros", &[]),
    (
        "peregrine-tools",
        &[CORE, &["peregrine-executor", "peregrine-tools-macros"]],
    ),
    ("peregrine-checkpoints", &[CORE]),
    ("peregrine-telemetry", &[CORE]),
    ("peregrine-agent", &[CORE, L1, L2]),
    (
        "peregrine-routing",
        &[CORE, &["peregrine-agent", "peregrine-executor"]],
    ),
    ("peregrine", &[CORE, L1, L2, L3]),
    ("peregrine-cli", &[FACADE]),
    // For development: nothing above depends on these.
    ("peregrine-testkit", &[CORE, L1, L2, L3, FACADE]),
    // It starts programs and reads what they say; of what they measure it knows nothing.
    ("peregrine-harness", &[]),
    (
        "peregrine-benches",
        &[CORE, L1, L2, L3, FACADE, TESTKIT, &["peregrine-harness"]],
    ),
    ("xtask", &[]),
];

const HTTP_STACK: &[&str] = &[
    "h2",
    "h3",
    "hyper",
    "hyper-util",
    "reqwest",
    "ureq",
    "isahc",
    "curl",
    "attohttpc",
    "tonic",
    "axum",
    "warp",
    "actix-web",
    "tower-http",
    "tiny_http",
];
const HTTP_TYPES: &[&str] = &["http", "http-body", "http-body-util", "httparse"];
const SQL: &[&str] = &[
    "sqlx",
    "sqlx-core",
    "sqlx-sqlite",
    "sqlx-postgres",
    "rusqlite",
    "libsqlite3-sys",
    "tokio-postgres",
];
const TOKIO: &[&str] = &["tokio", "tokio-util", "async-std", "smol"];

/// What a crate never reaches, whatever its features.
const NEVER: &[(&str, &[&[&str]])] = &[("peregrine-core", &[TOKIO, HTTP_STACK, HTTP_TYPES, SQL])];

/// Through which crate, with which feature on, a group of packages may be reached.
struct Gate {
    /// `*` is any of ours.
    package: &'static str,
    /// `None`: with any features.
    feature: Option<&'static str>,
}

struct Gated {
    what: &'static str,
    packages: &'static [&'static str],
    /// The crates the rule is about; all of ours where empty.
    of: &'static [&'static str],
    gates: &'static [Gate],
}

const fn gate(package: &'static str, feature: &'static str) -> Gate {
    Gate {
        package,
        feature: Some(feature),
    }
}
const fn open(package: &'static str) -> Gate {
    Gate {
        package,
        feature: None,
    }
}

const GATED: &[Gated] = &[
    Gated {
        what: "an HTTP stack",
        packages: HTTP_STACK,
        of: &[],
        gates: &[
            gate("peregrine-providers", "http"),
            gate("peregrine-tools", "http"),
            gate("peregrine-tools", "mcp"),
            gate("peregrine-routing", "a2a"),
            gate("peregrine-telemetry", "otlp"),
            open("peregrine-cli"),
            open("peregrine-testkit"),
            open("peregrine-benches"),
        ],
    },
    Gated {
        // The wire codecs are sans-IO: they may name a header map without a stack that sends it.
        what: "HTTP types",
        packages: HTTP_TYPES,
        of: &[],
        gates: &[
            open("peregrine-providers"),
            gate("peregrine-tools", "http"),
            gate("peregrine-tools", "mcp"),
            gate("peregrine-routing", "a2a"),
            gate("peregrine-telemetry", "otlp"),
            open("peregrine-cli"),
            open("peregrine-testkit"),
            open("peregrine-benches"),
        ],
    },
    Gated {
        what: "an SQL client",
        packages: SQL,
        of: &[],
        gates: &[
            gate("*", "sqlite"),
            gate("*", "postgres"),
            open("peregrine-benches"),
        ],
    },
    Gated {
        what: "peregrine-core",
        packages: &["peregrine-core"],
        of: &[
            "peregrine-cache",
            "peregrine-limits",
            "peregrine-executor",
            "peregrine-interrupts",
        ],
        gates: &[gate("*", "layer")],
    },
];

/// The most packages a crate may pull in with these features, itself not counted; ours count like all others.
struct Size {
    package: &'static str,
    features: Features<'static>,
    at_most: Option<usize>,
}

/// A crate without a row is listed with its default features and no limit.
const SIZES: &[Size] = &[
    Size {
        package: "peregrine",
        features: Features::None,
        at_most: Some(90),
    },
    Size {
        package: "peregrine",
        features: Features::Default,
        at_most: Some(190),
    },
    Size {
        package: "peregrine-core",
        features: Features::Default,
        at_most: Some(45),
    },
    Size {
        package: "peregrine-tools",
        features: Features::Default,
        at_most: Some(50),
    },
    Size {
        package: "peregrine-executor",
        features: Features::Default,
        at_most: Some(20),
    },
    Size {
        package: "peregrine-limits",
        features: Features::Default,
        at_most: Some(20),
    },
    Size {
        package: "peregrine-interrupts",
        features: Features::Default,
        at_most: Some(20),
    },
    Size {
        package: "peregrine-cache",
        features: Features::Default,
        at_most: Some(40),
    },
];

/// Not for users, so their size is nobody's concern.
const UNLISTED: &[&str] = &["xtask", "peregrine-benches", "peregrine-harness"];

pub(crate) fn run() -> Outcome {
    let workspace = metadata::workspace()?;
    let mut wrong = rules::layers(&workspace);
    let mut graphs = 0;
    // The same way is open with many features; it is told once.
    let mut reached: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &workspace {
        for features in Features::each(package) {
            let graph = Graph::of(&package.name, &features)?;
            graphs += 1;
            for way in rules::reached(&graph) {
                reached.entry(way).or_default().push(features.to_string());
            }
        }
    }
    wrong.extend(
        reached
            .iter()
            .map(|(way, features)| format!("{way} (features: {})", features.join(", "))),
    );
    let rows = sizes::rows(&workspace)?;
    say!("{}", sizes::table(&rows));
    wrong.extend(rows.iter().filter_map(sizes::Row::too_large));
    say!("{} crates, {graphs} sets of features", workspace.len());

    let deny = licences::Policy::read()?;
    wrong.extend(deny.check(&metadata::whole_graph()?));
    for line in &wrong {
        say!("{line}");
    }
    let ours = match wrong.len() {
        0 => Ok(Done::Ok),
        count => Err(Problem::Failed(format!("{count} findings"))),
    };
    let ours = ours.and(rivals_are_locked());
    // The same file, read by the tool it was made for, where that is at hand. What it needs of the network for
    // security advisories is not part of this.
    if cargo_has("deny", "").is_ok() {
        let deny = cargo([
            "deny",
            "--all-features",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]);
        return ours.and(deny.run());
    }
    say!("cargo-deny is not installed; bans, licences and sources were checked without it");
    ours
}

pub(crate) fn print_markdown() -> Outcome {
    let rows = sizes::rows(&metadata::workspace()?)?;
    say!("{}", sizes::markdown(&rows));
    Ok(Done::Ok)
}
