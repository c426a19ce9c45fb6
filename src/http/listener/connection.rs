//! One connection, from its first byte to its end.

use std::{convert::Infallible, pin::pin, time::Instant};

use axum::{Router, body::Body, extract::Request, http::Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    activity::{Activity, Open, Patience, Verdict},
    answer::Answer,
    stream::Stream,
    unread::{Room, Unread},
};

/// What all connections of a listener share.
pub struct Door {
    pub router: Router,
    pub builder: Builder<TokioExecutor>,
    pub patience: Patience,
    pub unread: Unread,
    /// Requests that are open may end.
    pub closing: CancellationToken,
    /// Nothing may.
    pub cut: CancellationToken,
}

impl Door {
    /// Returns when the connection is closed.
    pub async fn serve(&self, stream: Stream) {
        let activity = Activity::new(Instant::now());
        let unread = self.unread.of_connection();
        let service = hyper::service::service_fn(|request: axum::http::Request<Incoming>| {
            let (mut request, open) = (request.map(Body::new), activity.begin());
            request.extensions_mut().insert(unread.clone());
            answer(self.router.clone(), request, open)
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut looks_at = Instant::now();
        loop {
            tokio::select! {
                // What goes wrong on the way to a client is the client's to notice.
                _ = connection.as_mut() => return,
                () = self.closing.cancelled() => break,
                () = tokio::time::sleep_until(looks_at.into()) => {
                    match activity.verdict(Instant::now(), self.patience) {
                        Verdict::Until(at) => looks_at = at,
                        Verdict::End => break,
                        Verdict::Close => return,
                    }
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        // A listener that closes has a time of its own for all connections.
        let is_over = async {
            tokio::time::sleep(self.patience.unread).await;
            if self.closing.is_cancelled() {
                std::future::pending().await
            }
        };
        tokio::select! {
            _ = connection => {}
            () = is_over => {}
            () = self.cut.cancelled() => {}
        }
    }
}

async fn answer(router: Router, request: Request, open: Open) -> Result<Response<Answer>, Infallible> {
    let mut response = router.oneshot(request).await?;
    let room = response.extensions_mut().remove::<Room>();
    Ok(response.map(|body| Answer::new(body, open, room)))
}
