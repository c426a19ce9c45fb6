//! Rows as records and back.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Decode, Row, Sqlite, Type, sqlite::SqliteRow};
use time::OffsetDateTime;

use crate::generation::{Event, EventKind, GenerationId, Record, Status};
use crate::ledger::StoreError;

/// Reads a whole row of `generations`.
///
/// # Errors
/// [`StoreError::Corrupt`] names the column that cannot be read.
pub fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    let row = Columns { id: id(row)?, row };
    Ok(Record {
        id: row.id,
        tenant: row.get("tenant_id")?,
        job: row.json("params")?,
        status: row.status()?,
        attempt: row.get("attempt")?,
        crash_count: row.get("crash_count")?,
        dead: row.get("dead")?,
        cancel_requested: row.get::<Option<i64>>("cancel_requested_at")?.is_some(),
        created_at: row.time("created_at")?.ok_or_else(|| row.corrupt("created_at", "it is missing"))?,
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        expires_at: row.time("expires_at")?,
        version: row.get("version")?,
    })
}

/// The same, for those who look at many rows: an unreadable one must not hide the others from them, so it is told of in
/// the log and passed over.
pub fn readable(row: &SqliteRow) -> Option<Record> {
    record(row).inspect_err(|error| tracing::error!(%error, "a generation is passed over")).ok()
}

pub fn id(row: &SqliteRow) -> Result<GenerationId, StoreError> {
    let bytes: &[u8] = row.try_get("id")?;
    let bytes = bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(GenerationId::from_bytes(bytes))
}

/// Reads a row of `generation_events`.
pub fn event(id: GenerationId, row: &SqliteRow) -> Result<Event, StoreError> {
    let row = Columns { id, row };
    let kind: &str = row.get("kind")?;
    let kind = EventKind::parse(kind).ok_or_else(|| row.corrupt("kind", kind))?;
    Ok(Event { seq: row.get("seq")?, kind, data: row.json("data")? })
}

struct Columns<'r> {
    id: GenerationId,
    row: &'r SqliteRow,
}

impl<'r> Columns<'r> {
    fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.corrupt(column, error))
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|error| self.corrupt(column, error))
    }

    fn time(&self, column: &'static str) -> Result<Option<OffsetDateTime>, StoreError> {
        let Some(ms) = self.get::<Option<i64>>(column)? else { return Ok(None) };
        moment(ms).map(Some).map_err(|error| self.corrupt(column, error))
    }

    fn status(&self) -> Result<Status, StoreError> {
        Ok(match self.get("status")? {
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

/// A value as a column keeps it.
pub fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))?)
}

/// At most a century, so that now and any configured duration add up to a date that can be written.
pub fn millis(duration: Duration) -> i64 {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);
    i64::try_from(duration.min(CENTURY).as_millis()).expect("a century of milliseconds fits")
}

/// A time from milliseconds since 1970.
pub fn moment(ms: i64) -> Result<OffsetDateTime, sqlx::Error> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A column of 32 bytes.
pub fn sha256(row: &SqliteRow, column: &str) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
}

/// A number of rows.
pub fn size(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}
