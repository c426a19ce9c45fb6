//! The check of the database: whether it answers, its schema, and whether it takes writes.

use std::{path::Path, sync::Arc};

use latentd::{
    config::Config,
    ledger::{Inspection, Ledger, StoreError},
};

use super::finding::Finding;

pub async fn look(config: Arc<Config>) -> Vec<Finding> {
    if config.database.url.is_empty() { sqlite(&config.data_dir).await } else { postgres(&config).await }
}

async fn postgres(config: &Config) -> Vec<Finding> {
    let state = match Ledger::inspect_postgres(&config.database).await {
        Ok(state) => state,
        Err(error) => return vec![Finding::error(format!("PostgreSQL cannot be used: {error}"), mend(&error))],
    };
    let mut findings = vec![of_schema(&state, config.database.migrate)];
    if state.is_read_only {
        let text = "the database refuses writes: it is a standby, read-only, or the user has no right to write";
        let mend = "point database.url to the primary server, or grant the user INSERT, UPDATE and DELETE, and \
                    CREATE on the schema for migrations";
        findings.push(Finding::error(text, mend));
    }
    let wanted = i64::from(config.database.max_connections);
    if let Some(most) = state.max_connections.filter(|most| wanted > *most) {
        let text =
            format!("database.max_connections is {wanted}, but PostgreSQL accepts {most} connections altogether");
        findings.push(Finding::warning(text, "lower database.max_connections, or raise PostgreSQL's max_connections"));
    }
    findings
}

/// The findings of a schema of PostgreSQL, where a newer one is accepted.
fn of_schema(state: &Inspection, migrates: bool) -> Finding {
    let Inspection { found, needed, .. } = *state;
    if found == 0 && migrates {
        Finding::ok("PostgreSQL answers; the first start creates the tables")
    } else if found < needed && migrates {
        Finding::ok(format!("PostgreSQL answers; the next start updates its schema from version {found} to {needed}"))
    } else if found < needed {
        let text =
            format!("the schema has version {found}, but this program needs {needed}, and database.migrate is off");
        Finding::error(text, "run `latentd migrate`")
    } else if found > needed {
        let text = format!("the schema has version {found}, newer than the {needed} of this program");
        Finding::warning(text, "finish the upgrade: start the newer program everywhere")
    } else {
        Finding::ok(format!("PostgreSQL answers; the schema has version {found}"))
    }
}

async fn sqlite(data_dir: &Path) -> Vec<Finding> {
    if !data_dir.join("latentd.db").exists() {
        return vec![Finding::ok("SQLite; the first start creates the file")];
    }
    let finding = match Ledger::inspect_sqlite(data_dir).await {
        Ok(Inspection { found, needed, .. }) if found > needed => {
            let text = format!("the schema of latentd.db has version {found}, but this program knows only {needed}");
            Finding::error(text, "start the newer program that made the file, or use another data_dir")
        }
        Ok(Inspection { is_read_only: true, .. }) => {
            Finding::error("latentd.db cannot be written", "let the user of the server write the file (chown, chmod)")
        }
        Ok(Inspection { found, needed, .. }) if found < needed => {
            Finding::ok(format!("SQLite; the next start updates the schema from version {found} to {needed}"))
        }
        Ok(Inspection { found, .. }) => Finding::ok(format!("SQLite; the schema has version {found}")),
        Err(error) => {
            let text = format!("{} cannot be read: {error}", data_dir.join("latentd.db").display());
            Finding::error(text, "restore the file from a backup, or use another data_dir")
        }
    };
    vec![finding]
}

/// How to mend an error of a connection.
fn mend(error: &StoreError) -> &'static str {
    let StoreError::Database(sqlx::Error::Database(error)) = error else {
        return match error {
            StoreError::Io(_) => "check host and port in database.url, and that PostgreSQL runs and can be reached",
            StoreError::Database(sqlx::Error::Tls(_)) => "check sslmode and sslrootcert in database.url",
            StoreError::Database(sqlx::Error::Configuration(_)) => "correct database.url",
            _ => "check database.url and the log of PostgreSQL",
        };
    };
    match error.code().as_deref() {
        Some("28P01" | "28000") => "check user and password in database.url, and pg_hba.conf",
        Some("3D000") => "create the database (createdb), or correct its name in database.url",
        Some("53300") => "lower database.max_connections of all processes, or raise PostgreSQL's max_connections",
        Some("42501") => "grant the user of database.url the rights on the schema",
        Some("57P03") => "wait until PostgreSQL has started",
        _ => "check database.url and the log of PostgreSQL",
    }
}
