//! Recognizes requests that clients repeat by themselves, as OpenAI's SDKs do after a lost connection. The repetition
//! gets the generation of the earlier try.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{config::Http, generation::GenerationId};

/// Maximum number of remembered requests.
const MOST: usize = 4096;
/// How long a request is remembered. SDKs return within minutes: they obey a `Retry-After` of at most two minutes.
const AGE: Duration = Duration::from_secs(600);

/// The digest of a request's tenant, path and fields, which is the same for all tries of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request([u8; 32]);

impl Request {
    /// `fingerprint` is the digest of the fields as the client wrote them.
    pub fn of(tenant: &str, path: &str, fingerprint: [u8; 32]) -> Request {
        let mut hash = Sha256::new();
        for text in [tenant, path] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update(fingerprint);
        Request(hash.finalize().into())
    }
}

/// The newest try of each request, in this process. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Tries {
    known: Arc<Mutex<HashMap<Request, Try>>>,
    grace: Duration,
    draining: CancellationToken,
}

#[derive(Clone, Debug)]
struct Try {
    id: GenerationId,
    clients: Arc<AtomicUsize>,
    at: Instant,
}

impl Tries {
    /// Uses `http.return_s`.
    pub fn new(http: &Http, draining: CancellationToken) -> Tries {
        Tries { known: Arc::default(), grace: http.return_s.into(), draining }
    }

    /// Remembers the generation of a new try, in place of the generation of an earlier try.
    pub fn begin(&self, request: Request, id: GenerationId) -> Present {
        let mut known = self.known.lock();
        if known.len() >= MOST {
            known.retain(|_, earlier| earlier.at.elapsed() < AGE);
        }
        if known.len() >= MOST {
            known.clear();
        }
        let new = Try { id, clients: Arc::default(), at: Instant::now() };
        let present = self.present(&new);
        known.insert(request, new);
        present
    }

    /// The generation of the newest try of this request.
    pub fn join(&self, request: Request) -> Option<(GenerationId, Present)> {
        let known = self.known.lock();
        let earlier = known.get(&request).filter(|earlier| earlier.at.elapsed() < AGE)?;
        Some((earlier.id, self.present(earlier)))
    }

    fn present(&self, of: &Try) -> Present {
        of.clients.fetch_add(1, Ordering::Relaxed);
        Present { clients: of.clients.clone(), grace: self.grace, draining: self.draining.clone() }
    }
}

/// A client that waits for the generation of its request.
#[derive(Debug)]
pub struct Present {
    clients: Arc<AtomicUsize>,
    grace: Duration,
    draining: CancellationToken,
}

impl Present {
    /// Waits for `http.return_s` after this client has left, and returns whether a client has returned. If the server
    /// stops, returns `true` at once, so that the generation is kept and continues after the restart.
    pub async fn returns(self) -> bool {
        let (clients, grace, draining) = (self.clients.clone(), self.grace, self.draining.clone());
        drop(self);
        tokio::select! {
            () = draining.cancelled() => true,
            () = tokio::time::sleep(grace) => clients.load(Ordering::Relaxed) > 0,
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries() -> Tries {
        Tries { known: Arc::default(), grace: Duration::ZERO, draining: CancellationToken::new() }
    }

    fn request(tenant: &str, path: &str, byte: u8) -> Request {
        Request::of(tenant, path, [byte; 32])
    }

    #[test]
    fn the_newest_try_of_the_same_request_is_joined() {
        let (tries, [first, second]) = (tries(), [GenerationId::new(), GenerationId::new()]);
        let _present = [tries.begin(request("a", "/p", 1), first), tries.begin(request("a", "/p", 1), second)];
        assert_eq!(tries.join(request("a", "/p", 1)).unwrap().0, second);
        for other in [request("b", "/p", 1), request("a", "/q", 1), request("a", "/p", 2), request("a/", "p", 1)] {
            assert!(tries.join(other).is_none());
        }
    }

    #[tokio::test]
    async fn a_client_that_joins_has_returned() {
        let (tries, request) = (tries(), request("a", "/p", 1));
        assert!(!tries.begin(request, GenerationId::new()).returns().await);
        let first = tries.begin(request, GenerationId::new());
        let (_, second) = tries.join(request).unwrap();
        assert!(first.returns().await);
        assert!(!second.returns().await);
    }

    #[tokio::test]
    async fn a_stopping_server_keeps_the_generation() {
        let mut tries = tries();
        tries.grace = Duration::from_secs(3600);
        let present = tries.begin(request("a", "/p", 1), GenerationId::new());
        tries.draining.cancel();
        assert!(present.returns().await);
    }
}
