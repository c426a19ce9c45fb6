//! A TCP proxy that simulates network faults between a process and its backends.

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

/// How the proxy treats connections and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Pass,
    /// A partition: connections are accepted, but no bytes move on new or old ones. The bytes arrive after the
    /// partition.
    Blackhole,
    /// Old and new connections are closed.
    Reset,
    /// Every piece of data is delayed by this time.
    Delay(Duration),
}

/// The address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Forwards connections to its backends in turn, like a load balancer.
pub struct Proxy {
    pub address: SocketAddr,
    backends: Arc<Mutex<Vec<Backend>>>,
    network: watch::Sender<Network>,
    serving: AbortHandle,
}

impl Proxy {
    /// Starts a proxy for these backends on a free port of 127.0.0.1.
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

    /// Changes the simulated fault, for existing connections too.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Sets the backends of later connections.
    pub fn set_backends(&self, backends: Vec<Backend>) {
        *self.backends.lock().unwrap() = backends;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The backend with a URL such as `http://127.0.0.1:8080`.
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

/// Forwards a connection to the first backend that accepts it.
async fn carry(client: TcpStream, backends: Vec<Backend>, mut network: watch::Receiver<Network>) {
    let _ = client.set_nodelay(true);
    let ended: io::Result<()> = async {
        arrive(&mut network).await?;
        let (reader, writer) = client.into_split();
        // The connection closes only when both halves are dropped, so both are passed on together.
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

/// Forwards bytes in one direction until the end of the stream, and then closes the other side for writing.
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

/// Waits until the network lets bytes arrive; fails if the connection is reset.
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
            // The sender is dropped when the test ends.
            Network::Blackhole => network.changed().await.map_err(|_| io::ErrorKind::ConnectionReset)?,
        }
    }
}
