//! Recipe of text to sound without spectrograms: rectified flow of latents that are decoded to samples.

use std::sync::Arc;

use super::{
    Activation, Compute, Frame, LatentDiffusion, NetworkError, PipelineError, Prepared,
    sound_guided::SoundGuided,
    sound_latents::{decoded, sampled},
};
use crate::{audio::Waveform, models::latent_diffusion::WaveformSpec};

/// Makes the generation's `n` sounds (Stable Audio 3, arXiv:2605.17991). For the same seed, samples differ by at most
/// 1e-3 of the largest sample from diffusers' `StableAudio3Pipeline`.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the model decodes no waveforms.
pub async fn text_to_waveform(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let sound = prepared.sound()?;
    let networks = LatentDiffusion::of(&prepared.model)?;
    let spec = networks.spec();
    let of_waveform = spec.waveform.ok_or_else(|| NetworkError::missing("vae"))?;
    let length = of_waveform.latents(sound.padded_seconds());

    let guided = SoundGuided::new(compute, networks, sound, Arc::from([sound.seconds as f32])).await?;
    let latents = sampled(&guided, prepared, [spec.latent_channels, length, 1]).await?;

    decoded(compute, networks, &latents, async |rows| {
        rows.iter().map(|row| waveform(row, &of_waveform, length, sound.seconds)).collect()
    })
    .await
}

/// The first `seconds` of a decoded row (1, samples, channels, 1) of `length` latents.
fn waveform(row: &Activation, of_waveform: &WaveformSpec, length: usize, seconds: f64) -> Result<Frame, PipelineError> {
    let WaveformSpec { sample_rate, samples_per_latent, channels } = *of_waveform;
    let kept = of_waveform.samples(seconds).min(length * samples_per_latent);
    let samples = row.read(&[1, length * samples_per_latent, channels, 1], |samples| {
        samples[..kept * channels].iter().map(|sample| sample.clamp(-1.0, 1.0)).collect()
    })?;
    Ok(Frame::Sound(Waveform { sample_rate: sample_rate as u32, channels: channels as u16, samples }))
}
