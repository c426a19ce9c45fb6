//! Columns as SQLite keeps them.

use serde::de::DeserializeOwned;
use sqlx::{Row, sqlite::SqliteRow, types::Uuid};
use time::OffsetDateTime;

use crate::ledger::dialect::{Columns, decode};

impl Columns for SqliteRow {
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn int(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn real(&self, column: &str) -> Result<Option<f64>, sqlx::Error> {
        self.try_get(column)
    }

    fn flag(&self, column: &str) -> Result<Option<bool>, sqlx::Error> {
        self.try_get(column)
    }

    fn blob(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }

    fn id(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error> {
        let bytes: Option<&[u8]> = self.try_get(column)?;
        bytes.map(|bytes| Uuid::from_slice(bytes).map_err(decode)).transpose()
    }

    /// Milliseconds since 1970.
    fn time(&self, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        let Some(ms): Option<i64> = self.try_get(column)? else { return Ok(None) };
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map(Some).map_err(decode)
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, sqlx::Error> {
        let text: Option<&str> = self.try_get(column)?;
        text.map(|text| serde_json::from_str(text).map_err(decode)).transpose()
    }
}
