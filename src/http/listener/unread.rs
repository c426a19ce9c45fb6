//! The bytes of pictures that were read for clients which have not taken them.

use std::{sync::Arc, time::Duration};

use axum::http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::Http, http::error::ApiError};

/// Connections that may hold as much as one may, before all wait for each other.
const CONNECTIONS: usize = 8;
const UNIT: usize = 1024;

/// The room of one connection, and of all connections of its listener together.
#[derive(Clone, Debug)]
pub struct Unread {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    /// In units, of one connection.
    most: usize,
    patience: Duration,
}

/// Room for the bytes of one answer, until they are sent or thrown away.
#[derive(Clone, Debug)]
pub struct Room {
    /// Of the connection and of all connections.
    _permits: Arc<[OwnedSemaphorePermit; 2]>,
}

impl Unread {
    pub fn new(http: &Http) -> Unread {
        let most = http.max_unread_bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS / CONNECTIONS);
        let [own, all] = [most, most * CONNECTIONS].map(|units| Arc::new(Semaphore::new(units)));
        Unread { own, all, most, patience: http.write_timeout_s.into() }
    }

    /// For a connection of its own.
    pub fn of_connection(&self) -> Unread {
        Unread { own: Arc::new(Semaphore::new(self.most)), ..self.clone() }
    }

    /// Waits until there is room. What is larger than a connection's room takes all of it.
    ///
    /// # Errors
    /// Other answers were not read for so long that this one's time is over too.
    async fn room(&self, bytes: u64) -> Result<Room, ApiError> {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT).clamp(1, self.most);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let taken = async {
            let own = self.own.clone().acquire_many_owned(units).await.ok()?;
            let all = self.all.clone().acquire_many_owned(units).await.ok()?;
            Some(Room { _permits: Arc::new([own, all]) })
        };
        let taken = tokio::time::timeout(self.patience, taken).await;
        taken.ok().flatten().ok_or(ApiError::AnswersUnread)
    }
}

impl Room {
    /// For an answer of so many bytes to the request with these extensions; `None` where it came through no listener.
    ///
    /// # Errors
    /// [`ApiError::AnswersUnread`].
    pub async fn of(request: &Extensions, bytes: u64) -> Result<Option<Room>, ApiError> {
        match request.get::<Unread>() {
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
        let unread = Unread::new(&Config::load(&Sources { flags, ..Sources::default() }).unwrap().http);
        let first = unread.of_connection();
        let held = first.room(8000).await.unwrap();
        assert!(first.room(4000).now_or_never().is_none(), "it waits for its own");
        let others: Vec<Room> =
            futures::future::join_all((0..7).map(|_| async { unread.of_connection().room(1 << 40).await.unwrap() }))
                .await;
        let last = unread.of_connection();
        assert!(last.room(4000).now_or_never().is_none(), "it waits for the others'");
        drop(held);
        assert!(last.room(4000).now_or_never().is_some());
        drop(others);
        assert!(first.room(10_000).now_or_never().is_some());
    }
}
