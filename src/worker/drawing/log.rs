//! Stores the log of a running generation for its next attempt.

use std::sync::Arc;

use super::Drawing;
use crate::{
    catalogue::Numerics,
    device::Device,
    engine::Log,
    ledger::{BlobError, Blobs, Lease, Outcome, blobs::path_of_part},
    worker::executor::{Claimed, failed},
};

/// The log files of one attempt, each with one portion of the log. The files continue those of earlier attempts, and
/// each file is written once. If a file cannot be read or written, the next attempt computes more, but the generation
/// does not fail.
pub(super) struct LogFiles {
    blobs: Blobs,
    lease: Lease,
    numerics: Numerics,
    /// The number of portions that this attempt has written.
    written: u32,
    /// Whether a portion could not be written. Later portions would be useless behind the gap, so they are not written.
    broken: bool,
}

impl Drawing {
    /// Opens the log. The generation's models must be in the memory of `device`.
    pub(super) async fn open_log(&self, claimed: &Claimed, device: Device) -> Result<LogFiles, Outcome> {
        let (catalogue, job): (Arc<_>, _) = (self.catalogue.clone(), claimed.record.job.clone());
        let numerics = tokio::task::spawn_blocking(move || Numerics::of(&job, &catalogue, &device)).await;
        let numerics = numerics.map_err(|error| failed("internal", format!("looking at the model: {error}"), true))?;
        Ok(LogFiles { blobs: self.blobs.clone(), lease: claimed.lease.clone(), numerics, written: 0, broken: false })
    }
}

impl LogFiles {
    /// The usable log of earlier attempts, starting with the first logged call.
    pub async fn load(&self) -> Log {
        let (id, mut log) = (self.lease.id(), Log::default());
        // The first attempt has no log.
        if self.lease.fence() <= 1 {
            return log;
        }
        let portions = self.blobs.parts(id).await.unwrap_or_else(|error| {
            tracing::warn!(%id, %error, "the log of earlier attempts cannot be listed");
            Vec::new()
        });
        for path in portions {
            match self.read(&path).await {
                // `join` skips a portion after a gap, and a portion whose calls the log already has from an earlier
                // attempt.
                Ok(Some(portion)) => drop(log.join(portion)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%id, path, %error, "a portion of a log cannot be read"),
            }
        }
        if !log.calls.is_empty() {
            tracing::info!(%id, calls = log.calls.len(), "generation continues from its log");
        }
        log
    }

    async fn read(&self, path: &str) -> Result<Option<Log>, BlobError> {
        let Some(file) = self.blobs.get(path).await? else { return Ok(None) };
        let numerics = self.numerics;
        let decoded = tokio::task::spawn_blocking(move || Log::decode(&file, &numerics)).await;
        match decoded.map_err(std::io::Error::other)? {
            Ok(portion) => Ok(Some(portion)),
            Err(error) => {
                tracing::warn!(path, %error, "a portion of a log cannot be used");
                Ok(None)
            }
        }
    }

    /// Stores the next portion of the log.
    pub async fn append(&mut self, portion: Log) {
        if self.broken {
            return;
        }
        if let Err(error) = self.write(portion).await {
            tracing::warn!(id = %self.lease.id(), %error, "a log ends, because a portion cannot be written");
            self.broken = true;
        }
        self.written += 1;
    }

    async fn write(&self, portion: Log) -> Result<(), BlobError> {
        let numerics = self.numerics;
        let file =
            tokio::task::spawn_blocking(move || portion.encode(&numerics)).await.map_err(std::io::Error::other)?;
        self.blobs.put(&path_of_part(self.lease.id(), self.lease.fence(), self.written), file.into()).await
    }
}
