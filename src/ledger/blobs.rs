//! Pictures and logs as objects.

use std::{error::Error, fs, io, path::Path, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as Location};

use crate::generation::GenerationId;

/// A handle to the store of pictures and logs: a folder.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: Arc<LocalFileSystem>,
}

/// A picture could not be stored, read or erased.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the disk is full")]
    StorageFull,
    #[error("not the path of a blob: {0}")]
    Path(#[from] object_store::path::Error),
    #[error("the blob store failed: {0}")]
    ObjectStore(#[source] object_store::Error),
    #[error("the blob store failed: {0}")]
    Io(#[source] io::Error),
}

/// Where the file of image `index` lies. The path contains the fence, so that a worker which lost its lease never
/// writes over the pictures of the one that has it.
pub fn path_of(id: GenerationId, fence: i64, index: u32) -> String {
    format!("{}/{fence}/{index}.png", folder_of(id))
}

/// Where a picture lies that a request brought along, named by the SHA-256 of its file.
pub fn path_of_input(id: GenerationId, sha256: &str) -> String {
    format!("{}/input/{sha256}.png", folder_of(id))
}

fn folder_of(id: GenerationId) -> String {
    format!("{GENERATIONS}/{id}")
}

/// Where part `index` lies of the log that the attempt with this fence has written.
pub fn path_of_part(id: GenerationId, fence: i64, index: u32) -> String {
    format!("{LOGS}/{id}/{fence}/{index}")
}

const LOGS: &str = "run";

const GENERATIONS: &str = "img/default";

impl Blobs {
    /// Blobs in the folder `dir`, which is created where it is missing.
    pub fn local(dir: &Path) -> Result<Blobs, BlobError> {
        fs::create_dir_all(dir)?;
        // A row that names a blob is committed after the blob was put, so the blob must survive a power cut as the row
        // does: file and folders are synced before `put` returns.
        let folder = LocalFileSystem::new_with_prefix(dir)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Blobs { folder: Arc::new(folder) })
    }

    /// Stores a file. When this returns it is durable; readers see all of it or nothing.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.folder.put(&Location::parse(path)?, bytes.into()).await?;
        Ok(())
    }

    /// The file; `None` where there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, BlobError> {
        match self.folder.get(&Location::parse(path)?).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Erases a file; one that is not there is as good as erased.
    pub async fn delete(&self, path: &str) -> Result<(), BlobError> {
        match self.folder.delete(&Location::parse(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The generations that have a file here.
    pub async fn generations(&self) -> Result<Vec<GenerationId>, BlobError> {
        self.ids_in(GENERATIONS).await
    }

    /// The generations that have a log here.
    pub async fn logs(&self) -> Result<Vec<GenerationId>, BlobError> {
        self.ids_in(LOGS).await
    }

    async fn ids_in(&self, folder: &str) -> Result<Vec<GenerationId>, BlobError> {
        let listed = self.folder.list_with_delimiter(Some(&Location::parse(folder)?)).await?;
        let names = listed.common_prefixes.iter().filter_map(|folder| folder.filename());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// The paths of the parts of all attempts' logs, in the order in which they were written.
    pub async fn parts(&self, id: GenerationId) -> Result<Vec<String>, BlobError> {
        let listed = self.folder.list(Some(&Location::parse(format!("{LOGS}/{id}"))?));
        let paths: Vec<String> = listed.map_ok(|part| part.location.to_string()).try_collect().await?;
        let order = |path: &String| {
            let mut numbers = path.rsplit('/').map(|number| number.parse::<i64>().ok());
            let index = numbers.next()??;
            Some((numbers.next()??, index, path.clone()))
        };
        let mut parts: Vec<_> = paths.iter().filter_map(order).collect();
        parts.sort_unstable();
        Ok(parts.into_iter().map(|(_, _, path)| path).collect())
    }

    /// Erases the log of a generation.
    pub async fn delete_log(&self, id: GenerationId) -> Result<(), BlobError> {
        self.delete_folder(format!("{LOGS}/{id}")).await
    }

    /// Erases everything of a generation: its log, what its request brought along, the pictures of every fence, and half-written
    /// files of a process that was killed, which are no objects yet and which nothing else could name.
    pub async fn delete_generation(&self, id: GenerationId) -> Result<(), BlobError> {
        self.delete_log(id).await?;
        self.delete_folder(folder_of(id)).await
    }

    async fn delete_folder(&self, folder: String) -> Result<(), BlobError> {
        let folder = self.folder.path_to_filesystem(&Location::parse(folder)?)?;
        let erased = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await;
        match erased.map_err(io::Error::other)? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.downcast_ref().is_some_and(is_full) {
                return BlobError::StorageFull;
            }
            cause = inner.source();
        }
        BlobError::ObjectStore(error)
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { BlobError::StorageFull } else { BlobError::Io(error) }
    }
}

/// ENOSPC and EDQUOT.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
