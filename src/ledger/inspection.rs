//! Looks at a database without changing it, for `latentd doctor`.

use std::{path::Path, time::SystemTime};

use sqlx::{
    ConnectOptions, Connection, PgConnection, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions,
};

use super::{Ledger, Result, postgres, sqlite};
use crate::config;

/// The state of a database.
#[derive(Clone, Copy, Debug)]
pub struct Inspection {
    /// The version of its schema; 0 without tables.
    pub found: i64,
    /// The version that this program needs.
    pub needed: i64,
    /// Whether the database refuses writes of this user: a standby, a read-only default, or missing rights.
    pub is_read_only: bool,
    /// The clock of the database; only for PostgreSQL.
    pub clock: Option<SystemTime>,
    /// The maximum number of connections of all clients together; only for PostgreSQL.
    pub max_connections: Option<i64>,
}

/// The query whose one row says whether writes are refused, the time, the bound of connections, and whether there is a
/// schema.
const STATE: &str = "SELECT current_setting('transaction_read_only') = 'on' OR NOT coalesce(
    CASE WHEN to_regclass('generations') IS NULL THEN has_schema_privilege(current_schema(), 'CREATE')
         ELSE has_table_privilege('generations', 'INSERT') END, false),
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, current_setting('max_connections')::bigint,
    to_regclass('_sqlx_migrations') IS NOT NULL";

const NEWEST: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";

impl Ledger {
    /// Connects once to a PostgreSQL database. Without a time limit.
    ///
    /// # Errors
    /// The database does not answer or refuses the user.
    pub async fn inspect_postgres(settings: &config::Database) -> Result<Inspection> {
        let mut connection: PgConnection = postgres::options(settings)?.connect().await?;
        let (is_read_only, clock_us, max_connections, has_schema): (bool, i64, i64, bool) =
            sqlx::query_as(STATE).fetch_one(&mut connection).await?;
        let found = if has_schema { sqlx::query_scalar(NEWEST).fetch_one(&mut connection).await? } else { 0 };
        connection.close().await?;
        let clock = time::OffsetDateTime::from_unix_timestamp_nanos(1000 * i128::from(clock_us)).ok();
        Ok(Inspection {
            found,
            needed: newest(&postgres::migrator()),
            is_read_only,
            clock: clock.map(SystemTime::from),
            max_connections: Some(max_connections),
        })
    }

    /// Reads the SQLite file of a folder, which must exist.
    ///
    /// # Errors
    /// The file cannot be read, or is no database.
    pub async fn inspect_sqlite(data_dir: &Path) -> Result<Inspection> {
        let file = data_dir.join(sqlite::FILE);
        let is_read_only = file.metadata()?.permissions().readonly();
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        let mut connection: SqliteConnection = options.connect().await?;
        let tables = "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await?;
        let found = if tables > 0 { sqlx::query_scalar(NEWEST).fetch_one(&mut connection).await? } else { 0 };
        connection.close().await?;
        let needed = newest(&sqlite::migrator());
        Ok(Inspection { found, needed, is_read_only, clock: None, max_connections: None })
    }
}

fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or_default()
}
