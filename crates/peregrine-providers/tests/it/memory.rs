//! Hostile answers: a bomb, an endless stream or a gigabyte ends in a typed error within 128 MiB.

use peregrine_core::{ChatModel as _, ErrorKind};
use peregrine_testkit::server::{LlmServer, Reply};

use crate::http::{model, request, streamed};

/// The peak of this process's resident memory, in bytes (Linux).
fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Each hostile answer in a process of its own, so that its peak of memory is its own.
#[test]
fn no_hostile_answer_takes_more_than_128_mib() {
    if peak_resident_bytes().is_none() {
        return; // only Linux tells
    }
    let program = std::env::current_exe().unwrap();
    for case in [
        "oversized",
        "endless",
        "endless-line",
        "bomb",
        "bomb-layers",
        "oversized-error",
    ] {
        for spec in ["openai/m", "anthropic/m", "ollama/m"] {
            let output = std::process::Command::new(&program)
                .args(["--exact", "memory::hostile_answer_of_the_parent", "--nocapture"])
                .env("PEREGRINE_HOSTILE_CASE", format!("{case} {spec}"))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && text.contains("peak "),
                "{case} {spec}: {text}"
            );
        }
    }
}

/// The child of [`no_hostile_answer_takes_more_than_128_mib`]; alone it does nothing.
#[test]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn hostile_answer_of_the_parent() {
    let Ok(case) = std::env::var("PEREGRINE_HOSTILE_CASE") else {
        return;
    };
    let (case, spec) = case.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let kinds = runtime.block_on(async {
        let server = LlmServer::start().await.unwrap();
        server.set_reply(match case {
            "oversized" => Reply::oversized(1 << 30),
            "endless" => Reply::endless_stream(),
            "endless-line" => Reply::endless_line(),
            "bomb" => Reply::bomb(1 << 30),
            "bomb-layers" => Reply::bomb_layers(1 << 30, 2),
            _ => Reply::oversized(1 << 30).with_status(500),
        });
        let model = model(spec, &server.url());
        [
            model.complete(&request()).await.unwrap_err().kind(),
            streamed(&model, &request()).await.unwrap_err().kind(),
        ]
    });
    let typed = [
        ErrorKind::ResponseTooLarge,
        ErrorKind::Protocol,
        ErrorKind::Server,
    ];
    assert!(kinds.iter().all(|kind| typed.contains(kind)), "{kinds:?}");
    let peak = peak_resident_bytes().unwrap();
    println!("peak {} MiB", peak >> 20);
    assert!(peak <= 128 << 20, "{} MiB", peak >> 20);
}
