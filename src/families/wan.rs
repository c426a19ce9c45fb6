//! Wan 2.1 and 2.2: films from a prompt, and films that begin with a picture (Wan Team 2025, arXiv:2503.20314;
//! diffusers' `WanPipeline` and `WanImageToVideoPipeline`).

mod sizes;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::{Extras, fitted_rgb},
    plan::calls_of,
};
use crate::{
    device::Device,
    generation::{Decoder, FilmCard, Job, ModelCard},
    models::{
        AutoencoderKlWan, ClipVisionModel, T5EncoderModel, WanTransformer3DModel,
        clip_vision::ClipVisionConfig,
        demand::Demand,
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
    },
    pipelines::{
        Compute, FilmOrder, FilmPreview, Frame, Loaded, PipelineError, Prepared, WanVideo, WanVideoSizes, text_to_video,
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The family of Wan.
pub struct Wan;

const WEIGHTS: &str = "diffusion_pytorch_model";
const TEXT_ENCODER: (&str, &str) = ("text_encoder", "model");
const VAE: (&str, &str) = ("vae", WEIGHTS);
const IMAGE_ENCODER: (&str, &str) = ("image_encoder", "model");

/// The parts of the denoisers.
const TRANSFORMERS: [&str; 2] = ["transformer", "transformer_2"];

/// The frames per second of the published models with this many pixels per latent pixel.
fn fps(scale: usize) -> u32 {
    if scale == 16 { 24 } else { 16 }
}

impl Family for Wan {
    fn name(&self) -> &'static str {
        "wan"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["WanPipeline", "WanImageToVideoPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        // The defaults are the same as in diffusers' `WanPipeline`.
        let defaults = Defaults { width: 832, height: 480, steps: 50, guidance_scale: 5.0 };
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let multiple = sizes.size_multiple() as u32;
        let card = ModelCard {
            size_multiple: multiple,
            min_side_pixels: extras.min_size.unwrap_or(64).next_multiple_of(multiple),
            latents: (sizes.latent_channels(), sizes.scale()),
            context_width: sizes.text_encoder.d_model,
            context_length: WanVideoSizes::TOKENS,
            // Denoisers that see the tokens of a picture take this many tokens of text.
            sequence_lengths: sizes
                .image_encoder
                .is_none()
                .then_some((WanVideoSizes::TOKENS as u32, WanVideoSizes::TOKENS as u32)),
            text_encoders: 1,
            tasks: sizes::tasks(&index, &sizes),
            takes_prompt: true,
            decoders: vec![Decoder::Full],
            film: Some(FilmCard {
                default_frames: 81,
                frames_multiple: 4,
                default_fps: fps(sizes.scale()),
                motion: None,
                decodes_in_chunks: false,
                has_second_guidance: sizes.boundary_ratio.is_some(),
            }),
            ..base
        };
        notes.extend(check(folder, &sizes)?);
        sizes::tokenizer(folder, &sizes)?;
        let float32: Vec<_> = [VAE].into_iter().chain(sizes.image_encoder.iter().map(|_| IMAGE_ENCODER)).collect();
        let adaptable: Vec<_> = [TEXT_ENCODER].into_iter().chain(denoisers(&sizes)).collect();
        let size =
            ModelSize { adaptable: card::size_as_stored(folder, &adaptable)?, float32: card::size(folder, &float32)? };
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let sizes = sizes::read(folder)?;
        let open = |(part, stem): (&str, &str)| Weights::open(folder, part, stem, device, as_stored);
        // On the CPU, the matrices of these networks keep the number format of the files.
        let stored = |weights: &Weights| weights.in_precision(device.precision()).with_stored_matrices();
        let weights = open(TEXT_ENCODER)?;
        let text_encoder = T5EncoderModel::new(&sizes.text_encoder, &stored(&weights))?;
        weights.finish()?;
        let transformer = |(part, config): ((&str, &str), _)| {
            let weights = open(part)?;
            let network = WanTransformer3DModel::new(config, &stored(&weights));
            weights.finish().map(|()| network)
        };
        let transformers = denoisers(&sizes).zip(&sizes.transformers).map(transformer).collect::<Result<_, _>>()?;
        let weights = open(VAE)?;
        let vae = AutoencoderKlWan::new(&sizes.vae, &weights);
        weights.finish()?;
        let image_encoder = match &sizes.image_encoder {
            Some(config) => {
                let weights = open(IMAGE_ENCODER)?;
                let network = image_encoder(config, &weights);
                weights.finish()?;
                Some((network, sizes::preparation(folder, config)?))
            }
            None => None,
        };
        let tokenizer = sizes::tokenizer(folder, &sizes)?;
        let (channels, device, preview) = (sizes.latent_channels(), device.clone(), None);
        let mut networks =
            WanVideo { tokenizer, text_encoder, transformers, vae, image_encoder, sizes, preview, device };
        let map = fitted_rgb(folder, channels, |latents| networks.decode_alone(latents))?;
        networks.preview = Some(FilmPreview { map, order: FilmOrder::ChannelsOutside });
        Ok(Box::new(networks))
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        let tokenizer = sizes::tokenizer(folder, &sizes::read(folder)?)?;
        Ok(Some(PromptTokenizers(vec![PromptTokenizer::T5(tokenizer)])))
    }
}

impl Recipe for Wan {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_to_video(compute, prepared).await
    }
}

/// The denoisers of a folder.
fn denoisers(sizes: &WanVideoSizes) -> impl Iterator<Item = (&'static str, &'static str)> {
    TRANSFORMERS.into_iter().take(sizes.transformers.len()).map(|part| (part, WEIGHTS))
}

/// The encoder of pictures. Some files have a projection as well, which no denoiser uses.
fn image_encoder(config: &ClipVisionConfig, weights: &Weights) -> ClipVisionModel {
    weights.leave("visual_projection.");
    ClipVisionModel::new(config, weights)
}

/// Checks that the files have exactly the tensors that the networks need, without reading weights. Returns notes about
/// the files.
fn check(folder: &ModelFolder, sizes: &WanVideoSizes) -> Result<Vec<String>, LoadError> {
    let mut notes = Vec::new();
    let mut open = |(part, stem): (&str, &str)| {
        let weights = Weights::open(folder, part, stem, &Device::host(), as_stored)?;
        notes.extend(weights.note());
        Ok::<_, LoadError>(weights)
    };
    open(TEXT_ENCODER)?.check(|w| drop(T5EncoderModel::new(&sizes.text_encoder, w)))?;
    for (part, config) in denoisers(sizes).zip(&sizes.transformers) {
        open(part)?.check(|w| drop(WanTransformer3DModel::new(config, w)))?;
    }
    open(VAE)?.check(|w| drop(AutoencoderKlWan::new(&sizes.vae, w)))?;
    if let Some(config) = &sizes.image_encoder {
        sizes::preparation(folder, config)?;
        open(IMAGE_ENCODER)?.check(|w| drop(image_encoder(config, w)))?;
    }
    Ok(notes)
}

impl Outline for WanVideoSizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Some(film) = job.work.film() else { return Plan::default() };
        let frames = self.vae.latent_frames(film.frames as usize);
        let [h, w] = [film.height, film.width].map(|side| side as usize / self.scale().max(1));
        let branches = if film.is_guided() { 2 } else { 1 };
        let tokens = film.max_sequence_length.map_or(WanVideoSizes::TOKENS, |length| length as usize);
        let text = self.text_demand(tokens);
        let pixels = [film.height as usize, film.width as usize];
        let encoding = if film.image.is_some() { self.encode_demand(frames, pixels) } else { Demand::default() };
        let pictures = encoding.then(self.picture_demand());
        let after = self.vae.decode_demand(frames, [h, w]);
        let sampling = SamplingDemand {
            state: self.latent_channels() * frames * h * w,
            branches,
            calls: calls_of(&film.scheduler, film.steps, card),
            // The second denoiser of the published models has the sizes of the first one.
            call: self.denoise_demand(0, [frames, h, w], tokens),
            before: Demand { work: branches as f64 * text.work, ..text }.then(pictures),
            after,
        };
        Plan::of_film(film, sampling).with_float32_call(after.then(pictures).bytes)
    }
}
