//! Translates statements, parameters and columns for SQLite.

use sqlx::{
    Arguments, Row, TypeInfo, ValueRef,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::ledger::{dialect::Value, row::Cell};

/// Translates a statement with its values. Times become milliseconds since 1970; lists and tables become JSON.
pub fn translate(text: &str, values: &[Value], now: i64) -> Result<(String, SqliteArguments), sqlx::Error> {
    let mut text = tables(text);
    // SQLite has one writer, so rows need no locks.
    for lock in
        [" FOR NO KEY UPDATE SKIP LOCKED", " FOR UPDATE SKIP LOCKED", " FOR NO KEY UPDATE", " FOR UPDATE", " FOR SHARE"]
    {
        text = text.replace(lock, "");
    }
    text = lists(&text.replace("greatest(", "max("), values);
    let mut arguments = SqliteArguments::default();
    for value in values {
        add(&mut arguments, value).map_err(sqlx::Error::Encode)?;
    }
    if text.contains("now()") {
        text = text.replace("now()", &format!("${}", values.len() + 1));
        arguments.add(now).map_err(sqlx::Error::Encode)?;
    }
    Ok((text, arguments))
}

fn add(arguments: &mut SqliteArguments, value: &Value) -> Result<(), sqlx::error::BoxDynError> {
    match value {
        Value::Text(text) => arguments.add(text.clone()),
        Value::Int(number) => arguments.add(*number),
        Value::Real(number) => arguments.add(*number),
        Value::Flag(flag) => arguments.add(*flag),
        Value::Blob(bytes) => arguments.add(bytes.clone()),
        Value::Id(id) => arguments.add(id.map(|id| id.as_bytes().to_vec())),
        Value::Json(text) => arguments.add(text.clone()),
        Value::Span(span) => arguments.add(span.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))),
        Value::Texts(texts) => arguments.add(serde_json::to_string(texts)?),
        Value::Ids(ids) => {
            let ids: Vec<_> = ids.iter().map(|id| id.simple().to_string()).collect();
            arguments.add(serde_json::to_string(&ids)?)
        }
    }
}

pub fn cell(row: &SqliteRow, at: usize) -> Result<Cell, sqlx::Error> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match value.type_info().name() {
        "INTEGER" => Cell::Int(row.try_get_unchecked(at)?),
        "REAL" => Cell::Real(row.try_get_unchecked(at)?),
        "BLOB" => Cell::Blob(row.try_get_unchecked(at)?),
        _ => Cell::Text(row.try_get_unchecked(at)?),
    })
}

/// Translates `jsonb_to_recordset($1) AS name (id uuid, data jsonb)`.
fn tables(text: &str) -> String {
    fn parts(text: &str) -> Option<(&str, &str, &str, &str, &str)> {
        let (before, rest) = text.split_once("jsonb_to_recordset(")?;
        let (parameter, rest) = rest.split_once(") AS ")?;
        let (name, rest) = rest.split_once(" (")?;
        let (columns, after) = rest.split_once(')')?;
        Some((before, parameter, name, columns, after))
    }

    let Some((before, parameter, name, columns, after)) = parts(text) else { return text.to_owned() };
    let column = |column: &str| match column.trim().split_once(' ') {
        Some((name, "uuid")) => format!("unhex(value ->> '{name}') AS {name}"),
        Some((name, _)) => format!("value ->> '{name}' AS {name}"),
        None => column.to_owned(),
    };
    let columns = columns.split(',').map(column).collect::<Vec<_>>().join(", ");
    format!("{before}(SELECT {columns} FROM json_each({parameter})) AS {name}{}", tables(after))
}

/// Translates `= ANY($1)` and `<> ALL($1)`.
fn lists(text: &str, values: &[Value]) -> String {
    let mut text = text.to_owned();
    for (word, own) in [("= ANY(", "IN"), ("<> ALL(", "NOT IN")] {
        while let Some((before, rest)) = text.split_once(word) {
            let Some((parameter, after)) = rest.split_once(')') else { break };
            let at = parameter.trim_start_matches('$').parse().unwrap_or(1_usize);
            let item = if matches!(values.get(at - 1), Some(Value::Ids(_))) { "unhex(value)" } else { "value" };
            text = format!("{before}{own} (SELECT {item} FROM json_each({parameter})){after}");
        }
    }
    text
}
