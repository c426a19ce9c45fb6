//! What the recipes do with latents before and after sampling: noise, encoding and decoding.

use super::{
    Compute, Frame, PipelineError, Posterior,
    calls::{DECODING, Decode, DecodeTiny, Encode},
    setup::Setup,
};
use crate::{
    diffusion::{Latents, Noise},
    generation::{Decoder, Draw, Phase, SeedMode},
};

/// The noise generator of the generation, before it has produced any noise.
pub(super) fn noise_of(draw: &Draw) -> Noise {
    match draw.seed_mode {
        SeedMode::Batch => Noise::batch(draw.seed),
        SeedMode::PerImage => Noise::per_image(&(0..draw.n).map(|i| draw.seed_of(i)).collect::<Vec<_>>()),
    }
}

/// Encodes a picture with pixels (3, H, W) in [-1, 1] to the distribution of its latents.
pub(super) async fn encode(
    compute: &impl Compute,
    pixels: Vec<f32>,
    size: [usize; 2],
) -> Result<Posterior, PipelineError> {
    let answers = compute.call(Phase::Encoding, Encode { size }, vec![pixels]).await?;
    answers.into_iter().next().ok_or_else(|| PipelineError::Sampler("the autoencoder gave no answer".to_owned()))
}

impl Posterior {
    /// Samples latents (n, C, h, w) of one picture. If the generation's n pictures share a noise generator, they get
    /// the same sample, as in diffusers; otherwise each gets its own.
    pub(super) fn sample(&self, noise: &mut Noise, draw: &Draw, shape: [usize; 4]) -> Result<Latents, PipelineError> {
        let [n, c, h, w] = shape;
        let drawn = match draw.seed_mode {
            SeedMode::Batch => noise.draw([1, c, h, w]),
            SeedMode::PerImage => noise.draw(shape),
        };
        let [rows, ..] = drawn.shape();
        let row = |i: usize| {
            let draws = drawn.row(i % rows).iter();
            self.mean.iter().zip(&self.std).zip(draws).map(|((mean, std), z)| mean + std * z)
        };
        Ok(Latents::new(shape, (0..n).flat_map(row).collect())?)
    }
}

/// Decodes latents (n, C, h, w) with the decoder that the request names.
pub(super) async fn decode(setup: &Setup<'_, impl Compute>, latents: &Latents) -> Result<Vec<Frame>, PipelineError> {
    let Setup { compute, networks, draw, .. } = *setup;
    match draw.decoder {
        Decoder::Full => {
            let run = async |call: Decode, rows| compute.call(Phase::Decoding, call, rows).await;
            super::decode(networks, latents, DECODING, run).await
        }
        Decoder::Tiny => decode_tiny(compute, Phase::Decoding, latents).await,
    }
}

/// Decodes latents (n, C, h, w) with the model's tiny decoder. Fails if the model has none.
pub(super) async fn decode_tiny(
    compute: &impl Compute,
    phase: Phase,
    latents: &Latents,
) -> Result<Vec<Frame>, PipelineError> {
    let [b, c, h, w] = latents.shape();
    let rows = (0..b).map(|row| latents.row(row).to_vec()).collect();
    compute.call(phase, DecodeTiny { shape: [c, h, w] }, rows).await
}
