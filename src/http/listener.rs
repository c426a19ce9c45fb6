//! Accepts connections and serves their requests, within bounds, until shutdown.
//!
//! For every version of HTTP, connections are bounded in number (`gate`), in time (`activity`) and in the bytes of
//! answers that their clients have not read (`unread`).

mod activity;
mod connection;
mod gate;
mod response_body;
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
use connection::ConnectionShared;
use gate::Gate;
use unread::AnswerBudget;

pub use unread::AnswerRoom;

/// Interval between pings on an HTTP/2 connection, and how long the client may take to answer a ping.
const H2_PING: Duration = Duration::from_secs(20);
/// Bytes of one answer that HTTP/2 may buffer before the socket takes them.
const H2_SEND_BUFFER: usize = 64 << 10;

/// Serves until `shutdown`, then finishes open requests for at most `deadline`.
///
/// Supports HTTP/1.1 and HTTP/2 (with prior knowledge). A connection is closed if its first request does not arrive
/// within `header_timeout_s`. An HTTP/1.1 connection is also closed if a later request does not arrive within this
/// time, and an HTTP/2 connection if no request arrives for `idle_timeout_s`. Both are closed if the client does not
/// read an answer for `write_timeout_s`. A head that is larger than `max_header_bytes` or has more than 100 fields is
/// answered with 431.
///
/// # Errors
/// None: a connection that cannot be accepted is logged and skipped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    http: &Http,
    shutdown: CancellationToken,
    deadline: Duration,
) -> io::Result<()> {
    let gate = Gate::new(listener, http);
    let cut = CancellationToken::new();
    let shared = Arc::new(ConnectionShared {
        router,
        builder: builder(http),
        patience: Patience::of(http),
        unread: AnswerBudget::new(http),
        closing: shutdown.clone(),
        cut: cut.clone(),
    });
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            (stream, place) = gate.accept() => {
                let shared = shared.clone();
                connections.spawn(async move {
                    shared.serve(stream).await;
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
