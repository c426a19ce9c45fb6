//! A latentd process within the test's own process, with scripted devices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use latentd::app::App;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{credentials::unsigned, scripted_device::Scripted, site::Site};

/// A timeout against hanging, longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

pub struct Process {
    /// Different for each process.
    pub number: usize,
    public: String,
    operator: String,
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Process {
    /// Starts a process whose devices are named `scripted:0`, `scripted:1`, ...
    pub async fn start(site: &Site, scripts: &[Arc<Scripted>]) -> Process {
        let devices = scripts.iter().enumerate().map(|(i, script)| script.device(&format!("scripted:{i}"))).collect();
        let app = App::build_on(site.config(), devices).await.unwrap();
        let public = format!("http://{}", app.public_address().unwrap().unwrap());
        let operator = format!("http://{}", app.operator_address().unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(app.run(stop.clone()));
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        static PROCESSES: AtomicUsize = AtomicUsize::new(0);
        let number = PROCESSES.fetch_add(1, SeqCst);
        Process { number, public, operator, client, stop, running }
    }

    pub async fn accept_all(&self, requests: &[Value]) -> Vec<String> {
        join_all(requests.iter().map(|request| self.accept(request))).await
    }

    pub async fn accept(&self, request: &Value) -> String {
        let response = self.client.post(format!("{}/v1/images", self.public)).json(request).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 202, "{text}");
        let generation: Value = serde_json::from_str(&text).unwrap();
        generation["id"].as_str().unwrap().to_owned()
    }

    /// The problem document of a request that is refused with 422.
    pub async fn refusal(&self, request: &Value) -> Value {
        let response = self.client.post(format!("{}/v1/images", self.public)).json(request).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 422, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the generation has ended; returns it.
    pub async fn ended(&self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.client.get(format!("{}/v1/images/{id}", self.public)).header("Prefer", "wait=10");
            let generation: Value = request.send().await.unwrap().json().await.unwrap();
            if !["queued", "running"].contains(&generation["status"].as_str().unwrap()) {
                return generation;
            }
            assert!(Instant::now() < deadline, "{id} does not end: {generation}");
        }
    }

    /// The files of a generation that has succeeded, without their content credentials.
    pub async fn pictures(&self, generation: &Value) -> Vec<Vec<u8>> {
        assert_eq!(generation["status"], "succeeded", "{generation}");
        let id = generation["id"].as_str().unwrap();
        let count = generation["params"]["n"].as_u64().unwrap();
        let file = async |index| {
            let url = format!("{}/v1/images/{id}/content/{index}", self.public);
            let response = self.client.get(url).send().await.unwrap();
            assert_eq!(response.status(), 200);
            unsigned(&response.bytes().await.unwrap())
        };
        join_all((0..count).map(file)).await
    }

    pub async fn json(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.public)).send().await.unwrap().json().await.unwrap()
    }

    /// The answer of the operator listener.
    pub async fn admin(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.operator)).send().await.unwrap().json().await.unwrap()
    }

    /// The sum of a metric's samples over all labels that contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.client.get(format!("{}/metrics", self.operator)).send().await.unwrap().text().await.unwrap();
        let is_sample = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
        text.lines().filter(is_sample).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until the process has ended by itself; returns its result.
    pub async fn exit(self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.running).await.expect("the process ends").unwrap()
    }

    /// Stops the process in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.exit().await
    }
}
