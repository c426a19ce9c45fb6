//! Gives up generations that made an earlier process abort.

use std::path::Path;

use crate::{
    crash::CrashFile,
    ledger::{StoreError, Upkeep},
};

/// Gives up the generations that made an earlier process with this data folder abort, and installs the handler of
/// SIGABRT that records such a generation for the next start. If the folder cannot be written, the function logs a
/// warning; such generations are then given up only after several crashes, which the store counts.
///
/// # Errors
/// The store failed. The next process tries again.
pub(super) async fn settle(data_dir: &Path, store: &dyn Upkeep) -> Result<(), StoreError> {
    let opened = std::fs::create_dir_all(data_dir).and_then(|()| CrashFile::open(data_dir));
    let read = opened.and_then(|file| file.attempts().map(|attempts| (file, attempts)));
    let (file, attempts) = match read {
        Ok(read) => read,
        Err(error) => {
            warn(data_dir, &error);
            return Ok(());
        }
    };
    for attempt in attempts {
        if let Some(record) = store.give_up_aborted(attempt).await? {
            tracing::error!(id = %record.id, "a generation is given up: the process aborted while it ran");
        }
    }
    if let Err(error) = file.clear().and_then(|()| file.arm()) {
        warn(data_dir, &error);
    }
    Ok(())
}

fn warn(data_dir: &Path, error: &std::io::Error) {
    tracing::warn!(folder = %data_dir.display(), %error, "a generation that aborts this process cannot be noted");
}
