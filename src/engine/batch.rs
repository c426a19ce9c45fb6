//! The rows of one network call: how they come in from several runs, and are computed, whatever kind of call it is.

use std::{any::Any, pin::Pin, sync::Arc};

use crate::pipelines::{Model, NetworkError, call::Call};

/// A future that pauses between layers and owns what it needs. It gives one answer for each row.
pub(super) type Computing = Pin<Box<dyn Future<Output = Result<Box<dyn Items>, NetworkError>> + Send>>;

/// Rows of equal calls, before and while they are computed.
pub(super) trait Batch: Any {
    /// Begins to compute them.
    fn start(&mut self, model: Arc<Model>) -> Computing;

    /// The rows, of which nothing is left here; for a call that has ended without answers. `None` while its future lives.
    fn take_back(&mut self) -> Option<Box<dyn Items>>;
}

/// Rows or answers of one type, in order.
pub(super) trait Items: Any + Send {
    /// Drops the next `count`.
    fn skip(&mut self, count: usize);
}

impl<T: Send + 'static> Items for std::vec::IntoIter<T> {
    fn skip(&mut self, count: usize) {
        self.by_ref().take(count).for_each(drop);
    }
}

/// The next `count` items, which are of this type.
pub(super) fn next<T: Send + 'static>(items: &mut dyn Items, count: usize) -> Vec<T> {
    let items: &mut dyn Any = items;
    let items = items.downcast_mut::<std::vec::IntoIter<T>>().expect(SAME_KIND);
    items.by_ref().take(count).collect()
}

/// A batch is made of asks with equal keys, and the type of the call is a part of the key.
pub(super) const SAME_KIND: &str = "rows of equal keys are of one type";

/// The rows of calls of type `C`.
pub(super) struct Rows<C: Call> {
    call: Arc<C>,
    rows: Vec<C::Row>,
    /// Shared with the future.
    computed: Arc<Vec<C::Row>>,
}

impl<C: Call> Rows<C> {
    pub fn new(call: Arc<C>) -> Rows<C> {
        Rows { call, rows: Vec::new(), computed: Arc::default() }
    }

    pub fn extend(&mut self, rows: impl Iterator<Item = C::Row>) {
        self.rows.extend(rows);
    }
}

impl<C: Call> Batch for Rows<C> {
    fn start(&mut self, model: Arc<Model>) -> Computing {
        self.computed = Arc::new(std::mem::take(&mut self.rows));
        let (call, rows) = (self.call.clone(), self.computed.clone());
        Box::pin(async move {
            let answers = call.run(&model, &rows).await?;
            if answers.len() != rows.len() {
                let detail = format!("answered {} rows of {}", answers.len(), rows.len());
                return Err(NetworkError { network: call.network(), detail });
            }
            Ok(Box::new(answers.into_iter()) as Box<dyn Items>)
        })
    }

    fn take_back(&mut self) -> Option<Box<dyn Items>> {
        let rows = Arc::try_unwrap(std::mem::take(&mut self.computed)).ok()?;
        Some(Box::new(rows.into_iter()))
    }
}
