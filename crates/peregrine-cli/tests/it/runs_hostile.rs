//! `runs` and what is wrong: damage, unfinished ends, hostile payloads, passwords, full pipes.

use std::fs;

use peregrine::checkpoints::{Draft, Kind};
use serde_json::{Value, json};

use crate::kept::{Kept, key, lines};
use crate::run::{World, wait};

fn events(count: u32) -> Vec<Value> {
    (0..count)
        .map(|number| json!({"type": "event", "number": number}))
        .collect()
}

#[test]
fn damage_is_named_by_file_and_offset() {
    let kept = Kept::in_dir();
    let run = kept.write(1, &events(5)).to_string();
    let whole = kept.write(2, &events(2)).to_string();
    let path = &kept.segments()[0];
    let mut bytes = fs::read(path).unwrap();
    // The record that says so is the fourth one; its number stands near its end.
    let at = bytes
        .windows(6)
        .enumerate()
        .filter(|(_, bytes)| bytes == b"number")
        .nth(3)
        .unwrap()
        .0;
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();

    let found = kept.run(&["runs", "verify", "--json"]);
    assert_eq!(found.code, Some(3), "{found:?}");
    let rows = lines(&found);
    let damage = &rows[0]["damage"];
    assert_eq!((&rows[0]["run"], &rows[0]["whole"]), (&json!(run), &json!(false)));
    assert_eq!((&damage["cause"], &damage["seq"]), (&json!("damaged"), &json!(3)));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!((&damage["place"], &damage["file"]), (&json!(name), &json!(path)));
    let offset = damage["offset"].as_u64().unwrap();
    assert!(offset > 0 && offset < at as u64, "{damage} {at}");
    assert_eq!(rows[0]["records"], 3, "what comes before it can be read");
    assert_eq!(
        (&rows[1]["run"], &rows[1]["whole"]),
        (&json!(whole), &json!(true))
    );

    let told = kept.run(&["runs", "verify", &run]);
    assert!(
        told.code == Some(3)
            && told.out.contains(&format!("at offset {offset} of {name}"))
            && told.out.contains(path.to_str().unwrap()),
        "{told:?}"
    );
    let listed = kept.run(&["runs", "list", "--json"]).ok().json();
    assert_eq!(
        (&listed["runs"][1]["state"], &listed["runs"][1]["records"]),
        (&json!("damaged"), &Value::Null)
    );
    let shown = kept.run(&["runs", "show", &run]);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    assert_eq!(
        shown.out.lines().count(),
        2 + 3,
        "what comes before it is shown: {shown:?}"
    );
    assert!(shown.err.contains("offset"), "{shown:?}");
    let exported = kept.run(&["runs", "export", &run, "-o", "half"]);
    assert!(
        exported.code == Some(1) && !kept.world.path().join("half").exists(),
        "{exported:?}"
    );
}

#[test]
fn an_unfinished_end_is_told_and_is_no_damage() {
    let kept = Kept::in_dir();
    let run = kept.write(1, &events(3)).to_string();
    let path = &kept.segments()[0];
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
    let found = kept.run(&["runs", "verify", "--json"]).ok();
    let row = &lines(&found)[0];
    assert_eq!(
        (&row["whole"], &row["records"]),
        (&json!(true), &json!(2)),
        "{row}"
    );
    assert_eq!(row["tail"]["place"], path.file_name().unwrap().to_str().unwrap());
    let told = kept.run(&["runs", "verify", &run]).ok();
    assert!(told.out.contains("unfinished end"), "{told:?}");
    let shown = kept.run(&["runs", "show", &run]).ok();
    assert!(
        shown.err.contains("unfinished end") && shown.out.lines().count() == 4,
        "{shown:?}"
    );
}

#[test]
fn payloads_of_any_bytes_are_shown_without_driving_a_terminal() {
    let kept = Kept::in_dir();
    let hostile = "\u{1b}[2J\u{9b}31m\u{7f}\r\nX";
    kept.with(async |checkpoints| {
        let mut journal = checkpoints.create(&key(1)).await.unwrap();
        let named = json!({"type": hostile, (hostile): hostile});
        journal.append(Kind::Event, 1, &named).await.unwrap();
        // MessagePack that is no JSON: a map with a number, bytes and a NaN in it.
        let mut other = vec![0x82, 0x07, 0xc4, 0x02, 0xff, 0xfe, 0xa1, b'n', 0xcb];
        other.extend_from_slice(&f64::NAN.to_be_bytes());
        for payload in [
            other,
            b"\xc1 no MessagePack \x1b[2J".to_vec(),
            vec![0x91; 5_000],
            vec![],
        ] {
            journal
                .append_draft(&Draft::raw(Kind::Effect, 7, payload))
                .await
                .unwrap();
        }
        journal.finish().await.unwrap();
    });
    for arguments in [&["--full"][..], &[], &["--full", "--json"]] {
        let shown = kept.run(&[&["runs", "show", "last"], arguments].concat()).ok();
        let control = shown.out.chars().find(|char| char.is_control() && *char != '\n');
        assert_eq!(control, None, "{shown:?}");
        if arguments.len() == 2 {
            let records = lines(&shown);
            assert_eq!(
                records[1]["payload"][hostile], hostile,
                "a program gets what was written"
            );
            assert_eq!(
                records[2]["payload"],
                json!({"7": {"$base64": "//4="}, "n": "NaN"})
            );
            assert!(records[3]["payload"]["$base64"].is_string(), "{}", records[3]);
            assert!(records[4]["payload"]["$base64"].is_string(), "nested too deeply");
            assert_eq!(records[5]["payload"], json!({"$base64": ""}));
        }
    }
    let twin = Kept::in_dir().write(1, &events(1));
    assert_eq!(twin, key(1).run);
    kept.write(2, &[json!({"type": "x", (hostile): 1})]);
    let (left, right) = (key(1).run.to_string(), key(2).run.to_string());
    for more in [&[][..], &["--json"]] {
        let differ = kept.run(&[&["runs", "diff", &left, &right], more].concat());
        assert_eq!(differ.code, Some(3), "{differ:?}");
        let control = differ.out.chars().find(|char| char.is_control() && *char != '\n');
        assert_eq!(control, None, "{differ:?}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let urls = [
        "postgres://me:hunter2@127.0.0.1:1/db",
        "postgres://me:hunter2@[not an address/db",
        "postgresql://me:hunter2@/db?host=/nowhere",
        "mysql://me:hunter2@127.0.0.1/db",
        "hunter2",
    ];
    // All at once, because an address at which nobody answers is tried for a while.
    let mut running = Vec::new();
    for url in urls {
        let world = World::new().with_variable("PEREGRINE_DATABASE_URL", url);
        let commands: [(&[&str], i32); 6] = [
            (&["runs", "list", "--json"], 1),
            (&["runs", "prune", "--keep", "1"], 1),
            (&["runs", "list", "--database-url", url], 1),
            (&["runs", "list", "--database-url", url, "--dir", "x"], 2),
            (&["runs", "--help"], 0),
            (&["runs", "list", "--help"], 0),
        ];
        let commands = commands.map(|(arguments, code)| (world.command(arguments).spawn().unwrap(), code));
        running.push((world, commands));
    }
    for (_world, commands) in running {
        for (child, code) in commands {
            let ran = wait(child);
            assert!(!format!("{} {}", ran.out, ran.err).contains("hunter2"), "{ran:?}");
            assert_eq!(ran.code, Some(code), "{ran:?}");
        }
    }
    let away = World::new().run(&["runs", "list", "--json", "--database-url", urls[0]]);
    assert_eq!(away.json()["error"]["cause"], "unavailable");
    assert_eq!(away.json()["error"]["retryable"], true);
    assert!(away.err.contains("hint: "), "{away:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let kept = Kept::in_dir();
    let large = json!({"large": (0..40_000).map(|number| number.to_string()).collect::<Vec<_>>()});
    kept.write(1, &vec![large; 8]);
    for arguments in [
        &["runs", "export", "last"][..],
        &["runs", "show", "last", "--full"],
    ] {
        let mut child = kept.world.command(&kept.arguments(arguments)).spawn().unwrap();
        drop(child.stdout.take());
        let ran = wait(child);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}
