//! What the two databases differ in: connections and transactions, the kinds of columns, and a few words of SQL.
//!
//! A statement is one text for both, in PostgreSQL's words: parameters are `$1`, `now()` is the time of the statement, a
//! table comes as JSON by `jsonb_to_recordset`, a list by `= ANY` or `<> ALL`. It says what either needs: SQLite, where
//! one writes after the other, drops the locks of rows; PostgreSQL drops the names of indexes.

use std::time::Duration;

use futures::stream::BoxStream;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Hint, StoreError};
use crate::generation::{DeliveryId, EndpointId, GenerationId};

/// A database, as its connections are reached.
pub trait Dialect: Clone + std::fmt::Debug + Send + Sync + 'static {
    type Row: Columns + Send + Sync;
    /// Dropped before it was concluded, it leaves nothing behind.
    type Transaction: Send;

    /// Other processes use it at the same time.
    const IS_SHARED: bool;

    /// Makes a call again where others were in its way, and gives up when its time is over.
    fn bounded<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send;

    /// One statement that changes nothing.
    fn read(&self, text: &str, values: &[Value]) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// One statement that is a transaction of its own.
    fn write(&self, text: &str, values: &[Value]) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// `walks`: its reads of many rows follow an index, whatever the planner thinks of it.
    fn begin(&self, walks: bool) -> impl Future<Output = Result<Self::Transaction, StoreError>> + Send;

    fn fetch(
        transaction: &mut Self::Transaction,
        text: &str,
        values: &[Value],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Commits, or undoes what was done.
    fn conclude(transaction: Self::Transaction, keeps: bool) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Proves that the database answers and has what this program needs.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// As [`Fleet::hint`](super::Fleet::hint).
    fn hint(&self, hints: &[Hint]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// As [`Fleet::hints`](super::Fleet::hints).
    fn hints(&self) -> BoxStream<'static, Hint>;
}

/// A value of a parameter.
#[derive(Clone, Debug)]
pub enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(Option<f64>),
    Flag(bool),
    Blob(Option<Vec<u8>>),
    Id(Option<Uuid>),
    Json(String),
    /// A length of time, to be added to `now()`.
    Span(Option<Duration>),
    Texts(Vec<String>),
    Ids(Vec<Uuid>),
    Blobs(Vec<Vec<u8>>),
}

/// The values of a statement's parameters, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::ledger::dialect::Value::from($value)),*] };
}

pub(super) use values;

impl Value {
    /// At most a century, so that now and any configured duration add up to a date that can be written.
    pub fn span(duration: Duration) -> Duration {
        duration.min(Duration::from_secs(100 * 366 * 86_400))
    }

    pub fn ids(ids: &[GenerationId]) -> Value {
        Value::Ids(ids.iter().map(|id| Uuid::from_bytes(*id.as_bytes())).collect())
    }

    pub fn json(value: &impl Serialize) -> Result<Value, StoreError> {
        Ok(Value::Json(serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))?))
    }
}

macro_rules! value_from {
    ($($kind:ident($inner:ident): $from:ty => $into:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($inner: $from) -> Value {
                Value::$kind(Some($into))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Value {
                Value::$kind(value.map(|$inner| $into))
            }
        }
    )*};
}

value_from! {
    Text(text): &str => text.to_owned();
    Text(text): &String => text.clone();
    Text(text): String => text;
    Int(number): i64 => number;
    Int(number): i16 => number.into();
    Int(number): u32 => number.into();
    Int(number): u16 => number.into();
    Int(number): usize => i64::try_from(number).unwrap_or(i64::MAX);
    Real(number): f64 => number;
    Blob(bytes): &[u8; 32] => bytes.to_vec();
    Id(id): GenerationId => Uuid::from_bytes(*id.as_bytes());
    Id(id): EndpointId => Uuid::from_bytes(*id.as_bytes());
    Id(id): DeliveryId => Uuid::from_bytes(*id.as_bytes());
    Span(duration): Duration => Value::span(duration);
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

/// A row, read by the names of its columns; `None` is NULL.
pub trait Columns: Sized {
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn int(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn real(&self, column: &str) -> Result<Option<f64>, sqlx::Error>;
    fn flag(&self, column: &str) -> Result<Option<bool>, sqlx::Error>;
    fn blob(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
    fn id(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error>;
    /// In whole milliseconds.
    fn time(&self, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error>;
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, sqlx::Error>;

    /// A column that may be NULL.
    fn opt<T: Column>(&self, column: &str) -> Result<Option<T>, sqlx::Error> {
        T::read(self, column)
    }

    /// A column that is never NULL.
    fn get<T: Column>(&self, column: &str) -> Result<T, sqlx::Error> {
        T::read(self, column)?.ok_or_else(|| unreadable(column))
    }

    fn value<T: DeserializeOwned>(&self, column: &str) -> Result<T, sqlx::Error> {
        self.json(column)?.ok_or_else(|| unreadable(column))
    }
}

/// What a column can be read as.
pub trait Column: Sized {
    fn read(row: &impl Columns, column: &str) -> Result<Option<Self>, sqlx::Error>;
}

macro_rules! column {
    ($($kind:ident($inner:ident) as $as:ty => $into:expr;)*) => {$(
        impl Column for $as {
            fn read(row: &impl Columns, column: &str) -> Result<Option<Self>, sqlx::Error> {
                row.$kind(column)?.map(|$inner| $into).transpose()
            }
        }
    )*};
}

column! {
    text(text) as String => Ok(text);
    int(number) as i64 => Ok(number);
    int(number) as u32 => number.try_into().map_err(decode);
    int(number) as u16 => number.try_into().map_err(decode);
    int(number) as usize => Ok(usize::try_from(number).unwrap_or_default());
    real(number) as f64 => Ok(number);
    flag(flag) as bool => Ok(flag);
    blob(bytes) as Vec<u8> => Ok(bytes);
    blob(bytes) as [u8; 32] => bytes.as_slice().try_into().map_err(decode);
    id(id) as Uuid => Ok(id);
    id(id) as GenerationId => Ok(GenerationId::from_bytes(id.into_bytes()));
    id(id) as EndpointId => Ok(EndpointId::from_bytes(id.into_bytes()));
    id(id) as DeliveryId => Ok(DeliveryId::from_bytes(id.into_bytes()));
    time(time) as OffsetDateTime => Ok(time);
}

pub fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

pub fn unreadable(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} cannot be read").into())
}
