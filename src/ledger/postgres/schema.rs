//! Checks and updates the schema of the PostgreSQL database.

use sqlx::{migrate::Migrator, postgres::PgPoolOptions};

use crate::config;
use crate::ledger::{Ledger, Result, StoreError, migrations};

use super::{Postgres, pool};

/// The migrations. A newer schema is not an error: two versions run side by side while processes are replaced.
pub fn migrator() -> Migrator {
    let mut migrator = migrations::migrator::<migrations::OfPostgres>();
    migrator.set_ignore_missing(true);
    migrator
}

impl Ledger {
    /// Brings the schema of a PostgreSQL database up to date; concurrent calls wait for each other. Uses a connection
    /// without time limits, because changes of large tables take long.
    pub async fn migrate_postgres(settings: &config::Database) -> Result<()> {
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(settings.timeout_s.into());
        let pool = options.connect_with(pool::options(settings)?).await?;
        migrator().run(&pool).await?;
        pool.close().await;
        Ok(())
    }
}

/// Checks that the database answers and has the schema that this program needs.
pub async fn check(db: &Postgres) -> Result<()> {
    let needed = migrator().iter().map(|migration| migration.version).max().unwrap_or_default();
    let mut loan = pool::PooledConnection::of(&db.pool).await?;
    let newest = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    let found = match sqlx::query_scalar(newest).fetch_one(&mut *loan.connection).await {
        Ok(version) => version,
        // The table does not exist yet.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => 0_i64,
        Err(error) => return Err(error.into()),
    };
    loan.give_back();
    if found < needed { Err(StoreError::SchemaTooOld { found, needed }) } else { Ok(()) }
}
