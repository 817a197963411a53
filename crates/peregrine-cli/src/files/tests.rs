//! The file tools against hostile paths and files.

use std::fs;
use std::path::Path;

use peregrine::ToolCall;
use peregrine::tools::ToolContext;

use super::*;

/// A folder `root` with files, beside a folder `outside` with a secret.
fn tree() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &[u8]| {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("outside/secret.md", b"the secret is 4711");
    write(
        "root/README.md",
        b"# Title\n\nThe falcon dives at 320 km/h\nover the cliffs.\n\n- it eats pigeons\n",
    );
    write("root/src/main.rs", b"fn main() {\n    // falcons redirect\n}\n");
    write("root/.env", b"KEY=secret falcon");
    write("root/.git/config", b"falcon");
    write("root/target/debug/out.txt", b"falcon");
    write("root/binary.bin", b"\x7fELF\0falcon");
    write("root/latin.txt", b"caf\xe9 falcon");
    write("root/empty.txt", b"");
    temp
}

fn open(paths: &[PathBuf], bounds: Bounds) -> std::io::Result<Registry> {
    Ok(tools(paths, bounds)?.build().unwrap())
}

fn tools_in(root: &Path) -> Registry {
    open(&[root.to_owned()], Bounds::default()).unwrap()
}

/// Calls a tool as an agent does.
fn call(tools: &Registry, name: &str, arguments: &Value) -> Answer {
    let call = ToolCall::new("call-1", name, arguments.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ended = runtime.block_on(tools.run(&call, ToolContext::new("call-1"), None));
    match ended {
        Ok(output) => Ok(output.text()),
        Err(error) => Err(error.for_model().unwrap()),
    }
}

fn read(tools: &Registry, path: &str) -> Answer {
    call(tools, "read_file", &json!({"path": path}))
}

#[test]
fn nothing_leads_out_of_the_given_folder() {
    let temp = tree();
    let root = temp.path().join("root");
    let outside = temp.path().join("outside");
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(&outside, root.join("out")).unwrap();
        symlink("../outside/secret.md", root.join("relative.md")).unwrap();
        symlink(outside.join("secret.md"), root.join("absolute.md")).unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink(".env", root.join("env.txt")).unwrap();
        symlink("README.md", root.join("inside.md")).unwrap();
    }
    let tools = tools_in(&root);
    let label = root.display().to_string();
    let hostile = [
        "../outside/secret.md",
        "src/../../outside/secret.md",
        "src/../README.md",
        "/etc/passwd",
        "out/secret.md",
        "relative.md",
        "absolute.md",
        "passwd",
        "loop",
        "env.txt",
        ".env",
        "./.env",
        ".git/config",
        "target/debug/out.txt",
        "src",
        "",
        ".",
        "/",
        "no/such/file",
        "README.md/x",
        "a\0b",
        "C:\\Windows\\win.ini", // tidy:allow(machine-path)
        "\\\\server\\share",
    ];
    for path in hostile {
        for path in [path.to_owned(), format!("{label}/{path}")] {
            let answer = read(&tools, &path);
            assert!(answer.is_err(), "{path:?} gave {answer:?}");
            assert!(!answer.unwrap_err().contains("4711"));
        }
    }
    let long = "x/".repeat(100_000);
    assert!(read(&tools, &format!("{label}/{long}")).unwrap_err().len() < 1_000);
    assert!(
        read(&tools, &format!("{label}/README.md"))
            .unwrap()
            .contains("320 km/h")
    );
    #[cfg(unix)]
    assert!(
        read(&tools, &format!("{label}/inside.md")).is_ok(),
        "a symlink that stays inside is followed"
    );
    let found = call(&tools, "search_files", &json!({"query": "secret 4711 root"})).unwrap();
    assert!(!found.contains("4711") && !found.contains("KEY="), "{found}");
}

#[cfg(unix)]
#[test]
fn devices_and_pipes_are_refused_without_waiting() {
    let temp = tree();
    let root = temp.path().join("root");
    let made = std::process::Command::new("mkfifo")
        .arg(root.join("pipe.txt"))
        .status()
        .unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let tools = tools_in(&root);
    let label = root.display();
    for name in ["pipe.txt", "socket"] {
        let refused = read(&tools, &format!("{label}/{name}")).unwrap_err();
        assert!(refused.contains("not a regular file"), "{refused}");
    }
    let listing = call(&tools, "list_files", &json!({})).unwrap();
    assert!(
        !listing.contains("pipe") && !listing.contains("socket"),
        "{listing}"
    );
    call(&tools, "search_files", &json!({"query": "falcon"})).unwrap();
    for given in [
        root.join("pipe.txt"),
        Path::new("/dev/null").to_owned(),
        Path::new("/dev/tty").to_owned(),
    ] {
        assert!(
            open(std::slice::from_ref(&given), Bounds::default()).is_err(),
            "{given:?}"
        );
    }
    let devices = open(&["/dev".into()], Bounds::default()).unwrap();
    assert!(read(&devices, "/dev/zero").unwrap_err().contains("device"));
}

#[test]
fn listings_are_sorted_and_skip_what_people_did_not_write() {
    let temp = tree();
    let root = temp.path().join("root");
    let tools = tools_in(&root);
    let listing = call(&tools, "list_files", &json!({})).unwrap();
    let names: Vec<_> = listing
        .lines()
        .map(|line| {
            line.split(" (")
                .next()
                .unwrap()
                .rsplit("root/")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        names,
        ["README.md", "binary.bin", "empty.txt", "latin.txt", "src/main.rs"]
    );
    assert_eq!(
        listing,
        call(&tools, "list_files", &json!({"folder": ""})).unwrap()
    );
    let inner = call(
        &tools,
        "list_files",
        &json!({"folder": format!("{}/src", root.display())}),
    )
    .unwrap();
    assert!(inner.contains("main.rs") && !inner.contains("README"), "{inner}");
    assert!(
        call(&tools, "list_files", &json!({"folder": "nowhere"}))
            .unwrap()
            .contains("no files in nowhere")
    );
}

#[test]
fn searches_rank_passages_and_name_their_place() {
    let temp = tree();
    let root = temp.path().join("root");
    let tools = tools_in(&root);
    let found = call(
        &tools,
        "search_files",
        &json!({"query": "How fast does the falcon dive?"}),
    )
    .unwrap();
    let label = root.display();
    let first = found.lines().next().unwrap();
    assert_eq!(
        first,
        format!("{label}/README.md:3: The falcon dives at 320 km/h over the cliffs.")
    );
    assert!(found.contains("latin.txt:1: caf\u{fffd} falcon"), "{found}");
    assert!(
        !found.contains("binary.bin") && !found.contains(".env") && !found.contains("target/"),
        "{found}"
    );
    let redirects = call(&tools, "search_files", &json!({"query": "redirects"})).unwrap();
    assert!(
        redirects.contains("src/main.rs:2: // falcons redirect"),
        "{redirects}"
    );
    assert!(
        call(&tools, "search_files", &json!({"query": "zebra"}))
            .unwrap()
            .contains("no passage")
    );
    assert!(call(&tools, "search_files", &json!({"query": "  "})).is_err());
    assert_eq!(
        found,
        call(
            &tools,
            "search_files",
            &json!({"query": "How fast does the falcon dive?"})
        )
        .unwrap()
    );
}

#[test]
fn files_are_read_in_bounded_pieces() {
    let temp = tree();
    let root = temp.path().join("root");
    let numbers: String = (1..=1_000).map(|n| format!("line {n}\n")).collect();
    fs::write(root.join("numbers.txt"), &numbers).unwrap();
    fs::write(root.join("wide.txt"), "x".repeat(100_000)).unwrap();
    fs::write(root.join("huge.txt"), "y\n".repeat(100_000)).unwrap();
    let bounds = Bounds {
        max_file_bytes: 120_000,
        max_output_bytes: 8_000,
        max_lines: 300,
        ..Bounds::default()
    };
    let tools = open(std::slice::from_ref(&root), bounds).unwrap();
    let path = |name: &str| format!("{}/{name}", root.display());
    let lines = |name: &str, start: u64, max: u64| {
        call(
            &tools,
            "read_file",
            &json!({"path": path(name), "start_line": start, "max_lines": max}),
        )
    };
    let some = lines("numbers.txt", 10, 2).unwrap();
    assert!(
        some.contains("lines 10 to 11 of 1000:\nline 10\nline 11\n[more: read_file with start_line 12]"),
        "{some}"
    );
    assert!(lines("numbers.txt", 1_000, 5).unwrap().ends_with("line 1000"));
    assert!(lines("numbers.txt", 1_001, 5).unwrap_err().contains("1000 lines"));
    assert!(
        lines("numbers.txt", 1, u64::MAX)
            .unwrap()
            .contains("lines 1 to 300")
    );
    let wide = lines("wide.txt", 1, 1).unwrap();
    assert!(
        wide.len() < 5_000 && wide.contains("the line goes on for"),
        "{}",
        wide.len()
    );
    let huge = lines("huge.txt", 1, 1).unwrap();
    assert!(
        huge.contains("of 60000") && huge.contains("only the first 120000 bytes"),
        "{huge}"
    );
    assert!(read(&tools, &path("latin.txt")).unwrap().contains("not UTF-8"));
    assert!(read(&tools, &path("binary.bin")).unwrap_err().contains("binary"));
    assert!(read(&tools, &path("empty.txt")).unwrap().contains("is empty"));
}

#[test]
fn a_walk_says_what_it_did_not_come_to() {
    let temp = tempfile::tempdir().unwrap();
    for n in 0..20 {
        fs::write(temp.path().join(format!("{n:02}.txt")), "falcon falcon").unwrap();
    }
    let deep = (0..10).fold(temp.path().to_owned(), |path, _| path.join("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep.txt"), "falcon").unwrap();
    let with = |bounds| open(&[temp.path().to_owned()], bounds).unwrap();
    let list = |bounds| call(&with(bounds), "list_files", &json!({})).unwrap();
    assert!(
        list(Bounds {
            max_files: 5,
            ..Bounds::default()
        })
        .contains("more than 5 files")
    );
    assert!(
        list(Bounds {
            max_entries: 5,
            ..Bounds::default()
        })
        .contains("more than 5 names")
    );
    assert!(
        list(Bounds {
            max_depth: 3,
            ..Bounds::default()
        })
        .contains("nested too deeply")
    );
    assert!(
        list(Bounds {
            max_listed: 5,
            ..Bounds::default()
        })
        .contains("and 16 more")
    );
    let search = |bounds| call(&with(bounds), "search_files", &json!({"query": "falcon"})).unwrap();
    assert!(
        search(Bounds {
            max_searched_bytes: 30,
            ..Bounds::default()
        })
        .contains("the rest was not")
    );
    assert!(
        search(Bounds {
            max_hits: 2,
            ..Bounds::default()
        })
        .contains("[the best 2 of 21 passages")
    );
}

#[test]
fn arguments_that_are_none_are_explained() {
    let temp = tree();
    let tools = tools_in(&temp.path().join("root"));
    for (name, arguments) in [
        ("read_file", json!({})),
        ("read_file", json!({"path": 7})),
        ("read_file", json!({"path": "README.md", "start_line": -1})),
        ("read_file", json!({"path": "README.md", "mode": "write"})),
        ("search_files", json!({"query": null})),
        ("list_files", json!({"path": "x"})),
    ] {
        let error = call(&tools, name, &arguments).unwrap_err();
        assert!(
            error.contains(&format!("cannot call `{name}`")),
            "{arguments}: {error}"
        );
    }
    let large = call(&tools, "read_file", &json!({"path": "x", "max_lines": 1e30})).unwrap_err();
    assert!(large.contains("no arguments for read_file"), "{large}");
    let unknown = call(&tools, "write_file", &json!({})).unwrap_err();
    assert!(
        unknown.contains("`search_files`, `read_file`, `list_files`"),
        "{unknown}"
    );
    assert!(
        read(&tools, "README.md").is_err(),
        "a name without its folder is none of the given paths"
    );
}

#[cfg(unix)]
#[test]
fn a_given_file_is_the_only_one_and_keeps_its_name() {
    let temp = tree();
    let file = temp.path().join("root/README.md");
    let link = temp.path().join("link.md");
    std::os::unix::fs::symlink(temp.path().join("outside/secret.md"), &link).unwrap();
    let tools = open(&[file.clone(), file.clone(), link.clone()], Bounds::default()).unwrap();
    assert!(read(&tools, file.to_str().unwrap()).unwrap().contains("320"));
    assert!(
        read(&tools, link.to_str().unwrap()).unwrap().contains("4711"),
        "the user named this link"
    );
    let sibling = temp.path().join("root/src/main.rs");
    assert!(read(&tools, sibling.to_str().unwrap()).is_err());
    assert_eq!(call(&tools, "list_files", &json!({})).unwrap().lines().count(), 2);
    let hidden = temp.path().join("root/.env");
    let named = open(std::slice::from_ref(&hidden), Bounds::default()).unwrap();
    assert!(
        read(&named, hidden.to_str().unwrap()).unwrap().contains("KEY"),
        "a hidden file that was named is meant"
    );
    let missing = open(&[temp.path().join("nowhere")], Bounds::default()).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}
