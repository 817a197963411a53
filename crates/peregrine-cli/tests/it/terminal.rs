//! On a terminal: the answer streams, notes are coloured unless `NO_COLOR`, and nobody else's escape codes pass.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use peregrine_testkit::server::{LlmServer, Reply};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::kept::Kept;
use crate::run::{World, against};
use crate::signals::{interrupt, late, until_asked};

/// Starts the binary with a terminal of its own; gives our end of it.
fn on_terminal(world: &World, arguments: &[String]) -> (Child, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let clone = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = world.command(arguments);
    command
        .env("TERM", "xterm-256color")
        .stdin(clone())
        .stdout(clone())
        .stderr(clone());
    // The copies here end with this function: the child's are the only ones then.
    (command.spawn().unwrap(), File::from(ours))
}

/// What a child writes until it ends: reading our end fails once nobody holds the other.
fn until_end(mut ours: File, mut child: Child) -> (String, Option<i32>) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
    }
    (String::from_utf8(seen).unwrap(), child.wait().unwrap().code())
}

fn run(world: &World, arguments: &[String]) -> (String, Option<i32>) {
    let (child, ours) = on_terminal(world, arguments);
    until_end(ours, child)
}

fn has_colour(seen: &str) -> bool {
    let parameter = |char: char| char.is_ascii_digit() || char == ';';
    seen.split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(parameter).starts_with('m'))
}

#[test]
fn notes_are_coloured_unless_no_color() {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("plain"));
    let arguments = against(&server, &["ask", "Hello?"]);
    let (coloured, code) = run(&World::new(), &arguments);
    assert_eq!(code, Some(0), "{coloured}");
    assert!(
        coloured.contains("\x1b[2mmodel: openai/test-model") && coloured.contains("plain"),
        "{coloured:?}"
    );
    let (plain, _) = run(&World::new().with_variable("NO_COLOR", "1"), &arguments);
    assert!(
        plain.contains("model: openai/test-model (") && plain.contains("plain"),
        "{plain:?}"
    );
    // The spinner moves the cursor and clears its line; colours are what NO_COLOR is about.
    assert!(has_colour(&coloured) && !has_colour(&plain), "{plain:?}");
}

#[test]
fn escape_codes_of_the_model_do_not_reach_the_terminal() {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("a\x1b]0;owned\x07b\x1b[31mc"));
    let arguments = against(&server, &["ask", "-q", "Hello?"]);
    let (seen, _) = run(&World::new(), &arguments);
    assert!(seen.contains("owned") && !seen.contains('\x1b'), "{seen:?}");
    let piped = World::new().run(&arguments).ok();
    assert!(
        piped.out.contains("\x1b[31m"),
        "a program gets what the model wrote: {piped:?}"
    );
}

#[test]
fn a_chat_prompts_answers_and_leaves() {
    let server = LlmServer::start_blocking().unwrap();
    let arguments = against(&server, &["chat"]);
    // Ctrl-D on an empty line ends the input.
    for input in ["hello\n\u{4}", "hello\n/exit\n"] {
        let (child, mut ours) = on_terminal(&World::new(), &arguments);
        ours.write_all(input.as_bytes()).unwrap();
        let (seen, code) = until_end(ours, child);
        assert_eq!(code, Some(0), "{seen}");
        assert!(seen.contains("> ") && seen.contains("echo: hello"), "{seen:?}");
    }
}

#[test]
fn ctrl_c_cancels_an_answer_and_a_second_one_leaves() {
    let server = late();
    let (mut child, mut ours) = on_terminal(&World::new(), &against(&server, &["chat"]));
    ours.write_all(b"Slow?\n").unwrap();
    until_asked(&server, &mut child);
    interrupt(&child);
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains("cancelled") {
        let count = ours.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    interrupt(&child);
    let (rest, code) = until_end(ours, child);
    assert_eq!(code, Some(130), "{seen}{rest}");
}

#[test]
fn a_plan_shows_what_runs_until_ctrl_c() {
    let world = World::new();
    world.write(
        "plan.json",
        r#"[{"id": "slow", "action": "sleep", "parameters": {"ms": 600000}}, {"id": "bad", "action": "fail"}]"#,
    );
    let arguments = ["plan", "run", "plan.json"].map(str::to_owned);
    let (child, mut ours) = on_terminal(&world, &arguments);
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains("1 of 2 steps; now slow") {
        let count = ours.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    interrupt(&child);
    let (rest, code) = until_end(ours, child);
    assert_eq!(code, Some(130), "{seen}{rest}");
    assert!(
        seen.contains("bad: failed") && rest.contains("| cancelled") && rest.contains("cancelled in"),
        "{seen:?} {rest:?}"
    );
}

#[test]
fn runs_are_removed_when_a_person_says_so() {
    let kept = Kept::in_dir();
    kept.write(1, &[serde_json::json!("one")]);
    let count = || {
        let listed = kept.run(&["runs", "list", "--json"]).ok().json();
        listed["runs"].as_array().unwrap().len()
    };
    for (answer, told, left) in [
        ("\n", "nothing was removed", 1),
        ("no\n", "nothing was removed", 1),
        // The end of the input.
        ("\u{4}", "nothing was removed", 1),
        ("y\n", "removed, 0 left", 0),
    ] {
        let arguments = kept.arguments(&["runs", "prune", "--keep", "0"]);
        let (child, mut ours) = on_terminal(&kept.world, &arguments);
        ours.write_all(answer.as_bytes()).unwrap();
        let (seen, code) = until_end(ours, child);
        assert!(
            code == Some(0) && seen.contains("remove 1 run of local in"),
            "{seen}"
        );
        assert!(seen.contains(told), "{answer:?}: {seen}");
        assert_eq!(count(), left, "{answer:?}");
    }
    kept.write(2, &[serde_json::json!("two")]);
    let (seen, code) = run(
        &kept.world,
        &kept.arguments(&["runs", "prune", "--keep", "0", "--yes"]),
    );
    assert!(code == Some(0) && !seen.contains("[y/N]"), "{seen}");
    assert_eq!(count(), 0);
}
