//! A pending call: one network call that a run awaits. Several batches may answer its rows, in order.

use std::{any::Any, collections::VecDeque, sync::Arc};

use super::{
    batch::{Batch, Items, Rows, SAME_KIND, next},
    batch_key::BatchKey,
    recording::Recording,
    text_cache::Cache,
};
use crate::{
    generation::Precision,
    models::demand::Demand,
    pipelines::{
        Model, PipelineError,
        call::{Call, Memo, RowMetric, Stage},
    },
};

/// A pending call of one run, for any type of call.
pub(super) trait PendingCall: Any {
    fn key(&self) -> &BatchKey;
    /// The maximum work and memory of each row.
    fn demand(&self) -> Demand;
    /// Maximum number of rows of one batch.
    fn most_rows(&self) -> usize;
    /// The stage that this call computes, if its result takes several calls, such as the stages of a decoder.
    fn stage(&self) -> Option<Stage>;
    /// What each row counts as in the metrics.
    fn row_metric(&self) -> RowMetric;
    /// Number of all rows.
    fn rows(&self) -> usize;
    /// Number of open rows: rows that are neither in a batch nor answered.
    fn open_rows(&self) -> usize;
    /// Number of rows that are in a batch and not answered yet.
    fn in_batch(&self) -> usize;
    fn is_answered(&self) -> bool;

    /// Creates an empty batch for the rows of this pending call.
    fn batch(&self) -> Box<dyn Batch>;
    /// Moves the first `rows` open rows into a batch with the same key.
    fn take_up(&mut self, rows: usize, batch: &mut dyn Batch);
    /// Takes back the rows of a batch that has ended without answers. They are open again.
    fn let_go(&mut self, rows: &mut dyn Items);
    /// Takes the answers to the rows that are in a batch, and caches each answer that has a memo, which is its cache
    /// key.
    ///
    /// # Errors
    /// An answer is not finite.
    fn answer(&mut self, answers: &mut dyn Items, cache: &mut Cache) -> Result<(), PipelineError>;
    /// Answers all open rows from the cache and returns their number. `None` if the cache lacks an answer; then all
    /// rows stay open.
    fn answer_from(&mut self, cache: &mut Cache) -> Option<usize>;
    /// Adds the answers to the log, if the log stores answers of this type.
    fn record(&self, recording: &mut Recording);
}

/// The pending call of a run whose network call has type `C`.
pub(super) struct TypedCall<C: Call> {
    call: Arc<C>,
    key: BatchKey,
    demand: Demand,
    /// The open rows, each with the cache key of its answer.
    open: VecDeque<(C::Row, Option<Memo>)>,
    /// The cache keys of the rows that are in a batch.
    in_batch: VecDeque<Option<Memo>>,
    answers: Vec<C::Answer>,
}

impl<C: Call> TypedCall<C> {
    pub fn new(call: C, model: &Model, precision: Precision, rows: Vec<C::Row>) -> TypedCall<C> {
        let (key, demand) = (BatchKey::of(model.key.clone(), &call, precision), call.demand(model, &rows));
        let answers = Vec::with_capacity(rows.len());
        let open = rows.into_iter().map(|row| (call.memo(&row), row)).map(|(memo, row)| (row, memo)).collect();
        TypedCall { call: Arc::new(call), key, demand, open, in_batch: VecDeque::new(), answers }
    }

    /// The answers to all rows of an answered pending call, in order. `C` must be the type of its call.
    pub fn answers(pending_call: Box<dyn PendingCall>) -> Vec<C::Answer> {
        let pending_call: Box<dyn Any> = pending_call;
        pending_call
            .downcast::<TypedCall<C>>()
            .expect("a run takes the pending call that it has left in the slot")
            .answers
    }
}

impl<C: Call> PendingCall for TypedCall<C> {
    fn key(&self) -> &BatchKey {
        &self.key
    }

    fn demand(&self) -> Demand {
        self.demand
    }

    fn most_rows(&self) -> usize {
        self.call.most_rows()
    }

    fn stage(&self) -> Option<Stage> {
        self.call.stage()
    }

    fn row_metric(&self) -> RowMetric {
        self.call.row_metric()
    }

    fn rows(&self) -> usize {
        self.open.len() + self.in_batch.len() + self.answers.len()
    }

    fn open_rows(&self) -> usize {
        self.open.len()
    }

    fn in_batch(&self) -> usize {
        self.in_batch.len()
    }

    fn is_answered(&self) -> bool {
        self.open.is_empty() && self.in_batch.is_empty()
    }

    fn batch(&self) -> Box<dyn Batch> {
        Box::new(Rows::new(self.call.clone()))
    }

    fn take_up(&mut self, rows: usize, batch: &mut dyn Batch) {
        let batch: &mut dyn Any = batch;
        let batch = batch.downcast_mut::<Rows<C>>().expect(SAME_KIND);
        let (rows, memos): (Vec<C::Row>, Vec<Option<Memo>>) = self.open.drain(..rows).unzip();
        batch.extend(rows.into_iter());
        self.in_batch.extend(memos);
    }

    fn let_go(&mut self, rows: &mut dyn Items) {
        let rows: Vec<C::Row> = next(rows, self.in_batch.len());
        for row in rows.into_iter().zip(self.in_batch.drain(..)).rev() {
            self.open.push_front(row);
        }
    }

    fn answer(&mut self, answers: &mut dyn Items, cache: &mut Cache) -> Result<(), PipelineError> {
        let answers: Vec<C::Answer> = next(answers, self.in_batch.len());
        let memos = std::mem::take(&mut self.in_batch);
        if !answers.iter().all(|answer| self.call.is_finite(answer)) {
            return Err(PipelineError::NotFinite(format!("the output of the network {:?}", self.call.network())));
        }
        for (memo, answer) in memos.into_iter().zip(&answers) {
            if let Some(memo) = memo {
                cache.put(&self.key, memo, answer.clone(), self.call.answer_bytes(answer));
            }
        }
        self.answers.extend(answers);
        Ok(())
    }

    fn answer_from(&mut self, cache: &mut Cache) -> Option<usize> {
        let known = self.open.iter().map(|(_, memo)| cache.get::<C::Answer>(&self.key, memo.as_ref()?));
        let known = known.collect::<Option<Vec<_>>>()?;
        let hits = known.len();
        self.open.clear();
        self.answers.extend(known);
        Some(hits)
    }

    fn record(&self, recording: &mut Recording) {
        if let Some(format) = self.call.log() {
            recording.record(self.answers.iter().map(format.write).collect());
        }
    }
}
