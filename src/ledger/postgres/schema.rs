//! The database's tables as this program needs them.

use sqlx::{migrate::Migrator, postgres::PgPoolOptions};

use crate::config;
use crate::ledger::{Ledger, Result, StoreError};

use super::{Postgres, pool};

/// A schema of a newer program is no error: programs of two versions run side by side while one is replaced by the other.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.set_ignore_missing(true);
    migrator
}

impl Ledger {
    /// Brings the schema of a PostgreSQL database up to date; whoever comes second waits for whoever came first. On a
    /// connection without bounds, since a change of large tables takes its time.
    pub async fn migrate_postgres(settings: &config::Database) -> Result<()> {
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(settings.timeout_s.into());
        let pool = options.connect_with(pool::options(settings)?).await?;
        migrator().run(&pool).await?;
        pool.close().await;
        Ok(())
    }
}

/// Proves that the database answers and has what this program needs.
pub async fn check(db: &Postgres) -> Result<()> {
    let needed = migrator().iter().map(|migration| migration.version).max().unwrap_or_default();
    let mut loan = pool::Loan::of(&db.pool).await?;
    let newest = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    let found = match sqlx::query_scalar(newest).fetch_one(&mut *loan.connection).await {
        Ok(version) => version,
        // There is no such table yet.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => 0_i64,
        Err(error) => return Err(error.into()),
    };
    loan.give_back();
    if found < needed { Err(StoreError::SchemaTooOld { found, needed }) } else { Ok(()) }
}
