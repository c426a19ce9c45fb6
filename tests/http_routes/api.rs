//! A test server without a worker: the real routers on a real ledger. The test decides when a generation begins and how
//! it ends.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request},
    response::Response,
};
use latentd::{
    app,
    config::{Config, Sources},
    device::Device,
    engine::Cancel,
    generation::{Artifact, Facts, GenerationId, MediaType, Problem},
    http::{self, AppState},
    ledger::{Blobs, Claimant, Lease, Ledger, Outcome, Serving, Store, blobs::path_of},
    metrics::Metrics,
    safety::Safety,
    service::{AcceptPolicy, Devices, Drain, Live, Memory, NewKey, Outbox, Parts, Service, Throughput},
    telemetry::Tracer,
    webhooks::{EndpointRegistry, Guard, SystemResolver},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{conforms::assert_conforms, silence::SilentStore};

/// The routers of both listeners and the state behind them.
pub struct TestApi {
    pub public: Router,
    pub operator: Router,
    pub store: Arc<dyn Store>,
    pub live: Live,
    pub draining: CancellationToken,
    pub drain: Drain,
    pub afterwork: TaskTracker,
    pub blobs: Blobs,
    pub throughput: Throughput,
    pub memory: Memory,
    /// One device, named `cpu`.
    pub devices: Devices,
    pub data: tempfile::TempDir,
}

/// An answer with its complete body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The value of a header; empty if the header is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl TestApi {
    /// Opens a server on a new SQLite ledger. `flags` override the default settings.
    pub async fn open(flags: &[(&str, &str)]) -> TestApi {
        let config = config(flags);
        let (store, data) = store(&config).await;
        let store = Arc::new(store);
        TestApi::with_store(store.clone(), store, config, data)
    }

    /// Opens a server on a store that never answers, like a database behind a dead network.
    pub fn on_silent_store(flags: &[(&str, &str)]) -> TestApi {
        TestApi::with_store(Arc::new(SilentStore), Arc::new(SilentStore), config(flags), tempfile::tempdir().unwrap())
    }

    /// Opens a server on this store. The service uses `serving` in place of `store`.
    pub fn with_store(
        store: Arc<dyn Store>,
        serving: Arc<dyn Serving>,
        config: Config,
        data: tempfile::TempDir,
    ) -> TestApi {
        let guard = Arc::new(Guard::new(&config.webhooks));
        let patience = store.is_shared().then(|| config.database.timeout_s.into());
        let webhooks =
            EndpointRegistry::new(store.clone(), patience, guard, Arc::new(SystemResolver), &config.webhooks);
        let blobs = Blobs::open(&config.blobs, data.path()).unwrap();
        let afterwork = TaskTracker::new();
        let (live, metrics, draining) = (Live::default(), Metrics::new(), CancellationToken::new());
        let (drain, throughput) = (Drain::default(), Throughput::default());
        let memory = Memory::new(config.engine.max_bytes, 1);
        let devices = Devices::new(["cpu".to_owned()], &metrics);
        let service = Service::new(Parts {
            store: serving,
            blobs: blobs.clone(),
            live: live.clone(),
            catalogue: Arc::new(app::catalogue(&config, vec![Device::host()]).unwrap()),
            webhooks,
            provenance: app::provenance(&config).unwrap(),
            safety: Safety::open(&config.safety, metrics.clone()).unwrap(),
            limits: config.limits.clone(),
            accept_policy: AcceptPolicy::of(&config),
            metrics: metrics.clone(),
            throughput: throughput.clone(),
            devices: devices.clone(),
            memory: memory.clone(),
            wake: Arc::new(Notify::new()),
            outbox: Outbox::default(),
            computes: true,
            drain: drain.clone(),
            draining: draining.clone(),
            tasks: afterwork.clone(),
        });
        let operator = config.operator.clone();
        let state = AppState::new(
            service,
            metrics,
            Tracer::off(),
            config.http,
            config.limits,
            draining.clone(),
            afterwork.clone(),
        );
        let (public, operator) = (http::public_router(state.clone()), http::operator_router(state, &operator));
        TestApi { public, operator, store, live, draining, drain, afterwork, blobs, throughput, memory, devices, data }
    }

    /// Sends a request to the public listener; the body of the answer is not read.
    pub async fn send(&self, request: Request<Body>) -> Response {
        self.public.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request to the public listener and checks the complete answer against the contract.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = read(self.send(request).await).await;
        assert_eq!(answer.header("x-request-id").len(), 32);
        assert_conforms(method.as_str(), &path, answer.status, &answer.body);
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn get_with(&self, path: &str, name: &str, value: &str) -> Answer {
        self.ask(Request::get(path).header(name, value).body(Body::empty()).unwrap()).await
    }

    pub async fn act(&self, method: Method, path: &str) -> Answer {
        self.ask(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    /// Sends a request to the operator's listener and checks the complete answer against the contract.
    pub async fn operate(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(&method).uri(path).header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.operator.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let answer = read(response).await;
        assert_conforms(method.as_str(), path, answer.status, &answer.body);
        answer
    }

    /// Creates a key for a tenant; returns the value of the `Authorization` header.
    pub async fn key(&self, tenant: &str, max_queued: u32) -> String {
        let new =
            NewKey { tenant: tenant.to_owned(), weight: 1.0, max_queued, max_running: 8, terms: Default::default() };
        let (key, record) = new.make().unwrap();
        self.store.create_key(&record).await.unwrap();
        format!("Bearer {}", key.expose())
    }

    /// Creates a generation; returns its id.
    pub async fn create(&self, body: Value) -> GenerationId {
        let answer = self.ask(post(&body, &[])).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    /// Claims the first queued generation, as a worker does.
    pub async fn begin(&self) -> Lease {
        let by = Claimant {
            worker: "the test".to_owned(),
            lease: std::time::Duration::from_secs(600),
            models: vec!["emoji".to_owned()],
            alone_from: 2,
        };
        let (_, lease) = self.store.claim(&by, 1, true).await.unwrap().pop().expect("a generation is queued");
        self.live.begin(lease.clone(), Cancel::default());
        lease
    }

    /// Waits until a concurrent request has been accepted, then claims its generation.
    pub async fn begin_next(&self) -> Lease {
        let accepted = async {
            while self.store.counts().await.unwrap().queued == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), accepted).await.expect("nothing was accepted");
        self.begin().await
    }

    /// Ends a generation with one PNG file of these bytes.
    pub async fn succeed(&self, lease: Lease, picture: &[u8]) {
        self.succeed_with_files(lease, &[("image/png", "png", picture)]).await;
    }

    /// Ends a generation with files of these media types, extensions and bytes.
    pub async fn succeed_with_files(&self, lease: Lease, files: &[(&str, &str, &[u8])]) {
        let mut artifacts = Vec::new();
        for (index, (media_type, extension, file)) in (0..).zip(files) {
            let blob = path_of(lease.id(), lease.fence(), index, extension);
            self.blobs.put(&blob, file.to_vec().into()).await.unwrap();
            artifacts.push(Artifact {
                index,
                media_type: MediaType::try_from((*media_type).to_owned()).unwrap(),
                bytes: file.len() as u64,
                sha256: Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect(),
                unsigned_sha256: None,
                watermark: None,
                blob,
                flagged: None,
                facts: Facts::Picture { width: 64, height: 64, seed: 7 },
            });
        }
        self.end(lease, Outcome::Succeeded(artifacts)).await;
    }

    /// Ends a generation with an error of this code.
    pub async fn fail(&self, lease: Lease, code: &str) {
        let problem = Problem { code: code.to_owned(), message: "as tested".to_owned(), retryable: true };
        self.end(lease, Outcome::Failed(problem)).await;
    }

    pub async fn end(&self, lease: Lease, outcome: Outcome) {
        let id = lease.id();
        self.store.finish(lease, outcome).await.unwrap().expect("the lease is valid");
        self.live.event(id);
        self.live.close(id);
    }
}

/// Settings by their keys, such as `http.bind`, or by their environment variables, which can be lists.
pub fn config(settings: &[(&str, &str)]) -> Config {
    let (environment, flags): (Vec<_>, Vec<_>) = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .partition(|(key, _)| key.starts_with("LATENTD_"));
    let environment = environment.into_iter().collect();
    Config::load(&Sources { environment, flags, ..Sources::default() }).unwrap()
}

pub async fn store(config: &Config) -> (Ledger, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    (Ledger::open_sqlite(data.path(), config.retention.finished_s.into()).await.unwrap(), data)
}

pub async fn read(response: Response) -> Answer {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap().to_vec();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

/// A request that creates a generation, with these headers.
pub fn post(body: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::post("/v1/images").header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_string())).unwrap()
}
