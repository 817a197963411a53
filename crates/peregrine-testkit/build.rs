//! Hands the versions of bundled libraries, as the lock file fixes them, to the probe.

use std::fs;

fn main() {
    let lock = format!(
        "{}/../../Cargo.lock",
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default()
    );
    println!("cargo::rerun-if-changed={lock}");
    println!("cargo::rerun-if-changed=build.rs");
    let text = fs::read_to_string(lock).unwrap_or_default();
    for name in ["rustls", "aws-lc-rs", "hyper"] {
        let entry = text
            .split("[[package]]")
            .find(|entry| entry.contains(&format!("\nname = \"{name}\"\n")));
        let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
        let variable = name.to_uppercase().replace('-', "_");
        println!(
            "cargo::rustc-env=PROBE_VERSION_{variable}={}",
            version.unwrap_or("unknown")
        );
    }
}
