//! Hints between processes by NOTIFY.
//!
//! A payload is a word, such as `queued`, `changed:ID` or `generation.starred:ID:TENANT_NUMBER`. Older versions send
//! several words. Unknown words come from other versions and are skipped.

use std::{io, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use sqlx::{
    Executor,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{sync::broadcast, time::timeout};

use super::Postgres;
use crate::generation::OwnerChange;
use crate::ledger::{
    Hint, Result,
    dialect::{Dialect, Hints, Value},
};

const CHANNEL: &str = "latentd";

/// After this silence, the connection is checked.
const SILENCE: Duration = Duration::from_secs(10);
/// Pause between two tries to connect.
const PAUSE: Duration = Duration::from_secs(1);

#[async_trait]
impl Hints for Postgres {
    /// PostgreSQL delivers equal payloads of one transaction only once.
    async fn hint(&self, hints: &[Hint]) -> Result<()> {
        if hints.is_empty() {
            return Ok(());
        }
        let text = "SELECT count(pg_notify($1, word)) AS said FROM unnest($2::text[]) AS word";
        self.write(text, &[CHANNEL.into(), Value::Texts(hints.iter().map(word).collect())]).await.map(drop)
    }

    /// A receiver that is too slow loses hints.
    fn hints(&self) -> BoxStream<'static, Hint> {
        let next = |mut heard: broadcast::Receiver<Hint>| async move {
            loop {
                match heard.recv().await {
                    Ok(hint) => return Some((hint, heard)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                }
            }
        };
        futures::stream::unfold(self.heard.subscribe(), next).boxed()
    }

    async fn listen(&self) {
        let mut was_heard = true;
        loop {
            let error = match connect(self).await {
                Ok(mut listener) => {
                    if !was_heard {
                        tracing::info!("hints of other processes are received again");
                        was_heard = true;
                        // The hints in between are lost. The queue is the most urgent, so the worker looks at it now.
                        let _ = self.heard.send(Hint::Queued);
                    }
                    hear(self, &mut listener).await
                }
                Err(error) => error,
            };
            if was_heard {
                tracing::warn!(%error, "hints of other processes are lost; polls find their changes");
                was_heard = false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn word(hint: &Hint) -> String {
    match hint {
        Hint::Queued => "queued".to_owned(),
        Hint::DrainChanged => "orders".to_owned(),
        Hint::KeysChanged => "keys".to_owned(),
        Hint::Changed(id) => format!("changed:{id}"),
        Hint::Canceled(id) => format!("canceled:{id}"),
        Hint::ChangedByOwner(change, id, tenant) => format!("{}:{id}:{tenant}", change.as_str()),
    }
}

fn parse(word: &str) -> Option<Hint> {
    match word.split_once(':') {
        None if word == "queued" => Some(Hint::Queued),
        None if word == "orders" => Some(Hint::DrainChanged),
        None if word == "keys" => Some(Hint::KeysChanged),
        Some(("changed", id)) => id.parse().ok().map(Hint::Changed),
        Some(("canceled", id)) => id.parse().ok().map(Hint::Canceled),
        Some((word, of)) => {
            let (id, tenant) = of.split_once(':')?;
            Some(Hint::ChangedByOwner(OwnerChange::parse(word)?, id.parse().ok()?, tenant.parse().ok()?))
        }
        None => None,
    }
}

/// Opens a connection in a pool of its own, so that a lost connection does not block the next one.
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

/// Passes hints on until the connection fails, and returns the error.
async fn hear(db: &Postgres, listener: &mut PgListener) -> sqlx::Error {
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                for hint in notification.payload().split(' ').filter_map(parse) {
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
