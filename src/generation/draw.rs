//! The work of drawing pictures.

use serde::{Deserialize, Serialize};

use super::{
    ControlUse, Decoder, FeatureCache, FurtherPrompts, GuidanceInterval, GuidanceLimits, ImageField, InputImage,
    Levels, LoraUse, MicroConditioning, PromptSyntax, Refiner, SchedulerChoice, SkipLayerGuidance, Source,
};

/// The pictures that the job's model draws, and all parameters of the drawing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// The prompt without its LoRA tags.
    pub prompt: String,
    /// `None` if the request has no negative prompt and the model or its refiner treats a missing negative prompt
    /// differently from an empty one.
    pub negative_prompt: Option<String>,
    #[serde(flatten)]
    pub further_prompts: FurtherPrompts,
    /// Number of tokens that a text encoder takes, if the model lets requests choose this number; otherwise `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sequence_length: Option<u32>,
    #[serde(default)]
    pub prompt_syntax: PromptSyntax,
    /// The LoRAs in use; each name occurs once.
    #[serde(default)]
    pub loras: Vec<LoraUse>,
    /// The class number of each image; empty for a model without classes.
    #[serde(default, rename = "class_label", skip_serializing_if = "Vec::is_empty")]
    pub class_labels: Vec<u32>,
    /// Scale of classifier guidance; 0 switches the classifier off, `None` means that the model has no classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_guidance_scale: Option<f64>,
    /// Width and height in pixels.
    pub width: u32,
    pub height: u32,
    /// Number of images, 1 or more.
    pub n: u32,
    pub steps: u32,
    /// The noise levels of the steps, if the request lists them. Otherwise the scheduler chooses them.
    #[serde(flatten)]
    pub levels: Option<Levels>,
    /// `s` in `uncond + s · (cond − uncond)`; 1 or less switches guidance off. For models with a
    /// [`guidance_offset`](super::ModelCard::guidance_offset) of 1, `s` in `cond + s · (cond − uncond)`; 0 switches
    /// guidance off.
    pub guidance_scale: f64,
    /// `s` in `uncond + s · (cond − uncond)`, for models for which `guidance_scale` is an input of the network; `None`
    /// for other models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_guidance_scale: Option<f64>,
    /// How far the guided prediction is rescaled to the standard deviation of the conditional prediction, 0 to 1.
    pub guidance_rescale: f64,
    /// Whether the model draws with guidance at every `guidance_scale`, also at scales that switch off the guidance of
    /// other models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always_guided: bool,
    /// The steps with guidance. The other steps compute no row for the negative prompt.
    #[serde(default)]
    pub guidance_interval: GuidanceInterval,
    #[serde(flatten)]
    pub guidance_limits: Option<GuidanceLimits>,
    #[serde(flatten)]
    pub skip_layer_guidance: Option<SkipLayerGuidance>,
    /// The scheduler of the request, or the model's default scheduler.
    pub scheduler: SchedulerChoice,
    /// η of DDIM: the fraction of DDPM's noise that each step adds, 0 to 1. For TCD, this is γ. Other samplers ignore
    /// it.
    pub eta: f64,
    /// How many of the text encoder's last layers are skipped.
    pub clip_skip: u32,
    #[serde(default)]
    pub decoder: Decoder,
    /// `None` computes every call of the denoiser in full.
    #[serde(default)]
    pub feature_cache: Option<FeatureCache>,
    /// Sizes and scores for models with micro-conditioning.
    #[serde(flatten)]
    pub micro_conditioning: Option<MicroConditioning>,
    /// The model that draws the last steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refiner: Option<Refiner>,
    #[serde(default)]
    pub controls: Vec<ControlUse>,
    /// The picture that the generation starts from.
    #[serde(flatten)]
    pub source: Option<Source>,
    /// Seed of image 0; image i uses `seed + i`, unless the mode is [`SeedMode::Batch`].
    pub seed: u64,
    pub seed_mode: SeedMode,
}

impl Draw {
    /// The seed of image `index`. With [`SeedMode::Batch`], the seed is the same for every image.
    pub fn seed_of(&self, index: u32) -> u64 {
        self.seed_mode.seed_of(self.seed, index)
    }

    /// The pictures that the request contained: image, further reference pictures, mask and controls.
    pub fn inputs(&self) -> impl Iterator<Item = &InputImage> {
        self.placed_inputs().map(|(_, input)| input)
    }

    /// The pictures that the request contained, with their fields.
    pub fn placed_inputs(&self) -> impl Iterator<Item = (ImageField, &InputImage)> {
        let source = self.source.as_ref();
        let image = source.map(|source| (ImageField::Image, &source.image));
        let further = source.into_iter().flat_map(|source| &source.further_images);
        let further = (1..).zip(further).map(|(i, image)| (ImageField::Reference(i), image));
        let mask = source.and_then(|source| source.mask.as_ref()).map(|mask| (ImageField::Mask, &mask.mask));
        let controls = self.controls.iter().enumerate();
        let controls = controls.map(|(i, control)| (ImageField::Control(i), &control.image));
        image.into_iter().chain(further).chain(mask).chain(controls)
    }

    /// The picture in this field of the request.
    pub fn input_mut(&mut self, place: ImageField) -> Option<&mut InputImage> {
        match place {
            ImageField::Image | ImageField::Reference(0) => self.source.as_mut().map(|source| &mut source.image),
            ImageField::Reference(i) => self.source.as_mut()?.further_images.get_mut(i - 1),
            ImageField::Mask => self.source.as_mut()?.mask.as_mut().map(|mask| &mut mask.mask),
            ImageField::Control(i) => self.controls.get_mut(i).map(|control| &mut control.image),
        }
    }

    /// Every text that goes to a text encoder.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let further = self.further_prompts.named().map(|(_, text)| text);
        let refiner = self.refiner.as_ref().and_then(|refiner| refiner.negative_prompt.as_ref());
        let negative = self.negative_prompt.iter().chain(refiner).map(String::as_str);
        [self.prompt.as_str()].into_iter().chain(further).chain(negative)
    }

    /// `s` in `uncond + s · (cond − uncond)`; at 1 or less, there is no such guidance. `guidance_embedding`: whether
    /// the model takes `guidance_scale` as an input of its network.
    pub fn prompt_guidance(&self, guidance_embedding: bool) -> f64 {
        match self.true_guidance_scale {
            Some(scale) => scale,
            None if guidance_embedding => 1.0,
            None => self.guidance_scale,
        }
    }

    /// The names of the approximations that change this picture; empty for an exact picture.
    pub fn approximations(&self) -> Vec<&'static str> {
        // For models with limits of guidance, only 0 switches guidance off.
        let off = if self.guidance_limits.is_some() { 0.0 } else { 1.0 };
        let guided = self.always_guided || self.prompt_guidance(false) > off;
        let all = [
            ("guidance_interval", guided && self.guidance_interval != GuidanceInterval::WHOLE),
            ("feature_cache", self.feature_cache.is_some()),
            ("tiny_decoder", self.decoder == Decoder::Tiny),
        ];
        all.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect()
    }
}

/// How the images or sounds of a request share the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedMode {
    /// Image i has its own random generator with the seed `seed + i`.
    PerImage,
    /// One random generator makes the noise of all images, as in diffusers' `num_images_per_prompt`.
    Batch,
}

impl SeedMode {
    /// The seed of image `index` of a request with this seed.
    pub fn seed_of(self, seed: u64, index: u32) -> u64 {
        match self {
            SeedMode::PerImage => seed.wrapping_add(u64::from(index)),
            SeedMode::Batch => seed,
        }
    }
}
