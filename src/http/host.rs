//! Parses the name of a server in `Host`, `:authority` and `Origin`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// `HOST` or `HOST:PORT` and nothing else (RFC 9110, section 7.2): `localhost:8080`, `10.0.0.7`, `[::1]:80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// In lower case, without a trailing dot; an IPv6 address without brackets.
    pub host: String,
    /// Whether the host is an IP address.
    pub is_address: bool,
    pub port: Option<u16>,
}

/// The text is neither a host nor a host with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHost;

impl FromStr for HostPort {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<HostPort, InvalidHost> {
        let (host, is_address, rest) = match text.strip_prefix('[') {
            Some(text) => {
                let (address, rest) = text.split_once(']').ok_or(InvalidHost)?;
                let address: Ipv6Addr = address.parse().map_err(|_| InvalidHost)?;
                (IpAddr::V6(address).to_string(), true, rest)
            }
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                (lower_case(name)?, name.parse::<Ipv4Addr>().is_ok(), rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| InvalidHost)?)
            }
            _ => return Err(InvalidHost),
        };
        Ok(HostPort { host, is_address, port })
    }
}

/// The name in lower case, without a trailing dot.
fn lower_case(name: &str) -> Result<String, InvalidHost> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_name = name.split('.').all(|label| !label.is_empty() && label.chars().all(is_letter));
    if is_name { Ok(name.to_ascii_lowercase()) } else { Err(InvalidHost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for (text, host, is_address, port) in [
            ("localhost", "localhost", false, None),
            ("LOCALHOST:8080", "localhost", false, Some(8080)),
            ("images.example.com.:443", "images.example.com", false, Some(443)),
            ("my_service-1", "my_service-1", false, None),
            ("127.0.0.1:65535", "127.0.0.1", true, Some(65535)),
            ("[::1]", "::1", true, None),
            ("[2001:DB8::1]:80", "2001:db8::1", true, Some(80)),
        ] {
            assert_eq!(text.parse(), Ok(HostPort { host: host.to_owned(), is_address, port }), "{text}");
        }
        for text in [
            "",
            ".",
            ":8080",
            "a b",
            "?",
            "a..b",
            ".a",
            "evil.example@127.0.0.1",
            "user:password@localhost",
            "localhost:",
            "localhost:abc",
            "localhost:+80",
            "localhost:80:80",
            "localhost:65536",
            "localhost:80/path",
            "localhost/path",
            "http://localhost",
            "a,b",
            "%6cocalhost",
            "::1",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[::1]:x",
            "[127.0.0.1]",
            "[localhost]",
            "[[::1]]",
            "[fe80::1%25eth0]",
            "café",
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(InvalidHost), "{text}");
        }
    }
}
