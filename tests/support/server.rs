//! A server process of its own for each test, on ports that the system chooses.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

/// How a process is started, and started again.
#[derive(Clone, Debug)]
pub struct Launch {
    pub data_dir: PathBuf,
    /// Settings as variables of the environment.
    pub settings: Vec<(String, String)>,
    /// What is before the program, such as `nice -n 5`.
    pub wrapper: Vec<String>,
    /// Where its log goes, behind what is there; else to the test's own standard error.
    pub log: Option<PathBuf>,
}

pub struct Server {
    child: Child,
    launch: Launch,
    /// Empty where the process has no public listener.
    pub public: String,
    pub operator: String,
    pub client: Client,
}

/// Longer than anything here takes on a slow machine: a bound against hanging, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(120);

impl Launch {
    pub fn on(data_dir: &Path) -> Launch {
        Launch { data_dir: data_dir.to_owned(), settings: Vec::new(), wrapper: Vec::new(), log: None }
    }

    pub fn set(mut self, key: &str, value: impl ToString) -> Launch {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }
}

impl Server {
    /// Starts the binary on a data folder, with settings from the environment, and waits until it is ready.
    pub async fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Server {
        let launch = settings.iter().fold(Launch::on(data_dir), |launch, (key, value)| launch.set(key, value));
        let server = Server::spawn(&launch).await;
        server.is_ready().await;
        server
    }

    /// Starts the binary; it listens when this returns, but need not be ready.
    pub async fn spawn(launch: &Launch) -> Server {
        let words: Vec<&str> =
            launch.wrapper.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_latentd")]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("serve")
            .env_remove("LATENTD_CONFIG")
            .env("LATENTD_DATA_DIR", &launch.data_dir)
            .env("LATENTD_HTTP__BIND", "127.0.0.1:0")
            .env("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
            .env("LATENTD_LOG__FILTER", "warn")
            .stdout(Stdio::piped());
        command.envs(launch.settings.iter().map(|(key, value)| (key, value)));
        if let Some(log) = &launch.log {
            command.stderr(File::options().create(true).append(true).open(log).unwrap());
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A start may wait for the database, which the test's own runtime may have to carry.
        let read = tokio::task::spawn_blocking(move || {
            let mut public = String::new();
            for line in lines.map_while(Result::ok) {
                let address = line.find("http://").map(|at| line[at..].to_owned()).unwrap_or_default();
                if line.starts_with("operator") {
                    return Some((public, address));
                }
                public = address;
            }
            None
        });
        let Some((public, operator)) = read.await.unwrap() else {
            panic!("the server ends before it prints its addresses: {}", child.wait().unwrap());
        };
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        Server { child, launch: launch.clone(), public, operator, client }
    }

    pub async fn is_ready(&self) {
        self.until("it is ready", async |server: &Server| {
            let answer = server.client.get(format!("{}/readyz", server.operator)).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
    }

    /// The same process anew, ready; the old one must be gone.
    pub async fn again(launch: &Launch) -> Server {
        let server = Server::spawn(launch).await;
        server.is_ready().await;
        server
    }

    /// SIGKILL, and the same process anew.
    pub async fn killed_and_again(self) -> Server {
        let launch = self.launch();
        self.kill();
        Server::again(&launch).await
    }

    pub fn launch(&self) -> Launch {
        self.launch.clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
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
        let ask = || self.client.get(format!("{}{path}", self.operator)).send();
        match ask().await {
            Ok(answer) => answer,
            // A process that was stopped may have closed the connection when it woke up.
            Err(_) => ask().await.unwrap(),
        }
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
        let told = Command::new("ps").args(["-o", "rss=", "-p", &self.pid().to_string()]).output().unwrap();
        1024 * String::from_utf8(told.stdout).unwrap().trim().parse::<u64>().unwrap()
    }

    /// Files and sockets that the process has open; `None` where the system does not show them.
    pub fn open_files(&self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count())
    }

    /// SIGKILL: nothing of the process's own code runs.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGHUP, at which the folders of models are read again.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// SIGTERM, and the exit status, without holding up the test's runtime.
    pub async fn stopped(self) -> ExitStatus {
        self.signal("TERM");
        self.exit().await
    }

    /// The exit status once the process has ended by itself or by a signal, without holding up the test's runtime.
    pub async fn exit(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the process has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// TERM, STOP, CONT.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
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

/// Width, height and the RGB bytes of a picture's file.
pub fn decode(file: &[u8]) -> (u32, u32, Vec<u8>) {
    let picture = image::load_from_memory(file).unwrap();
    (picture.width(), picture.height(), picture.into_rgb8().into_raw())
}
