//! A PostgreSQL cluster of the test's own: made by `initdb`, reached by a Unix socket in a folder of its own, so that it takes no
//! port, and gone with the test process however that ends.

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

/// Starts the server, and stops it at the word of the test or when the test is gone; then it removes the folder too.
const KEEPER: &str = r#"
"$1" -D "$2/data" -k "$2" -c listen_addresses= -c port=5432 -c max_connections=200 -c shared_buffers=32MB \
    -c log_line_prefix='%m ' >>"$2/log" 2>&1 &
if read -r _; then remains=yes; fi
kill -QUIT $!
wait $!
[ -n "$remains" ] || rm -rf "$2"
"#;

const USER: &str = "latentd";

/// Longer than a start takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    folder: PathBuf,
    server: PathBuf,
    /// Whom the server runs as: it refuses to be root.
    owner: Option<(u32, u32)>,
    keeper: Mutex<Option<Child>>,
    databases: AtomicUsize,
}

impl Cluster {
    /// The one that all tests of this process share. `None`: this machine has no PostgreSQL, which is an error where
    /// LATENTD_REQUIRE_POSTGRES is set; what needs it is passed over then.
    pub fn shared() -> Option<&'static Cluster> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        SHARED.get_or_init(Cluster::start).as_ref()
    }

    /// One that nobody else uses, for those who stop it.
    pub fn start() -> Option<Cluster> {
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
        let cluster = Cluster { folder, server, owner, keeper: Mutex::new(None), databases: AtomicUsize::new(0) };
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

    /// Starts the stopped server on what it has on its disk.
    pub fn start_again(&self) {
        let mut keeper = self.keeper.lock().unwrap();
        assert!(keeper.is_none(), "it is not stopped");
        let mut command = self.command(Path::new("sh"));
        command.args(["-c", KEEPER, "keeper"]).arg(&self.server).arg(&self.folder).stdin(Stdio::piped());
        // A group of its own: an interrupt at the terminal is for the test, whose end it then sees.
        *keeper = Some(command.process_group(0).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server at once, as a crash does: nothing is written down in order, every connection is cut.
    pub fn stop(&self) {
        let mut keeper = self.keeper.lock().unwrap().take().expect("it runs");
        keeper.stdin.take().unwrap().write_all(b"stop\n").unwrap();
        keeper.wait().unwrap();
        // A crash leaves it behind, and its last line would pass for the next server's.
        let _ = fs::remove_file(self.folder.join("data/postmaster.pid"));
    }

    /// A database that nobody else has; its URL.
    pub async fn create_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@localhost/{database}?host={}", self.folder.display())
    }

    /// The socket that the server listens on, for a proxy.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// As `pg_ctl` finds out.
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

/// The URL of the same database, where a proxy listens for it.
pub fn through(proxy: SocketAddr, url: &str) -> String {
    let database = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    format!("postgres://{USER}@{proxy}/{database}")
}

/// The folder of `initdb` and `postgres`: of the PATH, else of the newest version where Debian keeps them.
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

/// The system's user for PostgreSQL, else the one for nothing.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|fields: &Vec<&str>| fields[0] == name)?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("a user that is not root")
}
