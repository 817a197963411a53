//! Each service is really there: spoken to over its own wire protocol, with nothing but a socket in between.
//!
//! These are the smallest tests that need a server. They prove that the URLs which `cargo xtask test` hands out work,
//! before a store of ours is blamed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use peregrine_testkit::service;

const WAIT: Duration = Duration::from_secs(10);

#[test]
fn redis_keeps_a_value() {
    let Some(url) = service::redis() else { return };
    let Some(mut redis) = connect(&url, "redis", 6379) else {
        return;
    };
    let key = format!("peregrine-testkit:{}", std::process::id());
    let answers = [
        (format!("SET {key} 42 EX 60\r\n"), "+OK"),
        (format!("INCR {key}\r\n"), ":43"),
        (format!("DEL {key}\r\n"), ":1"),
        (format!("DEL {key}\r\n"), ":0"),
    ];
    for (command, expected) in answers {
        redis.get_mut().write_all(command.as_bytes()).unwrap();
        assert_eq!(line(&mut redis), expected, "{command}");
    }
}

#[test]
fn nats_delivers_a_message() {
    let Some(url) = service::nats() else { return };
    let Some(mut nats) = connect(&url, "nats", 4222) else {
        return;
    };
    let info = line(&mut nats);
    assert!(info.starts_with("INFO {"), "{info}");
    let subject = format!("peregrine.testkit.{}", std::process::id());
    let talk =
        format!("CONNECT {{\"verbose\":false}}\r\nSUB {subject} 1\r\nPUB {subject} 5\r\nhello\r\nPING\r\n");
    nats.get_mut().write_all(talk.as_bytes()).unwrap();
    assert_eq!(line(&mut nats), format!("MSG {subject} 1 5"));
    assert_eq!(line(&mut nats), "hello");
    assert_eq!(line(&mut nats), "PONG");
}

#[test]
fn postgres_answers_a_query() {
    let Some(url) = service::postgres() else { return };
    let Some(mut postgres) = connect(&url, "postgres", 5432) else {
        return;
    };
    let user = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .map_or("postgres", |(user, _)| user);
    let user = user.split(':').next().unwrap();
    // Protocol 3.0, then names and values, each ended by a zero byte, and one more at the end.
    let mut start = vec![0, 3, 0, 0];
    start.extend(format!("user\0{user}\0database\0postgres\0\0").as_bytes());
    postgres.get_mut().write_all(&with_length(&start)).unwrap();
    let (kind, body) = message(&mut postgres);
    assert_eq!(char::from(kind), 'R', "{}", String::from_utf8_lossy(&body));
    if body[..4] != [0, 0, 0, 0] {
        // A server that somebody gave with a password. It is PostgreSQL; logging in is for a real client.
        return;
    }
    let mut query = vec![b'Q'];
    query.extend(with_length(b"select 40 + 2\0"));
    postgres.get_mut().write_all(&query).unwrap();
    // Between the two: parameters, the key for cancelling, a description of the row.
    let row = loop {
        let (kind, body) = message(&mut postgres);
        assert_ne!(char::from(kind), 'E', "{}", String::from_utf8_lossy(&body));
        if kind == b'D' {
            break body;
        }
    };
    // One column of two characters.
    assert_eq!(row, [0, 1, 0, 0, 0, 2, b'4', b'2']);
}

/// A connection to the URL's server. `None`, once it is there, for TLS and passwords: they need a real client.
fn connect(url: &str, scheme: &str, default_port: u16) -> Option<BufReader<TcpStream>> {
    let (given, rest) = url.split_once("://").expect("the service gives a URL");
    let authority = rest.split(['/', '?']).next().unwrap();
    let address = authority
        .rsplit_once('@')
        .map_or(authority, |(_, address)| address);
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port {
        address.to_owned()
    } else {
        format!("{address}:{default_port}")
    };
    let stream = TcpStream::connect(address).unwrap();
    let plain = given == scheme || given == "postgresql";
    if !plain || (scheme != "postgres" && authority.contains('@')) {
        return None;
    }
    stream.set_read_timeout(Some(WAIT)).unwrap();
    Some(BufReader::new(stream))
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    length
        .to_be_bytes()
        .into_iter()
        .chain(body.iter().copied())
        .collect()
}

/// Type and body of the next message.
fn message(stream: &mut BufReader<TcpStream>) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body).unwrap();
    (head[0], body)
}
