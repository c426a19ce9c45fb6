//! Translates statements, parameters and columns for PostgreSQL.

use serde_json::value::RawValue;
use sqlx::{
    Arguments, Row, TypeInfo, ValueRef,
    postgres::{PgArguments, PgRow, types::PgInterval},
    types::{Json, Uuid},
};
use time::OffsetDateTime;

use crate::ledger::{Result, dialect::Value, row::Cell};

/// Replaces `now()`, the time when the transaction began, by the time when the statement began, because earlier
/// statements may have waited for locks. Removes the names of indexes, which the planner chooses itself.
pub fn translate(text: &str) -> String {
    let mut parts = text.split(" INDEXED BY ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole += part.trim_start_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    }
    whole.replace("now()", "statement_timestamp()")
}

pub fn arguments(values: &[Value]) -> Result<PgArguments> {
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
    }
}

/// Reads a cell. Times are cut to milliseconds, as in SQLite, so that clients see one form.
pub fn cell(row: &PgRow, at: usize) -> Result<Cell, sqlx::Error> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match value.type_info().name() {
        "BOOL" => Cell::Int(row.try_get::<bool, _>(at)?.into()),
        "INT2" => Cell::Int(row.try_get::<i16, _>(at)?.into()),
        "INT4" => Cell::Int(row.try_get::<i32, _>(at)?.into()),
        "INT8" => Cell::Int(row.try_get(at)?),
        "FLOAT8" => Cell::Real(row.try_get(at)?),
        "BYTEA" => Cell::Blob(row.try_get(at)?),
        "UUID" => Cell::Blob(row.try_get::<Uuid, _>(at)?.as_bytes().to_vec()),
        "JSONB" => Cell::Text(row.try_get::<Json<&RawValue>, _>(at)?.get().to_owned()),
        "TIMESTAMPTZ" => {
            let time: OffsetDateTime = row.try_get(at)?;
            Cell::Int(i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX))
        }
        // The result of a function that takes a lock.
        "VOID" => Cell::Null,
        _ => Cell::Text(row.try_get(at)?),
    })
}
