//! The section `[http]`: the public listener.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, HostPattern, Origin, Seconds, Secret, words};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    #[serde(deserialize_with = "words::address")]
    pub bind: SocketAddr,
    /// If empty, a listener on a loopback address accepts only local names, and any other listener accepts every name.
    pub allowed_hosts: Vec<HostPattern>,
    pub cors_origins: Vec<Origin>,
    /// The beginning of links. If empty, links are paths, unless the headers of a proxy state scheme and host.
    pub public_url: String,
    pub trust_forwarded: bool,
    pub max_body_bytes: usize,
    pub max_bodies_bytes: usize,
    pub max_header_bytes: usize,
    pub max_connections: usize,
    /// 0 means no bound.
    pub max_connections_per_address: usize,
    /// Concurrent requests of one HTTP/2 connection, at least 1.
    pub max_streams: u32,
    pub max_unread_bytes: usize,
    pub header_timeout_s: Seconds,
    pub body_timeout_s: Seconds,
    pub idle_timeout_s: Seconds,
    pub write_timeout_s: Seconds,
    pub wait_default_s: Seconds,
    pub wait_max_s: Seconds,
    pub ping_interval_s: Seconds,
    pub return_s: Seconds,
    /// If empty, the URLs of pictures and events are not signed.
    pub url_secret: Secret,
    pub url_expiry_s: Seconds,
}

impl Http {
    /// Checks the bounds that types do not express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bound = ConfigError::bound;
        if !self.public_url.is_empty() && !is_base(&self.public_url) {
            let detail = "must be empty or an address such as https://images.example.com or https://example.com/ai, \
                          without a query";
            return bound("http.public_url", detail);
        }
        if self.max_bodies_bytes < self.max_body_bytes {
            return bound("http.max_bodies_bytes", "must be at least http.max_body_bytes");
        }
        if self.max_header_bytes < 8192 {
            return bound("http.max_header_bytes", "must be at least 8192");
        }
        if !self.url_secret.is_empty() && self.url_secret.expose().len() < 16 {
            return bound("http.url_secret", "must be empty or have at least 16 bytes");
        }
        if self.max_connections == 0 {
            return bound("http.max_connections", "must be at least 1");
        }
        if self.max_streams == 0 {
            return bound("http.max_streams", "must be at least 1");
        }
        Ok(())
    }
}

/// Whether a text is the address of a server, with a path or without.
fn is_base(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~%:/[]".contains(c);
    rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && rest.chars().all(is_part)
}
