//! The network as samplers see it: asked at a noise level, it answers with an estimate of x0.

use super::denoise::Denoise;
use super::error::Error;
use super::latents::Latents;
use super::point::Point;
use super::prediction::{Clip, Prediction};

/// A [`Denoise`] together with what its answers mean.
pub(super) struct Network<'a, D> {
    pub(super) denoise: &'a D,
    pub(super) prediction: Prediction,
    /// How many steps the run has, for the reports.
    pub(super) steps: usize,
}

impl<D: Denoise> Network<'_, D> {
    /// The raw answer for the variance-preserving state `x`; refuses one of another shape.
    pub(super) async fn ask(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let raw = self.denoise.predict(x, t).await?;
        if raw.shape() == x.shape() { Ok(raw) } else { Err(Error::Shape { expected: x.shape(), got: raw.shape() }) }
    }

    /// `D(x; σ)` of Karras et al. (2022) for a state `x0 + (σ/α) ε`.
    pub(super) async fn denoised(&self, x: &Latents, now: &Point, clip: Clip) -> Result<Latents, Error> {
        let raw = self.ask(&x.scale(now.alpha), now.t).await?;
        Ok(clip.apply(self.prediction.x0(x, &raw, now, 1.0 / now.alpha)))
    }

    /// Estimates of x0, clipped, and ε for a variance-preserving state.
    pub(super) async fn x0_and_epsilon(
        &self,
        x: &Latents,
        now: &Point,
        clip: Clip,
    ) -> Result<(Latents, Latents), Error> {
        let raw = self.ask(x, now.t).await?;
        let x0 = clip.apply(self.prediction.x0(x, &raw, now, 1.0));
        Ok((x0, self.prediction.epsilon(x, &raw, now)))
    }

    /// Reports step `index` (from 0) as done.
    pub(super) fn stepped(&self, index: usize, denoised: &Latents) {
        self.denoise.stepped(index + 1, self.steps, denoised);
    }
}
