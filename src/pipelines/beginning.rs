//! The picture that a film of Wan begins with, as the denoiser sees it.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    Activation, Compute, NetworkError, PictureUse, PipelineError, Prepared, WanVideo,
    calls::{EncodeTokens, FilmStage, FilmWay},
    image_to_video::no_answer,
    pixels::at,
};
use crate::{
    device::HOST,
    diffusion::{Error, Latents},
    generation::{Film, Phase},
    models::autoencoder_kl_wan::FilmState,
};

/// What the denoiser sees of the picture besides the latents. The default is a film without a picture. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    latents: Option<Known>,
    /// The states (M, P) of the picture's tokens, for denoisers that see them.
    pub tokens: Option<Tensor>,
}

#[derive(Clone, Debug)]
enum Known {
    /// Further channels of the denoiser's input, (4 + C, F, h, w).
    Channels(Arc<[f32]>),
    /// The first latent frame, (C, h, w).
    First(Arc<[f32]>),
}

/// The number of channels of the mask, which says which frames are known. A latent frame stands for this number of
/// frames.
const MASK: usize = 4;

impl Beginning {
    /// Encodes the picture of a film with latents (C, F, h, w), if the film has one.
    ///
    /// # Errors
    /// A network failed, or the picture was not stored.
    pub async fn encode(
        compute: &impl Compute,
        prepared: &Prepared,
        networks: &WanVideo,
        [c, f, h, w]: [usize; 4],
    ) -> Result<Self, PipelineError> {
        let film = prepared.film()?;
        let Some(picture) = networks.sizes.picture.filter(|_| film.image.is_some()) else {
            return Ok(Self::default());
        };
        let known = match picture {
            PictureUse::FirstFrame => Known::First(encode(compute, prepared, networks, film, 1).await?.into()),
            PictureUse::Channels => {
                let encoded = encode(compute, prepared, networks, film, f).await?;
                let mask = (0..MASK * f * h * w).map(|i| if i / (h * w) % f == 0 { 1.0 } else { 0.0 });
                let channels: Vec<f32> = mask.chain(encoded).collect();
                if channels.len() != (MASK + c) * f * h * w {
                    return Err(no_answer("vae"));
                }
                Known::Channels(channels.into())
            }
        };
        let mut tokens = None;
        if networks.image_encoder.is_some() {
            let pixels = prepared.inputs.for_encoder()?.to_vec();
            tokens = compute.call(Phase::Encoding, EncodeTokens, vec![pixels]).await?.pop();
        }
        Ok(Self { latents: Some(known), tokens })
    }

    /// Whether the first latent frame is known, so that the denoiser gets time 0 for it.
    pub fn is_known(&self) -> bool {
        matches!(self.latents, Some(Known::First(_)))
    }

    /// The denoiser's input for latents of the shape (C, F, h, w).
    pub fn sample(&self, latents: &[f32], shape: [usize; 4]) -> Vec<f32> {
        match &self.latents {
            None => latents.to_vec(),
            Some(Known::Channels(channels)) => latents.iter().chain(channels.iter()).copied().collect(),
            Some(Known::First(first)) => replaced(latents, first, shape),
        }
    }

    /// The latents (n, C · F, h, w) of finished films of the shape (C, F, h, w), with the first latent frame if it is
    /// known.
    ///
    /// # Errors
    /// The latents have another shape.
    pub fn finish(&self, latents: Latents, shape: [usize; 4]) -> Result<Latents, Error> {
        let Some(Known::First(first)) = &self.latents else { return Ok(latents) };
        let rows = (0..latents.shape()[0]).flat_map(|i| replaced(latents.row(i), first, shape)).collect();
        Latents::new(latents.shape(), rows)
    }
}

/// Latents (C, F, h, w) with another first frame (C, h, w).
fn replaced(latents: &[f32], first: &[f32], [_, f, h, w]: [usize; 4]) -> Vec<f32> {
    let mut all = latents.to_vec();
    let channels = all.chunks_mut((f * h * w).max(1)).zip(first.chunks((h * w).max(1)));
    channels.for_each(|(channel, first)| channel[..first.len()].copy_from_slice(first));
    all
}

/// Encodes the film whose first frame is the picture and whose other frames are gray: (C, frames, h, w).
async fn encode(
    compute: &impl Compute,
    prepared: &Prepared,
    networks: &WanVideo,
    film: &Film,
    frames: usize,
) -> Result<Vec<f32>, PipelineError> {
    let size = [film.height as usize, film.width as usize];
    let [height, width] = size;
    let levels = at(prepared.inputs.image()?, size).pixels.into_iter();
    let pixels: Vec<f32> = levels.map(|level| 2.0 * (f32::from(level) / 255.0) - 1.0).collect();
    let failed = NetworkError::of("vae");
    let mut piece = Tensor::from_vec(pixels, (1, height, width, 3), &HOST).map_err(&failed)?;
    let (mut rows, mut pieces) = (vec![FilmState::default()], Vec::with_capacity(frames));
    for i in 0..frames {
        rows = rows.iter().map(|row| row.next(piece.clone())).collect();
        let stages = networks.sizes.encode_stages(size, i == 0);
        for (stage, of_stage) in stages.iter().enumerate() {
            let (is_last, demand) = (stage + 1 == stages.len(), of_stage.demand);
            let call = FilmStage { way: FilmWay::Encode(size), begins: i == 0, stage, is_last, demand };
            rows = compute.call(Phase::Encoding, call, rows).await?;
        }
        let [state] = &rows[..] else { return Err(no_answer("vae")) };
        pieces.push(state.map().and_then(|map| map.to_device(&HOST)).map_err(&failed)?);
        if i == 0 && frames > 1 {
            piece = Tensor::zeros((MASK, height, width, 3), candle_core::DType::F32, &HOST).map_err(&failed)?;
        }
    }
    let all = Tensor::cat(&pieces, 0).and_then(|all| all.permute((3, 0, 1, 2))?.contiguous()).map_err(&failed)?;
    let shape = all.dims().to_vec();
    Ok(Activation(all).read(&shape, <[f32]>::to_vec)?)
}
