//! The network as samplers see it: asked at a noise level, it answers with an estimate of x0; and what whoever runs it must do.

use std::{cell::Cell, future::Future};

use super::error::Error;
use super::latents::Latents;
use super::point::Point;
use super::posterior::Posterior;
use super::prediction::{Clip, Prediction};
use super::schedule::Schedule;

/// What a sampler may await: one guided network call.  The engine implements it by batching, tests by a formula.
pub trait Denoise {
    /// The network's raw prediction after guidance (ε, v or x0, as the model was trained) for `x: (B, C, h, w)`, which is
    /// already scaled for the network, and the timestep `t` that the network is told.  Same shape as `x`.
    fn predict(&self, x: &Latents, t: f64) -> impl Future<Output = Result<Latents, Error>>;

    /// The same, and what ancestral sampling can use beside it.
    fn posterior(&self, x: &Latents, t: f64) -> impl Future<Output = Result<Posterior, Error>> {
        async move { Ok(Posterior::plain(self.predict(x, t).await?)) }
    }

    /// Called after each network call with the state that has come of it; what it returns is what sampling goes on with.
    /// `noised` lays noise `(B, C, h, w)` over a picture's latents `(B, C, h, w)`, as much as that state has; none at the end.
    fn amend(&self, x: Latents, _noised: &dyn Fn(&Latents, &Latents) -> Latents) -> Latents {
        x
    }

    /// Called after each step of the sampler: `step` counts from 1 to `steps`, `denoised` is the present estimate of x0.
    fn stepped(&self, _step: usize, _steps: usize, _denoised: &Latents) {}
}

/// A [`Denoise`] together with what its answers mean.
pub(super) struct Network<'a, D> {
    pub(super) prediction: Prediction,
    denoise: &'a D,
    schedule: &'a Schedule,
    timeline: Vec<Point>,
    /// How often it was asked.
    calls: Cell<usize>,
}

impl<'a, D: Denoise> Network<'a, D> {
    pub(super) fn new(denoise: &'a D, schedule: &'a Schedule) -> Self {
        let prediction = schedule.config().prediction();
        Network { prediction, denoise, schedule, timeline: schedule.timeline(), calls: Cell::new(0) }
    }

    /// The raw answer for `x`, which is scaled for the network; refuses one of another shape.
    pub(super) async fn ask(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let raw = self.denoise.predict(x, t).await?;
        self.calls.set(self.calls.get() + 1);
        if raw.shape() == x.shape() { Ok(raw) } else { Err(Error::Shape { expected: x.shape(), got: raw.shape() }) }
    }

    /// The raw answer for `x`, and what the network says of the step; refuses one of another shape.
    pub(super) async fn posterior(&self, x: &Latents, t: f64) -> Result<Posterior, Error> {
        let posterior = self.denoise.posterior(x, t).await?;
        self.calls.set(self.calls.get() + 1);
        let others = posterior.variance.iter().chain(&posterior.pull);
        match std::iter::once(&posterior.prediction).chain(others).find(|of| of.shape() != x.shape()) {
            Some(of) => Err(Error::Shape { expected: x.shape(), got: of.shape() }),
            None => Ok(posterior),
        }
    }

    /// `D(x; σ)` of Karras et al. (2022) for a state `x0 + (σ/α) ε`.
    pub(super) async fn denoised(&self, x: &Latents, now: &Point, clip: Clip) -> Result<Latents, Error> {
        let raw = self.ask(&x.scale(self.prediction.input_scale(now)), now.t).await?;
        Ok(clip.apply(self.prediction.x0(x, &raw, now, 1.0 / now.alpha)))
    }

    /// Estimates of x0, clipped, and ε for a state `α x0 + σ ε`.
    pub(super) async fn x0_and_epsilon(
        &self,
        x: &Latents,
        now: &Point,
        clip: Clip,
    ) -> Result<(Latents, Latents), Error> {
        let raw = match self.prediction {
            Prediction::Preconditioned { .. } | Prediction::Boundary { .. } => {
                self.ask(&x.scale(self.prediction.input_scale(now)), now.t).await?
            }
            _ => self.ask(x, now.t).await?,
        };
        let x0 = clip.apply(self.prediction.x0(x, &raw, now, 1.0));
        Ok((x0, self.prediction.epsilon(x, &raw, now)))
    }

    /// The state that the last answer has led to, as the run's owner wants it: to be called once after every
    /// [`Network::ask`], also in the middle of a step.
    pub(super) fn amended(&self, x: Latents) -> Latents {
        let next = self.timeline.get(self.calls.get());
        self.denoise.amend(x, &|x0, noise| match next {
            Some(point) => self.schedule.add_noise(point, x0, noise),
            None => x0.clone(),
        })
    }

    /// Reports step `index` (from 0) as done.
    pub(super) fn stepped(&self, index: usize, denoised: &Latents) {
        self.denoise.stepped(index + 1, self.schedule.steps().len(), denoised);
    }
}
