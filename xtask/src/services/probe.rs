//! Whether a server is there and is the right one: a few bytes of its own protocol over a plain socket.
//!
//! Redis: `PING` is answered `+PONG`. NATS: the server speaks first, a line that starts with `INFO `. PostgreSQL:
//! an `SSLRequest` is answered with one byte, `S` or `N`; then a start-up message as user `postgres` must end in
//! `AuthenticationOk` (protocol version 3.0). Every wait is bounded.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::Service;

const LOCAL_WAIT: Duration = Duration::from_secs(2);
const REMOTE_WAIT: Duration = Duration::from_secs(5);
/// No first answer that we look at is longer; NATS' `INFO` is a few hundred bytes.
const MOST_BYTES: usize = 64 * 1024;

/// Whether the server on a local port speaks the protocol and lets anybody in.
pub(super) fn lets_us_in(service: Service, port: u16) -> Result<(), String> {
    let connect = || connect("127.0.0.1", port, LOCAL_WAIT);
    match service {
        Service::Redis => redis(connect()?, false),
        Service::Nats => nats(connect()?, false),
        Service::Postgres => {
            speaks_postgres(connect()?)?;
            lets_postgres_in(connect()?)
        }
    }
}

/// Whether the server of a URL that somebody gave speaks the protocol; logging in is left to the tests, which know
/// the password. Behind TLS we only see that somebody listens.
pub(super) fn answers_at_url(service: Service, url: &str) -> Result<(), String> {
    let Place { scheme, host, port } = place(url)?;
    let stream = connect(host, port.unwrap_or(service.default_port()), REMOTE_WAIT)?;
    match (service, scheme) {
        (Service::Redis, "redis") => redis(stream, true),
        (Service::Nats, "nats") => nats(stream, true),
        (Service::Postgres, "postgres" | "postgresql") => speaks_postgres(stream),
        (Service::Redis, "rediss") | (Service::Nats, "tls") => Ok(()),
        _ => Err(format!("`{scheme}` is not a scheme of {service}")),
    }
}

fn connect(host: &str, port: u16, wait: Duration) -> Result<TcpStream, String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host} has no address: {error}"))?;
    let mut last = format!("{host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => {
                let bounded = stream
                    .set_read_timeout(Some(wait))
                    .and(stream.set_write_timeout(Some(wait)));
                return bounded.map(|()| stream).map_err(|error| error.to_string());
            }
            Err(error) => last = format!("connecting to {address}: {error}"),
        }
    }
    Err(last)
}

fn redis(mut stream: TcpStream, may_ask_for_a_password: bool) -> Result<(), String> {
    send(&mut stream, b"PING\r\n")?;
    let line = line(&mut stream)?;
    match line.as_str() {
        "+PONG" => Ok(()),
        refused if refused.starts_with("-NOAUTH") && may_ask_for_a_password => Ok(()),
        other => Err(format!("PING was answered `{other}`, not `+PONG`")),
    }
}

fn nats(mut stream: TcpStream, may_ask_for_a_password: bool) -> Result<(), String> {
    let line = line(&mut stream)?;
    if !line.starts_with("INFO ") {
        return Err(format!("it greets with `{line}`, not with `INFO`"));
    }
    if line.contains("\"auth_required\":true") && !may_ask_for_a_password {
        return Err("it asks for a password".to_owned());
    }
    Ok(())
}

fn speaks_postgres(mut stream: TcpStream) -> Result<(), String> {
    // Length 8, then the request code 1234.5679 where the protocol version would stand.
    send(&mut stream, &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?;
    let mut answer = [0];
    stream
        .read_exact(&mut answer)
        .map_err(|error| no_answer(&error))?;
    match answer {
        [b'S' | b'N'] => Ok(()),
        [other] => Err(format!(
            "an SSLRequest was answered with byte {other}, not with `S` or `N`"
        )),
    }
}

fn lets_postgres_in(mut stream: TcpStream) -> Result<(), String> {
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).expect("a short constant");
    let mut message = length.to_be_bytes().to_vec();
    message.extend([0, 3, 0, 0]);
    message.extend(parameters);
    send(&mut stream, &message)?;
    // Message type, length, and the first word of an `Authentication` message.
    let mut head = [0; 9];
    stream.read_exact(&mut head).map_err(|error| no_answer(&error))?;
    match (head[0], &head[5..]) {
        (b'R', [0, 0, 0, 0]) => Ok(()),
        (b'R', _) => Err("it asks user `postgres` for a password".to_owned()),
        (b'E', _) => Err("it refuses user `postgres`".to_owned()),
        (other, _) => Err(format!("a start-up message was answered with type {other}")),
    }
}

fn no_answer(error: &std::io::Error) -> String {
    // A read that takes too long is reported as either, by platform.
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "there is no answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "it hung up".to_owned(),
        _ => format!("no answer: {error}"),
    }
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    stream
        .write_all(bytes)
        .map_err(|error| format!("sending: {error}"))
}

/// The first line, without its end.
fn line(stream: &mut TcpStream) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    while !bytes.contains(&b'\n') && bytes.len() < MOST_BYTES {
        match stream.read(&mut piece) {
            Ok(0) => return Err("it hung up".to_owned()),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) => return Err(no_answer(&error)),
        }
    }
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(first).trim_end().to_owned())
}

#[derive(Debug, PartialEq)]
struct Place<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

/// As much of a URL as connecting needs.
fn place(url: &str) -> Result<Place<'_>, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it is not a URL")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority
        .rsplit_once('@')
        .map_or(authority, |(_, address)| address);
    // An IPv6 address stands in brackets and has colons of its own.
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => address
            .split_once(':')
            .map_or((address, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("it names no host".to_owned());
    }
    let port = port
        .map(|port| port.parse().map_err(|_| format!("`{port}` is not a port")))
        .transpose()?;
    Ok(Place { scheme, host, port })
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use std::thread;

    use super::*;

    /// A server on a free port that serves as many connections as there are answers: reads once, answers, hangs up.
    fn server(answers: Vec<&'static [u8]>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                // NATS speaks first; the others answer. Answering at once is right for both.
                stream.write_all(answer).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let _ = stream.read(&mut [0; 256]);
            }
        });
        port
    }

    #[test]
    fn the_right_answer_is_taken() {
        assert_eq!(lets_us_in(Service::Redis, server(vec![b"+PONG\r\n"])), Ok(()));
        assert_eq!(
            lets_us_in(Service::Nats, server(vec![b"INFO {\"version\":\"2\"}\r\n"])),
            Ok(())
        );
        let ok = b"R\0\0\0\x08\0\0\0\0";
        assert_eq!(lets_us_in(Service::Postgres, server(vec![b"N", ok])), Ok(()));
        assert_eq!(lets_us_in(Service::Postgres, server(vec![b"S", ok])), Ok(()));
    }

    #[test]
    fn another_server_on_the_port_is_not_taken() {
        for service in Service::ALL {
            let http = server(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n"]);
            assert!(lets_us_in(service, http).is_err(), "{service}");
            assert!(
                lets_us_in(service, server(vec![b""])).is_err(),
                "{service} took a server that hangs up"
            );
        }
    }

    #[test]
    fn a_server_that_wants_a_password_is_taken_only_where_a_url_was_given() {
        let refused: &[u8] = b"-NOAUTH Authentication required.\r\n";
        assert!(lets_us_in(Service::Redis, server(vec![refused])).is_err());
        let url = format!("redis://:secret@127.0.0.1:{}/0", server(vec![refused]));
        assert_eq!(answers_at_url(Service::Redis, &url), Ok(()));

        let asks: &[u8] = b"INFO {\"auth_required\":true}\r\n";
        assert!(lets_us_in(Service::Nats, server(vec![asks])).is_err());
        let url = format!("nats://127.0.0.1:{}", server(vec![asks]));
        assert_eq!(answers_at_url(Service::Nats, &url), Ok(()));

        let scram = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
        assert!(lets_us_in(Service::Postgres, server(vec![b"N", scram])).is_err());
        assert!(lets_us_in(Service::Postgres, server(vec![b"N", b"E\0\0\0\x08abcd"])).is_err());
    }

    #[test]
    fn a_closed_port_and_a_wrong_url_are_told() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(
            lets_us_in(Service::Redis, port)
                .unwrap_err()
                .contains("connecting")
        );
        assert!(answers_at_url(Service::Redis, &format!("redis://127.0.0.1:{port}")).is_err());
        let there = server(vec![b"+PONG\r\n"]);
        let error = answers_at_url(Service::Redis, &format!("mysql://127.0.0.1:{there}")).unwrap_err();
        assert_eq!(error, "`mysql` is not a scheme of redis");
    }

    #[test]
    fn places_are_read() {
        let place_of = |url| place(url).map(|Place { scheme, host, port }| (scheme, host, port));
        assert_eq!(place_of("redis://h:1/0"), Ok(("redis", "h", Some(1))));
        assert_eq!(place_of("postgres://u:p:q@h/db?x=1"), Ok(("postgres", "h", None)));
        assert_eq!(place_of("nats://[::1]:4222"), Ok(("nats", "::1", Some(4222))));
        assert!(
            place_of("h:1").is_err() && place_of("redis://:1").is_err() && place_of("redis://h:x").is_err()
        );
    }
}
