//! A server process of its own for each test, on ports that the system chooses.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

pub struct Server {
    child: Child,
    pub public: String,
    pub operator: String,
    pub client: Client,
}

/// Longer than anything here takes on a slow machine: a bound against hanging, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(120);

impl Server {
    /// Starts the binary on a data folder, with settings from the environment, and waits until it is ready.
    pub async fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        command
            .arg("serve")
            .env_remove("LATENTD_CONFIG")
            .env("LATENTD_DATA_DIR", data_dir)
            .env("LATENTD_HTTP__BIND", "127.0.0.1:0")
            .env("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
            .env("LATENTD_LOG__FILTER", "warn")
            .stdout(Stdio::piped());
        for (key, value) in settings {
            command.env(key, value);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || {
            let line = lines.next().expect("the server prints its addresses").unwrap();
            line[line.find("http://").expect("an address")..].to_owned()
        };
        let (public, operator) = (address(), address());
        let server = Server { child, public, operator, client: Client::builder().timeout(PATIENCE).build().unwrap() };
        server
            .until("it is ready", async |server: &Server| {
                server.get_operator("/readyz").await.status() == StatusCode::OK
            })
            .await;
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }

    pub async fn get_operator(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.operator)).send().await.unwrap()
    }

    pub async fn post(&self, body: &Value) -> Response {
        self.client.post(self.url("/v1/images")).json(body).send().await.unwrap()
    }

    /// Posts and expects 202; returns the generation's id.
    pub async fn accept(&self, body: &Value) -> String {
        let response = self.post(body).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        let generation: Value = serde_json::from_str(&text).unwrap();
        generation["id"].as_str().unwrap().to_owned()
    }

    /// The generation once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.client.get(self.url(&format!("/v1/images/{id}"))).header("Prefer", "wait=30");
            let generation: Value = request.send().await.unwrap().json().await.unwrap();
            if !["queued", "running"].contains(&generation["status"].as_str().unwrap()) {
                return generation;
            }
            assert!(Instant::now() < deadline, "{id} does not end: {generation}");
        }
    }

    pub async fn picture(&self, id: &str, index: usize) -> Vec<u8> {
        let response = self.get(&format!("/v1/images/{id}/content/{index}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.bytes().await.unwrap().to_vec()
    }

    /// The sum of a metric's samples over all labels that contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get_operator("/metrics").await.text().await.unwrap();
        let is_sample = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
        text.lines().filter(is_sample).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Polls until the condition holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn(&Server) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Memory that the process has, as the system counts it.
    pub fn resident_bytes(&self) -> u64 {
        let told = Command::new("ps").args(["-o", "rss=", "-p", &self.child.id().to_string()]).output().unwrap();
        1024 * String::from_utf8(told.stdout).unwrap().trim().parse::<u64>().unwrap()
    }

    /// SIGKILL: nothing of the process's own code runs.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `kill` and `terminate` the process is gone already, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request for the embedded model.
pub fn request(prompt: &str, seed: u64) -> Value {
    json!({"prompt": prompt, "seed": seed})
}

/// `base` with the fields of `more` laid over it.
pub fn with(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

/// Width, height and the RGB bytes of a PNG file.
pub fn decode(file: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(info.buffer_size());
    (info.width, info.height, pixels)
}
