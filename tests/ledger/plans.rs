//! Tests of the query plans of the ledger's statements: every statement that reads many rows uses an index.

use std::{
    collections::BTreeSet,
    env,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use latentd::generation::{GenerationId, WorkKind};
use latentd::ledger::{Crew, Ledger, ListQuery, Outcome, Reaping, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, filter::Targets, layer::Context, layer::SubscriberExt, util::SubscriberInitExt};

use crate::place::{HOUR, LAST, PgPlace, accept, claim, crew, running, worker};

const CHILD: &str = "LATENTD_TEST_LEDGER_PLANS";

/// The texts of the statements that sqlx logs. Threads of sqlx log some of them, so the subscriber must serve the whole
/// process. Therefore a test starts itself again in a child process, which runs no other test.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl Statements {
    /// In the parent process, runs the test in a child process, checks that it passes, and returns `None`.
    fn of_this_process(test: &str) -> Option<Statements> {
        if env::var_os(CHILD).is_none() {
            let mut again = Command::new(env::current_exe().unwrap());
            let status = again.args(["--exact", "--nocapture", &format!("plans::{test}")]).env(CHILD, "1").status();
            assert!(status.unwrap().success(), "{test}");
            return None;
        }
        let statements = Statements::default();
        let only = Targets::new().with_target("sqlx::query", tracing::Level::DEBUG);
        tracing_subscriber::registry().with(statements.clone().with_filter(only)).init();
        Some(statements)
    }

    /// Returns the statements that contain `words`. Panics if there are none.
    fn with(&self, words: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let found: Vec<String> =
            all.iter().filter(|text| text.contains(words) && !text.contains("EXPLAIN ")).cloned().collect();
        assert!(!found.is_empty(), "no statement has {words:?}: {all:#?}");
        found
    }
}

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut &*self);
    }
}

impl Visit for &Statements {
    fn record_str(&mut self, field: &Field, value: &str) {
        if ["db.statement", "summary"].contains(&field.name()) {
            self.0.lock().unwrap().insert(value.trim().to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Calls methods that read many rows. A separate test covers the list.
async fn use_all(store: &dyn Store) {
    accept(store, 2).await;
    let (id, lease) = running(store).await;
    store.finish(lease, Outcome::Canceled).await.unwrap();
    accept(store, 1).await;
    claim(store, 1).await;
    store.reap(&Reaping { all: false, max_crashes: 9, backoff: Duration::ZERO }).await.unwrap();
    store.expire_overdue().await.unwrap();
    store.age(HOUR).await.unwrap();
    store.claim_deliveries(1, HOUR, &["receiver".to_owned()]).await.unwrap();
    store.census().await.unwrap();
    store.counts().await.unwrap();
    store.counts_of("default").await.unwrap();
    store.workload(&LAST, &crew(HOUR, 1)).await.unwrap();
    store.place(id, &Crew::default()).await.unwrap();
    store.events_of("default", 0, 10).await.unwrap();
}

#[tokio::test]
async fn sqlite_uses_an_index_for_every_search() {
    let Some(statements) = Statements::of_this_process("sqlite_uses_an_index_for_every_search") else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Ledger::open_sqlite(dir.path(), HOUR).await.unwrap();
    use_all(&store).await;
    let file = format!("sqlite:{}", dir.path().join("latentd.db").display());
    let mut connection = SqliteConnection::connect(&file).await.unwrap();

    for text in statements.with("ORDER BY priority DESC, vft, id") {
        let plan = plan(&mut connection, &text).await;
        assert!(plan.contains("generations USING COVERING INDEX generations_claim"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
    for (words, way) in [
        ("AS is_alone", "generations USING COVERING INDEX generations_running"),
        ("start_deadline <= ", "SEARCH generations USING INDEX generations_start"),
        ("aged_at <= ", "SEARCH generations USING INDEX generations_aged"),
        ("lease_expires_at <= ", "generations USING INDEX generations_running"),
        ("SET status = new_status", "SEARCH generations USING INDEX sqlite_autoindex_generations_1 (id=?)"),
        ("FROM webhook_deliveries AS this", "SEARCH this USING INDEX webhook_deliveries_due"),
        ("FROM webhook_deliveries AS this", "webhook_deliveries_pending (generation_id=? AND seq<?)"),
        ("AS oldest", "SEARCH generations USING INDEX generations_status (status=?)"),
        ("INDEXED BY generations_dead WHERE dead", "generations USING INDEX generations_dead"),
        ("AS slots", "SEARCH generations USING COVERING INDEX generations_status"),
        ("(SELECT id, priority, vft ", "SEARCH generations USING INDEX sqlite_autoindex_generations_1 (id=?)"),
        ("tenant_seq > ", "generation_events USING INDEX generation_events_tenant (tenant_id=? AND tenant_seq>?)"),
    ] {
        for text in statements.with(words) {
            let plan = plan(&mut connection, &text).await;
            assert!(plan.contains(way), "{text}\n{plan}");
        }
    }
    for text in statements.with("FROM webhook_deliveries AS this") {
        let plan = plan(&mut connection, &text).await;
        let scans =
            plan.matches("SCAN").count() - plan.matches("SCAN json_each").count() - plan.matches("SCAN picked").count();
        assert!(scans == 0 && !plan.contains("TEMP B-TREE"), "{plan}");
    }
    for text in statements.with("AS position") {
        let plan = plan(&mut connection, &text).await;
        assert_eq!(plan.matches("SEARCH other USING INDEX generations_claim").count(), 2, "{plan}");
    }
    let counts = statements.with("AS running");
    assert_eq!(counts.len(), 2, "{counts:?}");
    for text in counts {
        let plan = plan(&mut connection, &text).await;
        assert_eq!(plan.matches("SEARCH generations USING COVERING INDEX").count(), 2, "{plan}");
    }
    for word in ["FOR UPDATE", "FOR NO KEY UPDATE", "SKIP LOCKED", "greatest(", "now()", "ANY(", "ALL(", "jsonb_"] {
        let said = statements.0.lock().unwrap().iter().find(|text| text.contains(word)).cloned();
        assert_eq!(said, None, "{word} is not SQLite's SQL");
    }
}

#[tokio::test]
async fn sqlite_uses_an_index_for_every_list() {
    let Some(statements) = Statements::of_this_process("sqlite_uses_an_index_for_every_list") else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Ledger::open_sqlite(dir.path(), HOUR).await.unwrap();
    let file = format!("sqlite:{}", dir.path().join("latentd.db").display());
    let mut connection = SqliteConnection::connect(&file).await.unwrap();
    let id = GenerationId::new();
    let word = || Some("word".to_owned());
    for bits in 0..512 {
        let query = ListQuery {
            limit: 20,
            after: (bits & 1 != 0).then_some(id),
            before: (bits & 2 != 0).then_some(id),
            status: word().filter(|_| bits & 4 != 0),
            model: word().filter(|_| bits & 8 != 0),
            tenant: word().filter(|_| bits & 16 != 0),
            dead: bits & 32 != 0,
            starred: (bits & 64 != 0).then_some(true),
            kind: [None, Some(WorkKind::Draw), Some(WorkKind::Sound), Some(WorkKind::Film)][bits >> 7],
        };
        statements.0.lock().unwrap().clear();
        latentd::ledger::Reads::list(&store, &query).await.unwrap();
        for text in statements.with("FROM generations") {
            let plan = plan(&mut connection, &text).await;
            assert!(plan.contains("generations USING INDEX"), "{query:?}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
            let narrow = query.status.is_some() || query.model.is_some() || query.tenant.is_some();
            let whole = plan.contains("SCAN") || plan.contains("sqlite_autoindex");
            assert!(!(narrow && whole) || plan.contains("generations_dead"), "{query:?}: {plan}");
            assert_eq!(plan.contains("generations_dead"), query.dead, "{query:?}: {plan}");
        }
    }
}

/// The lines of `EXPLAIN QUERY PLAN` for a statement whose parameters are NULL.
async fn plan(connection: &mut SqliteConnection, text: &str) -> String {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
    let rows = sqlx::raw_sql(explain).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.try_get::<String, _>("detail").unwrap() + "\n").collect()
}

/// The plan is good both as a custom plan for these values and as a generic plan.
#[tokio::test]
async fn postgresql_claims_by_an_index_without_sorting() {
    let Some(statements) = Statements::of_this_process("postgresql_claims_by_an_index_without_sorting") else { return };
    let Some(place) = PgPlace::new().await else { return };
    let store = place.store().await;
    accept(&store, 1).await;
    assert_eq!(latentd::ledger::Claims::claim(&store, &worker("one"), 1, true).await.unwrap().len(), 1);
    let (claims, begin) = (statements.with("ORDER BY priority DESC, vft, id"), statements.with("BEGIN "));
    let begin =
        begin.into_iter().find(|text| text.contains("enable_sort")).expect("the claim's transaction sets enable_sort");
    assert_eq!(claims.len(), 2, "one only reads, one locks: {claims:?}");

    let mut connection = PgConnection::connect(place.url()).await.unwrap();
    let fill = "INSERT INTO generations (id, tenant_id, status, model, priority, vft, aged_at, run_at, start_deadline, created_at, params)
        SELECT gen_random_uuid(), 'tenant ' || i % 5, 'queued', 'model ' || i % 3, i % 3, i, now(), now(), now() + '1 hour', now(),
            jsonb_build_object('prompt', repeat('x', 500))
        FROM generate_series(1, 10000) AS i";
    connection.execute("DELETE FROM generations").await.unwrap();
    connection.execute(fill).await.unwrap();
    connection.execute(AssertSqlSafe(begin)).await.unwrap();
    // Without statistics; with the statistics of an empty queue; with the statistics of the full queue.
    let empty = "UPDATE generations SET status = 'canceled', finished_at = now(), expires_at = now();
                 ANALYZE generations;
                 UPDATE generations SET status = 'queued', finished_at = NULL, expires_at = NULL";
    for statistics in ["SELECT 1", empty, "ANALYZE generations"] {
        connection.execute(statistics).await.unwrap();
        for (at, sql) in claims.iter().enumerate() {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let prepare = format!(
                    "DEALLOCATE ALL; SET plan_cache_mode = {mode};
                     PREPARE claim{at} (text[], text[], uuid[], bigint) AS {sql}"
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
