//! From a bound socket to requests: the bounds of a connection, and its end.
//!
//! `axum::serve` gives hyper no timer, so that no timeout of hyper's would ever fire; axum-server does. What it does not
//! bound is bounded by the `Gate`: how many connections there are, and how long a client may refuse to read.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use axum_server::{AddrListener, Address, Handle, Server};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::config::Http;

/// How long a client may leave an answer unread before its connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the liveness of an HTTP/2 connection is asked for, and how long it may take to answer.
const H2_PING: Duration = Duration::from_secs(20);
/// Requests at a time on one HTTP/2 connection.
const H2_STREAMS: u32 = 128;

/// Serves until `shutdown`, then finishes open requests for at most `deadline`.
///
/// HTTP/1.1 and HTTP/2 (with prior knowledge). A connection whose request's head does not arrive within
/// `header_timeout_s`, also the first and also on an idle connection, is closed; a head larger than `max_header_bytes` or
/// of more than 100 fields is answered with 431.
///
/// # Errors
/// The socket cannot be used.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    http: &Http,
    shutdown: CancellationToken,
    deadline: Duration,
) -> io::Result<()> {
    let gate = Gate { listener, room: Arc::new(Semaphore::new(http.max_connections.min(Semaphore::MAX_PERMITS))) };
    let handle = Handle::new();
    let header_timeout: Duration = http.header_timeout_s.into();
    let mut server = Server::<Peer>::from_listener(gate)
        .handle(handle.clone())
        .first_request_timeout(header_timeout)
        .accept_error_handler(|_, error| tracing::warn!(%error, "a connection cannot be accepted"));
    let builder = server.http_builder();
    builder.http1().header_read_timeout(header_timeout).max_buf_size(http.max_header_bytes).max_headers(100);
    builder
        .http2()
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(http.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);

    let stop = async {
        shutdown.cancelled().await;
        handle.graceful_shutdown(Some(deadline));
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        served = server.serve(router.into_make_service()) => served,
        never = stop => match never {},
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

impl Address for Peer {
    type Stream = Connection;
    type Listener = Gate;
}

/// A listener that accepts as many connections as there is room for; more wait in the system's queue.
#[derive(Debug)]
struct Gate {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl AddrListener<Connection, Peer> for Gate {
    async fn bind_to(Peer(address): Peer) -> io::Result<Gate> {
        Ok(Gate { listener: TcpListener::bind(address).await?, room: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) })
    }

    async fn accept_stream(&self) -> io::Result<(Connection, Peer)> {
        let place = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        // Events are small and must not wait for the next one.
        stream.set_nodelay(true)?;
        Ok((Connection { stream, blocked: None, _place: place }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer)
    }
}

/// A connection that gives up when its client does not read.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Runs while a write waits for room in the socket.
    blocked: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Passes a write's outcome on, unless the socket has been full for too long.
    fn timed<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.blocked = None;
            return outcome;
        }
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        blocked.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
