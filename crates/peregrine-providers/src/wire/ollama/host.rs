//! `OLLAMA_HOST`, in all its forms, to the address to call.
//!
//! Algorithm: white space and quotes come off; a scheme changes the default port (`http` 80, `https` 443,
//! none 11434); what stands behind the first slash is a path; the rest is a host, a port or both. A server's
//! listen address (`0.0.0.0`, `[::]`) is dialled at the loopback address.
//!
//! The server's own tools fall back to a default where the value is wrong. Here that is an error: a typing
//! mistake must not send a prompt to another server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an `OLLAMA_HOST` is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A scheme other than `http` and `https`.
    #[error("OLLAMA_HOST has the scheme {scheme:?}; use http or https, or leave it out")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A port that is no number from 1 to 65535.
    #[error("OLLAMA_HOST has the port {port:?}; a number from 1 to 65535 is expected")]
    Port {
        /// The port.
        port: String,
    },
    /// A host that is neither a name nor an address.
    #[error(
        "OLLAMA_HOST has the host {host:?}; a name, an IPv4 address or an IPv6 address in brackets is expected"
    )]
    Host {
        /// The host.
        host: String,
    },
    /// A user name or password. The value is not repeated here.
    #[error("OLLAMA_HOST holds a user name or password; send credentials in a header instead")]
    Credentials,
    /// A query or fragment.
    #[error("OLLAMA_HOST has a query or fragment; only a path may follow the port")]
    Query,
}

/// The base URL for an `OLLAMA_HOST`: scheme, host, port and path, without a slash at the end.
///
/// # Errors
///
/// [`HostError`] says which piece is wrong.
///
/// # Examples
///
/// ```
/// use peregrine_providers::wire::ollama::base_url;
///
/// assert_eq!(base_url("")?, "http://127.0.0.1:11434");
/// assert_eq!(base_url("gpu-box:8080")?, "http://gpu-box:8080");
/// assert_eq!(base_url("https://example.org/ollama/")?, "https://example.org:443/ollama");
/// assert_eq!(base_url("0.0.0.0")?, "http://127.0.0.1:11434");
/// # Ok::<(), peregrine_providers::wire::ollama::HostError>(())
/// ```
pub fn base_url(ollama_host: &str) -> Result<String, HostError> {
    let text = ollama_host.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    // Ollama's own cloud is the one bare name that does not mean a local port.
    if text == "ollama.com" {
        return Ok("https://ollama.com:443".to_owned());
    }
    let (scheme, rest, default_port) = match text.split_once("://") {
        None => ("http", text, 11434),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest, 80),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest, 443),
        Some((scheme, _)) => {
            return Err(HostError::Scheme {
                scheme: scheme.to_owned(),
            });
        }
    };
    if rest.contains(['?', '#']) {
        return Err(HostError::Query);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(HostError::Credentials);
    }
    let (host, port) = split_port(authority)?;
    let host = checked_host(host)?;
    let port = match port {
        None => default_port,
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|number| *number > 0 && !port.starts_with('+'))
            .ok_or_else(|| HostError::Port {
                port: port.to_owned(),
            })?,
    };
    let path = path.trim_matches('/');
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(HostError::Query);
    }
    let slash = if path.is_empty() { "" } else { "/" };
    Ok(format!("{scheme}://{host}:{port}{slash}{path}"))
}

/// Host and port; several colons without brackets are an IPv6 address without a port.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), HostError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let wrong = || HostError::Host {
            host: authority.to_owned(),
        };
        let (host, behind) = rest.split_once(']').ok_or_else(wrong)?;
        host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if behind.is_empty() => Ok((host, None)),
            None => Err(wrong()),
        };
    }
    if authority.matches(':').count() > 1 {
        return Ok((authority, None));
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

/// The host as it stands in a URL.
fn checked_host(host: &str) -> Result<String, HostError> {
    if host.is_empty() {
        return Ok(Ipv4Addr::LOCALHOST.to_string());
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ok(Ipv4Addr::LOCALHOST.to_string()),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Ok(format!("[{}]", Ipv6Addr::LOCALHOST)),
        Ok(IpAddr::V4(address)) => Ok(address.to_string()),
        Ok(IpAddr::V6(address)) => Ok(format!("[{address}]")),
        Err(_) => {
            let valid = host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
            if valid {
                Ok(host.to_owned())
            } else {
                Err(HostError::Host {
                    host: host.to_owned(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_its_address() {
        let cases = [
            ("", "http://127.0.0.1:11434"),
            ("  \"\" ", "http://127.0.0.1:11434"),
            ("1.2.3.4", "http://1.2.3.4:11434"),
            (":1234", "http://127.0.0.1:1234"),
            ("1.2.3.4:1234", "http://1.2.3.4:1234"),
            ("example.com", "http://example.com:11434"),
            ("localhost:8080/", "http://localhost:8080"),
            ("example.com/path", "http://example.com:11434/path"),
            ("example.com:56/a/b/", "http://example.com:56/a/b"),
            ("http://1.2.3.4", "http://1.2.3.4:80"),
            ("https://1.2.3.4", "https://1.2.3.4:443"),
            ("HTTPS://example.com:4321", "https://example.com:4321"),
            ("http://", "http://127.0.0.1:80"),
            ("https://example.com/ollama", "https://example.com:443/ollama"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:1234", "http://127.0.0.1:1234"),
            ("http://0.0.0.0:1234/x", "http://127.0.0.1:1234/x"),
            ("[::]", "http://[::1]:11434"),
            ("::", "http://[::1]:11434"),
            ("[::]:99", "http://[::1]:99"),
            ("::1", "http://[::1]:11434"),
            ("[::1]:1337", "http://[::1]:1337"),
            ("[2001:db8::1]/path", "http://[2001:db8::1]:11434/path"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
            (" ' 1.2.3.4 ' ", "http://1.2.3.4:11434"),
            ("ollama.com", "https://ollama.com:443"),
            ("gpu_box-1", "http://gpu_box-1:11434"),
        ];
        for (host, expected) in cases {
            assert_eq!(base_url(host).as_deref(), Ok(expected), "{host:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let port = |port: &str| HostError::Port {
            port: port.to_owned(),
        };
        let host = |host: &str| HostError::Host {
            host: host.to_owned(),
        };
        let cases = [
            (
                "ftp://x",
                HostError::Scheme {
                    scheme: "ftp".to_owned(),
                },
            ),
            (":66000", port("66000")),
            (":0", port("0")),
            (":-1", port("-1")),
            (":+80", port("+80")),
            ("x:", port("")),
            ("x:http", port("http")),
            ("a b", host("a b")),
            ("[::1", host("[::1")),
            ("[::1]x", host("[::1]x")),
            ("[zz]", host("[zz]")),
            ("1:2:3", host("1:2:3")),
            ("http://user:secret@x", HostError::Credentials),
            ("x?y", HostError::Query),
            ("x/#y", HostError::Query),
            ("x/a b", HostError::Query),
        ];
        for (text, expected) in cases {
            assert_eq!(base_url(text), Err(expected), "{text:?}");
        }
        assert!(!HostError::Credentials.to_string().contains("secret"));
    }
}
