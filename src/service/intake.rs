//! Reads the pictures in a request: first their sizes, and their pixels once the request is valid.

use std::{collections::BTreeSet, sync::LazyLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    Service, ServiceError,
    offload::{apart, offload},
    unaccepted_files::UnacceptedFiles,
};
use crate::{
    generation::{FieldError, Fields, GenerationId, ImageField, ImageRole, ImageSource, InputImage, Invalid, Job},
    hex::hex,
    imaging::{MAX_PIXELS, alpha_channel, decode, decode_transparency, encode_fast, size},
    ledger::{
        BlobError, Blobs, StoreError,
        blobs::{path_of_credentials, path_of_input},
    },
    provenance::Provenance,
};

/// A picture whose size is known, but whose pixels are not decoded.
pub(super) struct Picture {
    place: ImageField,
    content: Content,
    width: u32,
    height: u32,
}

enum Content {
    File(Bytes, ImageRole),
    /// The generation that has the picture, and the SHA-256 of the file.
    Stored(GenerationId, String),
}

/// A picture in its stored form.
pub(super) struct StoredUpload {
    image: InputImage,
    file: Bytes,
    /// The part of the uploaded file's content credentials that is stored.
    credentials: Option<Bytes>,
}

/// Maximum number of pixels that are decoded at the same time, in thousands: one picture of the largest size, or
/// several smaller ones. Decoding takes up to eight bytes per pixel.
static DECODING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new((MAX_PIXELS / 1000) as usize));

const UNDECODABLE: &str = "image_undecodable";

/// The colors that replace transparency: white in a picture, black in a mask. Inpainting keeps the picture where the
/// mask is black.
const WHITE: u8 = 255;
const BLACK: u8 = 0;

/// Waits until this many pixels may be decoded.
async fn turn(pixels: u64) -> SemaphorePermit<'static> {
    let thousands = (pixels / 1000).clamp(1, MAX_PIXELS / 1000);
    DECODING.acquire_many(thousands as u32).await.expect("the semaphore is never closed")
}

/// Whether a picture has a transparent pixel. If the head of the file says that the picture is opaque, the pixels are
/// not decoded. `false` for a picture that cannot be decoded; [`Service::prepare`](super::Service::prepare) refuses it
/// later, before the acceptance.
pub async fn is_transparent(file: Bytes) -> bool {
    let bytes = file.len();
    let (file, head) = offload(bytes, move || (file.clone(), alpha_channel(&file))).await;
    let Ok((true, pixels)) = head else { return false };
    let turn = turn(pixels).await;
    apart(move || {
        let _turn = turn;
        decode_transparency(&file).is_ok()
    })
    .await
}

/// Finds the size of every picture in the request, from the head of its file or from the generation that has the
/// picture, and puts the size into the picture's field. Invalid pictures are errors of their fields.
///
/// # Errors
/// Only errors of the store; the errors of the request are in `fields`.
pub(super) async fn inspect_pictures(
    mut fields: Fields,
    tenant: &str,
    service: &Service,
) -> Result<(Fields, Vec<Picture>), ServiceError> {
    let (mut fields, heads) = offload(fields.body_bytes(), move || {
        let head = |(place, given)| match given {
            ImageSource::File(bytes, role) => {
                let size = size(&bytes).map_err(|error| error.to_string());
                (place, ImageSource::File(bytes, role), size)
            }
            ImageSource::Upload(sha256) => (place, ImageSource::Upload(sha256), Ok((0, 0))),
        };
        let heads: Vec<_> = fields.pictures().into_iter().map(head).collect();
        (fields, heads)
    })
    .await;
    let mut pictures = Vec::with_capacity(heads.len());
    for (place, given, size) in heads {
        let found = match given {
            ImageSource::File(bytes, role) => {
                size.map(|(width, height)| Picture { place, content: Content::File(bytes, role), width, height })
            }
            ImageSource::Upload(sha256) => stored(place, sha256, tenant, service).await?,
        };
        match found {
            Ok(picture) => {
                let Picture { width, height, .. } = picture;
                fields.place(place, &InputImage { upload: String::new(), width, height });
                pictures.push(picture);
            }
            Err(detail) => fields.refuse(place, UNDECODABLE, detail),
        }
    }
    Ok((fields, pictures))
}

/// Finds a picture of an earlier request of this tenant. The inner error says that the picture is not stored.
async fn stored(
    place: ImageField,
    sha256: String,
    tenant: &str,
    service: &Service,
) -> Result<Result<Picture, String>, ServiceError> {
    let Some(id) = service.query(service.0.store.find_input(tenant, &sha256)).await? else {
        return Ok(Err(gone(&sha256)));
    };
    let record = service.query(service.0.store.get(id)).await?;
    let size = record.and_then(|record| {
        let mut inputs = record.job.inputs();
        inputs.find(|input| input.upload == sha256).map(|input| (input.width, input.height))
    });
    Ok(match size {
        Some((width, height)) => Ok(Picture { place, content: Content::Stored(id, sha256), width, height }),
        None => Err(gone(&sha256)),
    })
}

fn gone(sha256: &str) -> String {
    format!("names no stored picture: {sha256} was never stored or is erased; send the picture itself")
}

/// Decodes the pictures of a valid request one by one and puts their digests into the job. Stores each picture before
/// the next one is decoded, as this generation's own copy, so that the picture stays when another generation with the
/// same picture is erased. If a generation with this id exists already (`is_taken`), the pictures are not stored but
/// returned; the caller stores them with [`keep`] if the ledger accepts this generation as a new one. If the future is
/// dropped, no further picture is decoded.
///
/// # Errors
/// A picture that cannot be decoded is an error of its field.
pub(super) async fn store_pictures(
    pictures: Vec<Picture>,
    job: &mut Job,
    id: GenerationId,
    is_taken: bool,
    unaccepted_files: &UnacceptedFiles,
    service: &Service,
) -> Result<Vec<StoredUpload>, ServiceError> {
    let (blobs, provenance) = (&service.0.blobs, &service.0.provenance);
    let leaving = CancellationToken::new();
    let _leaving = leaving.clone().drop_guard();
    let (mut all, mut kept) = (Vec::new(), BTreeSet::new());
    for picture in pictures {
        let place = picture.place;
        let taken = picture.taken(leaving.clone(), blobs, provenance).await?.map_err(|detail| {
            let path = place.path();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            Invalid { errors: vec![FieldError::at(&path, UNDECODABLE, &detail)] }
        })?;
        if let Some(image) = job.input_mut(place) {
            *image = taken.image.clone();
        }
        if is_taken {
            all.push(taken);
        } else if kept.insert(taken.image.upload.clone()) {
            let blobs = blobs.clone();
            unaccepted_files.store(service, async move { keep(&taken, id, &blobs).await }).await?;
        }
    }
    Ok(all)
}

/// Stores a picture for this generation only.
pub(super) async fn keep(
    StoredUpload { image, file, credentials }: &StoredUpload,
    id: GenerationId,
    blobs: &Blobs,
) -> Result<(), ServiceError> {
    let beside = credentials.as_ref().map(|credentials| (path_of_credentials(id, &image.upload), credentials));
    for (path, file) in [(path_of_input(id, &image.upload), file)].into_iter().chain(beside) {
        blobs.put_promptly(&path, file.clone()).await.map_err(|error| match error {
            BlobError::StorageFull => ServiceError::Store(StoreError::StorageFull),
            error => ServiceError::Blob(error.to_string()),
        })?;
    }
    Ok(())
}

impl Picture {
    /// The picture in its stored form: upright, RGB, without metadata, as a PNG. A picture that is already stored is
    /// only checked against its digest.
    async fn taken(
        self,
        leaving: CancellationToken,
        blobs: &Blobs,
        provenance: &Provenance,
    ) -> Result<Result<StoredUpload, String>, ServiceError> {
        let Picture { content, width, height, .. } = self;
        let taken = move |upload, file, credentials| StoredUpload {
            image: InputImage { upload, width, height },
            file,
            credentials,
        };
        match content {
            Content::File(bytes, role) => {
                let turn = turn(u64::from(width) * u64::from(height)).await;
                let provenance = provenance.clone();
                let converted = apart(move || {
                    let _turn = turn;
                    let credentials = provenance.keep(&bytes);
                    converted(bytes, role, (width, height), &leaving).map(|file| (file, credentials))
                });
                Ok(converted.await.map(|((digest, file), credentials)| taken(digest, file, credentials)))
            }
            Content::Stored(id, sha256) => {
                let failed = |detail: String| ServiceError::Blob(detail);
                let file = blobs.get(&path_of_input(id, &sha256)).await.map_err(|error| failed(error.to_string()))?;
                let Some(file) = file else { return Ok(Err(gone(&sha256))) };
                let (digest, file) = apart(move || (digest(&file), file)).await;
                if digest != sha256 {
                    return Err(failed(format!("the stored picture {sha256} of {id} has changed")));
                }
                let credentials = blobs.get(&path_of_credentials(id, &sha256)).await;
                let credentials = credentials.map_err(|error| failed(error.to_string()))?;
                Ok(Ok(taken(sha256, file, credentials)))
            }
        }
    }
}

/// Decodes an image file and encodes it as a PNG; returns the digest of the PNG and the PNG.
fn converted(
    bytes: Bytes,
    role: ImageRole,
    size: (u32, u32),
    leaving: &CancellationToken,
) -> Result<(String, Bytes), String> {
    let go_on = || if leaving.is_cancelled() { Err("the client has left".to_owned()) } else { Ok(()) };
    go_on()?;
    let decoded = match role {
        ImageRole::Picture => decode(&bytes, WHITE),
        ImageRole::Mask => decode(&bytes, BLACK),
        ImageRole::Transparency => decode_transparency(&bytes),
    };
    let picture = decoded.map_err(|error| error.to_string())?;
    drop(bytes);
    if (picture.width, picture.height) != size {
        return Err("cannot be decoded: the size of the pixels differs from the size in the header".to_owned());
    }
    go_on()?;
    let file: Bytes = encode_fast(&picture).map_err(|error| error.to_string())?.into();
    Ok((digest(&file), file))
}

/// SHA-256 in lower-case hexadecimal.
fn digest(file: &[u8]) -> String {
    hex(Sha256::digest(file))
}
