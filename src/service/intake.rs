//! Pictures that a request brings along: their sizes first, and their pixels once the request is known to be valid.

use std::{collections::BTreeSet, sync::LazyLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Service, ServiceError,
    offload::{apart, offload},
    unclaimed::Unclaimed,
};
use crate::{
    generation::{FieldError, Fields, GenerationId, Given, InputImage, Invalid, Job, Place, Role},
    imaging::{MAX_PIXELS, decode, encode_fast, size},
    ledger::{BlobError, Blobs, StoreError, blobs::path_of_input},
};

/// A picture of which the size is known and no pixel yet.
pub(super) struct Picture {
    place: Place,
    content: Content,
    width: u32,
    height: u32,
}

enum Content {
    File(Bytes),
    /// The generation that keeps it, and its SHA-256.
    Stored(GenerationId, String),
}

/// A picture as it will be stored.
pub(super) struct Taken {
    image: InputImage,
    file: Bytes,
}

/// Pixels decoded at the same time, in thousands: those of one picture of the largest size, or of many smaller ones. A pixel
/// takes up to eight bytes on its way.
static DECODING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new((MAX_PIXELS / 1000) as usize));

const UNDECODABLE: &str = "image_undecodable";

/// Finds the size of every picture of the request, from the head of its file or from the generation that keeps it, and puts it
/// into the picture's field; what is no picture is an error of its field.
///
/// # Errors
/// Only those of the store; the request's own are in `fields`.
pub(super) async fn look(
    mut fields: Fields,
    tenant: &str,
    service: &Service,
) -> Result<(Fields, Vec<Picture>), ServiceError> {
    let (mut fields, heads) = offload(fields.body_bytes(), move || {
        let head = |(place, given)| match given {
            Given::File(bytes) => (place, Given::File(bytes.clone()), size(&bytes).map_err(|error| error.to_string())),
            Given::Upload(sha256) => (place, Given::Upload(sha256), Ok((0, 0))),
        };
        let heads: Vec<_> = fields.pictures().into_iter().map(head).collect();
        (fields, heads)
    })
    .await;
    let mut pictures = Vec::with_capacity(heads.len());
    for (place, given, size) in heads {
        let found = match given {
            Given::File(bytes) => {
                size.map(|(width, height)| Picture { place, content: Content::File(bytes), width, height })
            }
            Given::Upload(sha256) => stored(place, sha256, tenant, service).await?,
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

/// The same picture as of an earlier request of this tenant that is still kept.
async fn stored(
    place: Place,
    sha256: String,
    tenant: &str,
    service: &Service,
) -> Result<Result<Picture, String>, ServiceError> {
    let Some(id) = service.ask(service.0.store.find_input(tenant, &sha256)).await? else {
        return Ok(Err(gone(&sha256)));
    };
    let record = service.ask(service.0.store.get(id)).await?;
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

/// Decodes the pictures of a valid request one after the other and notes in the generation what they are stored as. Each is
/// stored at once for this generation alone, so that none depends on how long another generation is kept; or, where the id
/// may be another's, all are returned for [`keep`]. Stops where this future is dropped, after the picture in hand.
///
/// # Errors
/// A picture that cannot be decoded is an error of its field.
pub(super) async fn take_in(
    pictures: Vec<Picture>,
    job: &mut Job,
    id: GenerationId,
    is_taken: bool,
    unclaimed: &Unclaimed,
    service: &Service,
) -> Result<Vec<Taken>, ServiceError> {
    let blobs = &service.0.blobs;
    let leaving = CancellationToken::new();
    let _leaving = leaving.clone().drop_guard();
    let (mut all, mut kept) = (Vec::new(), BTreeSet::new());
    for picture in pictures {
        let place = picture.place;
        let taken = picture.taken(leaving.clone(), blobs).await?.map_err(|detail| {
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
            unclaimed.store(service, async move { keep(&taken, id, &blobs).await }).await?;
        }
    }
    Ok(all)
}

/// Stores a picture for this generation alone.
pub(super) async fn keep(Taken { image, file }: &Taken, id: GenerationId, blobs: &Blobs) -> Result<(), ServiceError> {
    let put = blobs.put_promptly(&path_of_input(id, &image.upload), file.clone()).await;
    put.map_err(|error| match error {
        BlobError::StorageFull => ServiceError::Store(StoreError::StorageFull),
        error => ServiceError::Blob(error.to_string()),
    })
}

impl Picture {
    /// The picture as it will be stored: upright, in RGB, without what else its file said, as a PNG. One that is stored already
    /// is that.
    async fn taken(self, leaving: CancellationToken, blobs: &Blobs) -> Result<Result<Taken, String>, ServiceError> {
        let Picture { place, content, width, height } = self;
        let taken = move |upload, file| Taken { image: InputImage { upload, width, height }, file };
        match content {
            Content::File(bytes) => {
                let thousands = (u64::from(width) * u64::from(height) / 1000).clamp(1, MAX_PIXELS / 1000);
                let turn = DECODING.acquire_many(thousands as u32).await.expect("the semaphore is never closed");
                let converted = apart(move || {
                    let _turn = turn;
                    converted(bytes, place.role(), (width, height), &leaving)
                });
                Ok(converted.await.map(|file| taken(file.0, file.1)))
            }
            Content::Stored(id, sha256) => {
                let failed = |detail: String| ServiceError::Blob(detail);
                let file = blobs.get(&path_of_input(id, &sha256)).await.map_err(|error| failed(error.to_string()))?;
                let Some(file) = file else { return Ok(Err(gone(&sha256))) };
                let (digest, file) = apart(move || (digest(&file), file)).await;
                if digest != sha256 {
                    return Err(failed(format!("the picture {sha256} of {id} is not what was stored")));
                }
                Ok(Ok(taken(sha256, file)))
            }
        }
    }
}

/// The digest of the file and the file itself.
fn converted(
    bytes: Bytes,
    role: Role,
    size: (u32, u32),
    leaving: &CancellationToken,
) -> Result<(String, Bytes), String> {
    let go_on = || if leaving.is_cancelled() { Err("the client has left".to_owned()) } else { Ok(()) };
    go_on()?;
    let picture = decode(&bytes, role.ground()).map_err(|error| error.to_string())?;
    drop(bytes);
    if (picture.width, picture.height) != size {
        return Err("cannot be decoded: its pixels are not of the size that its head names".to_owned());
    }
    go_on()?;
    let file: Bytes = encode_fast(&picture).map_err(|error| error.to_string())?.into();
    Ok((digest(&file), file))
}

/// SHA-256 in hexadecimal digits.
fn digest(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}
