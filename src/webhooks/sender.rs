//! One try: a signed POST, and what came back.

use std::{error::Error, sync::Arc, time::Duration};

use reqwest::{Client, ClientBuilder, header, redirect};
use time::OffsetDateTime;

use super::{
    guard::{Forbidden, Guard},
    resolver::{Guarded, Resolver},
    retry_after::retry_after,
};
use crate::ledger::Answer;

/// A client that connects to nothing but what the guard has judged.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    guard: Arc<Guard>,
    timeout: Duration,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub url: String,
    pub headers: [(&'static str, String); 3],
    pub body: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Sent {
    pub answer: Answer,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// Longest reason that the log of deliveries keeps, in characters.
const MAX_REASON_CHARS: usize = 200;

impl Sender {
    /// # Errors
    /// The client cannot be set up.
    pub fn new(guard: Arc<Guard>, resolver: Arc<dyn Resolver>, timeout: Duration) -> Result<Sender, reqwest::Error> {
        let builder = || -> ClientBuilder {
            Client::builder()
                .user_agent(concat!("latentd/", env!("CARGO_PKG_VERSION")))
                // A redirect would lead past the guard, a proxy from the environment around it.
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Guarded { guard: guard.clone(), resolver: resolver.clone() })
                // Every try resolves and is judged anew.
                .pool_max_idle_per_host(0)
                .timeout(timeout)
        };
        let client = builder().build().or_else(|error| {
            // As in a container without them; http to receivers inside needs none.
            tracing::warn!(%error, "the system has no certificate authorities: webhooks cannot go to https addresses");
            builder().tls_certs_only([]).build()
        })?;
        Ok(Sender { client, guard, timeout })
    }

    /// Sends it and waits for the head of the answer; what follows is nobody's business and is not read.
    pub async fn send(&self, parcel: Parcel) -> Sent {
        let refused = |reason: String| Sent {
            answer: Answer { status: None, error: Some(reason.chars().take(MAX_REASON_CHARS).collect()) },
            retry_after: None,
        };
        // The settings may have changed since the address was accepted; and a literal address is never resolved.
        let url = match self.guard.check_url(&parcel.url) {
            Ok(url) => url,
            Err(forbidden) => return refused(format!("the address {forbidden}")),
        };
        let mut request = self.client.post(url).header(header::CONTENT_TYPE, "application/json").body(parcel.body);
        for (name, value) in parcel.headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(response) => {
                let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                Sent {
                    answer: Answer { status: Some(response.status().as_u16()), error: None },
                    retry_after: asked.and_then(|asked| retry_after(asked, OffsetDateTime::now_utc())),
                }
            }
            Err(error) => refused(self.reason(error)),
        }
    }

    /// Why there was no answer, in a line for the receiver's owner.
    fn reason(&self, error: reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("no answer within {} seconds", self.timeout.as_secs_f64());
        }
        let error = error.without_url();
        let mut cause: &dyn Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
            if let Some(forbidden) = cause.downcast_ref::<Forbidden>() {
                return format!("the address {forbidden}");
            }
        }
        cause.to_string()
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("guard", &self.guard).finish_non_exhaustive()
    }
}
