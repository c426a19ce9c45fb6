//! Stable Video Diffusion: films that begin with a picture (Blattmann et al. 2023, arXiv:2311.15127; diffusers'
//! `StableVideoDiffusionPipeline`).

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::{Extras, fitted_rgb},
    plan::calls_of,
};
use crate::{
    device::Device,
    generation::{Decoder, FilmCard, Job, ModelCard, Motion, Task},
    models::{
        AutoencoderKlTemporalDecoder, ClipImageEncoder, UNetSpatioTemporalModel, autoencoder_kl::current_name,
        autoencoder_kl_temporal_decoder::AutoencoderKlTemporalDecoderConfig, clip_preparation::Preparation,
        clip_vision::ClipVisionConfig, demand::Demand, unet_spatio_temporal::UNetSpatioTemporalConfig,
    },
    pipelines::{
        CLIP_SIDE, Compute, FilmOrder, FilmPreview, Frame, Loaded, PipelineError, Prepared, StableVideo,
        StableVideoSizes, image_to_video,
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The family of Stable Video Diffusion.
pub struct StableVideoDiffusion;

const WEIGHTS: &str = "diffusion_pytorch_model";

/// The parts with weights, and the stems of their files.
const PARTS: [(&str, &str); 3] = [("image_encoder", "model"), ("unet", WEIGHTS), ("vae", WEIGHTS)];

/// The width and height of a film of the published models, in pixels.
const PUBLISHED: [u32; 2] = [1024, 576];
/// The `sample_size` of the U-Net of the published models. This is the side of a square of latents with the same number
/// of pixels as the latents of a film of the size [`PUBLISHED`].
const PUBLISHED_SAMPLE: usize = 96;

impl Family for StableVideoDiffusion {
    fn name(&self) -> &'static str {
        "stable_video_diffusion"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["StableVideoDiffusionPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = read(folder)?;
        let index = ModelIndex::of(folder)?;
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        let [width, height] = native_size(&sizes);
        // The defaults are the same as in diffusers' `StableVideoDiffusionPipeline`.
        let defaults = Defaults { width, height, steps: 25, guidance_scale: 3.0 };
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let multiple = sizes.scale() as u32;
        let card = ModelCard {
            size_multiple: multiple,
            min_side_pixels: extras.min_size.unwrap_or(64).next_multiple_of(multiple),
            latents: (sizes.latent_channels(), sizes.scale()),
            tasks: vec![Task::ImageToVideo],
            takes_prompt: false,
            decoders: vec![Decoder::Full],
            film: Some(FilmCard {
                default_frames: sizes.unet.num_frames as u32,
                frames_multiple: 1,
                default_fps: 7,
                motion: Some(Motion { min_guidance_scale: 1.0, motion_bucket_id: 127, noise_aug_strength: 0.02 }),
                decodes_in_chunks: true,
                has_second_guidance: false,
            }),
            ..base
        };
        notes.extend(check(folder, &sizes)?);
        let size = ModelSize::float32(card::size(folder, &PARTS)?);
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let sizes = read(folder)?;
        let preparation = Preparation::read(folder, false, sizes.image_encoder.image_size)?;
        let weights = Weights::open(folder, "image_encoder", "model", device, as_stored)?;
        let image_encoder = ClipImageEncoder::new(&sizes.image_encoder, preparation, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "unet", WEIGHTS, device, as_stored)?;
        let unet = UNetSpatioTemporalModel::new(&sizes.unet, &weights);
        weights.finish()?;
        let weights = Weights::open(folder, "vae", WEIGHTS, device, current_name)?;
        let vae = AutoencoderKlTemporalDecoder::new(&sizes.vae, &weights);
        weights.finish()?;
        let channels = sizes.latent_channels();
        let mut networks = StableVideo { image_encoder, unet, vae, sizes, preview: None, device: device.clone() };
        let map = fitted_rgb(folder, channels, |latents| networks.decode_alone(latents))?;
        networks.preview = Some(FilmPreview { map, order: FilmOrder::FramesOutside });
        Ok(Box::new(networks))
    }
}

impl Recipe for StableVideoDiffusion {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        image_to_video(compute, prepared).await
    }
}

/// The configurations of a folder's networks. Fails if the networks do not fit together.
fn read(folder: &ModelFolder) -> Result<StableVideoSizes, LoadError> {
    let [image_encoder, unet, vae] = ["image_encoder", "unet", "vae"].map(|part| format!("{part}/config.json"));
    let sizes = StableVideoSizes {
        image_encoder: ClipVisionConfig::read(&image_encoder, &folder.json(&image_encoder)?)?,
        unet: UNetSpatioTemporalConfig::read(&unet, &folder.json(&unet)?)?,
        vae: AutoencoderKlTemporalDecoderConfig::read(&vae, &folder.json(&vae)?)?,
    };
    let (latents, vector) = (sizes.latent_channels(), sizes.image_encoder.projection_dim);
    for (path, key, value, wanted, what) in [
        (&unet, "in_channels", sizes.unet.in_channels, 2 * latents, "twice the latent_channels of the vae"),
        (&unet, "out_channels", sizes.unet.out_channels, latents, "the latent_channels of the vae"),
        (&unet, "cross_attention_dim", sizes.vector_width(), vector, "the projection_dim of the image encoder"),
        (
            &image_encoder,
            "image_size",
            sizes.image_encoder.image_size,
            CLIP_SIDE,
            "the side of the pictures that diffusers' pipeline encodes",
        ),
    ] {
        if value != wanted {
            let reason = format!("must be {wanted}, {what}, not {value}");
            return Err(LoadError::BadKey { path: path.clone(), key: key.into(), reason });
        }
    }
    Ok(sizes)
}

/// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes about
/// the files.
fn check(folder: &ModelFolder, sizes: &StableVideoSizes) -> Result<Vec<String>, LoadError> {
    let mut notes = Vec::new();
    let preparation = Preparation::read(folder, false, sizes.image_encoder.image_size)?;
    let weights = Weights::open(folder, "image_encoder", "model", &Device::host(), as_stored)?;
    notes.extend(weights.note());
    weights.check(|w| drop(ClipImageEncoder::new(&sizes.image_encoder, preparation, w)))?;
    let weights = Weights::open(folder, "unet", WEIGHTS, &Device::host(), as_stored)?;
    notes.extend(weights.note());
    weights.check(|w| drop(UNetSpatioTemporalModel::new(&sizes.unet, w)))?;
    let weights = Weights::open(folder, "vae", WEIGHTS, &Device::host(), current_name)?;
    notes.extend(weights.note());
    weights.check(|w| drop(AutoencoderKlTemporalDecoder::new(&sizes.vae, w)))?;
    Ok(notes)
}

/// The default (width, height) of a film in pixels.
fn native_size(sizes: &StableVideoSizes) -> [u32; 2] {
    match sizes.unet.sample_size.map(|size| size.height_width()) {
        None | Some((PUBLISHED_SAMPLE, PUBLISHED_SAMPLE)) => PUBLISHED,
        Some((h, w)) => [w, h].map(|side| (side * sizes.scale()) as u32),
    }
}

impl Outline for StableVideoSizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Some(film) = job.work.film() else { return Plan::default() };
        let (frames, pixels) = (film.frames as usize, [film.height as usize, film.width as usize]);
        let [h, w] = pixels.map(|side| side / self.scale().max(1));
        let chunk = film.decode_chunk_size.map_or(frames, |size| size as usize).clamp(1, frames.max(1));
        let rest = frames % chunk;
        let chunks = self.decode_demand(chunk, [h, w]);
        let mut after = Demand { work: (frames / chunk) as f64 * chunks.work, ..chunks };
        if rest > 0 {
            after = after.then(self.decode_demand(rest, [h, w]));
        }
        let stills = self.still_demand(pixels);
        let stills = Demand { work: f64::from(film.n) * stills.work, ..stills };
        let sampling = SamplingDemand {
            state: frames * self.latent_channels() * h * w,
            branches: if film.is_guided() { 2 } else { 1 },
            calls: calls_of(&film.scheduler, film.steps, card),
            call: self.denoise_demand(frames, [h, w]),
            before: self.picture_demand().then(stills),
            after,
        };
        Plan::of_film(film, sampling)
    }
}
