//! The work of drawing pictures.

use serde::{Deserialize, Serialize};

use super::{
    Control, Decoder, FeatureCache, GuidanceInterval, InputImage, Levels, LoraUse, MicroConditioning, Place,
    PromptSyntax, Refiner, SchedulerChoice, Source,
};

/// Which pictures are to be drawn by the job's model, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// Without the tags of LoRAs.
    pub prompt: String,
    /// `None` where the model takes none for another thing than an empty one.
    pub negative_prompt: Option<String>,
    #[serde(default)]
    pub prompt_syntax: PromptSyntax,
    /// Each name once.
    #[serde(default)]
    pub loras: Vec<LoraUse>,
    /// The class of each image, by number; empty where the model draws no classes.
    #[serde(default, rename = "class_label", skip_serializing_if = "Vec::is_empty")]
    pub class_labels: Vec<u32>,
    /// `s` of classifier guidance; 0 switches the classifier off, and `None` stands for a model without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_guidance_scale: Option<f64>,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Number of images, 1 or more.
    pub n: u32,
    pub steps: u32,
    /// The noise levels of these steps where the request names them, else they are the scheduler's.
    #[serde(flatten)]
    pub levels: Option<Levels>,
    /// `uncond + s · (cond − uncond)`; 1 or less switches guidance off.
    pub guidance_scale: f64,
    pub guidance_rescale: f64,
    /// The steps that are guided; the others compute no row for the negative prompt.
    #[serde(default)]
    pub guidance_interval: GuidanceInterval,
    /// As the request named it, or the class of the model folder's own.
    pub scheduler: SchedulerChoice,
    pub eta: f64,
    pub clip_skip: u32,
    #[serde(default)]
    pub decoder: Decoder,
    /// `None` computes every call of the denoiser in full.
    #[serde(default)]
    pub feature_cache: Option<FeatureCache>,
    /// Sizes and scores, for models that take them.
    #[serde(flatten)]
    pub micro_conditioning: Option<MicroConditioning>,
    /// The model of the last steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refiner: Option<Refiner>,
    #[serde(default)]
    pub controls: Vec<Control>,
    /// The picture that it begins with.
    #[serde(flatten)]
    pub source: Option<Source>,
    /// Seed of image 0; image i uses `seed + i` unless [`SeedMode::Batch`].
    pub seed: u64,
    pub seed_mode: SeedMode,
}

impl Draw {
    /// The seed that draws image `index` alone.
    pub fn seed_of(&self, index: u32) -> u64 {
        match self.seed_mode {
            SeedMode::PerImage => self.seed.wrapping_add(u64::from(index)),
            SeedMode::Batch => self.seed,
        }
    }

    /// The pictures that the request brought along.
    pub fn inputs(&self) -> impl Iterator<Item = &InputImage> {
        let source = self.source.as_ref();
        let mask = source.and_then(|source| source.mask.as_ref()).map(|mask| &mask.mask);
        let controls = self.controls.iter().map(|control| &control.image);
        source.map(|source| &source.image).into_iter().chain(mask).chain(controls)
    }

    /// The picture that the request brought in this place.
    pub fn input_mut(&mut self, place: Place) -> Option<&mut InputImage> {
        match place {
            Place::Image => self.source.as_mut().map(|source| &mut source.image),
            Place::Mask => self.source.as_mut()?.mask.as_mut().map(|mask| &mut mask.mask),
            Place::Control(i) => self.controls.get_mut(i).map(|control| &mut control.image),
        }
    }

    /// Every text that goes to a text encoder.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let second = self.micro_conditioning.iter().flat_map(|micro| [&micro.prompt_2, &micro.negative_prompt_2]);
        let refiner = self.refiner.as_ref().and_then(|refiner| refiner.negative_prompt.as_ref());
        let texts = second.flatten().chain(&self.negative_prompt).chain(refiner);
        [self.prompt.as_str()].into_iter().chain(texts.map(String::as_str))
    }

    /// What makes this picture another than the exact one, for less work; empty for an exact picture.
    pub fn approximations(&self) -> Vec<&'static str> {
        let guided = self.guidance_scale > 1.0;
        let all = [
            ("guidance_interval", guided && self.guidance_interval != GuidanceInterval::WHOLE),
            ("feature_cache", self.feature_cache.is_some()),
            ("tiny_decoder", self.decoder == Decoder::Tiny),
        ];
        all.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect()
    }
}

/// How the seeds of several images relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedMode {
    /// Image i has a generator of its own, seeded `seed + i`.
    PerImage,
    /// One generator draws for all images together, as diffusers' `num_images_per_prompt` does.
    Batch,
}
