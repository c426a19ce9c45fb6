//! A batch: the rows of several runs that one network computes together. Its trait hides the type of the call.

use std::{any::Any, pin::Pin, sync::Arc};

use crate::pipelines::{Model, NetworkError, call::Call};

/// A future that owns its data and pauses between layers. It yields one answer per row.
pub(super) type Computing = Pin<Box<dyn Future<Output = Result<Box<dyn Items>, NetworkError>> + Send>>;

/// Rows of calls with equal keys, before and during their computation.
pub(super) trait Batch: Any {
    /// Starts to compute the rows.
    fn start(&mut self, model: Arc<Model>) -> Computing;

    /// Returns the rows of a batch that has ended without answers and leaves the batch empty. Call it only after the
    /// future of [`Batch::start`] is dropped; otherwise the rows are lost and the result is `None`.
    fn take_back(&mut self) -> Option<Box<dyn Items>>;
}

/// An ordered sequence of rows or of answers, all of one type.
pub(super) trait Items: Any + Send {
    /// Drops the next `count` items.
    fn skip(&mut self, count: usize);
}

impl<T: Send + 'static> Items for std::vec::IntoIter<T> {
    fn skip(&mut self, count: usize) {
        self.by_ref().take(count).for_each(drop);
    }
}

/// Takes the next `count` items. All items must have type `T`.
pub(super) fn next<T: Send + 'static>(items: &mut dyn Items, count: usize) -> Vec<T> {
    let items: &mut dyn Any = items;
    let items = items.downcast_mut::<std::vec::IntoIter<T>>().expect(SAME_KIND);
    items.by_ref().take(count).collect()
}

/// Why rows and answers have the expected type: a batch consists of rows of calls with equal keys, and the key includes
/// the type of the call.
pub(super) const SAME_KIND: &str = "rows of equal keys are of one type";

/// The rows of calls of type `C`.
pub(super) struct Rows<C: Call> {
    call: Arc<C>,
    rows: Vec<C::Row>,
    /// The rows that the future computes; shared with the future.
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
                return Err(NetworkError::new(call.network(), detail));
            }
            Ok(Box::new(answers.into_iter()) as Box<dyn Items>)
        })
    }

    fn take_back(&mut self) -> Option<Box<dyn Items>> {
        let rows = Arc::try_unwrap(std::mem::take(&mut self.computed)).ok()?;
        Some(Box::new(rows.into_iter()))
    }
}
