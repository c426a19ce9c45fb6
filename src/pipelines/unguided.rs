//! Recipe of sampling with a U-Net that takes no text: each network call has one row per picture, because there is no
//! guidance.

use super::{
    Compute, Frame, PipelineError, PlainUNet, Prepared,
    calls::{DecodeCodes, Predict, PredictRow},
    latents::noise_of,
};
use crate::{
    diffusion::{Denoise, Error, Latents, Schedule, sample},
    generation::Phase,
};

/// Draws the generation's `n` pictures from noise and, if the network takes classes, from the class of each picture.
/// For the same seed, color values (0 to 255) differ by at most 2 from diffusers' `DDPMPipeline`, `DDIMPipeline`,
/// `LDMPipeline`, `ConsistencyModelPipeline` and `ScoreSdeVePipeline`, each with its scheduler.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the model has networks of another type.
pub async fn unguided(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let Prepared { model, scheduler, .. } = prepared;
    let draw = prepared.draw()?;
    let networks = model.networks::<PlainUNet>()?;
    let schedule = Schedule::of(scheduler, draw).map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let [c, h, w] = networks.sample_shape([draw.height, draw.width].map(|side| side as usize));

    let mut noise = noise_of(draw);
    let x = noise.draw([draw.n as usize, c, h, w]).scale(schedule.init_noise_sigma()); // (n, C, h, w)
    let denoise = Unguided { compute, classes: &draw.class_labels };
    let samples = sample(&denoise, &schedule, draw.eta, x, &mut noise).await?;

    let rows = || (0..draw.n as usize).map(|i| samples.row(i));
    let pictures: Option<Vec<Frame>> = rows().map(|row| networks.output.frame(row, [c, h, w])).collect();
    match pictures {
        Some(pictures) => Ok(pictures),
        None => {
            let rows = rows().map(<[f32]>::to_vec).collect();
            compute.call(Phase::Decoding, DecodeCodes { shape: [c, h, w] }, rows).await
        }
    }
}

/// A [`Denoise`] that makes one network call per prediction, with one row per picture.
struct Unguided<'a, C> {
    compute: &'a C,
    /// One class per picture, or no classes at all.
    classes: &'a [u32],
}

impl<C: Compute> Denoise for Unguided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let [b, c, h, w] = x.shape();
        let row = |i| PredictRow { sample: x.row(i).to_vec(), t: t as f32, class: self.classes.get(i).copied() };
        let answers = self
            .compute
            .call(Phase::Denoising, Predict { shape: [c, h, w], outputs: c }, (0..b).map(row).collect())
            .await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        Latents::new([b, c, h, w], answers.concat())
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.compute.stepped(step, steps, denoised);
    }
}
