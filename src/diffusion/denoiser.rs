//! The denoiser as samplers see it: the trait [`Denoise`], and estimates of x0 and ε from its outputs.

use std::{cell::Cell, future::Future};

use super::error::Error;
use super::latents::Latents;
use super::point::Point;
use super::posterior::StepPosterior;
use super::prediction::{Clip, Prediction};
use super::schedule::Schedule;

/// The network's guided predictions, which a sampler awaits. Recipes implement this trait by network calls, tests
/// implement it by a formula.
pub trait Denoise {
    /// The network's raw prediction after guidance (ε, v or x0, as the model was trained), of the same shape as `x`.
    /// `x: (B, C, h, w)` is already scaled for the network; `t` is the timestep that the network receives.
    fn predict(&self, x: &Latents, t: f64) -> impl Future<Output = Result<Latents, Error>>;

    /// The prediction, with the variance and the gradient that ancestral sampling can also use.
    fn posterior(&self, x: &Latents, t: f64) -> impl Future<Output = Result<StepPosterior, Error>> {
        async move { Ok(StepPosterior::plain(self.predict(x, t).await?)) }
    }

    /// Called after each network call with the state computed from its output; sampling continues with the returned
    /// state. `noised(x0, noise)` adds `noise` to the latents `x0` of a picture until they have as much noise as the
    /// state `x`, or adds none at the end of the run; both arguments are `(B, C, h, w)`.
    fn adjust_state(&self, x: Latents, _noised: &dyn Fn(&Latents, &Latents) -> Latents) -> Latents {
        x
    }

    /// Called after each step. `step` counts from 1 to `steps`; `denoised` is the current estimate of x0.
    fn stepped(&self, _step: usize, _steps: usize, _denoised: &Latents) {}
}

/// A [`Denoise`], with the meaning of its predictions and the schedule of the run.
pub(super) struct Denoiser<'a, D> {
    pub(super) prediction: Prediction,
    denoise: &'a D,
    schedule: &'a Schedule,
    /// The noise level and timestep of every network call of the run, in order.
    timeline: Vec<Point>,
    /// How many times the network has been called.
    calls: Cell<usize>,
}

impl<'a, D: Denoise> Denoiser<'a, D> {
    pub(super) fn new(denoise: &'a D, schedule: &'a Schedule) -> Self {
        let prediction = schedule.config().prediction();
        Denoiser { prediction, denoise, schedule, timeline: schedule.timeline(), calls: Cell::new(0) }
    }

    /// The raw prediction for `x`, which is already scaled for the network. Fails if the prediction does not have the
    /// shape of `x`.
    pub(super) async fn raw(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let raw = self.denoise.predict(x, t).await?;
        self.calls.set(self.calls.get() + 1);
        if raw.shape() == x.shape() { Ok(raw) } else { Err(Error::Shape { expected: x.shape(), got: raw.shape() }) }
    }

    /// The raw prediction for `x`, with the variance and the gradient. Fails if one of the three does not have the
    /// shape of `x`.
    pub(super) async fn posterior(&self, x: &Latents, t: f64) -> Result<StepPosterior, Error> {
        let posterior = self.denoise.posterior(x, t).await?;
        self.calls.set(self.calls.get() + 1);
        let others = posterior.variance.iter().chain(&posterior.gradient);
        match std::iter::once(&posterior.prediction).chain(others).find(|of| of.shape() != x.shape()) {
            Some(of) => Err(Error::Shape { expected: x.shape(), got: of.shape() }),
            None => Ok(posterior),
        }
    }

    /// `D(x; σ)` of Karras et al. (2022), clipped, for a state `x0 + (σ/α) ε`.
    pub(super) async fn denoised(&self, x: &Latents, now: &Point, clip: Clip) -> Result<Latents, Error> {
        let raw = self.raw(&x.scale(self.prediction.input_scale(now)), now.t).await?;
        Ok(clip.apply(self.prediction.x0(x, &raw, now, 1.0 / now.alpha)))
    }

    /// Estimates of x0 (clipped) and of ε for a state `α x0 + σ ε`.
    pub(super) async fn x0_and_epsilon(
        &self,
        x: &Latents,
        now: &Point,
        clip: Clip,
    ) -> Result<(Latents, Latents), Error> {
        let raw = match self.prediction {
            Prediction::Preconditioned { .. } | Prediction::Boundary { .. } => {
                self.raw(&x.scale(self.prediction.input_scale(now)), now.t).await?
            }
            _ => self.raw(x, now.t).await?,
        };
        let x0 = clip.apply(self.prediction.x0(x, &raw, now, 1.0));
        Ok((x0, self.prediction.epsilon(x, &raw, now)))
    }

    /// Passes the state computed from the last network output to [`Denoise::adjust_state`]. Samplers must call this
    /// function once after every network call, also in the middle of a step.
    pub(super) fn adjusted(&self, x: Latents) -> Latents {
        let next = self.timeline.get(self.calls.get());
        self.denoise.adjust_state(x, &|x0, noise| match next {
            Some(point) => self.schedule.add_noise(point, x0, noise),
            None => x0.clone(),
        })
    }

    /// Reports step `index` (from 0) as done.
    pub(super) fn stepped(&self, index: usize, denoised: &Latents) {
        self.denoise.stepped(index + 1, self.schedule.steps().len(), denoised);
    }
}
