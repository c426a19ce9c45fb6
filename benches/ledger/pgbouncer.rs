//! PgBouncer in transaction mode in front of a cluster.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::postgres::{Cluster, through};

/// Connections to PostgreSQL that all clients of the pooler share.
const SERVER_CONNECTIONS: u32 = 20;

pub struct PgBouncer {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts the pooler on a free port as the user that runs the cluster. The error says why it cannot be used.
    pub fn start(cluster: &Cluster) -> Result<PgBouncer, String> {
        let program = std::env::var("PGBOUNCER").unwrap_or_else(|_| "/usr/sbin/pgbouncer".to_owned());
        let version =
            Command::new(&program).arg("--version").output().map_err(|error| format!("{program}: {error}"))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let minor = version.split_whitespace().nth(1).and_then(|number| number.split('.').nth(1)?.parse::<u32>().ok());
        if minor.is_none_or(|minor| minor < 21) {
            return Err(format!("{program} has no max_prepared_statements: {}", version.lines().next().unwrap_or("")));
        }
        let socket = cluster.socket();
        let sockets = socket.parent().ok_or("the socket has no folder")?;
        let owner = sockets.metadata().map_err(|error| error.to_string())?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let config = format!(
            "[databases]\n* = host={} port=5432 user=latentd\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\nmax_client_conn = 2000\n\
             default_pool_size = {SERVER_CONNECTIONS}\nmax_prepared_statements = 200\nlogfile =\n\
             ignore_startup_parameters = extra_float_digits\n",
            sockets.display(),
            address.port(),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, config).map_err(|error| error.to_string())?;
        std::os::unix::fs::chown(folder.path(), Some(owner.uid()), Some(owner.gid()))
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        command.arg(&file).uid(owner.uid()).gid(owner.gid()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(|error| error.to_string())?;
        let pooler = PgBouncer { process, address, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{program} does not start"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(pooler)
    }

    /// The URL of the same database by way of the pooler.
    pub fn url(&self, url: &str) -> String {
        through(self.address, url)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
