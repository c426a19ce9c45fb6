//! Pictures that a request brings along, from its fields to the store.

use std::sync::LazyLock;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::ServiceError;
use crate::{
    generation::{Fields, GenerationId, Given, InputImage, Role},
    imaging::{decode, encode_input},
    ledger::{BlobError, Blobs, Store, StoreError, blobs::path_of_input},
};

/// Pictures decoded at the same time, since each may take hundreds of megabytes on its way.
static DECODING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8))));

/// A picture as it will be stored.
pub(super) struct Taken {
    pub image: InputImage,
    file: Bytes,
}

/// Reads every picture of the request and leaves in its field what it will be stored as; what is no picture is an error of
/// its field. Nothing is stored yet.
///
/// # Errors
/// Only those of the store; the request's own are in `fields`.
pub(super) async fn take_in(
    fields: &mut Fields,
    tenant: &str,
    store: &dyn Store,
    blobs: &Blobs,
) -> Result<Vec<Taken>, ServiceError> {
    let mut all = Vec::new();
    for (place, given) in fields.pictures() {
        let taken = match given {
            Given::File(bytes) => convert(bytes, place.role()).await?,
            Given::Upload(sha256) => again(sha256, tenant, store, blobs).await?,
        };
        match taken {
            Ok(taken) => {
                fields.place(place, &taken.image);
                all.push(taken);
            }
            Err(detail) => fields.refuse(place, "image_undecodable", detail),
        }
    }
    Ok(all)
}

/// Stores the pictures for this generation alone, so that none of them depends on how long another generation is kept.
pub(super) async fn keep(taken: &[Taken], id: GenerationId, blobs: &Blobs) -> Result<(), ServiceError> {
    for Taken { image, file } in taken {
        let put = blobs.put_promptly(&path_of_input(id, &image.upload), file.clone()).await;
        put.map_err(|error| match error {
            BlobError::StorageFull => ServiceError::Store(StoreError::StorageFull),
            error => ServiceError::Blob(error.to_string()),
        })?;
    }
    Ok(())
}

/// The picture upright, in RGB, without what else its file said, as a PNG.
async fn convert(bytes: Vec<u8>, role: Role) -> Result<Result<Taken, String>, ServiceError> {
    let internal = |error: String| ServiceError::Blob(format!("a picture cannot be taken in: {error}"));
    let _turn = DECODING.acquire().await.map_err(|error| internal(error.to_string()))?;
    let work = move || {
        let picture = decode(&bytes, role.ground()).map_err(|error| error.to_string())?;
        let file = encode_input(&picture).map_err(|error| error.to_string())?;
        let upload = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Taken { image: InputImage { upload, width: picture.width, height: picture.height }, file: file.into() })
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(error.to_string()))
}

/// The same picture as of an earlier request of this tenant that is still kept.
async fn again(
    sha256: String,
    tenant: &str,
    store: &dyn Store,
    blobs: &Blobs,
) -> Result<Result<Taken, String>, ServiceError> {
    let gone = || Ok(Err(format!("{sha256} is not stored any more, send the picture itself")));
    let Some(id) = store.find_input(tenant, &sha256).await? else { return gone() };
    let file = blobs.get(&path_of_input(id, &sha256)).await.map_err(|error| ServiceError::Blob(error.to_string()))?;
    match file {
        Some(file) => convert(file.to_vec(), Role::Picture).await,
        None => gone(),
    }
}
