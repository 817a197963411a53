//! The command `peregrine-probe`, from outside.

use std::process::{Command, Stdio};

#[test]
fn the_time_limit_holds_while_nobody_writes_the_request() {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_peregrine-probe"))
        .args(["--timeout-ms", "200", "chat", "--provider", "offline"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open until the command has ended.
    let input = probe.stdin.take();
    let output = probe.wait_with_output().unwrap();
    drop(input);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(r#""code":"timeout""#), "{text}");
}
