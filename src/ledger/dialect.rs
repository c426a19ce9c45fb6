//! The differences between the two databases: connections, transactions, types of columns, and a few words of SQL.
//!
//! A statement is one text for both databases, in PostgreSQL's syntax: parameters are `$1`, `jsonb_to_recordset` reads
//! a table from JSON, `= ANY` and `<> ALL` read a list. `INDEXED BY` is removed for PostgreSQL, and row locks
//! (`FOR UPDATE`) for SQLite, which has one writer. In SQLite, `now()` is the time of the transaction.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use serde::Serialize;
use sqlx::types::Uuid;

use super::{Hint, Result, row::Row};
use crate::generation::{DeliveryId, EndpointId, GenerationId};

/// The connections to a database.
#[async_trait]
pub trait Dialect: Hints {
    /// Whether other processes use the database at the same time.
    fn is_shared(&self) -> bool;

    /// Runs one statement that changes nothing.
    async fn read(&self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        self.write(text, values).await
    }

    /// Runs one statement as a transaction of its own.
    async fn write(&self, text: &str, values: &[Value]) -> Result<Vec<Row>>;

    /// Begins a transaction. If `walks`, its reads of many rows follow an index, whatever the planner prefers.
    async fn begin(&self, walks: bool) -> Result<Box<dyn Transaction>>;

    /// Number of connections in use, and their maximum number.
    fn connections(&self) -> (usize, usize);

    /// Checks that the database answers and has the schema that this program needs.
    async fn ping(&self) -> Result<()>;
}

/// Number of connections of a pool in use, and their maximum number.
pub fn connections<DB: sqlx::Database>(pool: &sqlx::Pool<DB>) -> (usize, usize) {
    let most = pool.options().get_max_connections() as usize;
    ((pool.size() as usize).saturating_sub(pool.num_idle()), most)
}

/// Hints between processes. The default methods are for a database that only one process uses.
#[async_trait]
pub trait Hints: Debug + Send + Sync + 'static {
    /// See [`Fleet::hint`](super::Fleet::hint).
    async fn hint(&self, _: &[Hint]) -> Result<()> {
        Ok(())
    }

    /// See [`Fleet::hints`](super::Fleet::hints).
    fn hints(&self) -> BoxStream<'static, Hint> {
        futures::stream::pending().boxed()
    }

    /// Receives the hints of other processes while the future is polled.
    async fn listen(&self) {}
}

/// A transaction. Dropping it before [`Transaction::conclude`] undoes everything.
#[async_trait]
pub trait Transaction: Send {
    /// Runs a statement and returns its rows.
    async fn fetch(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>>;

    /// Commits if `keeps`, otherwise rolls back.
    async fn conclude(self: Box<Self>, keeps: bool) -> Result<()>;
}

/// The value of a parameter.
#[derive(Clone, Debug)]
pub enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(Option<f64>),
    Flag(Option<bool>),
    Blob(Option<Vec<u8>>),
    Id(Option<Uuid>),
    Json(String),
    /// A duration, to be added to `now()` or subtracted.
    Span(Option<Duration>),
    Texts(Vec<String>),
    Ids(Vec<Uuid>),
}

/// The values of a statement's parameters, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::ledger::dialect::Value::from($value)),*] };
}

pub(super) use values;

impl Value {
    /// Cuts a duration to a century, so that the sum of now and any configured duration is a valid date.
    pub fn span(duration: Duration) -> Duration {
        duration.min(Duration::from_secs(100 * 366 * 86_400))
    }

    pub fn ids(ids: &[GenerationId]) -> Value {
        Value::Ids(ids.iter().map(|id| Uuid::from_bytes(*id.as_bytes())).collect())
    }

    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Value> {
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
    Int(number): u64 => i64::try_from(number).unwrap_or(i64::MAX);
    Int(number): usize => i64::try_from(number).unwrap_or(i64::MAX);
    Real(number): f64 => number;
    Flag(flag): bool => flag;
    Blob(bytes): &[u8; 32] => bytes.to_vec();
    Id(id): GenerationId => Uuid::from_bytes(*id.as_bytes());
    Id(id): EndpointId => Uuid::from_bytes(*id.as_bytes());
    Id(id): DeliveryId => Uuid::from_bytes(*id.as_bytes());
    Span(duration): Duration => Value::span(duration);
}
