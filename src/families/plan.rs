//! What a generation asks of the machine, known before any work.

use crate::{
    diffusion::{Schedule, SchedulerConfig},
    generation::{Draw, ModelCard, Source},
    models::demand::Demand,
};

/// The work and the memory of a generation, from the sizes of its model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// 10⁹ multiplications, of all calls of its networks together.
    pub cost: f64,
    /// Bytes that it holds from its first step to its last picture, at most.
    pub held: u64,
    /// Bytes of the activations of its largest call, for one row.
    pub call: u64,
}

/// What one row of a ControlNet takes, by its name, (h, w) of the latents, and the tokens of the text; `None` for one that
/// cannot be used.
pub type ControlDemand<'a> = dyn Fn(&str, [usize; 2], usize) -> Option<Demand> + 'a;

/// The calls of a generation that samples pictures.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Numbers in the state of the sampler for one picture: C · h · w.
    pub state: usize,
    /// Rows of the denoiser for each picture: one for each thing that guidance compares.
    pub branches: usize,
    /// How often the denoiser is called for each row.
    pub calls: usize,
    /// One row of a call of the denoiser: the mean of the work, the most bytes.
    pub call: Demand,
    /// All that comes before the first step, for all pictures together.
    pub before: Demand,
    /// All that comes after the last step, for each picture.
    pub after: Demand,
}

/// States of a picture that are in memory at the same time: the sampler's state, its history of up to four, noise,
/// the present estimate, and those that a picture or a mask of the request has left.
const STATES: u64 = 12;

/// Copies of a row's state: asked for, in the call, its answer, and in the log.
const ROWS: u64 = 5;

/// What the log of a run may hold before it is stored.
const LOG_BYTES: u64 = 64 << 20;

impl Plan {
    /// Bytes that it takes alone, besides the weights of its models.
    pub fn bytes(&self) -> u64 {
        self.held.saturating_add(self.call)
    }

    /// The plan of a generation that makes these calls.
    pub fn of(draw: &Draw, sampling: Sampling) -> Plan {
        let Sampling { state, branches, calls, call, before, after } = sampling;
        let rows = draw.n as usize * branches;
        let work = before.work + (calls * rows) as f64 * call.work + f64::from(draw.n) * after.work;

        let state = 4 * state as u64;
        let pixels = 3 * u64::from(draw.height) * u64::from(draw.width);
        let (n, rows) = (u64::from(draw.n), rows as u64);
        let log = LOG_BYTES.min(rows * state * u64::from(draw.steps));
        // A picture of the request is decoded, resized and then floats; a finished one stands beside its file, which may be as
        // large.
        let inputs = draw.inputs().count() as u64 * 6 * pixels;
        let held = n * (STATES * state + 2 * pixels) + rows * ROWS * state + log + inputs;
        Plan { cost: work / 1e9, held, call: call.bytes.max(before.bytes).max(after.bytes) }
    }
}

/// How often the sampler of a request calls the denoiser for each row.
pub(super) fn calls(draw: &Draw, card: &ModelCard) -> usize {
    let config = SchedulerConfig::overlay(&card.scheduler_config, &draw.scheduler);
    let schedule = config.ok().and_then(|config| Schedule::of(&config, draw).ok());
    let calls = schedule.map_or(draw.steps as usize, |schedule| schedule.calls());
    let strength = draw.source.as_ref().map_or(1.0, Source::strength);
    ((calls as f64 * strength).ceil() as usize).max(1)
}
