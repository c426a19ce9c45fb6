//! The section `[operator]`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, HostPattern, Secret, words};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    #[serde(deserialize_with = "words::address")]
    pub bind: SocketAddr,
    pub allowed_hosts: Vec<HostPattern>,
    /// If empty, and if other machines may reach the listener, a file in the data folder contains the token. If they
    /// cannot, no token is required.
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
