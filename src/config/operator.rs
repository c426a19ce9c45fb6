//! The section `[operator]`: the operator's listener.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, HostPattern, Secret, words};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    #[serde(deserialize_with = "words::address")]
    pub bind: SocketAddr,
    pub allowed_hosts: Vec<HostPattern>,
    /// If empty and `bind` is a loopback address, no token is required. If empty and other machines can reach the
    /// listener, the file `operator.token` in the data folder contains the token.
    pub token: Secret,
}

impl Operator {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.token.is_empty() && self.token.expose().len() < 16 {
            return ConfigError::bound("operator.token", "must be empty or have at least 16 bytes");
        }
        Ok(())
    }
}
