//! An S3 server in the test's process, on a temporary folder, with faults that tests can switch on.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use latentd::config::{self, Config, Sources};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio_util::sync::CancellationToken;

pub const BUCKET: &str = "pictures";
pub const PREFIX: &str = "some/place";
const KEY: &str = "tester";
const SECRET: &str = "0123456789";

/// How the server answers requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Ok,
    /// Answers every request with 503.
    Unavailable,
    /// Delays every answer by this time.
    Slow(Duration),
    /// Does not answer until the mode changes; then answers with 503.
    Hang,
    /// Cuts every answer in the middle of its body.
    Cut,
    /// Answers every request with 403.
    Forbidden,
}

/// The server. It has its own thread and runtime, so that a test that blocks does not stop it.
pub struct S3 {
    address: SocketAddr,
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

struct Shared {
    mode: Mutex<Mode>,
    requests: AtomicUsize,
    /// Cancelled when the mode changes.
    changed: Mutex<CancellationToken>,
    service: S3Service,
    root: PathBuf,
}

impl S3 {
    /// Serves an empty bucket on a free port.
    pub fn start() -> S3 {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Ok),
            requests: AtomicUsize::new(0),
            changed: Mutex::default(),
            service: builder.build(),
            root: folder.path().to_owned(),
        });
        let mut server = S3 { address: SocketAddr::from(([127, 0, 0, 1], 0)), shared, folder, running: None };
        server.start_again();
        server
    }

    /// Listens again after [`S3::stop`], at the same address and with the stored files.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, shared) = (CancellationToken::new(), self.shared.clone());
        let stopped = stop.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // The end of the future drops all connections.
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let served = axum::serve(listener, Router::new().fallback(answer).with_state(shared));
                stopped.run_until_cancelled(served.into_future()).await
            });
        };
        self.running = Some((stop, std::thread::spawn(serve)));
    }

    /// Closes all connections and refuses new ones.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.cancel();
            thread.join().unwrap();
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_mode(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        std::mem::take(&mut *self.shared.changed.lock().unwrap()).cancel();
    }

    /// The number of requests received, in all modes.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The settings of a latentd server that uses the bucket, as environment variables.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("LATENTD_BLOBS__URL", format!("s3://{BUCKET}/{PREFIX}")),
            ("LATENTD_BLOBS__ENDPOINT", self.endpoint()),
            ("LATENTD_BLOBS__ACCESS_KEY_ID", KEY.to_owned()),
            ("LATENTD_BLOBS__SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("LATENTD_BLOBS__ALLOW_HTTP", "true".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    /// The same settings as a section of the configuration, with `more` variables that override them.
    pub fn config(&self, more: &[(&str, &str)]) -> config::Blobs {
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let environment = self.settings().into_iter().chain(more).collect();
        Config::load(&Sources { environment, ..Sources::default() }).unwrap().blobs
    }

    /// The folder of the bucket on the disk.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The path of an object's file on the disk.
    pub fn file(&self, path: &str) -> PathBuf {
        self.bucket().join(PREFIX).join(path)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let (mode, changed) = (*shared.mode.lock().unwrap(), shared.changed.lock().unwrap().clone());
    match mode {
        Mode::Ok => served(&shared, request).await,
        Mode::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mode::Forbidden => StatusCode::FORBIDDEN.into_response(),
        Mode::Hang => {
            changed.cancelled().await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Mode::Slow(delay) => {
            tokio::time::sleep(delay).await;
            served(&shared, request).await
        }
        Mode::Cut => {
            let (head, body) = served(&shared, request).await.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let half = [Ok(body.slice(..body.len() / 2)), Err(std::io::Error::other("cut"))];
            // The header still announces the complete length.
            Response::from_parts(head, Body::from_stream(futures::stream::iter(half).boxed()))
        }
    }
}

async fn served(shared: &Shared, request: Request) -> Response {
    // The library would create a missing bucket or report only a missing object.
    let bucket = request.uri().path().split('/').nth(1).unwrap_or_default();
    if !shared.root.join(bucket).is_dir() {
        return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>").into_response();
    }
    match shared.service.call(request.map(s3s::Body::http_body_unsync)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => panic!("the test's S3 server failed: {error:?}"),
    }
}
