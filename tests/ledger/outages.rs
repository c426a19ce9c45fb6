//! A PostgreSQL that goes away, comes back, hangs, or is not what it should be.

use std::{
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use latentd::generation::Status;
use latentd::ledger::{Accepts, Claims, Fleet, Hint, Ledger, Outcome, Reads, StoreError};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{
    net::{TcpListener, UnixStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::place::{HOUR, PgPlace, accept, accept_one, claim_one, generation, get, request, running, settings};
use crate::postgres::{self, Cluster};
use crate::proxy::{Backend, Network, Proxy};
use crate::shared::is_listening;

/// What a call may take of these tests' stores, and what it may take at most on a machine that does much else.
const TIMEOUT_S: &str = "1";
const PATIENCE: Duration = Duration::from_secs(30);

async fn impatient(url: &str) -> Ledger {
    Ledger::open_postgres(&settings(url, &[("database.timeout_s", TIMEOUT_S)]), HOUR).await.unwrap()
}

/// Calls that must fail for want of a database, and must not hang.
async fn fails(store: &Ledger) {
    let began = Instant::now();
    let generation = generation();
    let acceptance = request(&generation);
    let (accepted, counted, pinged) = tokio::join!(store.accept(&acceptance), store.counts(), store.ping());
    for error in [accepted.map(drop), counted.map(drop), pinged] {
        assert!(matches!(error, Err(StoreError::Database(_))), "{error:?}");
    }
    assert!(began.elapsed() < PATIENCE);
}

/// The pool recovers by itself.
async fn recovers(store: &Ledger) {
    let began = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(began.elapsed() < PATIENCE, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_comes_back_has_lost_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let store = impatient(&cluster.create_database().await).await;
    let stop = CancellationToken::new();
    let mut heard = store.hints();
    let listening = tokio::spawn(store.clone().listen(stop.clone()));
    is_listening(&store, &mut heard).await;
    let (id, lease) = running(&store).await;
    let waiting = accept(&store, 3).await;
    for _ in 0..2 {
        cluster.stop();
        fails(&store).await;
        let lost = store.finish(lease.clone(), Outcome::Canceled).await;
        assert!(matches!(lost, Err(StoreError::Database(_))), "{lost:?}");
        cluster.start_again();
        recovers(&store).await;
        // The listener has connected again.
        assert_eq!(heard.next().await, Some(Hint::Queued));
        assert_eq!(get(&store, id).await.status, Status::Running);
    }
    let told = Hint::Changed(id);
    store.hint(&[told]).await.unwrap();
    assert_eq!(heard.next().await, Some(told));
    assert_eq!(store.finish(lease, Outcome::Canceled).await.unwrap().unwrap().status, Status::Canceled);
    assert_eq!(claim_one(&store).await.0.id, waiting[0]);
    stop.cancel();
    listening.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_keeps_nobody_waiting() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.create_database().await;
    let proxy = Proxy::to(vec![Backend::Unix(cluster.socket())]).await;
    let store = impatient(&postgres::through(proxy.address, &url)).await;
    let before = accept(&store, 2).await;
    for network in [Network::Blackhole, Network::Reset] {
        // Connections that are open are as dead as new ones; more calls than the pool has connections.
        proxy.set(network);
        for _ in 0..4 {
            fails(&store).await;
        }
        proxy.set(Network::Pass);
        recovers(&store).await;
        assert_eq!(get(&store, before[0]).await.status, Status::Queued);
    }
    accept_one(&store, &generation()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_network_forgot_are_replaced() {
    let Some(place) = PgPlace::new().await else { return };
    let socket = Cluster::shared().unwrap().socket();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let forgotten = Arc::new(Notify::new());
    let carrying = tokio::spawn(carry(listener, socket, forgotten.clone()));
    // Long enough that all calls are under way at the same time.
    let patient = settings(&postgres::through(address, place.url()), &[("database.timeout_s", "8")]);
    let store = Ledger::open_postgres(&patient, HOUR).await.unwrap();

    // As many calls as the pool has connections are under way, since nobody may accept.
    let mut operator = PgConnection::connect(place.url()).await.unwrap();
    let mut watcher = PgConnection::connect(place.url()).await.unwrap();
    operator.execute("BEGIN; SELECT v FROM queue_clock FOR UPDATE").await.unwrap();
    let generation = generation();
    let waiting = (0..4).map(|_| request(&generation)).collect::<Vec<_>>();
    let accepting = futures::future::join_all(waiting.iter().map(|acceptance| store.accept(acceptance)));
    let forget = async {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let began = Instant::now();
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut watcher).await.unwrap() < 4 {
            assert!(began.elapsed() < PATIENCE, "the calls are not under way together");
        }
        forgotten.notify_waiters();
    };
    let (refused, ()) = tokio::join!(accepting, forget);
    assert!(refused.iter().all(|refused| matches!(refused, Err(StoreError::Database(_)))), "{refused:?}");
    operator.execute("ROLLBACK").await.unwrap();
    recovers(&store).await;
    // The server has to find out first that those who now have their turn are silent.
    let began = Instant::now();
    while let Err(error) = store.accept(&request(&generation)).await {
        assert!(began.elapsed() < PATIENCE, "{error}");
    }
    carrying.abort();
}

/// A network that carries new connections after it has forgotten the old ones: these stay open, and silent.
async fn carry(listener: TcpListener, socket: PathBuf, forgotten: Arc<Notify>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let (socket, forgotten) = (socket.clone(), forgotten.clone());
        connections.spawn(async move {
            let mut server = UnixStream::connect(socket).await.unwrap();
            tokio::select! {
                () = forgotten.notified() => std::future::pending().await,
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_somebody_keeps_is_not_waited_for_for_ever() {
    let Some(place) = PgPlace::new().await else { return };
    let store = impatient(place.url()).await;
    let mut operator = PgConnection::connect(place.url()).await.unwrap();
    operator.execute("BEGIN; SELECT v FROM queue_clock FOR UPDATE").await.unwrap();
    let generation = generation();
    let refused = store.accept(&request(&generation)).await;
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    store.counts().await.unwrap();
    operator.execute("ROLLBACK").await.unwrap();
    accept(&store, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_in_each_others_way_are_tried_again_and_a_full_disk_is_told_of() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.store().await;
    let mut operator = PgConnection::connect(place.url()).await.unwrap();
    for (code, tries) in [("40001", 2), ("40P01", 3), ("53100", 100)] {
        // Fails so often with this code, whatever is rolled back.
        let sql = format!(
            "DROP SEQUENCE IF EXISTS tried; CREATE SEQUENCE tried;
             CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('tried') < {tries} THEN RAISE EXCEPTION 'told to' USING ERRCODE = '{code}'; END IF;
                 RETURN NEW; END $$;
             CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON generations FOR EACH ROW EXECUTE FUNCTION fail()"
        );
        operator.execute(AssertSqlSafe(sql)).await.unwrap();
        let generation = generation();
        let accepted = store.accept(&request(&generation)).await;
        match code {
            "53100" => assert!(matches!(accepted, Err(StoreError::StorageFull)), "{accepted:?}"),
            _ => drop(accepted.unwrap()),
        }
    }
    assert_eq!(store.counts().await.unwrap().queued, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_schema_is_brought_up_to_date_or_refused_and_a_new_one_is_taken() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.create_database().await;
    let manual = settings(&url, &[("database.migrate", "false")]);
    let refused = Ledger::open_postgres(&manual, HOUR).await;
    assert!(matches!(refused, Err(StoreError::SchemaTooOld { found: 0, .. })), "{refused:?}");
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("latentd migrate"), "{message}");

    let program = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        command
            .args(words)
            .env("LATENTD_DATABASE__URL", &url)
            .env("LATENTD_DATABASE__MIGRATE", "false")
            .output()
            .unwrap()
    };
    let served = program(&["serve", "--bind", "127.0.0.1:0"]);
    assert!(!served.status.success());
    assert!(String::from_utf8_lossy(&served.stderr).contains("latentd migrate"), "{served:?}");
    for _ in 0..2 {
        let migrated = program(&["migrate"]);
        assert!(migrated.status.success(), "{migrated:?}");
        assert_eq!(String::from_utf8_lossy(&migrated.stdout), "the schema is up to date\n");
    }
    let store = Ledger::open_postgres(&manual, HOUR).await.unwrap();
    accept(&store, 1).await;

    let mut operator = PgConnection::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999999, 'of a newer program', true, '', 0)";
    operator.execute(newer).await.unwrap();
    operator.execute("ALTER TABLE generations ADD COLUMN mood text").await.unwrap();
    // Both the one that is open and a new one go on.
    for _ in 0..2 {
        accept(&store, 1).await;
        store.ping().await.unwrap();
    }
    Ledger::open_postgres(&settings(&url, &[]), HOUR).await.unwrap();
    assert!(program(&["migrate"]).status.success());
    operator.execute("DELETE FROM _sqlx_migrations").await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::SchemaTooOld { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_make_one_schema() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.create_database().await;
    let settings = settings(&url, &[]);
    let opened = futures::future::join_all((0..6).map(|_| Ledger::open_postgres(&settings, HOUR))).await;
    for store in opened {
        accept(&store.unwrap(), 1).await;
    }
}

#[tokio::test]
async fn a_wrong_url_is_an_error_that_keeps_the_password() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.url("there_is_none").replace("latentd@", "latentd:swordfish@");
    let error = Ledger::open_postgres(&settings(&url, &[]), HOUR).await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(told.contains("there_is_none") && !told.contains("swordfish"), "{told}");
}
