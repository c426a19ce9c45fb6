//! The section `[provenance]`: how pictures are marked as made by a model.

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Whether the files of pictures are signed.
    pub credentials: bool,
    /// A PEM file, or PEM text. If this and `private_key` are empty, the server makes its own certificate.
    pub certificate: String,
    /// A PEM file, or PEM text.
    pub private_key: Secret,
    /// A PEM file, or PEM text; may be empty.
    pub trust_anchors: String,
    /// Whether a request may ask for unsigned files.
    pub opt_out: bool,
}

impl Provenance {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.certificate.is_empty() != self.private_key.is_empty() {
            let detail = "and provenance.private_key belong together: set both or neither";
            return ConfigError::bound("provenance.certificate", detail);
        }
        Ok(())
    }
}
