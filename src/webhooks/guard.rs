//! Decides which addresses webhooks may reach: by the form of the URL, and by the IP addresses of its host.

use std::net::IpAddr;

use reqwest::Url;

use super::address::is_global;
use crate::config::{AllowedHost, Webhooks};

/// The operator's rules for the addresses of webhooks.
#[derive(Clone, Debug)]
pub struct Guard {
    allow_http: bool,
    ports: Vec<u16>,
    allow_hosts: Vec<AllowedHost>,
}

/// Why an address is refused. The reason does not reveal which IP addresses a name resolves to, because clients must
/// not learn the addresses of internal hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("must be an absolute address, such as https://example.org/hook")]
    NoUrl,
    #[error("must begin with https://")]
    Scheme,
    #[error("must hold no user name and no password")]
    UserInfo,
    #[error("must have one of the ports {0}")]
    Port(String),
    #[error("must lead to a host of the public internet")]
    Address,
}

impl Guard {
    pub fn new(settings: &Webhooks) -> Guard {
        Guard {
            allow_http: settings.allow_http,
            ports: settings.ports.clone(),
            allow_hosts: settings.allow_hosts.clone(),
        }
    }

    /// Checks a URL without resolving the name of its host. If the host is an IP address, in any notation, that address
    /// is checked too.
    ///
    /// # Errors
    /// The first rule that the URL breaks.
    pub fn check_url(&self, text: &str) -> Result<Url, Forbidden> {
        let url = Url::parse(text).map_err(|_| Forbidden::NoUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ => return Err(Forbidden::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Forbidden::UserInfo);
        }
        let host = url.host_str().ok_or(Forbidden::NoUrl)?;
        if !url.port_or_known_default().is_some_and(|port| self.ports.contains(&port)) {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            return Err(Forbidden::Port(ports.join(", ")));
        }
        if let Some(address) = literal(host) {
            self.check_addresses(host, &[address])?;
        }
        Ok(url)
    }

    /// Checks the addresses of a host. One forbidden address is enough to refuse the host, because it is unknown which
    /// of its addresses a connection will use.
    ///
    /// # Errors
    /// [`Forbidden::Address`] if an address is forbidden.
    pub fn check_addresses(&self, host: &str, addresses: &[IpAddr]) -> Result<(), Forbidden> {
        if self.allow_hosts.iter().any(|allowed| allowed.is_named(host)) {
            return Ok(());
        }
        let allowed = |address: IpAddr| {
            let address = address.to_canonical();
            is_global(address) || self.allow_hosts.iter().any(|allowed| allowed.contains(address))
        };
        if addresses.iter().all(|address| allowed(*address)) { Ok(()) } else { Err(Forbidden::Address) }
    }
}

/// The IP address, if the host of a URL is an IP address. The parser of URLs has already converted decimal, octal and
/// hexadecimal forms into the usual one.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(pairs: &[(&str, &str)]) -> Guard {
        let environment = pairs.iter().map(|(key, value)| (format!("LATENTD_WEBHOOKS__{key}"), (*value).to_owned()));
        let sources = crate::config::Sources { environment: environment.collect(), ..Default::default() };
        Guard::new(&crate::config::Config::load(&sources).unwrap().webhooks)
    }

    #[test]
    fn the_form_of_the_url_decides() {
        let guard = guard(&[]);
        let port = || Forbidden::Port("443, 80, 8443".to_owned());
        let cases = [
            ("https://example.org", Ok(())),
            ("https://example.org/a?b=c", Ok(())),
            ("HTTPS://Example.ORG:8443/", Ok(())),
            ("https://8.8.8.8/", Ok(())),
            ("https://[2606:4700::1111]/", Ok(())),
            ("https://[::ffff:8.8.8.8]/", Ok(())),
            ("", Err(Forbidden::NoUrl)),
            ("example.org", Err(Forbidden::NoUrl)),
            ("/v1/images", Err(Forbidden::NoUrl)),
            ("https://", Err(Forbidden::NoUrl)),
            ("http://example.org", Err(Forbidden::Scheme)),
            ("ftp://example.org", Err(Forbidden::Scheme)),
            ("file:///etc/passwd", Err(Forbidden::Scheme)),
            ("gopher://127.0.0.1:70/", Err(Forbidden::Scheme)),
            ("https://user@example.org", Err(Forbidden::UserInfo)),
            ("https://user:word@example.org", Err(Forbidden::UserInfo)),
            ("https://example.org@127.0.0.1", Err(Forbidden::UserInfo)),
            ("https://example.org:22/", Err(port())),
            ("https://example.org:0/", Err(port())),
            ("https://127.0.0.1/", Err(Forbidden::Address)),
            ("https://127.1/", Err(Forbidden::Address)),
            ("https://2130706433/", Err(Forbidden::Address)),
            ("https://0x7f000001/", Err(Forbidden::Address)),
            ("https://0177.0.0.1/", Err(Forbidden::Address)),
            ("https://0x7f.0.0.0x1/", Err(Forbidden::Address)),
            ("https://127.0.0.1./", Err(Forbidden::Address)),
            ("https://①②⑦.⓪.⓪.①/", Err(Forbidden::Address)),
            ("https://%31%32%37.0.0.1/", Err(Forbidden::Address)),
            ("https://0/", Err(Forbidden::Address)),
            ("https://169.254.169.254/latest/meta-data/", Err(Forbidden::Address)),
            ("https://2852039166/", Err(Forbidden::Address)),
            ("https://10.0.0.1/", Err(Forbidden::Address)),
            ("https://[::1]/", Err(Forbidden::Address)),
            ("https://[::]/", Err(Forbidden::Address)),
            ("https://[::ffff:10.0.0.1]/", Err(Forbidden::Address)),
            ("https://[::ffff:a00:1]/", Err(Forbidden::Address)),
            ("https://[64:ff9b::a00:1]/", Err(Forbidden::Address)),
            ("https://[fe80::1]/", Err(Forbidden::Address)),
            ("https://[fd00::1]/", Err(Forbidden::Address)),
        ];
        for (url, expected) in cases {
            assert_eq!(guard.check_url(url).map(drop), expected, "{url}");
        }
    }

    #[test]
    fn each_setting_allows_only_what_it_names() {
        let inside = guard(&[("ALLOW_HTTP", "true"), ("PORTS", "9000"), ("ALLOW_HOSTS", "10.1.0.0/16,hooks.internal")]);
        let cases = [
            ("http://10.1.2.3:9000/", Ok(())),
            ("http://[::ffff:10.1.2.3]:9000/", Ok(())),
            ("http://167838211:9000/", Ok(())),
            ("http://hooks.internal:9000/", Ok(())),
            ("http://10.2.0.1:9000/", Err(Forbidden::Address)),
            ("http://10.1.2.3:9001/", Err(Forbidden::Port("9000".to_owned()))),
            ("http://127.0.0.1:9000/", Err(Forbidden::Address)),
        ];
        for (url, expected) in cases {
            assert_eq!(inside.check_url(url).map(drop), expected, "{url}");
        }
        let private = ["10.9.9.9".parse().unwrap()];
        assert_eq!(inside.check_addresses("Hooks.Internal", &private), Ok(()));
        assert_eq!(inside.check_addresses("hooks.internal.example.org", &private), Err(Forbidden::Address));
    }

    #[test]
    fn one_forbidden_address_of_a_host_forbids_the_host() {
        let guard = guard(&[]);
        let [public, loopback]: [IpAddr; 2] = ["8.8.8.8".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(guard.check_addresses("a.example", &[public]), Ok(()));
        assert_eq!(guard.check_addresses("a.example", &[public, loopback]), Err(Forbidden::Address));
        assert_eq!(guard.check_addresses("a.example", &[loopback, public]), Err(Forbidden::Address));
    }

    proptest! {
        #[test]
        fn no_notation_of_an_address_slips_through(bits: u32, form in 0usize..6) {
            let address = std::net::Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = address.octets();
            let host = match form {
                0 => bits.to_string(),
                1 => format!("{bits:#x}"),
                2 => format!("{:#o}", bits).replace("0o", "0"),
                3 => format!("{a:#x}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
                4 => format!("[::ffff:{address}]"),
                _ => address.to_string(),
            };
            let expected = if is_global(address.into()) { Ok(()) } else { Err(Forbidden::Address) };
            prop_assert_eq!(guard(&[]).check_url(&format!("https://{host}/")).map(drop), expected, "{}", host);
        }

        #[test]
        fn any_text_is_judged(text in ".{0,60}") {
            let _ = guard(&[]).check_url(&text);
        }
    }
}
