//! Rows of both databases, read by the names of their columns.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::{Result, StoreError};
use crate::generation::{DeliveryId, DeliveryState, EndpointId, EventKind, GenerationId, MediaType, SigningSecret};

/// A row in SQLite's form. PostgreSQL's further types are converted to this form.
#[derive(Debug)]
pub struct Row {
    names: Arc<[String]>,
    cells: Vec<Cell>,
}

/// A value: flags are 0 and 1, times are milliseconds since 1970, ids are 16 bytes, JSON is text.
#[derive(Debug)]
pub enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// A column does not contain what this program writes there.
#[derive(Debug, thiserror::Error)]
#[error("{column} cannot be read: {detail}")]
pub struct Unreadable {
    pub column: &'static str,
    pub detail: String,
}

/// Makes a struct whose fields are read from the columns of the same names. Other fields and values follow after `;`.
macro_rules! from_row {
    ($row:expr => $kind:ident { $($field:ident),* $(; $($more:ident: $value:expr),*)? }) => {
        $kind { $($field: $row.get(stringify!($field))?,)* $($($more: $value),*)? }
    };
}

pub(super) use from_row;

impl Row {
    /// The rows of one statement. `cell` reads a cell of this database.
    pub fn all<R: sqlx::Row>(rows: &[R], cell: impl Fn(&R, usize) -> Result<Cell, sqlx::Error>) -> Result<Vec<Row>> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let names: Arc<[String]> = first.columns().iter().map(|column| sqlx::Column::name(column).to_owned()).collect();
        let cells = |row| (0..names.len()).map(|at| cell(row, at)).collect::<Result<_, _>>();
        rows.iter().map(|row| Ok(Row { cells: cells(row)?, names: names.clone() })).collect()
    }

    pub fn get<T: Column>(&self, column: &'static str) -> Result<T, Unreadable> {
        T::read(self.cell(column)?).ok_or_else(|| unreadable(column, "the value has another type"))
    }

    /// The parsed JSON of a column; NULL is `null`.
    pub fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, Unreadable> {
        let text = match self.cell(column)? {
            Cell::Text(text) => text,
            _ => "null",
        };
        serde_json::from_str(text).map_err(|error| unreadable(column, error))
    }

    fn cell(&self, column: &'static str) -> Result<&Cell, Unreadable> {
        let at = self.names.iter().position(|name| name == column);
        at.map(|at| &self.cells[at]).ok_or_else(|| unreadable(column, "there is no such column"))
    }
}

pub fn unreadable(column: &'static str, detail: impl ToString) -> Unreadable {
    Unreadable { column, detail: detail.to_string() }
}

impl From<Unreadable> for StoreError {
    fn from(error: Unreadable) -> Self {
        StoreError::Database(sqlx::Error::Decode(Box::new(error)))
    }
}

/// A type that can be read from a column.
pub trait Column: Sized {
    fn read(cell: &Cell) -> Option<Self>;
}

/// A column that may be NULL.
impl<T: Column> Column for Option<T> {
    fn read(cell: &Cell) -> Option<Self> {
        if matches!(cell, Cell::Null) { Some(None) } else { T::read(cell).map(Some) }
    }
}

macro_rules! column {
    ($($kind:ident($inner:ident) as $as:ty => $into:expr;)*) => {$(
        impl Column for $as {
            fn read(cell: &Cell) -> Option<Self> {
                if let Cell::$kind($inner) = cell { $into } else { None }
            }
        }
    )*};
}

column! {
    Text(text) as String => Some(text.clone());
    Text(text) as EventKind => EventKind::parse(text);
    Text(text) as DeliveryState => DeliveryState::parse(text);
    Text(text) as MediaType => text.clone().try_into().ok();
    Text(text) as SigningSecret => SigningSecret::parse(text).ok();
    Int(number) as i64 => Some(*number);
    Int(number) as u64 => (*number).try_into().ok();
    Int(number) as u32 => (*number).try_into().ok();
    Int(number) as u16 => (*number).try_into().ok();
    Int(number) as usize => (*number).try_into().ok();
    Int(number) as bool => Some(*number != 0);
    Int(ms) as OffsetDateTime => OffsetDateTime::from_unix_timestamp_nanos(i128::from(*ms) * 1_000_000).ok();
    Real(number) as f64 => Some(*number);
    Blob(bytes) as Bytes => Some(bytes.clone().into());
    Blob(bytes) as [u8; 32] => bytes.as_slice().try_into().ok();
    Blob(bytes) as GenerationId => bytes.as_slice().try_into().ok().map(GenerationId::from_bytes);
    Blob(bytes) as EndpointId => bytes.as_slice().try_into().ok().map(EndpointId::from_bytes);
    Blob(bytes) as DeliveryId => bytes.as_slice().try_into().ok().map(DeliveryId::from_bytes);
}
