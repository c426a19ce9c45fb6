//! Cases of the estimates of queued work, on both databases, and of PostgreSQL's view for autoscalers.

use std::collections::HashMap;

use latentd::generation::{GenerationId, Job};
use latentd::ledger::{Acceptance, Ledger, Measured, Outcome, Store};
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::place::{PgPlace, Place, claim_one, generation, new_record, problem, reap_all, request};

/// Accepts a generation of `model` with this work; the speed to assume is 100.
async fn accept(store: &dyn Store, model: &str, cost: f64) -> GenerationId {
    let job = Job { model: model.to_owned(), ..generation() };
    new_record(store.accept(&Acceptance { cost, ..request(&job) }).await).id
}

async fn learn(store: &dyn Store, model: &str, generations: u32, work: f64, seconds: f64) {
    let measured = Measured { generations, work, seconds };
    store.learn(&HashMap::from([(model.to_owned(), measured)])).await.unwrap();
}

/// The estimated seconds of each model, in the order of their names.
async fn seconds(store: &dyn Store) -> Vec<(String, f64)> {
    let mut seconds = store.census().await.unwrap().seconds;
    seconds.sort_by(|one, other| one.0.cmp(&other.0));
    seconds
}

pub async fn an_estimate_uses_the_measured_speed_of_the_model(place: &dyn Place) {
    let store = place.open().await;
    assert!(seconds(&*store).await.is_empty());
    accept(&*store, "tiny", 300.0).await;
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 3.0)], "nothing was measured: the assumed speed");

    learn(&*store, "other", 2, 400.0, 10.0).await;
    accept(&*store, "tiny", 80.0).await;
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 5.0)], "the speed of other models, 40");

    learn(&*store, "tiny", 1, 200.0, 10.0).await;
    accept(&*store, "tiny", 20.0).await;
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 6.0)], "the speed of the model, 20");

    // Measurements that say nothing about a speed are skipped.
    learn(&*store, "tiny", 1, 0.0, 10.0).await;
    learn(&*store, "new", 1, 10.0, 0.0).await;
    accept(&*store, "tiny", 20.0).await;
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 7.0)]);
}

pub async fn recent_measurements_outweigh_old_ones(place: &dyn Place) {
    let store = place.open().await;
    learn(&*store, "tiny", 50, 50.0, 5000.0).await;
    for _ in 0..4 {
        learn(&*store, "tiny", 25, 25.0, 1.0).await;
    }
    accept(&*store, "tiny", 25.0).await;
    let estimated = seconds(&*store).await[0].1;
    assert!((1.0..1.5 * 25.0).contains(&estimated), "{estimated} s, although 25 take 1 s now and took 2500 s before");
}

pub async fn a_census_counts_what_is_not_finished_and_what_is_dead(place: &dyn Place) {
    let store = place.open().await;
    let empty = store.census().await.unwrap();
    assert_eq!((empty.queued, empty.oldest, empty.dead, empty.seconds.len()), (0, None, 0, 0));
    let (used, most) = empty.connections;
    assert!(used <= most && most > 1, "{used} of {most}");
    let first = accept(&*store, "tiny", 100.0).await;
    accept(&*store, "tiny", 200.0).await;
    accept(&*store, "zebra", 400.0).await;
    let census = store.census().await.unwrap();
    let (accepted, now) = census.oldest.unwrap();
    assert_eq!((census.queued, accepted), (3, store.get(first).await.unwrap().unwrap().created_at));
    assert!(now >= accepted);
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 3.0), ("zebra".to_owned(), 4.0)]);

    // Running generations are still work, but do not wait.
    let (record, lease) = claim_one(&*store).await;
    assert_eq!(record.id, first);
    let census = store.census().await.unwrap();
    assert_eq!(census.queued, 2);
    assert!(census.oldest.unwrap().0 >= accepted);
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 3.0), ("zebra".to_owned(), 4.0)]);

    store.finish(lease, Outcome::Failed(problem())).await.unwrap().unwrap();
    assert_eq!(seconds(&*store).await, [("tiny".to_owned(), 2.0), ("zebra".to_owned(), 4.0)]);
    claim_one(&*store).await;
    assert_eq!(reap_all(&*store, 1).await.ended.len(), 1);
    let census = store.census().await.unwrap();
    assert_eq!((census.queued, census.dead), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_read_only_the_view_sees_seconds_and_no_requests() {
    let Some(place) = PgPlace::new().await else { return };
    let store: Ledger = place.store().await;
    accept(&store, "tiny", 100.0).await;
    accept(&store, "tiny", 250.0).await;
    accept(&store, "zebra", 400.0).await;
    claim_one(&store).await;
    let mut connection = PgConnection::connect(place.url()).await.unwrap();
    // Roles belong to the whole cluster, so only this test uses this name.
    let grants = "CREATE ROLE autoscaler_of_a_test; GRANT SELECT ON queued_work TO autoscaler_of_a_test;
         SET ROLE autoscaler_of_a_test";
    connection.execute(grants).await.unwrap();
    let rows =
        connection.fetch_all("SELECT model, generations, seconds FROM queued_work ORDER BY model").await.unwrap();
    let seen: Vec<(String, i64, f64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(seen, [("tiny".to_owned(), 2, 3.5), ("zebra".to_owned(), 1, 4.0)]);
    // The query of an autoscaler: workers that need a minute at most.
    let text = "SELECT coalesce(ceil(sum(seconds) / 60.0), 0) AS workers FROM queued_work WHERE model = 'nobody'";
    assert_eq!(connection.fetch_one(text).await.unwrap().get::<f64, _>(0), 0.0);
    for table in ["generations", "model_speeds", "api_keys", "generation_events"] {
        let text = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let refused = connection.execute(text).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{table}: {refused}");
    }
}
