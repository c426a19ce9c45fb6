//! The check of the store of pictures: the operations of a bucket, or whether replicas share a folder.

use std::sync::Arc;

use latentd::{
    config::Config,
    ledger::{BlobError, Blobs},
};

use super::finding::Finding;

pub async fn look(config: Arc<Config>) -> Vec<Finding> {
    if config.blobs.bucket().is_none() {
        return vec![match config.database.url.is_empty() {
            true => Finding::ok("pictures are stored in data_dir"),
            false => Finding::warning(
                "several processes can share the database, but each stores pictures in the data_dir of its own machine",
                "set blobs.url to a bucket, unless there is one process, or data_dir is on a shared file system",
            ),
        }];
    }
    let probed = match Blobs::open(&config.blobs, &config.data_dir) {
        Ok(blobs) => blobs.probe().await,
        Err(error) => Err(error),
    };
    vec![match probed {
        Ok(is_conditional) => {
            let conditional = if is_conditional { "work" } else { "are not supported (latentd needs none)" };
            Finding::ok(format!(
                "{}: an object was stored, read and erased; conditional puts {conditional}",
                config.blobs.url
            ))
        }
        Err(error) => Finding::error(error.to_string(), mend(&error)),
    }]
}

/// How to mend the setting that the error names.
fn mend(error: &BlobError) -> &'static str {
    match error {
        BlobError::Unusable { key: "blobs.url", .. } => "create the bucket, or correct blobs.url",
        BlobError::Unusable { key: "blobs.region", .. } => "set blobs.region to the region of the bucket",
        BlobError::Unusable { key: "blobs.access_key_id", .. } => {
            "correct blobs.access_key_id and blobs.secret_access_key, and allow this key to put, get, list and delete \
             objects in the bucket"
        }
        _ => "correct blobs.endpoint, and check that the store runs and can be reached",
    }
}
