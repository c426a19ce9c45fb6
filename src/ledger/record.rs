//! Converts rows into records and events.

use super::{
    Result, StoreError,
    row::{Row, Unreadable, from_row, unreadable},
};
use crate::generation::{Event, GenerationId, Record, Status};

/// Reads a row of `generations`.
///
/// # Errors
/// [`StoreError::Corrupt`] names the column that cannot be read.
pub fn record(row: &Row) -> Result<Record> {
    let id = row.get("id")?;
    let read = || -> Result<Record, Unreadable> {
        Ok(from_row!(row => Record {
            id, attempt, crash_count, dead, starred, created_at, started_at, finished_at, version;
            tenant: row.get("tenant_id")?,
            job: row.json("params")?,
            status: status(row)?,
            expires_at: if row.get("starred")? { None } else { row.get("expires_at")? },
            cancel_requested: row.get::<Option<i64>>("cancel_requested_at")?.is_some()
        }))
    };
    read().map_err(|error| corrupt(id, error))
}

/// Like [`record`], for callers that read many rows: logs and skips an unreadable row, which must not hide others.
pub fn readable(row: &Row) -> Option<Record> {
    record(row).inspect_err(|error| tracing::error!(%error, "an unreadable generation is skipped")).ok()
}

/// Reads a row of `generation_events`.
pub fn event(id: GenerationId, row: &Row) -> Result<Event> {
    let read = || Ok(from_row!(row => Event { seq, kind; data: row.json("data")? }));
    read().map_err(|error| corrupt(id, error))
}

fn status(row: &Row) -> Result<Status, Unreadable> {
    Ok(match &*row.get::<String>("status")? {
        "queued" => Status::Queued,
        "running" => Status::Running,
        "succeeded" => Status::Succeeded { artifacts: row.json("artifacts")? },
        "failed" => Status::Failed { problem: row.json("problem")? },
        "canceled" => Status::Canceled,
        "expired" => Status::Expired,
        other => return Err(unreadable("status", other)),
    })
}

fn corrupt(id: GenerationId, Unreadable { column, detail }: Unreadable) -> StoreError {
    StoreError::Corrupt { id, what: column, detail }
}
