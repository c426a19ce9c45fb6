//! Statements and columns as PostgreSQL has them.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sqlx::{
    Arguments, Row, TypeInfo, ValueRef,
    postgres::{PgArguments, PgRow, types::PgInterval},
    types::{Json, Uuid},
};
use time::OffsetDateTime;

use crate::ledger::{
    StoreError,
    dialect::{Columns, Value, decode},
};

/// The time is that of the statement, which may have waited for others since its transaction began; and the planner finds
/// its indexes by itself.
pub fn translate(text: &str) -> String {
    let mut parts = text.split(" INDEXED BY ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole += part.trim_start_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    }
    whole.replace("now()", "statement_timestamp()")
}

pub fn arguments(values: &[Value]) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        add(&mut arguments, value).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn add(arguments: &mut PgArguments, value: &Value) -> Result<(), sqlx::error::BoxDynError> {
    match value {
        Value::Text(text) => arguments.add(text),
        Value::Int(number) => arguments.add(number),
        Value::Real(number) => arguments.add(number),
        Value::Flag(flag) => arguments.add(flag),
        Value::Blob(bytes) => arguments.add(bytes),
        Value::Id(id) => arguments.add(id),
        Value::Json(text) => arguments.add(Json(serde_json::from_str::<&RawValue>(text)?)),
        Value::Span(span) => arguments.add(span.map(|span| PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(span.as_micros()).unwrap_or(i64::MAX),
        })),
        Value::Texts(texts) => arguments.add(texts),
        Value::Ids(ids) => arguments.add(ids),
        Value::Blobs(blobs) => arguments.add(blobs),
    }
}

impl Columns for PgRow {
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    /// Of any width.
    fn int(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        Ok(match self.try_get_raw(column)?.type_info().name() {
            "INT2" => self.try_get::<Option<i16>, _>(column)?.map(i64::from),
            "INT4" => self.try_get::<Option<i32>, _>(column)?.map(i64::from),
            _ => self.try_get(column)?,
        })
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
        self.try_get(column)
    }

    /// As exact as SQLite's times, so that clients see one form.
    fn time(&self, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        let time: Option<OffsetDateTime> = self.try_get(column)?;
        Ok(time.map(|time| time.replace_millisecond(time.millisecond()).unwrap_or(time)))
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, sqlx::Error> {
        let text: Option<Json<&RawValue>> = self.try_get(column)?;
        text.map(|text| serde_json::from_str(text.0.get()).map_err(decode)).transpose()
    }
}
