//! What a run waits for: the rows of one call, which may be answered over several batches, in order.

use std::{any::Any, collections::VecDeque, sync::Arc};

use super::{
    batch::{Batch, Items, Rows, SAME_KIND, next},
    key::Key,
    recording::Recording,
    text_cache::Cache,
};
use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError,
        call::{Call, Counts, Memo, Stage},
    },
};

/// The ask of one run, of any kind of call.
pub(super) trait Ask: Any {
    fn key(&self) -> &Key;
    /// What each of the rows asks for, at most.
    fn demand(&self) -> Demand;
    /// Most rows of one batch.
    fn most_rows(&self) -> usize;
    /// Latent pixels that each row keeps in memory from the first stage on, and whether this is the first.
    fn stage(&self) -> Option<Stage>;
    fn counts(&self) -> Counts;
    /// All of its rows.
    fn rows(&self) -> usize;
    /// Rows that no call has taken up.
    fn open_rows(&self) -> usize;
    /// Rows that a call has taken up and not answered.
    fn in_call(&self) -> usize;
    fn is_answered(&self) -> bool;

    /// An empty batch for such rows.
    fn batch(&self) -> Box<dyn Batch>;
    /// Moves the first open rows into a batch of the same key.
    fn take_up(&mut self, rows: usize, batch: &mut dyn Batch);
    /// Takes back the rows of a call that has ended without answers.
    fn let_go(&mut self, rows: &mut dyn Items);
    /// Takes the answers to the rows that a call has taken up, and keeps those in the cache that others may ask for.
    fn answer(&mut self, answers: &mut dyn Items, cache: &mut Cache) -> Result<(), NetworkError>;
    /// Takes the answers to all open rows from the cache, if all are there; `None` if not.
    fn answer_from(&mut self, cache: &mut Cache) -> Option<usize>;
    /// Adds the answers to the log, if answers of this kind belong there.
    fn record(&self, recording: &mut Recording);
}

/// An ask of one kind of call.
pub(super) struct Posted<C: Call> {
    call: Arc<C>,
    key: Key,
    demand: Demand,
    /// Rows that no call has taken up, each with what its answer depends on.
    open: VecDeque<(C::Row, Option<Memo>)>,
    /// What the answers to the rows in a call depend on.
    in_call: VecDeque<Option<Memo>>,
    answers: Vec<C::Answer>,
}

impl<C: Call> Posted<C> {
    pub fn new(call: C, model: &Model, rows: Vec<C::Row>) -> Posted<C> {
        let (key, demand) = (Key::of(model.key.clone(), &call), call.demand(model, &rows));
        let answers = Vec::with_capacity(rows.len());
        let open = rows.into_iter().map(|row| (call.memo(&row), row)).map(|(memo, row)| (row, memo)).collect();
        Posted { call: Arc::new(call), key, demand, open, in_call: VecDeque::new(), answers }
    }

    /// The answers of an ask that is answered.
    pub fn answers(ask: Box<dyn Ask>) -> Vec<C::Answer> {
        let ask: Box<dyn Any> = ask;
        ask.downcast::<Posted<C>>().expect("a run takes the ask that it has posted").answers
    }
}

impl<C: Call> Ask for Posted<C> {
    fn key(&self) -> &Key {
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

    fn counts(&self) -> Counts {
        self.call.counts()
    }

    fn rows(&self) -> usize {
        self.open.len() + self.in_call.len() + self.answers.len()
    }

    fn open_rows(&self) -> usize {
        self.open.len()
    }

    fn in_call(&self) -> usize {
        self.in_call.len()
    }

    fn is_answered(&self) -> bool {
        self.open.is_empty() && self.in_call.is_empty()
    }

    fn batch(&self) -> Box<dyn Batch> {
        Box::new(Rows::new(self.call.clone()))
    }

    fn take_up(&mut self, rows: usize, batch: &mut dyn Batch) {
        let batch: &mut dyn Any = batch;
        let batch = batch.downcast_mut::<Rows<C>>().expect(SAME_KIND);
        let (rows, memos): (Vec<C::Row>, Vec<Option<Memo>>) = self.open.drain(..rows).unzip();
        batch.extend(rows.into_iter());
        self.in_call.extend(memos);
    }

    fn let_go(&mut self, rows: &mut dyn Items) {
        let rows: Vec<C::Row> = next(rows, self.in_call.len());
        for row in rows.into_iter().zip(self.in_call.drain(..)).rev() {
            self.open.push_front(row);
        }
    }

    fn answer(&mut self, answers: &mut dyn Items, cache: &mut Cache) -> Result<(), NetworkError> {
        let answers: Vec<C::Answer> = next(answers, self.in_call.len());
        let memos = self.in_call.drain(..);
        for (memo, answer) in memos.zip(&answers) {
            if let Some(memo) = memo {
                cache.put(&self.key, memo, answer.clone());
            }
        }
        if !answers.iter().all(C::is_finite) {
            let detail = "its answer holds values that are not finite".to_owned();
            return Err(NetworkError { network: self.call.network(), detail });
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
