//! The section `[webhooks]`.

use std::{fmt, net::IpAddr, num::NonZeroUsize, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, Seconds, one_or_more::one_or_more};
use crate::generation::SigningSecret;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Signs the messages to URLs that requests name. If `None`, requests that name a URL are refused.
    #[serde(deserialize_with = "optional_secret", serialize_with = "hidden_secret")]
    pub secret: Option<SigningSecret>,
    pub allow_http: bool,
    #[serde(deserialize_with = "one_or_more")]
    pub ports: Vec<u16>,
    pub allow_hosts: Vec<AllowedHost>,
    pub max_endpoints: NonZeroUsize,
    pub max_in_flight: NonZeroUsize,
    pub timeout_s: Seconds,
    #[serde(deserialize_with = "one_or_more")]
    pub retry_s: Vec<f64>,
    pub rotation_s: Seconds,
}

impl Webhooks {
    /// The wait before the first try, and then after each failed try.
    pub fn waits(&self) -> Vec<Duration> {
        self.retry_s.iter().map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_WAIT_S))).collect()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bound = ConfigError::bound;
        if self.retry_s.first() != Some(&0.0) || self.retry_s.len() > 32 {
            return bound("webhooks.retry_s", "must have 1 to 32 entries and begin with 0, for the first try");
        }
        if !self.retry_s.iter().all(|seconds| (0.0..=LONGEST_WAIT_S).contains(seconds)) {
            return bound("webhooks.retry_s", "must be between 0 and 864000 seconds each");
        }
        if self.ports.is_empty() || self.ports.contains(&0) {
            return bound("webhooks.ports", "must name one port or more, from 1 to 65535");
        }
        Ok(())
    }
}

const LONGEST_WAIT_S: f64 = 864_000.0;

fn optional_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SigningSecret>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    SigningSecret::parse(&text).map(Some).map_err(serde::de::Error::custom)
}

/// Hides the secret, because printed settings are often shared.
fn hidden_secret<S: Serializer>(secret: &Option<SigningSecret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.is_some() { "(hidden)" } else { "" })
}

/// A destination outside the public internet that the operator allows for webhooks: a host name, or a network of
/// addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHost {
    Name(String),
    Network { address: IpAddr, prefix: u8 },
}

impl AllowedHost {
    pub fn contains(&self, address: IpAddr) -> bool {
        let AllowedHost::Network { address: network, prefix } = self else { return false };
        let shared = match (network, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        shared >= u32::from(*prefix)
    }

    pub fn is_named(&self, host: &str) -> bool {
        matches!(self, AllowedHost::Name(name) if name.eq_ignore_ascii_case(host))
    }
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        match (address.parse::<IpAddr>(), prefix) {
            (Ok(address), prefix) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.map_or(Ok(most), str::parse).ok().filter(|prefix| *prefix <= most);
                let prefix = prefix.ok_or_else(|| format!("{text:?} must end in / and a number from 0 to {most}"))?;
                Ok(AllowedHost::Network { address, prefix })
            }
            (Err(_), None) if is_name(text) => Ok(AllowedHost::Name(text.to_owned())),
            (Err(_), _) => Err(format!("{text:?} is no host, no address and no network such as 10.0.0.0/8")),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllowedHost::Name(name) => f.write_str(name),
            AllowedHost::Network { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

impl<'de> Deserialize<'de> for AllowedHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for AllowedHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn networks_hold_their_addresses() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::1", "::1", true),
        ];
        for (network, address, inside) in cases {
            let network: AllowedHost = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "a/8", "a b", "https://a"] {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
        let name: AllowedHost = "Hooks.internal".parse().unwrap();
        assert!(name.is_named("hooks.internal") && !name.is_named("internal"));
    }

    fn load(pairs: &[(&str, &str)]) -> Result<Webhooks, ConfigError> {
        let environment = pairs.iter().map(|(key, value)| (format!("LATENTD_WEBHOOKS__{key}"), (*value).to_owned()));
        Config::load(&Sources { environment: environment.collect(), ..Sources::default() })
            .map(|config| config.webhooks)
    }

    #[test]
    fn lists_come_from_the_environment() {
        let secret = SigningSecret::from_key(vec![1; 32]).unwrap();
        let webhooks = load(&[
            ("PORTS", "443,9000"),
            ("RETRY_S", "0,0.5,2"),
            ("ALLOW_HOSTS", "127.0.0.1,fd00::/8,hooks.internal"),
            ("SECRET", &secret.reveal()),
        ]);
        let webhooks = webhooks.unwrap();
        assert_eq!(webhooks.ports, [443, 9000]);
        assert_eq!(webhooks.waits(), [0.0, 0.5, 2.0].map(Duration::from_secs_f64));
        let hosts: Vec<String> = webhooks.allow_hosts.iter().map(AllowedHost::to_string).collect();
        assert_eq!(hosts, ["127.0.0.1/32", "fd00::/8", "hooks.internal"]);
        assert_eq!(webhooks.secret, Some(secret.clone()));
        let single = load(&[("PORTS", "9000"), ("RETRY_S", "0"), ("ALLOW_HOSTS", "::1")]).unwrap();
        assert_eq!((single.ports, single.retry_s, single.allow_hosts.len()), (vec![9000], vec![0.0], 1));
        assert!(!format!("{webhooks:?}").contains(&secret.reveal()));
        assert!(!toml::to_string(&webhooks).unwrap().contains(&secret.reveal()));
    }

    #[test]
    fn unusable_webhook_settings_are_refused() {
        for (key, value) in [
            ("RETRY_S", "5,10"),
            ("RETRY_S", "0,-1"),
            ("RETRY_S", "0,864001"),
            ("PORTS", "0"),
            ("PORTS", "65536"),
            ("ALLOW_HOSTS", "10.0.0.0/40"),
            ("SECRET", "whsec_short"),
            ("MAX_IN_FLIGHT", "0"),
        ] {
            assert!(load(&[(key, value)]).is_err(), "{key}={value}");
        }
        assert!(load(&[]).unwrap().secret.is_none());
    }
}
