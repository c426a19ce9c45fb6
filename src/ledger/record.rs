//! Rows as records.

use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::{
    StoreError,
    dialect::{Column, Columns},
};
use crate::generation::{Event, EventKind, GenerationId, Record, Status};

/// Reads a row of `generations`.
///
/// # Errors
/// [`StoreError::Corrupt`] names the column that cannot be read.
pub fn record(row: &impl Columns) -> Result<Record, StoreError> {
    let row = Named { id: row.get("id")?, row };
    Ok(Record {
        id: row.id,
        tenant: row.get("tenant_id")?,
        job: row.json("params")?,
        status: row.status()?,
        attempt: row.get("attempt")?,
        crash_count: row.get("crash_count")?,
        dead: row.get("dead")?,
        cancel_requested: row.opt::<OffsetDateTime>("cancel_requested_at")?.is_some(),
        created_at: row.get("created_at")?,
        started_at: row.opt("started_at")?,
        finished_at: row.opt("finished_at")?,
        expires_at: row.opt("expires_at")?,
        version: row.get("version")?,
    })
}

/// The same, for those who look at many rows: an unreadable one must not hide the others from them, so it is told of in
/// the log and passed over.
pub fn readable(row: &impl Columns) -> Option<Record> {
    record(row).inspect_err(|error| tracing::error!(%error, "a generation is passed over")).ok()
}

/// Reads a row of `generation_events`.
pub fn event(id: GenerationId, row: &impl Columns) -> Result<Event, StoreError> {
    let row = Named { id, row };
    let kind: String = row.get("kind")?;
    let kind = EventKind::parse(&kind).ok_or_else(|| row.corrupt("kind", &kind))?;
    Ok(Event { seq: row.get("seq")?, kind, data: row.json("data")? })
}

/// A row whose generation is named where a column cannot be read.
struct Named<'r, R> {
    id: GenerationId,
    row: &'r R,
}

impl<R: Columns> Named<'_, R> {
    fn get<T: Column>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|error| self.corrupt(column, error))
    }

    fn opt<T: Column>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.row.opt(column).map_err(|error| self.corrupt(column, error))
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.value(column).map_err(|error| self.corrupt(column, error))
    }

    fn status(&self) -> Result<Status, StoreError> {
        Ok(match &*self.get::<String>("status")? {
            "queued" => Status::Queued,
            "running" => Status::Running,
            "succeeded" => Status::Succeeded { artifacts: self.json("artifacts")? },
            "failed" => Status::Failed { problem: self.json("problem")? },
            "canceled" => Status::Canceled,
            "expired" => Status::Expired,
            other => return Err(self.corrupt("status", other)),
        })
    }

    fn corrupt(&self, what: &'static str, detail: impl ToString) -> StoreError {
        StoreError::Corrupt { id: self.id, what, detail: detail.to_string() }
    }
}
