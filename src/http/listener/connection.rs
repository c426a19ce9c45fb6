//! Serves one connection from its first byte to its end.

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
    response_body::ResponseBody,
    stream::Stream,
    unread::{AnswerBudget, AnswerRoom},
};

/// The parts that all connections of a listener share.
pub struct ConnectionShared {
    pub router: Router,
    pub builder: Builder<TokioExecutor>,
    pub patience: Patience,
    pub unread: AnswerBudget,
    /// Canceled when the listener closes. Open requests may still end.
    pub closing: CancellationToken,
    /// Canceled when open requests must stop too.
    pub cut: CancellationToken,
}

impl ConnectionShared {
    /// Serves a connection; returns when it is closed.
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
                // Errors of the connection are ignored, because its client notices them.
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
        // Open requests have `patience.unread` to end. When the listener closes, they have until `cut` instead.
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

async fn answer(router: Router, request: Request, open: Open) -> Result<Response<ResponseBody>, Infallible> {
    let mut response = router.oneshot(request).await?;
    let room = response.extensions_mut().remove::<AnswerRoom>();
    Ok(response.map(|body| ResponseBody::new(body, open, room)))
}
