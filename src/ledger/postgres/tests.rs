//! How the server plans the claim.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::{BEGIN_WALKING, row::translate};
use crate::ledger::claiming::{LOOK, TAKE};
use cluster::Cluster;

#[path = "../../../tests/support/postgres.rs"]
mod cluster;

/// However the server plans the statement: for these values, or once for all.
#[tokio::test]
async fn the_claim_walks_its_index_and_sorts_nothing() {
    let Some(cluster) = Cluster::shared() else { return };
    let mut connection = PgConnection::connect(&cluster.create_database().await).await.unwrap();
    sqlx::migrate!("migrations/postgres").run(&mut connection).await.unwrap();
    let fill = "INSERT INTO generations (id, tenant_id, status, model, priority, vft, aged_at, run_at, start_deadline, created_at, params)
        SELECT gen_random_uuid(), 'tenant ' || i % 5, 'queued', 'model ' || i % 3, i % 3, i, now(), now(), now() + '1 hour', now(),
            jsonb_build_object('prompt', repeat('x', 500))
        FROM generate_series(1, 10000) AS i";
    connection.execute(fill).await.unwrap();
    connection.execute(BEGIN_WALKING).await.unwrap();
    // Without statistics; with those of an empty queue; with those of this one.
    let empty = "UPDATE generations SET status = 'canceled', finished_at = now(), expires_at = now();
                 ANALYZE generations;
                 UPDATE generations SET status = 'queued', finished_at = NULL, expires_at = NULL";
    for statistics in ["SELECT 1", empty, "ANALYZE generations"] {
        connection.execute(statistics).await.unwrap();
        for (at, sql) in [LOOK, TAKE].into_iter().enumerate() {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let prepare = format!(
                    "DEALLOCATE ALL; SET plan_cache_mode = {mode};
                     PREPARE claim{at} (text[], text[], uuid[], bigint) AS {}",
                    translate(sql)
                );
                connection.execute(AssertSqlSafe(prepare)).await.unwrap();
                let explain = format!("EXPLAIN EXECUTE claim{at} ('{{model 1,model 2}}', '{{tenant 3}}', '{{}}', 8)");
                let lines = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
                let plan: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
                let plan = plan.join("\n");
                assert!(plan.contains("Index Scan using generations_claim"), "{mode}: {plan}");
                assert!(!plan.contains("Sort") && !plan.contains("Seq Scan"), "{mode}: {plan}");
            }
        }
    }
}
