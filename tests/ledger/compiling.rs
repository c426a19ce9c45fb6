//! PostgreSQL compiles no statement of the ledger to machine code (`jit`).

use latentd::ledger::{Claims, Outcome};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::place::{PgPlace, accept, artifact, claim_one};
use crate::postgres::Cluster;

/// The server logs the plan of every statement. A plan that was kept under other settings is used again, so each
/// statement runs several times.
#[tokio::test]
async fn postgresql_compiles_no_statement_of_a_generation() {
    let Some(place) = PgPlace::new().await else { return };
    let mut connection = PgConnection::connect(place.url()).await.unwrap();
    let settings = [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
    ];
    for setting in settings {
        set(&mut connection, setting).await;
    }
    let store = place.store().await;
    accept(&store, 10).await;
    for _ in 0..10 {
        let (_, lease) = claim_one(&store).await;
        Claims::finish(&store, lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    }
    let log = Cluster::shared().unwrap().log();
    let plans = log.matches("Query Text: UPDATE generations").count();
    assert!(plans >= 20, "{plans} plans are logged");
    assert!(!log.contains("JIT:"), "{}", log.split("JIT:").next().unwrap().rsplit("Query Text:").next().unwrap());
}

/// Sets it for all further connections to the database.
async fn set(connection: &mut PgConnection, setting: &str) {
    let database = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET ";
    let text = format!("{database}{}', current_database()); END $$", setting.replace('\'', "''"));
    connection.execute(AssertSqlSafe(text)).await.unwrap();
}
