//! From a bound socket to requests: the bounds of a listener, and its end.
//!
//! Every connection is bounded in number (`gate`), in time (`activity`) and in the bytes of answers that its client has
//! not read (`unread`), whatever the version of HTTP.

mod activity;
mod answer;
mod connection;
mod gate;
mod stream;
mod unread;

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::Http;

use activity::Patience;
use connection::Door;
use gate::Gate;
use unread::Unread;

pub use unread::Room;

/// How often the liveness of an HTTP/2 connection is asked for, and how long it may take to answer.
const H2_PING: Duration = Duration::from_secs(20);
/// Bytes of one answer that HTTP/2 may hold on their way into the socket.
const H2_SEND_BUFFER: usize = 64 << 10;

/// Serves until `shutdown`, then finishes open requests for at most `deadline`.
///
/// HTTP/1.1 and HTTP/2 (with prior knowledge). A connection is closed whose first request does not arrive within
/// `header_timeout_s`, one of HTTP/1.1 also where a later one does not; one of HTTP/2 after `idle_timeout_s` without a
/// request; both where an answer waits for `write_timeout_s` for its client to read. A head larger than `max_header_bytes`
/// or of more than 100 fields is answered with 431.
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
    let gate = Gate::new(listener, http);
    let cut = CancellationToken::new();
    let door = Arc::new(Door {
        router,
        builder: builder(http),
        patience: Patience::of(http),
        unread: Unread::new(http),
        closing: shutdown.clone(),
        cut: cut.clone(),
    });
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            (stream, place) = gate.accept() => {
                let door = door.clone();
                connections.spawn(async move {
                    door.serve(stream).await;
                    drop(place);
                });
            }
        }
    }
    drop(gate);
    connections.close();
    if tokio::time::timeout(deadline, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

fn builder(http: &Http) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let header_timeout: Duration = http.header_timeout_s.into();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(http.max_header_bytes)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(http.max_streams)
        .max_header_list_size(u32::try_from(http.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(H2_SEND_BUFFER)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);
    builder
}
