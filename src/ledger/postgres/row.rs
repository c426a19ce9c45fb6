//! Rows as records and back.

use std::time::Duration;

use serde::de::DeserializeOwned;
use sqlx::{
    Decode, Postgres, Row, Type,
    postgres::{PgRow, types::PgInterval},
    types::{Json, Uuid},
};
use time::OffsetDateTime;

use crate::generation::{Event, EventKind, GenerationId, Record, Status};
use crate::ledger::StoreError;

/// What [`record`] reads, by name: a statement that took all columns there are would fail on every open connection as soon as
/// a newer program adds one.
macro_rules! columns {
    () => {
        "id, tenant_id, params, status, attempt, fence, crash_count, dead, cancel_requested_at, created_at, started_at, \
         finished_at, expires_at, version, artifacts, problem, vft, fingerprint"
    };
}

pub(super) use columns;

/// Reads a row of `generations` with [`columns`].
///
/// # Errors
/// [`StoreError::Corrupt`] names the column that cannot be read.
pub fn record(row: &PgRow) -> Result<Record, StoreError> {
    let row = Columns { id: id(row)?, row };
    Ok(Record {
        id: row.id,
        tenant: row.get("tenant_id")?,
        job: row.json("params")?,
        status: row.status()?,
        attempt: row.count("attempt")?,
        crash_count: row.count("crash_count")?,
        dead: row.get("dead")?,
        cancel_requested: row.time("cancel_requested_at")?.is_some(),
        created_at: row.time("created_at")?.ok_or_else(|| row.corrupt("created_at", "it is missing"))?,
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        expires_at: row.time("expires_at")?,
        version: row.get("version")?,
    })
}

/// The same, for those who look at many rows: an unreadable one must not hide the others from them, so it is told of in
/// the log and passed over.
pub fn readable(row: &PgRow) -> Option<Record> {
    record(row).inspect_err(|error| tracing::error!(%error, "a generation is passed over")).ok()
}

pub fn id(row: &PgRow) -> Result<GenerationId, StoreError> {
    let uuid: Uuid = row.try_get("id")?;
    Ok(GenerationId::from_bytes(uuid.into_bytes()))
}

/// Reads a row of `generation_events`.
pub fn event(id: GenerationId, row: &PgRow) -> Result<Event, StoreError> {
    let row = Columns { id, row };
    let kind: &str = row.get("kind")?;
    let kind = EventKind::parse(kind).ok_or_else(|| row.corrupt("kind", kind))?;
    Ok(Event { seq: row.get("seq")?, kind, data: row.json("data")? })
}

struct Columns<'r> {
    id: GenerationId,
    row: &'r PgRow,
}

impl<'r> Columns<'r> {
    fn get<T: Decode<'r, Postgres> + Type<Postgres>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.corrupt(column, error))
    }

    fn json<T: DeserializeOwned + 'r>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<Json<T>>(column).map(|Json(value)| value)
    }

    fn count(&self, column: &'static str) -> Result<u32, StoreError> {
        self.get::<i32>(column)?.try_into().map_err(|error| self.corrupt(column, error))
    }

    fn time(&self, column: &'static str) -> Result<Option<OffsetDateTime>, StoreError> {
        Ok(self.get::<Option<OffsetDateTime>>(column)?.map(whole_ms))
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

/// As exact as SQLite's times, so that clients see one form.
pub fn whole_ms(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_millisecond(time.millisecond()).unwrap_or(time)
}

pub fn uuid(id: GenerationId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub fn uuids(ids: &[GenerationId]) -> Vec<Uuid> {
    ids.iter().copied().map(uuid).collect()
}

/// At most a century, so that now and any configured duration add up to a date that can be written.
pub fn interval(duration: Duration) -> PgInterval {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);
    let microseconds = i64::try_from(duration.min(CENTURY).as_micros()).expect("a century of microseconds fits");
    PgInterval { months: 0, days: 0, microseconds }
}

/// A column of 32 bytes.
pub fn sha256(row: &PgRow, column: &str) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
}

/// A number of rows.
pub fn size(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}

/// A number that was written from a `u32`.
pub fn small(row: &PgRow, column: &str) -> Result<u32, StoreError> {
    let number: i64 = row.try_get(column)?;
    Ok(number.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
}
