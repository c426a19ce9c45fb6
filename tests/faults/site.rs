//! The setup of an experiment: a ledger, a store of files, a load balancer, and any number of server processes.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::sync::MutexGuard;

use crate::{
    figures::Figures,
    load::Load,
    oracle,
    postgres::{self, Cluster},
    proxy::{Backend, Proxy, backend},
    s3::S3,
    server::{Launch, Server},
};

/// The lease of workers, and the unit of all bounds.
pub const LEASE: Duration = Duration::from_secs(3);

/// A word in prompts and passwords that no log may contain.
pub const SECRET: &str = "swordfish";

/// The setup of one experiment.
pub struct Site {
    name: &'static str,
    pub folder: tempfile::TempDir,
    /// The folder of pictures and logs, also if a bucket stores them.
    pub blobs: PathBuf,
    /// The load balancer: each connection of a client goes to the next API process.
    pub door: Proxy,
    database: Option<Database>,
    /// The bucket for files; `None` if they are in a local folder.
    pub bucket: Option<S3>,
    settings: Vec<(String, String)>,
    logs: Mutex<Vec<PathBuf>>,
    begun: Instant,
    /// Experiments run one at a time, because they would compete for cores.
    _alone: MutexGuard<'static, ()>,
}

struct Database {
    cluster: &'static Cluster,
    /// The URL of the database without the proxy.
    url: String,
    network: Proxy,
}

impl Site {
    /// A site for one process with SQLite and a local folder.
    pub async fn single(name: &'static str) -> Site {
        Site::new(name, None).await
    }

    /// A site for many processes on one database; `None` without PostgreSQL.
    pub async fn shared(name: &'static str) -> Option<Site> {
        let cluster = Cluster::shared()?;
        Some(Site::new(name, Some(cluster)).await)
    }

    /// A site for many processes on one database with files in a bucket; `None` without PostgreSQL.
    pub async fn with_bucket(name: &'static str) -> Option<Site> {
        let mut site = Site::shared(name).await?;
        let bucket = S3::start();
        site.blobs = bucket.file("");
        site.settings.extend(bucket.settings());
        site.bucket = Some(bucket);
        Some(site)
    }

    async fn new(name: &'static str, cluster: Option<&'static Cluster>) -> Site {
        static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let alone = ALONE.lock().await;
        let database = match cluster {
            None => None,
            Some(cluster) => Some(Database {
                cluster,
                url: cluster.create_database().await,
                network: Proxy::to(vec![Backend::Unix(cluster.socket())]).await,
            }),
        };
        let folder = tempfile::tempdir().unwrap();
        Site {
            name,
            blobs: folder.path().join("data/blobs"),
            folder,
            door: Proxy::to(Vec::new()).await,
            database,
            bucket: None,
            settings: Vec::new(),
            logs: Mutex::new(Vec::new()),
            begun: Instant::now(),
            _alone: alone,
        }
    }

    /// Adds a setting for every process.
    pub fn with(mut self, key: &str, value: impl ToString) -> Site {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    pub fn cluster(&self) -> &'static Cluster {
        self.database.as_ref().expect("a shared site").cluster
    }

    /// The proxy between the processes and their database.
    pub fn network(&self) -> &Proxy {
        &self.database.as_ref().expect("a shared site").network
    }

    /// The URL of the database through this proxy.
    pub fn database_through(&self, proxy: &Proxy) -> String {
        with_password(&postgres::through(proxy.address, &self.database.as_ref().expect("a shared site").url))
    }

    /// How to start a process with a new log file. The role (`all`, `api` or `worker`) applies only with a database.
    pub fn launch(&self, role: &str) -> Launch {
        let mut logs = self.logs.lock().unwrap();
        let log = self.folder.path().join(format!("{role}-{}.log", logs.len()));
        logs.push(log.clone());
        let mut launch = Launch::on(&self.data_dir());
        launch.log = Some(log);
        launch = launch
            .set("LATENTD_LOG__FILTER", "info")
            .set("LATENTD_QUEUE__MAX_ATTEMPTS", 100)
            .set("LATENTD_RETENTION__SWEEP_INTERVAL_S", 0.5)
            .set("LATENTD_RETENTION__ORPHAN_AGE_S", 2)
            .set("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", 200);
        if let Some(database) = &self.database {
            launch = launch
                .set("LATENTD_ROLE", role)
                .set("LATENTD_DATABASE__URL", self.database_through(&database.network))
                .set("LATENTD_WORKER__LEASE_S", LEASE.as_secs_f64())
                .set("LATENTD_WORKER__HEARTBEAT_S", 0.5)
                .set("LATENTD_WORKER__SELF_FENCE_S", 2)
                .set("LATENTD_QUEUE__REAP_INTERVAL_S", 0.5)
                .set("LATENTD_QUEUE__BACKOFF_S", 0.2);
        }
        self.settings.iter().fold(launch, |launch, (key, value)| launch.set(key, value))
    }

    /// Starts a process with this role and waits until it is ready.
    pub async fn start(&self, role: &str) -> Server {
        Server::start_ready(&self.launch(role)).await
    }

    /// Lets the load balancer forward connections to these servers.
    pub fn open(&self, servers: &[&Server]) {
        self.door.set_backends(servers.iter().map(|server| backend(&server.public)).collect());
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn logs(&self) -> Vec<PathBuf> {
        self.logs.lock().unwrap().clone()
    }

    /// Checks what must hold after every experiment, and prints the figures.
    pub async fn verdict(&self, load: &Load, figures: Figures) {
        self.verdict_on(&[load], figures).await;
    }

    /// [`Site::verdict`] for the clients of several tenants.
    pub async fn verdict_on(&self, loads: &[&Load], figures: Figures) {
        let figures = oracle::judge(self, loads, figures).await;
        println!("{}: {figures}, {:.1} s in all", self.name, self.begun.elapsed().as_secs_f64());
        assert_eq!((figures.lost, figures.twice, figures.internal()), (0, 0, 0), "{}", self.name);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            println!("{}: failed; its logs and files are in {}", self.name, self.folder.path().display());
        }
    }
}

/// All files below a folder, as paths relative to it.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    fn below(folder: &Path) -> Vec<PathBuf> {
        // Entries may be deleted while this runs.
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
    }
    below(folder).into_iter().filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_owned())).collect()
}

/// The URL with a password, which the test's database ignores.
fn with_password(url: &str) -> String {
    url.replacen('@', &format!(":{SECRET}@"), 1)
}
