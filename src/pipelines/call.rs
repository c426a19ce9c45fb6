//! A kind of network call: what its rows and answers are, and how rows of any number of generations are computed together.

use async_trait::async_trait;

use super::{Model, NetworkError};
use crate::models::demand::Demand;

/// The numbers that the rows of one batch have in common, such as sizes; unused ones are 0.
pub type Shape = [usize; 6];

/// What an answer depends on, where equal rows come often: the token ids of a prompt, for each encoder.
pub type Memo = Vec<Vec<u32>>;

/// A kind of network call. Rows of equal calls on one model run as one batch: of one type, with one [`Call::network`] and one
/// [`Call::shape`].
///
/// A new network is a new type with this trait; the engine does not change.
#[async_trait]
pub trait Call: Send + Sync + 'static {
    /// One sample.
    type Row: Send + Sync + 'static;
    type Answer: Clone + Send + Sync + 'static;

    /// Names the network in metrics and errors.
    fn network(&self) -> &'static str;

    fn shape(&self) -> Shape;

    /// What one row asks of the machine, at most.
    fn demand(&self, model: &Model, rows: &[Self::Row]) -> Demand;

    /// One answer for each row, in order. Row i of the answers depends on row i alone, to the bit. The future pauses between
    /// layers.
    ///
    /// # Errors
    /// The network failed; which row was to blame is not known.
    async fn run(&self, model: &Model, rows: &[Self::Row]) -> Result<Vec<Self::Answer>, NetworkError>;

    /// Most rows of one batch, where the call has a bound of its own.
    fn most_rows(&self) -> usize {
        usize::MAX
    }

    /// For a call that is one of several stages: what each row keeps in memory from the first stage to the last.
    fn stage(&self) -> Option<Stage> {
        None
    }

    /// What a row counts as in the metrics.
    fn counts(&self) -> Counts {
        Counts::Call
    }

    /// Whether later steps can work with every number of the answer.
    fn is_finite(_answer: &Self::Answer) -> bool {
        true
    }

    /// How answers stand in the log from which a run is resumed. `None`: the call is made again.
    fn log(&self) -> Option<LogFormat<Self::Answer>> {
        None
    }

    /// What the answer to this row depends on, if answers are worth keeping.
    fn memo(&self, _row: &Self::Row) -> Option<Memo> {
        None
    }
}

/// The place of a call among those that take a row from its input to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Latent pixels that a row keeps in memory once the first stage has begun.
    pub latent_pixels: usize,
    pub is_first: bool,
}

/// What a row of a call counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    Call,
    /// A step of a sampler.
    Step,
    /// A step that only a part of the denoiser computes.
    ShallowStep,
}

/// How answers become numbers of a log, and numbers answers.
#[derive(Clone, Copy, Debug)]
pub struct LogFormat<A> {
    /// How many numbers each answer is.
    pub values: usize,
    /// `None` for an answer that is more than its numbers; it ends the log.
    pub write: fn(&A) -> Option<&[f32]>,
    pub read: fn(Vec<f32>) -> A,
}
