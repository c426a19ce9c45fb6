//! The trait of network calls: the types of their rows and answers, and how a batch of rows is computed.

use async_trait::async_trait;

use super::{Model, NetworkError};
use crate::models::demand::Demand;

/// Numbers that all rows of a batch have in common, such as sizes. Unused entries are 0.
pub type Shape = [usize; 6];

/// The key of an answer in the cache: everything in its row that the answer depends on, such as the token ids of a
/// prompt, one list per encoder.
pub type Memo = Vec<Vec<u32>>;

/// A type of network call. Rows can share a batch if their calls have the same model, type, [`Call::network`] and
/// [`Call::shape`].
///
/// A new kind of call is a new type with this trait, in a file of `src/pipelines/calls`; the engine does not change.
#[async_trait]
pub trait Call: Send + Sync + 'static {
    /// The input of one sample.
    type Row: Send + Sync + 'static;
    /// The output of one sample.
    type Answer: Clone + Send + Sync + 'static;

    /// The name of the network in metrics and errors.
    fn network(&self) -> &'static str;

    /// The sizes that all rows of this call have.
    fn shape(&self) -> Shape;

    /// The work and memory of the row in `rows` that needs most.
    fn demand(&self, model: &Model, rows: &[Self::Row]) -> Demand;

    /// Computes one answer per row, in order. Row i of the answers depends only on row i of the input, bit for bit. The
    /// future pauses between layers.
    ///
    /// # Errors
    /// The network failed. The error does not say which row caused it.
    async fn run(&self, model: &Model, rows: &[Self::Row]) -> Result<Vec<Self::Answer>, NetworkError>;

    /// Maximum number of rows of one batch, if the call has a limit of its own.
    fn most_rows(&self) -> usize {
        usize::MAX
    }

    /// The stage of this call, if the call is one of several stages.
    fn stage(&self) -> Option<Stage> {
        None
    }

    /// The metric that counts the rows of this call.
    fn row_metric(&self) -> RowMetric {
        RowMetric::Uncounted
    }

    /// Whether all numbers of the answer are finite. If not, the run fails. By default, answers are not checked.
    fn is_finite(&self, _answer: &Self::Answer) -> bool {
        true
    }

    /// How the log of a run stores the answers. `None`: they are not stored, and a resumed run makes the call again.
    fn log(&self) -> Option<LogFormat<Self::Answer>> {
        None
    }

    /// The cache key of the answer to this row. `None`: the answer is not cached.
    fn memo(&self, _row: &Self::Row) -> Option<Memo> {
        None
    }

    /// Bytes of an answer in the cache.
    fn answer_bytes(&self, _answer: &Self::Answer) -> usize {
        0
    }
}

/// The position of a call in a sequence of calls that compute one result, such as the stages of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Latent pixels that a row keeps in memory from the first stage to the last.
    pub latent_pixels: usize,
    pub is_first: bool,
}

/// The metrics that count a row of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowMetric {
    /// Rows of this call are not counted.
    Uncounted,
    /// The metric of the denoiser's rows. Each network call of a step has one row for each picture and guidance branch.
    Step,
    /// Like `Step`, for rows that only the shallow part of the denoiser computes. A second metric also counts these
    /// rows.
    ShallowStep,
}

/// Converts answers to numbers of a log and back.
#[derive(Clone, Copy, Debug)]
pub struct LogFormat<A> {
    /// Count of numbers per answer.
    pub values: usize,
    /// The numbers of an answer. `None` if numbers alone cannot represent the answer; this ends the log.
    pub write: fn(&A) -> Option<&[f32]>,
    /// The answer with these numbers.
    pub read: fn(Vec<f32>) -> A,
}

impl LogFormat<Vec<f32>> {
    /// The format of answers that are lists of `values` numbers.
    pub fn of_numbers(values: usize) -> Self {
        Self { values, write: |numbers| Some(numbers), read: |numbers| numbers }
    }
}
