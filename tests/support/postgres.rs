//! A PostgreSQL cluster for tests: made by `initdb` in a temporary folder and reached by a Unix socket, so that it
//! needs no port. The cluster ends with the test process, even if that process crashes.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor};

/// Shell script that starts the server. A line on standard input stops the server; the end of the input (the test has
/// ended) stops the server and removes the folder.
const KEEPER: &str = r#"
"$1" -D "$2/data" -k "$2" -c listen_addresses= -c port=5432 -c max_connections="$3" -c shared_buffers=32MB \
    -c log_line_prefix='%m ' >>"$2/log" 2>&1 &
if read -r _; then remains=yes; fi
kill -QUIT $!
wait $!
[ -n "$remains" ] || rm -rf "$2"
"#;

const USER: &str = "latentd";

/// Connections that the clusters of tests accept.
const CONNECTIONS: u32 = 200;

/// A timeout that is longer than a start takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL cluster with one server process.
pub struct Cluster {
    folder: PathBuf,
    server: PathBuf,
    /// The user and group that run the server, if the test runs as root, which PostgreSQL refuses.
    owner: Option<(u32, u32)>,
    connections: u32,
    keeper: Mutex<Option<Child>>,
    databases: AtomicUsize,
}

impl Cluster {
    /// The cluster that all tests of this process share. Without PostgreSQL, returns `None` so that tests are skipped,
    /// or panics if LATENTD_REQUIRE_POSTGRES is set.
    pub fn shared() -> Option<&'static Cluster> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        SHARED.get_or_init(Cluster::start).as_ref()
    }

    /// Starts a separate cluster, for tests that stop it. `None` and panics are as in [`Cluster::shared`].
    pub fn start() -> Option<Cluster> {
        Cluster::start_with(CONNECTIONS)
    }

    /// Like [`Cluster::start`], with a server that accepts this number of connections.
    pub fn start_with(connections: u32) -> Option<Cluster> {
        let Some(programs) = programs() else {
            let required = std::env::var_os("LATENTD_REQUIRE_POSTGRES").is_some();
            assert!(!required, "LATENTD_REQUIRE_POSTGRES is set, but there is no initdb");
            println!("skipped: no PostgreSQL server found (initdb)");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("latentd-pg-").tempdir().unwrap().keep();
        let owner = (folder.metadata().unwrap().uid() == 0).then(unprivileged);
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
        }
        let server = programs.join("postgres");
        let (keeper, databases) = (Mutex::new(None), AtomicUsize::new(0));
        let cluster = Cluster { folder, server, owner, connections, keeper, databases };
        let made = cluster
            .command(&programs.join("initdb"))
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"])
            .args(["--no-sync", "--no-instructions", "-D"])
            .arg(cluster.folder.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.start_again();
        Some(cluster)
    }

    /// Starts the stopped server again on its files.
    pub fn start_again(&self) {
        let mut keeper = self.keeper.lock().unwrap();
        assert!(keeper.is_none(), "the server is not stopped");
        let mut command = self.command(Path::new("sh"));
        command.args(["-c", KEEPER, "keeper"]).arg(&self.server).arg(&self.folder);
        command.arg(self.connections.to_string()).stdin(Stdio::piped());
        // In its own process group, so that an interrupt at the terminal reaches only the test. The script then sees
        // the end of its input.
        *keeper = Some(command.process_group(0).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server at once like a crash: without a checkpoint, and all connections are cut.
    pub fn stop(&self) {
        let mut keeper = self.keeper.lock().unwrap().take().expect("the server runs");
        keeper.stdin.take().unwrap().write_all(b"stop\n").unwrap();
        keeper.wait().unwrap();
        // A crash leaves this file behind, and `is_ready` would take its state for the state of the next server.
        let _ = fs::remove_file(self.folder.join("data/postmaster.pid"));
    }

    /// Creates an empty database and returns its URL.
    pub async fn create_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    /// The URL of a database of this name.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@localhost/{database}?host={}", self.folder.display())
    }

    /// The path of the server's Unix socket, for a proxy.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Whether the server accepts connections, by the state in `postmaster.pid`, which `pg_ctl` reads as well.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        file.lines().nth(7).is_some_and(|state| state.trim() == "ready")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() else {
            let _ = fs::remove_dir_all(&self.folder);
            return;
        };
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
}

/// The URL of the same database by way of a proxy.
pub fn through(proxy: SocketAddr, url: &str) -> String {
    let database = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    format!("postgres://{USER}@{proxy}/{database}")
}

/// The folder of `initdb` and `postgres`: the one in the PATH, otherwise the newest version in Debian's folder.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file());
    if let Some(folder) = found {
        return folder.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    Some(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// The ids of the user `postgres` and its group, otherwise of `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|fields: &Vec<&str>| fields[0] == name)?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("a user that is not root")
}
