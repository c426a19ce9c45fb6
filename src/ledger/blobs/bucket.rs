//! Blobs in a bucket of a store that speaks S3.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Location,
    prefix::PrefixStore,
};

use super::{
    BlobError,
    patience::{Patience, Waiting},
};
use crate::config;

/// The files below one prefix of a bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    pub objects: Arc<PrefixStore<AmazonS3>>,
    pub patience: Patience,
    /// As the settings name it.
    pub url: String,
}

impl Bucket {
    /// Connects to nothing yet.
    pub fn open(settings: &config::Blobs, bucket: &str, prefix: &str) -> Result<Bucket, BlobError> {
        let client = ClientOptions::new()
            .with_allow_http(settings.allow_http)
            .with_connect_timeout(settings.connect_timeout_s.into())
            .with_timeout(settings.request_timeout_s.into());
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(!settings.path_style)
            .with_client_options(client)
            // `Patience` asks again, whatever failed and with one bound for all of it.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        if !settings.endpoint.is_empty() {
            builder = builder.with_endpoint(&settings.endpoint);
        }
        if !settings.secret_access_key.is_empty() {
            builder = builder
                .with_access_key_id(&settings.access_key_id)
                .with_secret_access_key(settings.secret_access_key.expose());
        }
        let objects = PrefixStore::new(builder.build()?, Location::parse(prefix)?);
        Ok(Bucket { objects: Arc::new(objects), patience: Patience::of(settings), url: settings.url.clone() })
    }

    /// Stores, reads and erases a small file.
    ///
    /// # Errors
    /// [`BlobError::Unusable`], which names the setting that is most likely wrong.
    pub async fn check(&self) -> Result<(), BlobError> {
        let location = Location::from(format!("check/{}", uuid::Uuid::now_v7()));
        let written = Bytes::from_static(b"latentd was here");
        let attempt = || async {
            self.objects.put(&location, written.clone().into()).await?;
            let read = self.objects.get(&location).await?.bytes().await?;
            self.objects.delete(&location).await?;
            if read != written {
                return Err(BlobError::Io(std::io::Error::other("it did not give back what was written")));
            }
            Ok(())
        };
        let checked = self.patience.persist(Waiting::Client, attempt).await;
        checked.map_err(|error| BlobError::Unusable {
            key: error.setting(),
            place: self.url.clone(),
            source: Box::new(error),
        })
    }

    /// Erases every file below the folder, a thousand with each request.
    pub async fn delete_folder(&self, folder: &Location) -> Result<(), BlobError> {
        let attempt = || async {
            let found = self.objects.list(Some(folder)).map_ok(|file| file.location).boxed();
            self.objects.delete_stream(found).try_for_each(|_| async { Ok(()) }).await.map_err(BlobError::from)
        };
        self.patience.persist(Waiting::Client, attempt).await
    }
}
