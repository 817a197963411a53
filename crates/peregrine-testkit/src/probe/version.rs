//! `version`: what this program was built of and what it runs on.

use std::fs;

use clap::Args;
use peregrine_core::Error;
use serde_json::{Value, json};

use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also print the versions of what is built in, the features and the kernel's sandboxes.
    #[arg(long)]
    bundled: bool,
}

pub(crate) async fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Error> {
    let mut line = json!({ "version": env!("CARGO_PKG_VERSION") });
    if arguments.bundled {
        line["sqlite"] = sqlite().await?;
        line["tls"] = json!({
            "library": "rustls",
            "version": env!("PROBE_VERSION_RUSTLS"),
            "crypto": format!("aws-lc-rs {}", env!("PROBE_VERSION_AWS_LC_RS")),
        });
        line["http"] = json!({ "library": "hyper", "version": env!("PROBE_VERSION_HYPER") });
        let stores = [
            ("sqlite", cfg!(feature = "sqlite")),
            ("postgres", cfg!(feature = "postgres")),
        ];
        let stores = stores.iter().filter(|(_, is_in)| *is_in).map(|(name, _)| *name);
        line["features"] = ["agent", "chat", "ckpt", "http", "offline", "plan"]
            .into_iter()
            .chain(stores)
            .collect();
        line["sandbox"] = sandbox();
    }
    output.line(&line)
}

/// The version of SQLite that is compiled in; null if none is.
async fn sqlite() -> Result<Value, Error> {
    #[cfg(feature = "sqlite")]
    return Ok(json!(peregrine_checkpoints::SqliteStore::version().await?));
    #[cfg(not(feature = "sqlite"))]
    Ok(Value::Null)
}

/// What the kernel offers to confine processes.
fn sandbox() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let modules = read("/sys/kernel/security/lsm");
    let landlock = modules.split(',').any(|module| module.trim() == "landlock");
    let namespaces = read("/proc/sys/user/max_user_namespaces");
    json!({
        "landlock": landlock,
        "seccomp": !read("/proc/sys/kernel/seccomp/actions_avail").is_empty(),
        "user_namespaces": namespaces.trim().parse::<u64>().is_ok_and(|limit| limit > 0),
    })
}
