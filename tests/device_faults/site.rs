//! The place of an experiment: a ledger and a folder of files, on which processes are started one after the other.

use std::path::PathBuf;

use latentd::config::{Config, Sources};
use serde_json::{Value, json};

use crate::{postgres::Cluster, process::Process, scripted_device::Scripted};

pub struct Site {
    pub folder: PathBuf,
    /// The database; `None`: SQLite in the folder.
    pub database: Option<String>,
    pub settings: Vec<(String, String)>,
    /// Deletes the folder.
    _guard: Option<tempfile::TempDir>,
}

impl Site {
    /// A site with SQLite.
    pub fn sqlite() -> Site {
        let folder = tempfile::tempdir().unwrap();
        Site { folder: folder.path().to_owned(), database: None, settings: Vec::new(), _guard: Some(folder) }
    }

    /// A site on a new database; `None` without PostgreSQL.
    pub async fn postgres() -> Option<Site> {
        let database = Some(Cluster::shared()?.create_database().await);
        Some(Site { database, ..Site::sqlite() })
    }

    /// A site with each store that this machine has, by name.
    pub async fn each() -> Vec<(&'static str, Site)> {
        let postgres = Site::postgres().await.map(|site| ("PostgreSQL", site));
        [("SQLite", Site::sqlite())].into_iter().chain(postgres).collect()
    }

    /// A site that another process has made.
    pub fn at(folder: PathBuf, database: Option<String>) -> Site {
        Site { folder, database, settings: Vec::new(), _guard: None }
    }

    pub fn with(mut self, key: &str, value: impl ToString) -> Site {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// The settings of a process, which computes with the models of the fixtures.
    pub fn config(&self) -> Config {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/pipelines");
        let mut environment: Vec<(String, String)> = [
            ("LATENTD_HTTP__BIND", "127.0.0.1:0"),
            ("LATENTD_OPERATOR__BIND", "127.0.0.1:0"),
            ("LATENTD_MODELS__DIR", models),
            ("LATENTD_MODELS__DEFAULT", "sd1"),
            ("LATENTD_DATA_DIR", self.folder.to_str().unwrap()),
            ("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", "50"),
            ("LATENTD_LOG__FILTER", "info"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        if let Some(url) = &self.database {
            let shared = [
                ("LATENTD_DATABASE__URL", url.as_str()),
                ("LATENTD_WORKER__LEASE_S", "3"),
                ("LATENTD_WORKER__HEARTBEAT_S", "0.5"),
                ("LATENTD_WORKER__SELF_FENCE_S", "2"),
                ("LATENTD_QUEUE__REAP_INTERVAL_S", "0.5"),
                ("LATENTD_QUEUE__BACKOFF_S", "0.2"),
            ];
            environment.extend(shared.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        environment.extend(self.settings.iter().cloned());
        Config::load(&Sources { environment: environment.into_iter().collect(), ..Sources::default() }).unwrap()
    }
}

/// `count` different requests.
pub fn requests(count: u64) -> Vec<Value> {
    let request = |seed: u64| {
        let (steps, n) = (6 + seed % 5, 1 + seed % 2);
        json!({"prompt": format!("fox {seed}"), "seed": seed, "steps": steps, "n": n, "scheduler": "dpmpp_2m"})
    };
    (0..count).map(request).collect()
}

/// The pictures of each request, drawn by a process whose device has no faults.
pub async fn expected(requests: &[Value]) -> Vec<Vec<Vec<u8>>> {
    let site = Site::sqlite();
    let process = Process::start(&site, &[Scripted::new()]).await;
    let mut pictures = Vec::new();
    for id in process.accept_all(requests).await {
        let generation = process.ended(&id).await;
        pictures.push(process.pictures(&generation).await);
    }
    process.stop().await.unwrap();
    pictures
}
