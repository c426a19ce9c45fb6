//! The section `[blobs]`: where pictures, uploads and logs are stored.

use serde::{Deserialize, Serialize};

use super::{ConfigError, Seconds, Secret};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blobs {
    /// If empty, the folder `blobs` in `data_dir`. Otherwise `s3://BUCKET` or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// If empty, the AWS endpoint of the region.
    pub endpoint: String,
    pub region: String,
    /// If this and `secret_access_key` are empty, the credentials of the machine's role are used.
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub path_style: bool,
    pub allow_http: bool,
    pub connect_timeout_s: Seconds,
    pub request_timeout_s: Seconds,
    pub answer_timeout_s: Seconds,
    pub upload_timeout_s: Seconds,
    pub retry_pause_max_s: Seconds,
}

impl Blobs {
    /// Bucket and prefix; `None` if blobs are stored in a folder.
    pub fn bucket(&self) -> Option<(&str, &str)> {
        let place = self.url.strip_prefix("s3://")?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        Some((bucket, prefix.trim_matches('/')))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bound = ConfigError::bound;
        if self.url.is_empty() {
            return Ok(());
        }
        if self.bucket().is_none_or(|(bucket, _)| bucket.is_empty()) {
            return bound("blobs.url", "must be empty (a folder within data_dir), s3://BUCKET or s3://BUCKET/PREFIX");
        }
        let is_web = ["https://", "http://"].iter().any(|scheme| self.endpoint.starts_with(scheme));
        if !self.endpoint.is_empty() && !is_web {
            return bound("blobs.endpoint", "must be empty (AWS) or begin with https:// or http://");
        }
        if self.endpoint.starts_with("http://") && !self.allow_http {
            return bound("blobs.endpoint", "is not encrypted; to allow this, set blobs.allow_http = true");
        }
        if self.access_key_id.is_empty() != self.secret_access_key.is_empty() {
            return bound("blobs.access_key_id", "and blobs.secret_access_key belong together: set both or neither");
        }
        if self.region.is_empty() {
            return bound("blobs.region", "must not be empty; stores without regions accept us-east-1");
        }
        Ok(())
    }
}
