//! Opens a bucket of a store with the S3 protocol.

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Location,
    prefix::PrefixStore,
};

use super::BlobError;
use crate::config;

/// Opens the files below one prefix of a bucket, without connecting to the store yet.
pub fn open(settings: &config::Blobs, bucket: &str, prefix: &str) -> Result<PrefixStore<AmazonS3>, BlobError> {
    let client = ClientOptions::new()
        .with_allow_http(settings.allow_http)
        .with_connect_timeout(settings.connect_timeout_s.into())
        .with_timeout(settings.request_timeout_s.into());
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&settings.region)
        .with_virtual_hosted_style_request(!settings.path_style)
        .with_client_options(client)
        // `persist` retries instead, with one time limit for all tries together.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(&settings.endpoint);
    }
    if !settings.secret_access_key.is_empty() {
        builder = builder
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(settings.secret_access_key.expose());
    }
    Ok(PrefixStore::new(builder.build()?, Location::parse(prefix)?))
}
