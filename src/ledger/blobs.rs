//! Stores artifacts, inputs and logs as objects, in a folder or in a bucket.

mod bucket;
mod error;
mod path;
mod patience;
mod probe;

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as ObjectPath};
use tokio::sync::Semaphore;

use crate::{config, generation::GenerationId, metrics::Metrics};

pub use error::BlobError;
use error::Result;
pub(super) use error::is_full;
pub use path::{fence_of, path_of, path_of_credentials, path_of_input, path_of_part};
use patience::{Kind, Waiter, persist};

/// A handle to the store of artifacts, inputs and logs.
#[derive(Clone)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    settings: config::Blobs,
    /// The folder of the store; `None` for a bucket.
    folder: Option<PathBuf>,
    /// Each running operation holds one permit, so that the number of open files and connections is bounded.
    room: Arc<Semaphore>,
    metrics: Metrics,
}

impl Blobs {
    /// Opens the blob store that the settings name.
    ///
    /// # Errors
    /// The folder cannot be created. A bucket is not contacted before [`Blobs::check`].
    pub fn open(settings: &config::Blobs, data_dir: &Path) -> Result<Blobs> {
        let (objects, folder): (Arc<dyn ObjectStore>, _) = match settings.bucket() {
            Some((name, prefix)) => {
                let objects = bucket::open(settings, name, prefix).map_err(|error| error.at(&settings.url))?;
                (Arc::new(objects), None)
            }
            None => {
                let dir = data_dir.join("blobs");
                fs::create_dir_all(&dir)?;
                // A row that names a blob is committed after the blob was put, so the blob must survive a power failure
                // as the row does: file and folders are synced before `put` returns.
                let objects = LocalFileSystem::new_with_prefix(&dir)?.with_fsync(true).with_automatic_cleanup(true);
                (Arc::new(objects), Some(dir))
            }
        };
        let room = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Ok(Blobs { objects, settings: settings.clone(), folder, room, metrics: Metrics::new() })
    }

    /// Counts and times the operations in these metrics.
    pub fn counted_in(self, metrics: Metrics) -> Blobs {
        Blobs { metrics, ..self }
    }

    /// Limits how many operations run at a time. Each operation has about [`Blobs::FILES`] open files or connections.
    pub fn at_most(self, operations: usize) -> Blobs {
        Blobs { room: Arc::new(Semaphore::new(operations.clamp(1, Semaphore::MAX_PERMITS))), ..self }
    }

    /// Open files of an operation: a file and its folder, or a folder within another.
    pub const FILES: usize = 2;

    /// Checks at the start of a process that a bucket can store, read and erase files.
    ///
    /// # Errors
    /// [`BlobError::Unusable`], which names the setting that is most likely wrong.
    pub async fn check(&self) -> Result<()> {
        if self.folder.is_some() {
            return Ok(());
        }
        let (path, written) = (format!("check/{}", uuid::Uuid::now_v7()), Bytes::from_static(b"latentd was here"));
        let checked = async {
            self.put_promptly(&path, written.clone()).await?;
            let read = self.get(&path).await?;
            self.delete(&path).await?;
            let differs = || BlobError::Io(io::Error::other("the file was read back with other contents"));
            if read == Some(written) { Ok(()) } else { Err(differs()) }
        };
        checked.await.map_err(|error| error.at(&self.settings.url))
    }

    /// Stores a file. When this returns, the file is durable; readers see all of it or nothing. A failing bucket, or a
    /// folder for which there are no file descriptors, is tried again for `blobs.upload_timeout_s`, so a worker must
    /// renew its lease meanwhile.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.put_while(Waiter::Worker, path, bytes).await
    }

    /// Like [`Blobs::put`], but for a waiting client: tries for at most `blobs.answer_timeout_s`.
    pub async fn put_promptly(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.put_while(Waiter::Client, path, bytes).await
    }

    async fn put_while(&self, waiting: Waiter, path: &str, bytes: Bytes) -> Result<()> {
        let location = ObjectPath::parse(path)?;
        let attempt = || async { self.objects.put(&location, bytes.clone().into()).await.map_err(BlobError::from) };
        self.persist("put", waiting, attempt).await?;
        Ok(())
    }

    /// The whole file; `None` if there is none. A failure of the store is an error.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let location = ObjectPath::parse(path)?;
        let attempt = || async {
            let found = match self.objects.get(&location).await {
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
        self.persist("get", Waiter::Client, attempt).await
    }

    /// Erases a file. A missing file is not an error.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let location = ObjectPath::parse(path)?;
        let attempt = || async {
            match self.objects.delete(&location).await {
                Ok(()) => Ok(()),
                Err(error) if error::is_absence(&error) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        self.persist("delete", Waiter::Client, attempt).await
    }

    /// The generations that have files.
    pub async fn generations(&self) -> Result<Vec<GenerationId>> {
        self.folders(path::GENERATIONS).await
    }

    /// The generations that have a log.
    pub async fn logs(&self) -> Result<Vec<GenerationId>> {
        self.folders(path::LOGS).await
    }

    /// The fences of the attempts that have stored artifacts.
    pub async fn fences(&self, id: GenerationId) -> Result<Vec<i64>> {
        self.folders(&path::folder_of(id)).await
    }

    /// The paths of the log portions of all attempts, in the order in which they were written.
    pub async fn parts(&self, id: GenerationId) -> Result<Vec<String>> {
        let order = |file: ObjectMeta| {
            let path = file.location.to_string();
            let mut numbers = path.rsplit('/').map(|number| number.parse::<i64>().ok());
            let index = numbers.next()??;
            Some((numbers.next()??, index, path))
        };
        let mut parts: Vec<_> = self.files(&path::log_of(id)).await?.into_iter().filter_map(order).collect();
        parts.sort_unstable();
        Ok(parts.into_iter().map(|(_, _, path)| path).collect())
    }

    /// Erases the log of a generation.
    pub async fn delete_log(&self, id: GenerationId) -> Result<()> {
        self.delete_folder(&path::log_of(id)).await
    }

    /// Erases the artifacts of all attempts except the one with the fence `winner`. The request's pictures stay.
    pub async fn delete_losers(&self, id: GenerationId, winner: Option<i64>) -> Result<()> {
        self.delete_attempts(id, &self.fences(id).await?, winner).await
    }

    /// Like [`Blobs::delete_losers`], for these attempts only. The caller lists `fences` and then checks that the
    /// generation has ended. So an attempt that begins after the listing is not in `fences` and loses nothing.
    pub async fn delete_attempts(&self, id: GenerationId, fences: &[i64], winner: Option<i64>) -> Result<()> {
        for fence in fences.iter().filter(|fence| Some(**fence) != winner) {
            self.delete_folder(&path::folder_of_attempt(id, *fence)).await?;
        }
        Ok(())
    }

    /// When the newest file of a generation was stored, not counting its log; `None` if there is none.
    pub async fn last_stored(&self, id: GenerationId) -> Result<Option<SystemTime>> {
        let files = self.files(&path::folder_of(id)).await?;
        Ok(files.iter().map(|file| file.last_modified).max().map(SystemTime::from))
    }

    /// Erases all files of a generation: its log, the pictures of its request, the artifacts of every fence, and the
    /// partial files of a killed process, which the store does not list.
    pub async fn delete_generation(&self, id: GenerationId) -> Result<()> {
        self.delete_log(id).await?;
        self.delete_folder(&path::folder_of(id)).await
    }

    /// All files within a folder and its subfolders.
    async fn files(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let folder = ObjectPath::parse(folder)?;
        let attempt = || async { Ok(self.objects.list(Some(&folder)).try_collect().await?) };
        self.persist("list", Waiter::Client, attempt).await
    }

    /// The names of the folders within a folder, parsed. Names that cannot be parsed are skipped.
    async fn folders<T: FromStr>(&self, folder: &str) -> Result<Vec<T>> {
        let folder = ObjectPath::parse(folder)?;
        let attempt = || async { Ok(self.objects.list_with_delimiter(Some(&folder)).await?.common_prefixes) };
        let folders = self.persist("list", Waiter::Client, attempt).await?;
        Ok(folders.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    async fn delete_folder(&self, folder: &str) -> Result<()> {
        if let Some(dir) = &self.folder {
            let folder = dir.join(folder);
            let attempt = || async {
                let folder = folder.clone();
                let erased = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await;
                match erased.map_err(io::Error::other)? {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                    _ => Ok(()),
                }
            };
            return self.persist("delete", Waiter::Client, attempt).await;
        }
        // Each request erases up to a thousand files.
        let folder = ObjectPath::parse(folder)?;
        let attempt = || async {
            let found = self.objects.list(Some(&folder)).map_ok(|file| file.location).boxed();
            self.objects.delete_stream(found).try_for_each(|_| async { Ok(()) }).await.map_err(BlobError::from)
        };
        self.persist("delete", Waiter::Client, attempt).await
    }

    /// Repeats an operation that fails but may succeed later. Each try waits for a permit of `room`.
    async fn persist<T, F>(&self, operation: &str, waiting: Waiter, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let kind = if self.folder.is_some() { Kind::Folder } else { Kind::Bucket };
        let in_turn = || {
            let attempt = attempt();
            async {
                let _room = self.room.acquire().await.map_err(io::Error::other)?;
                let begun = Instant::now();
                let done = attempt.await;
                let Metrics { object_store_seconds, object_store_failures, .. } = &self.metrics;
                object_store_seconds.with_label_values(&[operation]).observe(begun.elapsed().as_secs_f64());
                if done.is_err() {
                    object_store_failures.with_label_values(&[operation]).inc();
                }
                done
            }
        };
        persist(&self.settings, kind, waiting, in_turn).await
    }
}

/// Shows the place only, without the keys of a bucket.
impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.folder {
            Some(dir) => f.debug_tuple("Blobs").field(dir).finish(),
            None => f.debug_tuple("Blobs").field(&self.settings.url).finish(),
        }
    }
}
