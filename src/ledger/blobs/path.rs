//! Where each file lies.

use crate::{generation::GenerationId, imaging::FAST_FORMAT};

/// Artifacts and what requests bring along, a folder for each generation.
pub(super) const GENERATIONS: &str = "img";
/// Logs of generations that have yet to end.
pub(super) const LOGS: &str = "run";

/// Where the file of artifact `index` lies. The path contains the fence, so that a worker which lost its lease never
/// writes over the artifacts of the one that has it.
pub fn path_of(id: GenerationId, fence: i64, index: u32, extension: &str) -> String {
    format!("{}/{index}.{extension}", folder_of_attempt(id, fence))
}

pub(super) fn folder_of_attempt(id: GenerationId, fence: i64) -> String {
    format!("{}/{fence}", folder_of(id))
}

/// The fence that an artifact was stored under; `None` for what is no path of an artifact.
pub fn fence_of(path: &str) -> Option<i64> {
    path.rsplit('/').nth(1)?.parse().ok()
}

/// Where a picture lies that a request brought along, named by the SHA-256 of its file.
pub fn path_of_input(id: GenerationId, sha256: &str) -> String {
    format!("{}/input/{sha256}.{}", folder_of(id), FAST_FORMAT.extension())
}

/// Where part `index` lies of the log that the attempt with this fence has written.
pub fn path_of_part(id: GenerationId, fence: i64, index: u32) -> String {
    format!("{}/{fence}/{index}", log_of(id))
}

pub(super) fn folder_of(id: GenerationId) -> String {
    format!("{GENERATIONS}/{id}")
}

pub(super) fn log_of(id: GenerationId) -> String {
    format!("{LOGS}/{id}")
}
