//! What processes tell each other to look at, by NOTIFY.
//!
//! A payload is words between spaces: `queued`, `orders`, `changed:ID`, `canceled:ID`. Words that a program does not know are those of
//! another version, and passed over.

use std::{collections::HashSet, io, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use sqlx::{
    Executor,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{sync::broadcast, time::timeout};

use crate::ledger::{Hint, Result};

use super::Postgres;

const CHANNEL: &str = "latentd";
/// PostgreSQL takes less than 8000.
const PAYLOAD_BYTES: usize = 7900;

/// After so long a silence the connection has to prove that it is one.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_secs(1);

pub async fn send(db: &Postgres, hints: &[Hint]) -> Result<()> {
    let payloads = payloads(hints);
    if payloads.is_empty() {
        return Ok(());
    }
    let mut loan = db.lend().await?;
    sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload")
        .bind(CHANNEL)
        .bind(payloads)
        .execute(&mut *loan.connection)
        .await?;
    loan.give_back();
    Ok(())
}

/// Each hint once, in as few payloads as hold them.
fn payloads(hints: &[Hint]) -> Vec<String> {
    let (mut payloads, mut said) = (Vec::<String>::new(), HashSet::new());
    for word in hints.iter().map(word) {
        if !said.insert(word.clone()) {
            continue;
        }
        match payloads.last_mut() {
            Some(last) if last.len() + 1 + word.len() <= PAYLOAD_BYTES => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => payloads.push(word),
        }
    }
    payloads
}

fn word(hint: &Hint) -> String {
    match hint {
        Hint::Queued => "queued".to_owned(),
        Hint::Orders => "orders".to_owned(),
        Hint::Changed(id) => format!("changed:{id}"),
        Hint::Canceled(id) => format!("canceled:{id}"),
    }
}

fn parse(word: &str) -> Option<Hint> {
    match word.split_once(':') {
        None => match word {
            "queued" => Some(Hint::Queued),
            "orders" => Some(Hint::Orders),
            _ => None,
        },
        Some(("changed", id)) => id.parse().ok().map(Hint::Changed),
        Some(("canceled", id)) => id.parse().ok().map(Hint::Canceled),
        Some(_) => None,
    }
}

/// The hints that are heard from now on. Who is too slow misses some.
pub fn stream(heard: broadcast::Receiver<Hint>) -> BoxStream<'static, Hint> {
    let next = |mut heard: broadcast::Receiver<Hint>| async move {
        loop {
            match heard.recv().await {
                Ok(hint) => return Some((hint, heard)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    };
    futures::stream::unfold(heard, next).boxed()
}

/// Listens for as long as it is polled.
pub async fn listen(db: &Postgres) {
    let mut was_heard = true;
    loop {
        let error = match connect(db).await {
            Ok(mut listener) => {
                if !was_heard {
                    tracing::info!("hints of other processes are heard again");
                    was_heard = true;
                    // What was said meanwhile is lost; the queue is what waits least.
                    let _ = db.heard.send(Hint::Queued);
                }
                hear(db, &mut listener).await
            }
            Err(error) => error,
        };
        if was_heard {
            tracing::warn!(%error, "hints of other processes are not heard; their changes are seen by looking again");
            was_heard = false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection of its own, in a pool of its own: one that is lost on the way must not keep the next one out.
async fn connect(db: &Postgres) -> Result<PgListener, sqlx::Error> {
    let options = db.pool.connect_options().as_ref().clone();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(db.timeout)
        .connect_lazy_with(options);
    let connecting = async {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    };
    timeout(db.timeout, connecting).await.unwrap_or_else(|_| Err(silent()))
}

/// Passes on what is heard; returns why nothing is any more.
async fn hear(db: &Postgres, listener: &mut PgListener) -> sqlx::Error {
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(told))) => {
                for hint in told.payload().split(' ').filter_map(parse) {
                    let _ = db.heard.send(hint);
                }
            }
            Ok(Ok(None)) => return sqlx::Error::Io(io::ErrorKind::ConnectionAborted.into()),
            Ok(Err(error)) => return error,
            Err(_) => match timeout(db.timeout, listener.execute("SELECT 1")).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return silent(),
            },
        }
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the connection that listens does not answer"))
}
