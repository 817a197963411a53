//! `runs`: what was kept is listed, shown, compared, moved and removed, the same in every store.

use peregrine::checkpoints::Span;
use peregrine::core::RunId;
use serde_json::{Value, json};

use crate::kept::{Kept, in_every_store, key, lines};
use crate::run::World;

fn three() -> Vec<Value> {
    vec![
        json!({"type": "asked", "text": "How fast?"}),
        json!({"type": "answered", "text": "320 km/h", "usage": {"in": 7}}),
        json!({"type": "ended"}),
    ]
}

fn text(run: RunId) -> String {
    run.to_string()
}

#[test]
fn a_page_of_runs_is_listed_the_newest_first() {
    in_every_store(|kept| {
        let ids: Vec<_> = (0..5).map(|number| kept.write(number, &three())).collect();
        let fork = kept.fork(9, ids[0], 2, &[json!("another end")]);
        let page = kept.run(&["runs", "list", "--json", "--limit", "3"]).ok().json();
        let listed = |page: &Value| -> Vec<String> {
            let runs = page["runs"].as_array().unwrap();
            runs.iter()
                .map(|row| row["run"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(listed(&page), [fork, ids[4], ids[3]].map(text));
        assert_eq!((&page["older"], &page["before"]), (&json!(3), &json!(ids[3])));
        let row = &page["runs"][0];
        assert_eq!(row["origin"], json!({"run": ids[0], "at": 2}));
        // Two shared ones, the marker, and its own.
        assert_eq!((&row["records"], &row["state"]), (&json!(4), &json!("foreign")));
        assert_eq!(row["scope"], "local");
        assert!(row["bytes"].as_u64().unwrap() > 20, "{row}");

        let before = text(ids[3]);
        let rest = kept
            .run(&["runs", "list", "--json", "--before", &before])
            .ok()
            .json();
        assert_eq!(listed(&rest), [ids[2], ids[1], ids[0]].map(text));
        assert_eq!((&rest["older"], &rest["before"]), (&json!(0), &Value::Null));

        let table = kept.run(&["runs", "list", "-n", "2"]).ok();
        let rows: Vec<_> = table.out.lines().collect();
        assert!(rows[0].starts_with("RUN") && rows.len() == 3, "{table:?}");
        assert!(rows[1].contains(&format!("{} at 2", ids[0])), "{table:?}");
        assert!(
            table
                .err
                .contains(&format!("4 older runs more: --before {}", ids[4])),
            "{table:?}"
        );
        let none = kept.run(&["runs", "list", "--scope", "acme/ticket-17"]).ok();
        assert!(
            none.out.is_empty() && none.err.contains("no runs of acme/ticket-17"),
            "{none:?}"
        );
    });
}

#[test]
fn a_run_is_shown_as_a_timeline() {
    in_every_store(|kept| {
        let id = text(kept.write(1, &three()));
        let shown = kept.run(&["runs", "show", &id]).ok();
        let rows: Vec<_> = shown.out.lines().collect();
        assert_eq!(rows[0], format!("run {id}  scope local  3 records"));
        assert!(rows[1].ends_with("WHAT") && rows.len() == 5, "{shown:?}");
        assert!(
            rows[3].starts_with("  1  2023-11-14T22:13:20.001Z  event") && rows[3].ends_with("answered"),
            "{shown:?}"
        );
        let some = kept
            .run(&[
                "runs", "show", &id, "--json", "--full", "--from", "1", "--upto", "2",
            ])
            .ok();
        let some = lines(&some);
        assert_eq!(some.len(), 2, "{some:?}");
        assert_eq!(some[0]["type"], "run");
        assert_eq!(
            (&some[1]["seq"], &some[1]["what"]),
            (&json!(1), &json!("answered"))
        );
        assert_eq!(some[1]["payload"], three()[1]);
        let full = kept.run(&["runs", "show", &id, "--full"]).ok();
        assert!(full.out.contains("\"text\": \"How fast?\""), "{full:?}");
    });
}

#[test]
fn a_run_is_named_by_its_id_a_part_of_it_or_as_the_last() {
    let kept = Kept::in_dir();
    let (one, other) = (text(kept.write(1, &three())), text(kept.write(2, &three())));
    let shown = |name: &str| {
        let head = kept.run(&["runs", "show", "--json", name]).ok();
        lines(&head)[0]["run"].as_str().unwrap().to_owned()
    };
    assert_eq!(shown(&one), one);
    assert_eq!(shown(&one.to_lowercase()), one);
    assert_eq!(shown(&other[other.len() - 6..]), other);
    assert_eq!(shown("last"), other);
    let both = kept.run(&["runs", "show", &one[..6]]);
    assert!(
        both.code == Some(1) && both.err.contains("more than one run"),
        "{both:?}"
    );
    for (name, told) in [
        ("zzzz", "there is no run whose id"),
        ("01HF7YAT000W3GE1R70W3GE1R7", "there is no run 01HF7"),
    ] {
        let none = kept.run(&["runs", "show", name, "--json"]);
        assert!(none.code == Some(1) && none.err.contains(told), "{none:?}");
        assert_eq!(none.json()["error"]["code"], "not_found");
    }
    // Another scope has none of them.
    let elsewhere = kept.run(&["runs", "show", &one, "--scope", "acme"]);
    assert!(
        elsewhere.code == Some(1) && elsewhere.err.contains("hint: "),
        "{elsewhere:?}"
    );
    assert_eq!(kept.run(&["runs", "show", "x"]).code, Some(2));
}

#[test]
fn whole_runs_verify() {
    in_every_store(|kept| {
        let (one, other) = (kept.write(1, &three()), kept.write(2, &three()));
        let all = kept.run(&["runs", "verify", "--json"]).ok();
        let all = lines(&all);
        assert_eq!(
            all.iter().map(|row| row["run"].clone()).collect::<Vec<_>>(),
            [json!(one), json!(other)]
        );
        for row in &all {
            assert_eq!(
                (&row["whole"], &row["records"]),
                (&json!(true), &json!(3)),
                "{row}"
            );
        }
        let single = kept.run(&["runs", "verify", &text(one)]).ok();
        assert_eq!(single.out, format!("{one}  whole  3 records, 0 parts\n"));
    });
}

#[test]
fn two_runs_are_compared() {
    in_every_store(|kept| {
        let mut other = three();
        other[1]["usage"]["in"] = json!(8);
        let (one, other) = (text(kept.write(1, &three())), text(kept.write(2, &other)));
        let fork = kept.fork(3, one.parse().unwrap(), 2, &[]).to_string();
        let found = kept.run(&["runs", "diff", "--json", &one, &other]);
        assert_eq!(found.code, Some(3), "{found:?}");
        let found = found.json();
        assert_eq!(
            (&found["common"], &found["path"]),
            (&json!(1), &json!("$.usage.in"))
        );
        assert_eq!(found["right"]["record"]["payload"]["usage"]["in"], 8);
        let told = kept.run(&["runs", "diff", &one, &other]);
        assert!(told.out.contains("they differ at $.usage.in"), "{told:?}");
        assert!(
            told.out.ends_with(&format!(
                "1 record in common; then 2 records of {one} and 2 records of {other}\n"
            )),
            "{told:?}"
        );
        let same = kept.run(&["runs", "diff", &one, &one]).ok();
        assert!(same.out.contains("the runs are the same"), "{same:?}");
        let shared = kept.run(&["runs", "diff", "--json", &one, &fork]).json();
        assert_eq!((&shared["common"], &shared["shared"]), (&json!(2), &json!(2)));
    });
}

#[test]
fn a_run_is_exported_and_imported() {
    in_every_store(|kept| {
        let one = kept.write(1, &three());
        let fork = text(kept.fork(2, one, 2, &[json!({"large": "x".repeat(100_000)})]));
        let to_file = kept.run(&["runs", "export", &fork, "--output", "run.jsonl"]).ok();
        assert!(to_file.out.is_empty(), "{to_file:?}");
        let piped = kept.run(&["runs", "export", &fork]).ok().out;
        let path = kept.world.path().join("run.jsonl");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), piped);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        let again = kept.run(&["runs", "export", &fork, "--output", "run.jsonl"]);
        assert!(
            again.code == Some(1) && again.err.contains("could not make run.jsonl"),
            "{again:?}"
        );

        // Into the same store it needs another id, into another one it keeps its own.
        let refused = kept.run(&["runs", "import", "run.jsonl", "--json"]);
        assert_eq!(
            (refused.code, &refused.json()["error"]["cause"]),
            (Some(1), &json!("already_exists"))
        );
        let copy = kept.run(&["runs", "import", "run.jsonl", "--as", "new"]).ok().out;
        kept.run(&["runs", "diff", &fork, copy.trim()]).ok();
        let elsewhere = Kept::in_dir();
        let imported = elsewhere
            .run_with_input(&["runs", "import", "-", "--json"], &piped)
            .ok()
            .json();
        assert_eq!(
            (&imported["run"], &imported["records"]),
            (&json!(fork), &json!(4))
        );
        let exported = elsewhere.run(&["runs", "export", &fork]).ok().out;
        // What it shared is its own there: only the head says otherwise.
        let records = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(records(&exported), records(&piped));
    });
}

#[test]
fn nothing_is_left_of_an_import_that_failed() {
    in_every_store(|kept| {
        let id = text(kept.write(1, &three()));
        let exported = kept.run(&["runs", "export", &id]).ok().out;
        let cut = exported
            .lines()
            .take(3)
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        for (input, told) in [
            (cut.as_str(), "3 records were promised"),
            ("", "line 1 does not begin a run"),
            ("{\"run\": 7}\n", "line 1 does not begin a run"),
            ("\u{1b}[2J\n", "line 1 does not begin a run"),
        ] {
            let new = "01HF7YAT000W3GE1R70W3GE1R7";
            let failed = kept.run_with_input(&["runs", "import", "-", "--as", new], input);
            assert!(failed.code == Some(1) && failed.err.contains(told), "{failed:?}");
            let listed = kept.run(&["runs", "list", "--json"]).ok().json();
            assert_eq!(listed["runs"].as_array().unwrap().len(), 1, "{listed}");
        }
    });
}

#[test]
fn old_runs_are_removed_as_was_said() {
    in_every_store(|kept| {
        let ids: Vec<_> = (0..4).map(|number| kept.write(number, &three())).collect();
        let fork = kept.fork(9, ids[0], 2, &[]);
        let said = kept
            .run(&["runs", "prune", "--keep", "2", "--dry-run", "--json"])
            .ok()
            .json();
        assert_eq!(said["removed"], json!(&ids[..3]));
        assert_eq!((&said["dry_run"], &said["kept"]), (&json!(true), &json!(2)));
        let count = || {
            let listed = kept.run(&["runs", "list", "--json"]).ok().json();
            listed["runs"].as_array().unwrap().len()
        };
        assert_eq!(count(), 5, "a dry run removes nothing");
        let done = kept.run(&["runs", "prune", "--keep", "2", "--json"]).ok().json();
        assert_eq!((&done["removed"], &done["kept"]), (&said["removed"], &json!(2)));
        assert_eq!(count(), 2);
        // What the fork shares is still there.
        let shown = kept.run(&["runs", "show", &text(fork), "--json"]).ok();
        assert_eq!(lines(&shown).len(), 1 + 3);
        kept.run(&["runs", "verify"]).ok();

        let nothing = kept
            .run(&["runs", "prune", "--older-than", "1d", "--json"])
            .ok()
            .json();
        assert_eq!(nothing["removed"], json!([]));
        let everything = kept.run(&["runs", "prune", "--max-bytes", "0"]).ok();
        assert_eq!(everything.out.lines().count(), 2, "{everything:?}");
        assert_eq!(count(), 0);
        let usage = kept.run(&["runs", "prune"]);
        assert_eq!(usage.code, Some(2), "{usage:?}");
    });
}

#[test]
fn a_run_that_is_being_written_is_told_and_stays() {
    in_every_store(|kept| {
        let run = kept.write(1, &three());
        kept.with(async |checkpoints| {
            let (journal, _) = checkpoints.resume(&key(1)).await.unwrap();
            let listed = kept.run(&["runs", "list", "--json"]).ok().json();
            assert_eq!(listed["runs"][0]["state"], "running");
            assert_eq!(listed["runs"][0]["holder"]["process"], std::process::id());
            let pruned = kept.run(&["runs", "prune", "--keep", "0", "--json"]).ok().json();
            assert_eq!((&pruned["removed"], &pruned["busy"]), (&json!([]), &json!([run])));
            journal.finish().await.unwrap();
            checkpoints.load(&key(1), Span::ALL).await.unwrap();
        });
    });
}

#[test]
fn the_environment_says_where_runs_are_and_looking_makes_no_store() {
    let kept = Kept::in_dir();
    kept.write(1, &three());
    let dir = kept.world.path().join("kept").display().to_string();
    let count = |world: &World| {
        let listed = world.run(&["runs", "list", "--json"]).ok().json();
        listed["runs"].as_array().unwrap().len()
    };
    assert_eq!(count(&World::new().with_variable("PEREGRINE_RUNS_DIR", &dir)), 1);
    let sqlite = Kept::in_sqlite();
    sqlite.write(1, &three());
    sqlite.write(2, &three());
    let url = format!("sqlite:{}", sqlite.world.path().join("runs.db").display());
    let both = World::new()
        .with_variable("PEREGRINE_RUNS_DIR", &dir)
        .with_variable("PEREGRINE_DATABASE_URL", &url);
    assert_eq!(count(&both), 2);

    let empty = World::new();
    let home = empty.path().join("home").display().to_string();
    let empty = empty.with_variable("HOME", &home);
    assert_eq!(count(&empty), 0);
    let none = empty.run(&["runs", "list"]).ok();
    assert!(none.err.contains(".local/share/peregrine/runs"), "{none:?}");
    assert!(!std::path::Path::new(&home).exists(), "looking made a store");
    for flags in [["--dir", "nowhere"], ["--database-url", "sqlite:nowhere"]] {
        let missing = empty.run(&[&["runs", "list", "--json"], &flags[..]].concat());
        assert!(
            missing.code == Some(1) && missing.err.contains("no store of runs at nowhere"),
            "{missing:?}"
        );
        assert_eq!(missing.json()["error"]["code"], "not_found");
        assert!(!empty.path().join("nowhere").exists());
    }
    let both = empty.run(&["runs", "list", "--dir", "a", "--database-url", "sqlite:b"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[cfg(unix)]
#[test]
fn an_import_that_is_interrupted_leaves_nothing() {
    use std::io::Write as _;
    use std::process::Stdio;

    in_every_store(|kept| {
        let run = text(kept.write(1, &three()));
        let exported = kept.run(&["runs", "export", &run]).ok().out;
        let arguments = kept.arguments(&["runs", "import", "-", "--as", "new"]);
        let mut command = kept.world.command(&arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // The head begins the run; then nothing more comes.
        let mut input = child.stdin.take().unwrap();
        let head = exported.lines().next().unwrap();
        input.write_all(format!("{head}\n").as_bytes()).unwrap();
        let count = || {
            let listed = kept.run(&["runs", "list", "--json"]).ok().json();
            listed["runs"].as_array().unwrap().len()
        };
        while count() < 2 {
            assert_eq!(child.try_wait().unwrap(), None, "it ended too early");
        }
        crate::signals::interrupt(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(count(), 1);
        drop(input);
    });
}
