//! The command line itself: usage errors, help, completions, outputs that nobody reads.

use std::io::Read as _;

use peregrine_testkit::server::{LlmServer, Reply};

use crate::run::{World, against, wait};

#[test]
fn wrong_usage_is_told_from_failure() {
    let world = World::new();
    let wrong: [&[&str]; 9] = [
        &[],
        &["ask"],
        &["ask", " "],
        &["fly"],
        &["ask", "x", "--temperature", "hot"],
        &["ask", "x", "--max-steps", "0"],
        &["ask", "x", "--timeout", "-1"],
        &["ask", "x", "--record", "a", "--replay", "b"],
        &["ask", "x", "-v", "-q"],
    ];
    for arguments in wrong {
        let ran = world.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(
            ran.out.is_empty() && !ran.err.is_empty(),
            "{arguments:?}: {ran:?}"
        );
    }
    let failed = world.run(&["ask", "x", "nowhere"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.err.contains("error: could not open nowhere"), "{failed:?}");
}

#[test]
fn help_version_and_completions_need_nothing() {
    let world = World::new();
    let help = world.run(&["--help"]).ok();
    for word in [
        "ask",
        "chat",
        "models",
        "prompt",
        "plan",
        "runs",
        "completions",
        "PEREGRINE_MODEL",
        "Exit status",
    ] {
        assert!(help.out.contains(word), "{word} in {help:?}");
    }
    assert_eq!(
        world.run(&["--version"]).ok().out,
        format!("peregrine {}\n", env!("CARGO_PKG_VERSION"))
    );
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            world.run(&["completions", shell]).ok().out.contains("peregrine"),
            "{shell}"
        );
    }
}

#[test]
fn what_is_no_terminal_gets_no_escape_codes() {
    let world = World::new().with_variable("TERM", "xterm-256color");
    for arguments in [
        &["ask", "How fast does the peregrine dive?", "README.md"][..],
        &["ask", "-v", "--stream", "How fast does the peregrine dive?", "."],
        &["ask", "x", "nowhere"],
        &["models"],
    ] {
        let ran = world.run(arguments);
        assert!(
            !ran.out.contains('\x1b') && !ran.err.contains('\x1b'),
            "{arguments:?}: {ran:?}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("falcon ".repeat(200_000)).with_pieces(2_000));
    for more in [&["--stream"][..], &[], &["--json", "--stream"]] {
        let arguments = against(&server, &[&["ask", "-q", "Tell me all?"], more].concat());
        let mut child = world.command(&arguments).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 10]).unwrap();
        drop(out);
        let ran = wait(child);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{more:?}");
    }
}
