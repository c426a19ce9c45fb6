//! Bounds the memory of pictures that were read for clients but not sent yet.

use std::{sync::Arc, time::Duration};

use axum::http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::Http, http::error::ApiError};

/// How many connections can use all of their room before connections wait for each other.
const CONNECTIONS: usize = 8;
/// Bytes of one permit.
const UNIT: usize = 1024;

/// The room for unsent bytes of one connection, and the room for unsent bytes of all connections of its listener
/// together.
#[derive(Clone, Debug)]
pub struct AnswerBudget {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    /// The room of one connection, in units of [`UNIT`].
    most: usize,
    patience: Duration,
}

/// The room that the bytes of one answer take until they are sent or discarded.
#[derive(Clone, Debug)]
pub struct AnswerRoom {
    /// The permits of the connection and of all connections.
    _permits: Arc<[OwnedSemaphorePermit; 2]>,
}

impl AnswerBudget {
    pub fn new(http: &Http) -> AnswerBudget {
        let most = http.max_unread_bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS / CONNECTIONS);
        let [own, all] = [most, most * CONNECTIONS].map(|units| Arc::new(Semaphore::new(units)));
        AnswerBudget { own, all, most, patience: http.write_timeout_s.into() }
    }

    /// The budget of a new connection.
    pub fn of_connection(&self) -> AnswerBudget {
        AnswerBudget { own: Arc::new(Semaphore::new(self.most)), ..self.clone() }
    }

    /// Waits until there is room. An answer larger than the room of a connection takes all of this room.
    ///
    /// # Errors
    /// [`ApiError::AnswersUnread`] if there is no room within `http.write_timeout_s`.
    async fn room(&self, bytes: u64) -> Result<AnswerRoom, ApiError> {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT).clamp(1, self.most);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let taken = async {
            let own = self.own.clone().acquire_many_owned(units).await.ok()?;
            let all = self.all.clone().acquire_many_owned(units).await.ok()?;
            Some(AnswerRoom { _permits: Arc::new([own, all]) })
        };
        let taken = tokio::time::timeout(self.patience, taken).await;
        taken.ok().flatten().ok_or(ApiError::AnswersUnread)
    }
}

impl AnswerRoom {
    /// Takes the room for an answer of `bytes` bytes to the request with these extensions; `None` if the request did
    /// not come through a listener, as in some tests.
    ///
    /// # Errors
    /// [`ApiError::AnswersUnread`] if there is no room within `http.write_timeout_s`.
    pub async fn of(request: &Extensions, bytes: u64) -> Result<Option<AnswerRoom>, ApiError> {
        match request.get::<AnswerBudget>() {
            Some(unread) => unread.room(bytes).await.map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::config::{Config, Sources};

    #[tokio::test]
    async fn a_connection_and_all_of_them_hold_no_more_than_they_may() {
        let flags = vec![("http.max_unread_bytes".to_owned(), "10240".to_owned())];
        let unread = AnswerBudget::new(&Config::load(&Sources { flags, ..Sources::default() }).unwrap().http);
        let first = unread.of_connection();
        let held = first.room(8000).await.unwrap();
        assert!(first.room(4000).now_or_never().is_none(), "it waits for the room of its own connection");
        let others: Vec<AnswerRoom> =
            futures::future::join_all((0..7).map(|_| async { unread.of_connection().room(1 << 40).await.unwrap() }))
                .await;
        let last = unread.of_connection();
        assert!(last.room(4000).now_or_never().is_none(), "it waits for the room of all connections");
        drop(held);
        assert!(last.room(4000).now_or_never().is_some());
        drop(others);
        assert!(first.room(10_000).now_or_never().is_some());
    }
}
