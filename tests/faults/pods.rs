//! A fault test of the manifests' own numbers: pods are replaced as Kubernetes replaces them, under load.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::Server,
    site::Site,
};

/// Seconds of the manifests are divided by this number. Between the withdrawal and SIGTERM, a request of a second must
/// have time to end.
const FASTER: f64 = 2.5;

const STEPS: u32 = 12;

/// Seconds that load balancers may need until they send no more connections to a pod that leaves
/// (deploy/check/pods.py).
const WITHDRAWAL_S: f64 = 10.0;

/// The numbers of a manifest, in seconds.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    pre_stop: f64,
    shutdown: f64,
    grace: f64,
}

impl Numbers {
    /// Reads deploy/kustomize/overlays/scale-out/NAME.yaml.
    fn of(name: &str) -> Numbers {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/overlays/scale-out");
        let text = fs::read_to_string(format!("{folder}/{name}.yaml")).unwrap();
        let after = |words: &str| {
            let (_, rest) = text.split_once(words)?;
            let digits: String =
                rest.chars().skip_while(|c| " \"".contains(*c)).take_while(char::is_ascii_digit).collect();
            digits.parse::<f64>().ok()
        };
        Numbers {
            pre_stop: after("sleep: {seconds:").unwrap_or(0.0),
            shutdown: after("{name: LATENTD_SHUTDOWN_TIMEOUT_S, value:").expect("a shutdown timeout"),
            grace: after("terminationGracePeriodSeconds:").expect("a grace period"),
        }
    }

    /// Starts a process with these numbers.
    async fn start(self, site: &Site, role: &str) -> Server {
        let launch = site.launch(role).set("LATENTD_SHUTDOWN_TIMEOUT_S", self.shutdown / FASTER);
        Server::start_ready(&launch).await
    }

    /// Ends a pod as Kubernetes does: `withdraw` runs when the load balancers have learned of it, SIGTERM comes after
    /// the sleep of preStop, and SIGKILL would come after the grace period. Returns the time from the beginning to the
    /// end.
    async fn end(self, pod: Server, withdraw: impl FnOnce()) -> Duration {
        let begun = Instant::now();
        let until = async |seconds: f64| {
            tokio::time::sleep(Duration::from_secs_f64(seconds / FASTER).saturating_sub(begun.elapsed())).await;
        };
        until(self.pre_stop.min(WITHDRAWAL_S)).await;
        withdraw();
        until(self.pre_stop).await;
        assert!(pod.stopped().await.success());
        let took = begun.elapsed();
        assert!(took.as_secs_f64() < self.grace / FASTER, "SIGKILL would have come: {took:?} of {self:?} / {FASTER}");
        took
    }
}

/// T28.
#[tokio::test(flavor = "multi_thread")]
async fn replacing_every_pod_by_the_numbers_of_the_manifests_loses_nothing() {
    let Some(site) = Site::with_bucket("T28 every pod replaced as Kubernetes replaces it, under load").await else {
        return;
    };
    let (of_api, of_worker) = (Numbers::of("api"), Numbers::of("worker"));
    assert!(of_api.pre_stop >= WITHDRAWAL_S, "{of_api:?}");
    // A slow machine must not refuse requests because the queue is long.
    let site = site.with("LATENTD_ENGINE__MAX_RUNS", 8).with("LATENTD_QUEUE__MAX_WAIT_S", 3600);
    let mut apis = vec![of_api.start(&site, "api").await, of_api.start(&site, "api").await];
    let mut workers = vec![of_worker.start(&site, "worker").await, of_worker.start(&site, "worker").await];
    site.open(&apis.iter().collect::<Vec<_>>());
    let load = Arc::new(Load::through(site.door.url()));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|client| tokio::spawn(use_it(client, load.clone(), over.clone()))).collect();
    until_accepted(&load, 4).await;

    let mut slowest = Duration::ZERO;
    // maxSurge 1, maxUnavailable 0: the new pod is ready before an old one leaves.
    for _ in 0..2 {
        apis.push(of_api.start(&site, "api").await);
        site.open(&apis.iter().collect::<Vec<_>>());
        let old = apis.remove(0);
        slowest = slowest.max(of_api.end(old, || site.open(&apis.iter().collect::<Vec<_>>())).await);
    }
    // maxSurge 0, maxUnavailable 1: an old pod ends before the new one starts.
    for _ in 0..2 {
        slowest = slowest.max(of_worker.end(workers.remove(0), || {}).await);
        workers.push(of_worker.start(&site, "worker").await);
    }
    until_accepted(&load, load.ids().len() + 4).await;
    let count = || (load.refused.load(Relaxed), load.broken.load(Relaxed));
    assert_eq!(count(), (0, 0), "no client saw an error while latentd's pods were replaced");
    // The pod of PostgreSQL is replaced on the same volume. Meanwhile, answers ask clients to retry.
    tokio::task::block_in_place(|| {
        site.cluster().stop();
        site.cluster().start_again();
    });
    until_accepted(&load, load.ids().len() + 4).await;
    assert_eq!(load.broken.load(Relaxed), 0, "no connection was cut");

    over.store(true, Relaxed);
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    for id in load.ids() {
        let generation = ended(&load, &id).await;
        assert_eq!(generation["status"], "succeeded", "{generation}");
    }
    let figures = Figures::default()
        .note(format!("slowest end of a pod {:.1} s of the manifests' seconds", slowest.as_secs_f64() * FASTER))
        .note(format!("{} requests told to come again while PostgreSQL was away", load.refused.load(Relaxed)));
    site.verdict(&load, figures).await;
}

/// A client that sends a generation, reads it, and waits for it for a second, which is less time than the process still
/// has after the load balancer has withdrawn it.
async fn use_it(client: u64, load: Arc<Load>, over: Arc<AtomicBool>) {
    let mut made = 0;
    while !over.load(Relaxed) {
        let id = load.submit(&format!("{client}-{made}"), &request(100 * client + made, STEPS)).await;
        made += 1;
        load.look(&id).await.expect("every replica knows an accepted generation");
        let url = load.url(&format!("/v1/images/{id}"));
        let (status, text) = load.until_answered(|| load.client.get(&url).header("Prefer", "wait=1")).await;
        assert!(status.is_success(), "{status} {text}");
    }
}

/// A slow machine needs longer for the whole queue than for one generation.
async fn ended(load: &Load, id: &str) -> serde_json::Value {
    for _ in 0..5 {
        if let Some(generation) = load.ended(id).await {
            return generation;
        }
    }
    panic!("{id} does not end");
}

async fn until_accepted(load: &Load, least: usize) {
    let begun = Instant::now();
    while load.ids().len() < least {
        assert!(begun.elapsed() < crate::server::PATIENCE, "{} generations are accepted", load.ids().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
