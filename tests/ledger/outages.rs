//! Tests of PostgreSQL outages: crashes, dead networks, locks, full disks, and schemas of other versions.

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
use crate::shared::wait_until_listening;

/// The timeout of a database call in most of these tests, in seconds.
const TIMEOUT_S: &str = "1";
/// The time within which a call must return or the database must recover, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open_with_short_timeout(url: &str) -> Ledger {
    Ledger::open_postgres(&settings(url, &[("database.timeout_s", TIMEOUT_S)]), HOUR).await.unwrap()
}

/// Makes three calls and checks that each fails with a database error within [`PATIENCE`].
async fn assert_calls_fail(store: &Ledger) {
    let began = Instant::now();
    let generation = generation();
    let acceptance = request(&generation);
    let (accepted, counted, pinged) = tokio::join!(store.accept(&acceptance), store.counts(), store.ping());
    for error in [accepted.map(drop), counted.map(drop), pinged] {
        assert!(matches!(error, Err(StoreError::Database(_))), "{error:?}");
    }
    assert!(began.elapsed() < PATIENCE);
}

/// Waits until the connection pool has recovered by itself.
async fn wait_for_recovery(store: &Ledger) {
    let began = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(began.elapsed() < PATIENCE, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_restarts_has_lost_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let store = open_with_short_timeout(&cluster.create_database().await).await;
    let stop = CancellationToken::new();
    let mut heard = store.hints();
    let listening = tokio::spawn(store.clone().listen(stop.clone()));
    wait_until_listening(&store, &mut heard).await;
    let (id, lease) = running(&store).await;
    let waiting = accept(&store, 3).await;
    for _ in 0..2 {
        cluster.stop();
        assert_calls_fail(&store).await;
        let lost = store.finish(lease.clone(), Outcome::Canceled).await;
        assert!(matches!(lost, Err(StoreError::Database(_))), "{lost:?}");
        cluster.start_again();
        wait_for_recovery(&store).await;
        // The listener has connected again.
        assert_eq!(heard.next().await, Some(Hint::Queued));
        assert_eq!(get(&store, id).await.status, Status::Running);
    }
    let sent = Hint::Changed(id);
    store.hint(&[sent]).await.unwrap();
    assert_eq!(heard.next().await, Some(sent));
    assert_eq!(store.finish(lease, Outcome::Canceled).await.unwrap().unwrap().status, Status::Canceled);
    assert_eq!(claim_one(&store).await.0.id, waiting[0]);
    stop.cancel();
    listening.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_in_time_when_the_network_is_dead() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.create_database().await;
    let proxy = Proxy::to(vec![Backend::Unix(cluster.socket())]).await;
    let store = open_with_short_timeout(&postgres::through(proxy.address, &url)).await;
    let before = accept(&store, 2).await;
    for network in [Network::Blackhole, Network::Reset] {
        // The network blocks open and new connections. Make more calls than the pool has connections.
        proxy.set(network);
        for _ in 0..4 {
            assert_calls_fail(&store).await;
        }
        proxy.set(Network::Pass);
        wait_for_recovery(&store).await;
        assert_eq!(get(&store, before[0]).await.status, Status::Queued);
    }
    accept_one(&store, &generation()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_replaced() {
    let Some(place) = PgPlace::new().await else { return };
    let socket = Cluster::shared().unwrap().socket();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let forgotten = Arc::new(Notify::new());
    let carrying = tokio::spawn(carry(listener, socket, forgotten.clone()));
    // The timeout is long enough for all calls to be in progress at the same time.
    let patient = settings(&postgres::through(address, place.url()), &[("database.timeout_s", "8")]);
    let store = Ledger::open_postgres(&patient, HOUR).await.unwrap();

    // The locked queue clock blocks every accept, so as many calls as the pool has connections are in progress.
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
            assert!(began.elapsed() < PATIENCE, "the calls are not in progress at the same time");
        }
        forgotten.notify_waiters();
    };
    let (refused, ()) = tokio::join!(accepting, forget);
    assert!(refused.iter().all(|refused| matches!(refused, Err(StoreError::Database(_)))), "{refused:?}");
    operator.execute("ROLLBACK").await.unwrap();
    wait_for_recovery(&store).await;
    // The server must first detect that the clients whose calls it now runs are silent.
    let began = Instant::now();
    while let Err(error) = store.accept(&request(&generation)).await {
        assert!(began.elapsed() < PATIENCE, "{error}");
    }
    carrying.abort();
}

/// Forwards connections to the socket. After `forgotten`, existing connections stay open but silent; new ones work.
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
async fn waiting_for_a_lock_ends_at_the_timeout() {
    let Some(place) = PgPlace::new().await else { return };
    let store = open_with_short_timeout(place.url()).await;
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
async fn conflicting_transactions_are_tried_again_and_a_full_disk_is_reported() {
    let Some(place) = PgPlace::new().await else { return };
    let store = place.store().await;
    let mut operator = PgConnection::connect(place.url()).await.unwrap();
    for (code, tries) in [("40001", 2), ("40P01", 3), ("53100", 100)] {
        // The trigger fails the first `tries - 1` inserts with this code. A rollback does not reset the sequence.
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
async fn an_old_schema_is_migrated_or_refused_and_a_newer_one_is_accepted() {
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
    // The open store continues to work with the newer schema.
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
async fn replicas_that_start_together_create_one_schema() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.create_database().await;
    let settings = settings(&url, &[]);
    let opened = futures::future::join_all((0..6).map(|_| Ledger::open_postgres(&settings, HOUR))).await;
    for store in opened {
        accept(&store.unwrap(), 1).await;
    }
}

#[tokio::test]
async fn the_error_about_a_wrong_url_hides_the_password() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.url("there_is_none").replace("latentd@", "latentd:swordfish@");
    let error = Ledger::open_postgres(&settings(&url, &[]), HOUR).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("there_is_none") && !text.contains("swordfish"), "{text}");
}
