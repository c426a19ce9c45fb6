//! The migrations of both stores, from the files in `migrations`, which are compiled into the program.

use rust_embed::RustEmbed;
use sqlx::{
    AssertSqlSafe, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

#[derive(RustEmbed)]
#[folder = "migrations/sqlite"]
pub(super) struct OfSqlite;

#[derive(RustEmbed)]
#[folder = "migrations/postgres"]
pub(super) struct OfPostgres;

/// Reads the files of `F`, whose names are `<version>_<description>.sql`. A newer schema in the database is an error.
pub(super) fn migrator<F: RustEmbed>() -> Migrator {
    Migrator::with_migrations(F::iter().filter_map(|name| migration::<F>(&name)).collect())
}

/// The migration in a file. `None` for other files.
fn migration<F: RustEmbed>(name: &str) -> Option<Migration> {
    let (version, description) = name.strip_suffix(".sql")?.split_once('_')?;
    let sql = String::from_utf8(F::get(name)?.data.into_owned()).ok()?;
    let (description, sql) = (description.replace('_', " ").into(), AssertSqlSafe(sql).into_sql_str());
    Some(Migration::new(version.parse().ok()?, description, MigrationType::Simple, sql, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_migration() {
        for (migrator, files) in
            [(migrator::<OfSqlite>(), OfSqlite::iter().count()), (migrator::<OfPostgres>(), OfPostgres::iter().count())]
        {
            let versions: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
            assert_eq!(versions, (1..=files as i64).collect::<Vec<_>>());
        }
    }
}
