//! Tests of blobs: the same cases for a folder and for an S3 bucket, and tests of failing buckets.

use std::collections::BTreeSet;

use bytes::Bytes;
use latentd::{
    config::{Config, Sources},
    generation::GenerationId,
    ledger::{
        BlobError, Blobs,
        blobs::{self, fence_of, path_of_input, path_of_part},
    },
};

use crate::s3::{BUCKET, Mode, S3};

/// Storage of blobs for one test.
trait Storage {
    fn new() -> Self;
    fn open(&self) -> Blobs;
}

struct Folder(tempfile::TempDir);

impl Storage for Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Blobs {
        let settings = Config::load(&Sources::default()).unwrap().blobs;
        Blobs::open(&settings, &self.0.path().join("data")).unwrap()
    }
}

struct Bucket(S3);

impl Storage for Bucket {
    fn new() -> Self {
        Bucket(S3::start())
    }

    fn open(&self) -> Blobs {
        Blobs::open(&self.0.config(&[]), std::path::Path::new("nowhere")).unwrap()
    }
}

macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod folder {
            $(#[tokio::test] async fn $case() { super::$case(&<super::Folder as super::Storage>::new()).await; })*
        }
        mod bucket {
            $(#[tokio::test] async fn $case() { super::$case(&<super::Bucket as super::Storage>::new()).await; })*
        }
    };
}

on_both!(
    a_blob_is_readable_until_it_is_deleted,
    the_check_at_startup_passes,
    deleting_a_generation_deletes_all_its_blobs,
    only_the_successful_attempt_keeps_its_files,
    log_parts_are_listed_by_fence_and_index,
    generations_with_blobs_are_listed,
    paths_outside_the_storage_are_refused,
);

/// The path of a PNG artifact.
fn path_of(id: GenerationId, fence: i64, index: u32) -> String {
    blobs::path_of(id, fence, index, "png")
}

async fn a_blob_is_readable_until_it_is_deleted(storage: &impl Storage) {
    let blobs = storage.open();
    let path = path_of(GenerationId::new(), 3, 0);
    assert_eq!(blobs.get(&path).await.unwrap(), None);
    blobs.delete(&path).await.unwrap();
    for bytes in [Bytes::from_static(b"first"), Bytes::from(vec![7; 3_000_000]), Bytes::new()] {
        blobs.put(&path, bytes.clone()).await.unwrap();
        assert_eq!(blobs.get(&path).await.unwrap(), Some(bytes.clone()));
        assert_eq!(storage.open().get(&path).await.unwrap(), Some(bytes));
    }
    blobs.delete(&path).await.unwrap();
    assert_eq!(blobs.get(&path).await.unwrap(), None);
}

async fn the_check_at_startup_passes(storage: &impl Storage) {
    storage.open().check().await.unwrap();
}

async fn deleting_a_generation_deletes_all_its_blobs(storage: &impl Storage) {
    let blobs = storage.open();
    let (id, other) = (GenerationId::new(), GenerationId::new());
    let own =
        [path_of(id, 1, 0), path_of(id, 2, 0), path_of(id, 2, 1), path_of_input(id, "00"), path_of_part(id, 2, 0)];
    for path in own.iter().chain([&path_of(other, 1, 0)]) {
        blobs.put_promptly(path, Bytes::from_static(b"png")).await.unwrap();
    }
    blobs.delete_generation(id).await.unwrap();
    for path in own {
        assert_eq!(blobs.get(&path).await.unwrap(), None, "{path}");
    }
    assert!(blobs.get(&path_of(other, 1, 0)).await.unwrap().is_some());
    blobs.delete_generation(id).await.unwrap();
}

async fn only_the_successful_attempt_keeps_its_files(storage: &impl Storage) {
    let blobs = storage.open();
    let (id, other) = (GenerationId::new(), GenerationId::new());
    let (input, log) = (path_of_input(id, "0a"), path_of_part(id, 1, 0));
    let all =
        [path_of(id, 1, 0), path_of(id, 2, 0), path_of(id, 12, 0), input.clone(), log.clone(), path_of(other, 1, 0)];
    for path in &all {
        blobs.put(path, Bytes::from_static(b"png")).await.unwrap();
    }
    let left = async || {
        let mut left = Vec::new();
        for path in &all {
            left.extend(blobs.get(path).await.unwrap().map(|_| path.clone()));
        }
        left
    };
    let mut fences = blobs.fences(id).await.unwrap();
    fences.sort_unstable();
    assert_eq!(fences, [1, 2, 12]);
    blobs.put(&path_of(id, 13, 0), Bytes::from_static(b"png")).await.unwrap();
    blobs.delete_attempts(id, &fences, fence_of(&path_of(id, 2, 0))).await.unwrap();
    assert_eq!(blobs.fences(id).await.unwrap().len(), 2, "a fence that is not listed stays");
    blobs.delete_losers(id, Some(2)).await.unwrap();
    assert_eq!(left().await, [path_of(id, 2, 0), input.clone(), log.clone(), path_of(other, 1, 0)]);
    blobs.delete_losers(id, None).await.unwrap();
    assert_eq!(left().await, [input, log, path_of(other, 1, 0)]);
    let stored = blobs.last_stored(id).await.unwrap().expect("the input of the request stays");
    assert!(stored.elapsed().unwrap_or_default() < std::time::Duration::from_secs(600), "{stored:?}");
    assert_eq!(blobs.last_stored(GenerationId::new()).await.unwrap(), None);
    assert!(blobs.fences(GenerationId::new()).await.unwrap().is_empty());
}

async fn log_parts_are_listed_by_fence_and_index(storage: &impl Storage) {
    let blobs = storage.open();
    let id = GenerationId::new();
    let written: Vec<String> = [(1, 0), (1, 1), (2, 0), (2, 9), (2, 10), (11, 0)]
        .map(|(fence, index)| path_of_part(id, fence, index))
        .to_vec();
    for path in written.iter().rev() {
        blobs.put(path, Bytes::from_static(b"part")).await.unwrap();
    }
    assert_eq!(blobs.parts(id).await.unwrap(), written);
    assert_eq!(blobs.logs().await.unwrap(), [id]);
    blobs.delete_log(id).await.unwrap();
    assert_eq!(blobs.parts(id).await.unwrap(), [""; 0]);
    assert_eq!(blobs.logs().await.unwrap(), []);
}

async fn generations_with_blobs_are_listed(storage: &impl Storage) {
    let blobs = storage.open();
    assert_eq!(blobs.generations().await.unwrap(), []);
    let ids: BTreeSet<_> = (0..12).map(|_| GenerationId::new()).map(|id| id.to_string()).collect();
    for (index, id) in ids.iter().enumerate() {
        let id = id.parse().unwrap();
        let path = if index % 2 == 0 { path_of(id, 1, 0) } else { path_of_input(id, "00") };
        blobs.put(&path, Bytes::from_static(b"png")).await.unwrap();
    }
    let listed: BTreeSet<_> = blobs.generations().await.unwrap().iter().map(|id| id.to_string()).collect();
    assert_eq!(listed, ids);
    assert_eq!(blobs.logs().await.unwrap(), []);
}

async fn paths_outside_the_storage_are_refused(storage: &impl Storage) {
    let blobs = storage.open();
    for path in ["../secret", "img/../../secret", "img/./x"] {
        assert!(matches!(blobs.get(path).await, Err(BlobError::Path(_))), "{path}");
        assert!(matches!(blobs.put(path, Bytes::new()).await, Err(BlobError::Path(_))), "{path}");
    }
}

#[test]
fn paths_name_generation_fence_and_artifact() {
    let id = GenerationId::new();
    assert_eq!(path_of(id, 12, 3), format!("img/{id}/12/3.png"));
    assert_eq!(blobs::path_of(id, 12, 3, "jpg"), format!("img/{id}/12/3.jpg"));
    assert_eq!(path_of_input(id, "ab"), format!("img/{id}/input/ab.png"));
    assert_eq!(path_of_part(id, 12, 3), format!("run/{id}/12/3"));
    assert_eq!((fence_of(&path_of(id, 12, 3)), fence_of(&path_of_input(id, "ab"))), (Some(12), None));
}

#[tokio::test]
async fn half_written_files_of_a_folder_are_deleted() {
    let storage = Folder::new();
    let (blobs, dir) = (storage.open(), storage.0.path().join("data/blobs"));
    let id = GenerationId::new();
    for fence in [1, 2] {
        blobs.put(&path_of(id, fence, 0), Bytes::from_static(b"png")).await.unwrap();
        std::fs::write(dir.join(format!("{}#1", path_of(id, fence, 1))), "half").unwrap();
    }
    blobs.delete_losers(id, Some(2)).await.unwrap();
    assert!(!dir.join(format!("img/{id}/1")).exists());
    blobs.delete_generation(id).await.unwrap();
    assert!(!dir.join(format!("img/{id}")).exists());
}

/// Short timeouts, so tests are fast, and an upload timeout that no test reaches.
const BRIEF: [(&str, &str); 4] = [
    ("LATENTD_BLOBS__ANSWER_TIMEOUT_S", "0.5"),
    ("LATENTD_BLOBS__REQUEST_TIMEOUT_S", "0.2"),
    ("LATENTD_BLOBS__UPLOAD_TIMEOUT_S", "600"),
    ("LATENTD_BLOBS__RETRY_PAUSE_MAX_S", "0.01"),
];

fn open(s3: &S3, more: &[(&str, &str)]) -> Blobs {
    Blobs::open(&s3.config(&[&BRIEF, more].concat()), std::path::Path::new("nowhere")).unwrap()
}

/// Stores one picture in the bucket.
async fn stored(s3: &S3) -> (Blobs, String) {
    let (blobs, path) = (open(s3, &[]), path_of(GenerationId::new(), 1, 0));
    blobs.put(&path, Bytes::from(vec![1; 100_000])).await.unwrap();
    (blobs, path)
}

#[tokio::test]
async fn a_failing_bucket_is_not_reported_as_a_missing_file() {
    let mut s3 = S3::start();
    let (blobs, path) = stored(&s3).await;
    for mode in [Mode::Unavailable, Mode::Hang, Mode::Cut, Mode::Forbidden] {
        s3.set_mode(mode);
        let failed = blobs.get(&path).await;
        assert!(failed.is_err(), "{mode:?}: {failed:?}");
        let listed = blobs.generations().await;
        assert!(listed.is_err(), "{mode:?}: {listed:?}");
    }
    s3.set_mode(Mode::Ok);
    s3.stop();
    assert!(blobs.get(&path).await.is_err(), "the server is stopped");
    s3.start_again();
    assert_eq!(blobs.get(&path).await.unwrap().map(|file| file.len()), Some(100_000));
    std::fs::remove_dir_all(s3.bucket()).unwrap();
    assert!(blobs.get(&path).await.is_err(), "a missing bucket is an error, not a missing file");
}

#[tokio::test]
async fn a_forbidden_upload_is_not_tried_again() {
    let s3 = S3::start();
    let (blobs, path) = stored(&s3).await;
    s3.set_mode(Mode::Forbidden);
    let before = s3.requests();
    assert!(!blobs.put(&path, Bytes::from_static(b"png")).await.unwrap_err().may_pass());
    assert_eq!(s3.requests(), before + 1);
}

#[tokio::test]
async fn an_upload_is_tried_again_until_the_bucket_recovers() {
    let mut s3 = S3::start();
    let (blobs, _) = stored(&s3).await;
    for (index, mode) in [Some(Mode::Unavailable), Some(Mode::Hang), None].into_iter().enumerate() {
        let path = path_of(GenerationId::new(), 1, index as u32);
        match mode {
            Some(mode) => s3.set_mode(mode),
            None => s3.stop(),
        }
        let before = s3.requests();
        let upload = tokio::spawn({
            let (blobs, path) = (blobs.clone(), path.clone());
            async move { blobs.put(&path, Bytes::from_static(b"png")).await }
        });
        // A stopped server counts no requests.
        while mode.is_some() && s3.requests() < before + 3 {
            assert!(!upload.is_finished(), "the upload gave up: {:?}", upload.await);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        match mode {
            Some(_) => s3.set_mode(Mode::Ok),
            None => s3.start_again(),
        }
        upload.await.unwrap().unwrap();
        assert_eq!(blobs.get(&path).await.unwrap(), Some(Bytes::from_static(b"png")));
    }
}

#[tokio::test]
async fn a_slow_download_succeeds() {
    let s3 = S3::start();
    let (blobs, path) = stored(&s3).await;
    s3.set_mode(Mode::Slow(std::time::Duration::from_millis(20)));
    assert!(blobs.get(&path).await.unwrap().is_some());
}

#[tokio::test]
async fn an_upload_fails_after_its_timeout() {
    let s3 = S3::start();
    let blobs = open(&s3, &[("LATENTD_BLOBS__UPLOAD_TIMEOUT_S", "0.3")]);
    for mode in [Mode::Unavailable, Mode::Hang] {
        s3.set_mode(mode);
        let failed = blobs.put(&path_of(GenerationId::new(), 1, 0), Bytes::from_static(b"png")).await.unwrap_err();
        assert!(failed.may_pass(), "{failed}");
        assert_eq!(failed.to_string().contains("503"), mode == Mode::Unavailable, "the last answer: {failed}");
    }
    let more = [("LATENTD_BLOBS__UPLOAD_TIMEOUT_S", "0.3"), ("LATENTD_BLOBS__REQUEST_TIMEOUT_S", "600")];
    let failed = open(&s3, &more).put(&path_of(GenerationId::new(), 1, 0), Bytes::new()).await.unwrap_err();
    assert!(matches!(failed, BlobError::NoAnswer { .. }), "there was no answer: {failed}");
}

#[test]
fn only_temporary_errors_are_tried_again() {
    let generic = |text: &str| {
        BlobError::ObjectStore(object_store::Error::Generic { store: "S3", source: text.to_owned().into() })
    };
    for passing in [
        generic("Server returned non-2xx status code: 503 Service Unavailable: "),
        generic("Server returned non-2xx status code: 429 Too Many Requests: "),
        generic("HTTP error: error sending request"),
        BlobError::NoAnswer { within: std::time::Duration::from_secs(1) },
    ] {
        assert!(passing.may_pass(), "{passing}");
    }
    for lasting in [
        generic("Server returned non-2xx status code: 400 Bad Request: <Code>AuthorizationHeaderMalformed</Code>"),
        generic("Received redirect without LOCATION"),
        BlobError::StorageFull,
    ] {
        assert!(!lasting.may_pass(), "{lasting}");
    }
}

#[tokio::test]
async fn the_check_at_startup_names_the_wrong_setting() {
    let mut s3 = S3::start();
    for (more, key) in [
        (("LATENTD_BLOBS__URL", "s3://others/place"), "blobs.url"),
        (("LATENTD_BLOBS__ACCESS_KEY_ID", "stranger"), "blobs.access_key_id"),
        (("LATENTD_BLOBS__SECRET_ACCESS_KEY", "guessed"), "blobs.access_key_id"),
    ] {
        let error = open(&s3, &[more]).check().await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key}: s3://")), "{error}");
        assert!(!error.contains("guessed"), "{error}");
    }
    s3.set_mode(Mode::Unavailable);
    let error = open(&s3, &[]).check().await.unwrap_err().to_string();
    assert!(
        error.starts_with("blobs.endpoint: s3://pictures/some/place cannot be used") && error.contains("503"),
        "{error}"
    );
    s3.stop();
    let error = open(&s3, &[]).check().await.unwrap_err().to_string();
    assert!(error.starts_with("blobs.endpoint: "), "{error}");
}

#[tokio::test]
async fn files_have_the_prefix_and_more_than_one_page_is_deleted() {
    let s3 = S3::start();
    let (blobs, id) = (open(&s3, &[]), GenerationId::new());
    blobs.put(&path_of(id, 1, 0), Bytes::from_static(b"png")).await.unwrap();
    let folder = s3.file(&format!("img/{id}/1"));
    assert!(folder.join("0.png").is_file());
    // A page of a listing has at most 1000 names.
    for index in 1..1100 {
        std::fs::write(folder.join(format!("{index}.png")), "png").unwrap();
    }
    blobs.delete_generation(id).await.unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    assert!(!format!("{blobs:?}").contains("0123456789") && format!("{blobs:?}").contains(BUCKET));
}
