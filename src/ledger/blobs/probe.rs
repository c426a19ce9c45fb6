//! Tries every operation of a store once, for `latentd doctor`.

use std::io;

use bytes::Bytes;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, path::Path};

use super::{BlobError, Blobs, error::Result};

impl Blobs {
    /// Stores, reads and erases an object, without retries, and returns whether the store refuses to replace an object
    /// by a conditional put. Erases the object also after a failure.
    ///
    /// # Errors
    /// [`BlobError::Unusable`], which names the setting that is most likely wrong.
    pub async fn probe(&self) -> Result<bool> {
        let location = Path::parse(format!("check/{}", uuid::Uuid::now_v7()))?;
        let probed = self.probe_at(&location).await;
        let erased = self.objects.delete(&location).await;
        let probed = probed.and_then(|is_conditional| erased.map(|()| is_conditional).map_err(BlobError::from));
        probed.map_err(|error| error.at(&self.settings.url))
    }

    async fn probe_at(&self, location: &Path) -> Result<bool> {
        let written = Bytes::from_static(b"latentd was here");
        self.objects.put(location, written.clone().into()).await?;
        if self.objects.get(location).await?.bytes().await? != written {
            return Err(BlobError::Io(io::Error::other("the file was read back with other contents")));
        }
        let create = PutOptions::from(PutMode::Create);
        let again = self.objects.put_opts(location, written.into(), create).await;
        Ok(matches!(again, Err(Error::AlreadyExists { .. } | Error::Precondition { .. })))
    }
}
