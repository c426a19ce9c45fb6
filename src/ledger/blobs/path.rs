//! The paths of blobs.

use crate::{generation::GenerationId, imaging::FAST_FORMAT};

/// Folder of artifacts and of the pictures of requests, with one folder per generation.
pub(super) const GENERATIONS: &str = "img";
/// Folder of the logs of generations that have not ended.
pub(super) const LOGS: &str = "run";

/// Path of artifact `index`. The path contains the fence, so that a worker that lost its lease never overwrites the
/// artifacts of the worker that has it.
pub fn path_of(id: GenerationId, fence: i64, index: u32, extension: &str) -> String {
    format!("{}/{index}.{extension}", folder_of_attempt(id, fence))
}

pub(super) fn folder_of_attempt(id: GenerationId, fence: i64) -> String {
    format!("{}/{fence}", folder_of(id))
}

/// The fence that an artifact was stored under; `None` if this is not the path of an artifact.
pub fn fence_of(path: &str) -> Option<i64> {
    path.rsplit('/').nth(1)?.parse().ok()
}

/// Path of a picture of a request, named by the SHA-256 of its file.
pub fn path_of_input(id: GenerationId, sha256: &str) -> String {
    format!("{}/input/{sha256}.{}", folder_of(id), FAST_FORMAT.extension())
}

/// Path of the content credentials that the picture of a request had, named by the SHA-256 of the picture's file.
pub fn path_of_credentials(id: GenerationId, sha256: &str) -> String {
    format!("{}/input/{sha256}.credentials.json", folder_of(id))
}

/// Path of portion `index` of the log that the attempt with this fence has written.
pub fn path_of_part(id: GenerationId, fence: i64, index: u32) -> String {
    format!("{}/{fence}/{index}", log_of(id))
}

pub(super) fn folder_of(id: GenerationId) -> String {
    format!("{GENERATIONS}/{id}")
}

pub(super) fn log_of(id: GenerationId) -> String {
    format!("{LOGS}/{id}")
}
