//! A network that can fail: a proxy on a port of its own, between any process and what it talks to.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Pass,
    /// Connections are accepted and nothing moves, on old ones neither: a partition. What is under way arrives after it.
    Blackhole,
    /// Connections are cut, old and new.
    Reset,
    /// Every piece is late by this.
    Delay(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Passes each connection to the next of its backends in turn, as a load balancer does.
pub struct Proxy {
    pub address: SocketAddr,
    backends: Arc<Mutex<Vec<Backend>>>,
    network: watch::Sender<Network>,
    serving: AbortHandle,
}

impl Proxy {
    pub async fn to(backends: Vec<Backend>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends = Arc::new(Mutex::new(backends));
        let network = watch::Sender::new(Network::Pass);
        let serving = tokio::spawn(serve(listener, backends.clone(), network.subscribe())).abort_handle();
        Proxy { address, backends, network, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Connections from now on go to these.
    pub fn lead_to(&self, backends: Vec<Backend>) {
        *self.backends.lock().unwrap() = backends;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The backend behind an address such as `http://127.0.0.1:8080`.
pub fn backend(url: &str) -> Backend {
    Backend::Tcp(url.strip_prefix("http://").unwrap().parse().unwrap())
}

async fn serve(listener: TcpListener, backends: Arc<Mutex<Vec<Backend>>>, network: watch::Receiver<Network>) {
    let turn = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut order = backends.lock().unwrap().clone();
        if !order.is_empty() {
            let first = turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(first);
        }
        connections.spawn(carry(client, order, network.clone()));
    }
}

/// One connection, to the first backend that takes it.
async fn carry(client: TcpStream, backends: Vec<Backend>, mut network: watch::Receiver<Network>) {
    let _ = client.set_nodelay(true);
    let ended: io::Result<()> = async {
        arrive(&mut network).await?;
        let (reader, writer) = client.into_split();
        // Dropped without its peer, a half does not close the connection: together they do.
        for backend in backends {
            match backend {
                Backend::Tcp(address) => {
                    let Ok(server) = TcpStream::connect(address).await else { continue };
                    let _ = server.set_nodelay(true);
                    let (from, to) = server.into_split();
                    return exchange((reader, writer), (from, to), network).await;
                }
                Backend::Unix(path) => {
                    let Ok(server) = UnixStream::connect(path).await else { continue };
                    let (from, to) = server.into_split();
                    return exchange((reader, writer), (from, to), network).await;
                }
            }
        }
        Ok(())
    }
    .await;
    drop(ended);
}

async fn exchange(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    network: watch::Receiver<Network>,
) -> io::Result<()> {
    let up = pump(client.0, server.1, network.clone());
    let down = pump(server.0, client.1, network);
    tokio::try_join!(up, down).map(|_| ())
}

/// Carries bytes one way until the end of them, which it passes on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    loop {
        let mut watched = network.clone();
        let length = tokio::select! {
            read = from.read(&mut piece) => read?,
            _ = watched.wait_for(|network| *network == Network::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        arrive(&mut network).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
    }
}

/// Returns when what is under way may arrive.
async fn arrive(network: &mut watch::Receiver<Network>) -> io::Result<()> {
    loop {
        let now = *network.borrow_and_update();
        match now {
            Network::Pass => return Ok(()),
            Network::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            Network::Delay(late) => {
                tokio::time::sleep(late).await;
                return Ok(());
            }
            // The proxy is gone with its test.
            Network::Blackhole => network.changed().await.map_err(|_| io::ErrorKind::ConnectionReset)?,
        }
    }
}
