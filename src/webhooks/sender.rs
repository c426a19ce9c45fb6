//! Sends one signed message and reads the status and the headers of the answer.

use std::{error::Error, sync::Arc, time::Duration};

use reqwest::{Client, ClientBuilder, header, redirect};
use time::OffsetDateTime;

use super::{
    guard::{Forbidden, Guard},
    resolver::{Guarded, Resolver},
    retry_after::retry_after,
};
use crate::ledger::DeliveryAnswer;

/// An HTTP client that connects only to addresses that the guard allows.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    guard: Arc<Guard>,
    timeout: Duration,
}

/// A signed message to a receiver.
#[derive(Clone, Debug)]
pub struct Message {
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// The outcome of an attempt.
#[derive(Clone, Debug)]
pub struct Sent {
    pub answer: DeliveryAnswer,
    /// The pause that the receiver asks for.
    pub retry_after: Option<Duration>,
}

/// Longest reason for a failed attempt in the list of deliveries, in characters.
const MAX_REASON_CHARS: usize = 200;

impl Sender {
    /// A sender that follows no redirects and connects only to addresses that `guard` allows.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(guard: Arc<Guard>, resolver: Arc<dyn Resolver>, timeout: Duration) -> Result<Sender, reqwest::Error> {
        let builder = || -> ClientBuilder {
            Client::builder()
                .user_agent(concat!("latentd/", env!("CARGO_PKG_VERSION")))
                // A redirect would bypass the check of the URL, and a proxy from the environment would bypass the check
                // of the address.
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Guarded { guard: guard.clone(), resolver: resolver.clone() })
                // Connections are not reused, so every attempt resolves and checks the name again.
                .pool_max_idle_per_host(0)
                .timeout(timeout)
        };
        let client = builder().build().or_else(|error| {
            // The client cannot be built if the system has no certificates of authorities, as in some containers. Then
            // a client without certificates still reaches internal receivers over http.
            tracing::warn!(%error, "the system has no certificate authorities: webhooks cannot go to https addresses");
            builder().tls_certs_only([]).build()
        })?;
        Ok(Sender { client, guard, timeout })
    }

    /// Sends a message and waits for the head of the answer. The body of the answer is not read.
    pub async fn send(&self, message: Message) -> Sent {
        let refused = |reason: String| Sent {
            answer: DeliveryAnswer { status: None, error: Some(reason.chars().take(MAX_REASON_CHARS).collect()) },
            retry_after: None,
        };
        // The URL is checked again, because the settings may have changed since the URL was accepted, and because the
        // resolver never sees a host that is an IP address.
        let url = match self.guard.check_url(&message.url) {
            Ok(url) => url,
            Err(forbidden) => return refused(format!("the address {forbidden}")),
        };
        let mut request = self.client.post(url).header(header::CONTENT_TYPE, "application/json").body(message.body);
        for (name, value) in message.headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(response) => {
                let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                Sent {
                    answer: DeliveryAnswer { status: Some(response.status().as_u16()), error: None },
                    retry_after: asked.and_then(|asked| retry_after(asked, OffsetDateTime::now_utc())),
                }
            }
            Err(error) => refused(self.reason(error)),
        }
    }

    /// Why there was no answer, in one line for the owner of the receiver.
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
