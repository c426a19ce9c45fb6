//! Artifacts, inputs and logs as objects, in a folder or in a bucket.

mod bucket;
mod error;
mod path;
mod patience;

use std::{fs, io, path::Path, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as Location};

use crate::{config, generation::GenerationId};

use bucket::Bucket;
pub use error::BlobError;
pub(super) use error::is_full;
pub use path::{fence_of, path_of, path_of_input, path_of_part};
use patience::Waiting;

/// A handle to the store of artifacts, inputs and logs.
#[derive(Clone)]
pub struct Blobs {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Folder(Arc<LocalFileSystem>),
    Bucket(Bucket),
}

impl Blobs {
    /// The blobs that the settings name.
    ///
    /// # Errors
    /// The folder cannot be created. Of a bucket nothing is known before [`Blobs::check`].
    pub fn open(settings: &config::Blobs, data_dir: &Path) -> Result<Blobs, BlobError> {
        match settings.bucket() {
            Some((bucket, prefix)) => {
                let opened = Bucket::open(settings, bucket, prefix).map_err(|error| BlobError::Unusable {
                    key: error.setting(),
                    place: settings.url.clone(),
                    source: Box::new(error),
                })?;
                Ok(Blobs { place: Place::Bucket(opened) })
            }
            None => Blobs::local(&data_dir.join("blobs")),
        }
    }

    /// Blobs in the folder `dir`, which is created where it is missing.
    pub fn local(dir: &Path) -> Result<Blobs, BlobError> {
        fs::create_dir_all(dir)?;
        // A row that names a blob is committed after the blob was put, so the blob must survive a power cut as the row
        // does: file and folders are synced before `put` returns.
        let folder = LocalFileSystem::new_with_prefix(dir)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Blobs { place: Place::Folder(Arc::new(folder)) })
    }

    /// Proves that files can be stored, read and erased, for the start of a process.
    ///
    /// # Errors
    /// [`BlobError::Unusable`], which names the setting that is most likely wrong.
    pub async fn check(&self) -> Result<(), BlobError> {
        match &self.place {
            Place::Folder(_) => Ok(()),
            Place::Bucket(bucket) => bucket.check().await,
        }
    }

    /// Stores a file. When this returns it is durable; readers see all of it or nothing. A bucket that fails is asked again
    /// for `blobs.upload_timeout_s`, so a lease must be renewed meanwhile.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.put_while(Waiting::Worker, path, bytes).await
    }

    /// As [`Blobs::put`], for no longer than a client waits: `blobs.answer_timeout_s`.
    pub async fn put_promptly(&self, path: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.put_while(Waiting::Client, path, bytes).await
    }

    async fn put_while(&self, waiting: Waiting, path: &str, bytes: Bytes) -> Result<(), BlobError> {
        let location = Location::parse(path)?;
        let attempt = || async { self.objects().put(&location, bytes.clone().into()).await.map_err(BlobError::from) };
        self.persist(waiting, attempt).await?;
        Ok(())
    }

    /// The file, whole; `None` where there is none, which is another thing than a store that fails.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, BlobError> {
        let location = Location::parse(path)?;
        let attempt = || async {
            let found = match self.objects().get(&location).await {
                Ok(found) => found,
                Err(error) if error::is_absence(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let size = found.meta.size;
            let bytes = found.bytes().await?;
            if bytes.len() as u64 != size {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok(Some(bytes))
        };
        self.persist(Waiting::Client, attempt).await
    }

    /// Erases a file; one that is not there is as good as erased.
    pub async fn delete(&self, path: &str) -> Result<(), BlobError> {
        let location = Location::parse(path)?;
        let attempt = || async {
            match self.objects().delete(&location).await {
                Ok(()) => Ok(()),
                Err(error) if error::is_absence(&error) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        self.persist(Waiting::Client, attempt).await
    }

    /// The generations that have a file here.
    pub async fn generations(&self) -> Result<Vec<GenerationId>, BlobError> {
        self.ids_in(path::GENERATIONS).await
    }

    /// The generations that have a log here.
    pub async fn logs(&self) -> Result<Vec<GenerationId>, BlobError> {
        self.ids_in(path::LOGS).await
    }

    async fn ids_in(&self, folder: &str) -> Result<Vec<GenerationId>, BlobError> {
        let folders = self.folders_in(&Location::parse(folder)?).await?;
        Ok(folders.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    async fn folders_in(&self, folder: &Location) -> Result<Vec<Location>, BlobError> {
        let attempt = || async { Ok(self.objects().list_with_delimiter(Some(folder)).await?.common_prefixes) };
        self.persist(Waiting::Client, attempt).await
    }

    /// The paths of the parts of all attempts' logs, in the order in which they were written.
    pub async fn parts(&self, id: GenerationId) -> Result<Vec<String>, BlobError> {
        let folder = Location::parse(path::log_of(id))?;
        let attempt = || async {
            let listed = self.objects().list(Some(&folder));
            Ok(listed.map_ok(|part| part.location.to_string()).try_collect::<Vec<_>>().await?)
        };
        let paths = self.persist(Waiting::Client, attempt).await?;
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
        self.delete_folder(&Location::parse(path::log_of(id))?).await
    }

    /// The fences of the attempts that have stored artifacts.
    pub async fn fences(&self, id: GenerationId) -> Result<Vec<i64>, BlobError> {
        let folders = self.folders_in(&Location::parse(path::folder_of(id))?).await?;
        Ok(folders.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    /// Erases the artifacts of all attempts of a generation that is over but the one that has succeeded, if one has. What
    /// the request brought along stays.
    pub async fn delete_losers(&self, id: GenerationId, winner: Option<i64>) -> Result<(), BlobError> {
        self.delete_attempts(id, &self.fences(id).await?, winner).await
    }

    /// As [`Blobs::delete_losers`], of these attempts alone, which are to be looked up before it is known that the generation
    /// is over: one that is taken up again in between then has a fence that is not among them.
    pub async fn delete_attempts(
        &self,
        id: GenerationId,
        fences: &[i64],
        winner: Option<i64>,
    ) -> Result<(), BlobError> {
        for fence in fences.iter().filter(|fence| Some(**fence) != winner) {
            self.delete_folder(&Location::parse(path::folder_of_attempt(id, *fence))?).await?;
        }
        Ok(())
    }

    /// When the newest file of a generation was stored, its log aside; `None` where it has none.
    pub async fn last_stored(&self, id: GenerationId) -> Result<Option<SystemTime>, BlobError> {
        let folder = Location::parse(path::folder_of(id))?;
        let attempt = || async {
            let files = self.objects().list(Some(&folder));
            Ok(files.map_ok(|file| file.last_modified).try_collect::<Vec<_>>().await?)
        };
        let times = self.persist(Waiting::Client, attempt).await?;
        Ok(times.into_iter().max().map(SystemTime::from))
    }

    /// Erases everything of a generation: its log, what its request brought along, the artifacts of every fence, and
    /// half-written files of a process that was killed, which are no objects yet and which nothing else could name.
    pub async fn delete_generation(&self, id: GenerationId) -> Result<(), BlobError> {
        self.delete_log(id).await?;
        self.delete_folder(&Location::parse(path::folder_of(id))?).await
    }

    async fn delete_folder(&self, folder: &Location) -> Result<(), BlobError> {
        match &self.place {
            Place::Folder(files) => {
                let folder = files.path_to_filesystem(folder)?;
                let erased = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await;
                match erased.map_err(io::Error::other)? {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                    _ => Ok(()),
                }
            }
            Place::Bucket(bucket) => bucket.delete_folder(folder).await,
        }
    }

    fn objects(&self) -> &dyn ObjectStore {
        match &self.place {
            Place::Folder(folder) => folder.as_ref(),
            Place::Bucket(bucket) => bucket.objects.as_ref(),
        }
    }

    /// A disk is not asked again: what it says is so.
    async fn persist<T, F>(&self, waiting: Waiting, mut attempt: impl FnMut() -> F) -> Result<T, BlobError>
    where
        F: Future<Output = Result<T, BlobError>>,
    {
        match &self.place {
            Place::Folder(_) => attempt().await,
            Place::Bucket(bucket) => bucket.patience.persist(waiting, attempt).await,
        }
    }
}

/// The place alone: a bucket's key is nobody's concern.
impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Folder(folder) => f.debug_tuple("Blobs").field(folder).finish(),
            Place::Bucket(bucket) => f.debug_tuple("Blobs").field(&bucket.url).finish(),
        }
    }
}
