//! Connections to the PostgreSQL database.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Executor, PgPool,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{config, ledger::Result};

/// A pool that connects on demand.
pub fn open(settings: &config::Database) -> Result<PgPool> {
    let (options, timeout) = (options(settings)?, settings.timeout_s.into());
    let bounds = bounds(timeout);
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(timeout)
        .after_connect(move |connection, _| {
            let bounds = AssertSqlSafe(bounds.clone());
            Box::pin(async move { connection.execute(bounds).await.map(drop) })
        })
        .connect_lazy_with(options))
}

pub fn options(settings: &config::Database) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = settings.url.expose().parse()?;
    let name = options.get_application_name().unwrap_or("latentd").to_owned();
    // Numbers are sent in binary form, so `extra_float_digits` has no use, and PgBouncer refuses it.
    Ok(options.application_name(&name).extra_float_digits(None))
}

/// Time limits after which PostgreSQL itself ends a statement, a wait for a lock, an idle transaction of a hanging
/// process (before other processes stop waiting for its locks), and a dead connection. No statement is compiled.
fn bounds(timeout: Duration) -> String {
    let ms = timeout.as_millis().clamp(4, 2_147_483_647);
    let (lock, idle) = (ms / 4 * 3, ms / 2);
    format!(
        "SET statement_timeout = {ms}; SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = {idle};
         SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
         SET jit = off"
    )
}

/// A connection of the pool. A connection that is not given back is closed, because its state is unknown: the server
/// rolls back an unfinished transaction, and the pool does not wait for a network that no longer answers.
#[derive(Debug)]
pub struct PooledConnection {
    pub connection: PoolConnection<sqlx::Postgres>,
    is_back: bool,
}

impl PooledConnection {
    pub async fn of(pool: &PgPool) -> Result<PooledConnection> {
        Ok(PooledConnection { connection: pool.acquire().await?, is_back: false })
    }

    pub fn give_back(mut self) {
        self.is_back = true;
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if !self.is_back {
            self.connection.close_on_drop();
        }
    }
}
