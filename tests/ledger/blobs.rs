//! Pictures as files in a folder.

use bytes::Bytes;
use latentd::generation::GenerationId;
use latentd::ledger::{
    BlobError,
    blobs::{Blobs, path_of},
};

#[tokio::test]
async fn a_blob_comes_back_until_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(&dir.path().join("data/blobs")).unwrap();
    let path = path_of(GenerationId::new(), 3, 0);
    assert_eq!(blobs.get(&path).await.unwrap(), None);
    blobs.delete(&path).await.unwrap();
    for bytes in [Bytes::from_static(b"first"), Bytes::from(vec![7; 3_000_000]), Bytes::new()] {
        blobs.put(&path, bytes.clone()).await.unwrap();
        assert_eq!(blobs.get(&path).await.unwrap(), Some(bytes.clone()));
        let again = Blobs::local(&dir.path().join("data/blobs")).unwrap();
        assert_eq!(again.get(&path).await.unwrap(), Some(bytes));
    }
    blobs.delete(&path).await.unwrap();
    assert_eq!(blobs.get(&path).await.unwrap(), None);
}

#[tokio::test]
async fn paths_name_generation_fence_and_image() {
    let id = GenerationId::new();
    assert_eq!(path_of(id, 12, 3), format!("img/default/{id}/12/3.png"));
}

#[tokio::test]
async fn a_generation_is_erased_with_all_its_fences_and_half_written_files() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(dir.path()).unwrap();
    let (id, other) = (GenerationId::new(), GenerationId::new());
    for path in [path_of(id, 1, 0), path_of(id, 2, 0), path_of(id, 2, 1), path_of(other, 1, 0)] {
        blobs.put(&path, Bytes::from_static(b"png")).await.unwrap();
    }
    std::fs::write(dir.path().join(format!("{}#1", path_of(id, 2, 2))), "half").unwrap();
    blobs.delete_generation(id).await.unwrap();
    assert!(!dir.path().join(format!("img/default/{id}")).exists());
    assert_eq!(blobs.get(&path_of(id, 2, 0)).await.unwrap(), None);
    assert!(blobs.get(&path_of(other, 1, 0)).await.unwrap().is_some());
    blobs.delete_generation(id).await.unwrap();
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let blobs = Blobs::local(&dir.path().join("blobs")).unwrap();
    for path in ["../secret", "img/../../secret", "img/./x"] {
        assert!(matches!(blobs.get(path).await, Err(BlobError::Path(_))), "{path}");
        assert!(matches!(blobs.put(path, Bytes::new()).await, Err(BlobError::Path(_))), "{path}");
    }
}
