//! Starts, stops and queries server processes of tests, on ports that the system chooses.

#![allow(dead_code, reason = "each test target uses its part")]

#[path = "credentials.rs"]
mod credentials;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

pub use credentials::unsigned;

/// How to start a process. The same value can start it again.
#[derive(Clone, Debug)]
pub struct Launch {
    pub data_dir: PathBuf,
    /// Settings as environment variables.
    pub settings: Vec<(String, String)>,
    /// A command before the program, such as `nice -n 5`.
    pub wrapper: Vec<String>,
    /// The file to which the log is appended; otherwise the log goes to the test's standard error.
    pub log: Option<PathBuf>,
}

/// A running server process; it is killed when it is dropped.
pub struct Server {
    child: Child,
    launch: Launch,
    /// The URL of the public listener; empty if the process has none.
    pub public: String,
    pub operator: String,
    pub client: Client,
}

/// A timeout against hanging, longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

impl Launch {
    /// A process on a data folder, with default settings.
    pub fn on(data_dir: &Path) -> Launch {
        Launch { data_dir: data_dir.to_owned(), settings: Vec::new(), wrapper: Vec::new(), log: None }
    }

    /// Adds a setting as an environment variable.
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

    /// Starts the binary and waits until it listens; it may not be ready yet.
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
        // The start may wait for a database behind a proxy that runs on the test's own runtime, so this must not block.
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

    /// Waits until the server is ready.
    pub async fn is_ready(&self) {
        self.until("it is ready", async |server: &Server| {
            let answer = server.client.get(format!("{}/readyz", server.operator)).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
    }

    /// Starts the binary and waits until it is ready. An earlier process on the same data folder must have ended.
    pub async fn start_ready(launch: &Launch) -> Server {
        let server = Server::spawn(launch).await;
        server.is_ready().await;
        server
    }

    /// Kills the process with SIGKILL and starts it again.
    pub async fn kill_and_restart(self) -> Server {
        let launch = self.launch();
        self.kill();
        Server::start_ready(&launch).await
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
            // A process that continues after SIGSTOP may have closed the connection.
            Err(_) => ask().await.unwrap(),
        }
    }

    pub async fn post(&self, body: &Value) -> Response {
        self.client.post(self.url("/v1/images")).json(body).send().await.unwrap()
    }

    /// Sends a request, asserts the status 202, and returns the id of the generation.
    pub async fn accept(&self, body: &Value) -> String {
        let response = self.post(body).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        let generation: Value = serde_json::from_str(&text).unwrap();
        generation["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the generation has ended; returns it.
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

    /// The file of a picture without its content credentials, which is the same for the same request.
    pub async fn picture(&self, id: &str, index: usize) -> Vec<u8> {
        unsigned(&self.file(id, index).await)
    }

    /// The file of a picture as it is stored.
    pub async fn file(&self, id: &str, index: usize) -> Vec<u8> {
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

    /// Polls until the condition holds. `what` describes the condition in the panic message.
    pub async fn until(&self, what: &str, holds: impl AsyncFn(&Server) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The resident memory of the process in bytes, by `ps`.
    pub fn resident_bytes(&self) -> u64 {
        let told = Command::new("ps").args(["-o", "rss=", "-p", &self.pid().to_string()]).output().unwrap();
        1024 * String::from_utf8(told.stdout).unwrap().trim().parse::<u64>().unwrap()
    }

    /// The number of open files and sockets of the process; `None` if the system has no `/proc`.
    pub fn open_files(&self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count())
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGHUP, on which the server reads the model folders again.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Sends SIGTERM and waits for the exit status; blocks the thread.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// Sends SIGTERM and waits for the exit status without blocking the thread.
    pub async fn stopped(self) -> ExitStatus {
        self.signal("TERM");
        self.exit().await
    }

    /// Waits without blocking the thread until the process has ended; returns the exit status.
    pub async fn exit(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the process is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends the signal of this name, such as TERM, STOP or CONT.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `kill` and `terminate` the process has ended already, which is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request for the embedded model.
pub fn request(prompt: &str, seed: u64) -> Value {
    json!({"prompt": prompt, "seed": seed})
}

/// `base` with the fields of `more`, which replace fields of the same names.
pub fn with(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

/// The width, the height and the RGB bytes (H, W, 3) of a picture file.
pub fn decode(file: &[u8]) -> (u32, u32, Vec<u8>) {
    let picture = image::load_from_memory(file).unwrap();
    (picture.width(), picture.height(), picture.into_rgb8().into_raw())
}
