//! The desk: what the API means. Handlers call only this.

mod live;

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;

use crate::generation::{Event, Fields, GenerationId, Invalid, ModelCard, Record};
use crate::ledger::{Counts, ListQuery, Page, StoreError};

pub use live::{Live, Phase, Preview, Progress};

/// A cheap handle to everything that a handler may ask for.
#[derive(Clone)]
pub struct Service {}

/// A generation with what only this moment knows of it.
#[derive(Clone, Debug)]
pub struct View {
    pub record: Record,
    /// Of a running generation.
    pub progress: Option<Progress>,
    /// Of a queued generation: how many are before it.
    pub position: Option<usize>,
}

/// What a watcher of a generation sees.
#[derive(Clone, Debug)]
pub enum Watched {
    /// A durable event; resumable after its `seq`.
    Event(Event),
    /// The newest progress; older ones may have been skipped.
    Progress(Progress),
    /// The newest preview; older ones may have been skipped.
    Preview(Preview),
}

/// A model as the catalogue lists it.
#[derive(Clone, Debug)]
pub struct ModelView {
    pub name: String,
    /// `ready`, `loading`, `cold` or `failed`.
    pub state: &'static str,
    /// Why its folder cannot be used.
    pub error: Option<String>,
    pub card: Option<Arc<ModelCard>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// `retry_after_s` is estimated from the queue's length and the recent throughput.
    #[error("{queued} generations wait already")]
    QueueFull { queued: usize, retry_after_s: u64 },
    #[error("the server is stopping")]
    Draining,
    #[error("there is no such generation")]
    NotFound,
    #[error("the generation is not finished")]
    NotFinished,
    /// The picture's bytes cannot be read although the record names them.
    #[error("a stored picture cannot be read: {0}")]
    Blob(String),
    #[error(transparent)]
    Store(StoreError),
}

impl Service {
    /// Accepts a generation: after this returns it is durable.
    pub async fn create(&self, fields: Fields) -> Result<View, ServiceError> {
        unimplemented!("{fields:?}")
    }

    pub async fn get(&self, id: GenerationId) -> Result<View, ServiceError> {
        unimplemented!("{id}")
    }

    /// Returns as soon as the generation has ended, at the latest after `timeout`, with its state then.
    pub async fn wait(&self, id: GenerationId, timeout: std::time::Duration) -> Result<View, ServiceError> {
        unimplemented!("{id} {timeout:?}")
    }

    pub async fn list(&self, query: &ListQuery) -> Result<Page, ServiceError> {
        unimplemented!("{query:?}")
    }

    pub async fn cancel(&self, id: GenerationId) -> Result<View, ServiceError> {
        unimplemented!("{id}")
    }

    /// As [`Service::cancel`], for a client that left; counted as such in the metrics.
    pub async fn cancel_disconnected(&self, id: GenerationId) -> Result<View, ServiceError> {
        unimplemented!("{id}")
    }

    pub async fn delete(&self, id: GenerationId) -> Result<(), ServiceError> {
        unimplemented!("{id}")
    }

    /// The file of image `index` of a generation that succeeded, with its record; [`ServiceError::NotFound`] else.
    pub async fn content(&self, id: GenerationId, index: u32) -> Result<(crate::generation::Image, Bytes), ServiceError> {
        unimplemented!("{id} {index}")
    }

    /// The newest preview of a running generation.
    pub async fn preview(&self, id: GenerationId) -> Result<Option<Preview>, ServiceError> {
        unimplemented!("{id}")
    }

    /// Every durable event after `after`, then one snapshot of the progress, then what happens, until a terminal event
    /// has been seen. Ends at once where nothing is left to tell.
    pub async fn watch(
        &self,
        id: GenerationId,
        after: i64,
    ) -> Result<impl Stream<Item = Result<Watched, ServiceError>> + Send + use<>, ServiceError> {
        let _ = (id, after);
        Ok(futures::stream::empty())
    }

    pub fn models(&self) -> Vec<ModelView> {
        Vec::new()
    }

    pub fn default_model(&self) -> &str {
        ""
    }

    /// Names of the schedulers with one line for people.
    pub fn schedulers(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    pub async fn counts(&self) -> Result<Counts, ServiceError> {
        unimplemented!()
    }

    /// Most generations that may wait.
    pub fn max_queued(&self) -> usize {
        0
    }

    /// Seconds a finished generation took to run, averaged over the recent ones; `None` before the first.
    pub fn recent_seconds(&self) -> Option<f64> {
        None
    }

    /// What keeps the server from taking work, for `/readyz`; empty when it is ready.
    pub async fn unready_reasons(&self) -> Vec<String> {
        Vec::new()
    }
}
