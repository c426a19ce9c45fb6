//! Recipe of text to sound: latent diffusion of mel spectrograms with classifier-free guidance, and a vocoder.

use std::sync::Arc;

use super::{
    Compute, Frame, LatentDiffusion, NetworkError, PipelineError, Prepared,
    calls::Vocode,
    sound_guided::SoundGuided,
    sound_latents::{decoded, sampled},
};
use crate::{audio::Waveform, generation::Phase};

/// Makes the generation's `n` sounds (Liu et al. 2023, arXiv:2301.12503). For the same seed, samples differ by at most
/// 1e-3 of the largest sample from diffusers' `AudioLDMPipeline`.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the model makes no spectrograms.
pub async fn text_to_sound(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let sound = prepared.sound()?;
    let networks = LatentDiffusion::of(&prepared.model)?;
    let spec = networks.spec();
    let of_sound = spec.sound.ok_or_else(|| NetworkError::missing("vocoder"))?;
    let scale = spec.vae_scale_factor.max(1);
    let [h, w] = [of_sound.frames(sound.seconds, scale), of_sound.frequencies].map(|side| side / scale);

    let guided = SoundGuided::new(compute, networks, sound, Arc::from([])).await?;
    let latents = sampled(&guided, prepared, [spec.latent_channels, h, w]).await?;

    decoded(compute, networks, &latents, async |spectrograms| {
        let waveforms = compute.call(Phase::Decoding, Vocode { size: [h * scale, w * scale] }, spectrograms).await?;
        let frame = |mut samples: Vec<f32>| {
            samples.truncate(of_sound.samples(sound.seconds));
            Frame::Sound(Waveform { sample_rate: of_sound.sample_rate as u32, channels: 1, samples })
        };
        Ok(waveforms.into_iter().map(frame).collect())
    })
    .await
}
