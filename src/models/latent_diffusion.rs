//! The sizes of a latent diffusion model and the kinds of its network calls, for the callers of its networks.

use crate::generation::FlowLevels;

/// The sizes and properties of a model that the callers of its networks need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// C: channels of the latents.
    pub latent_channels: usize,
    /// Pixels per latent pixel, along one side.
    pub vae_scale_factor: usize,
    /// (h, w) of the latents that the U-Net was trained on. Times `vae_scale_factor`, this is the default size of a
    /// picture.
    pub sample_size: (usize, usize),
    /// L: tokens of a prompt, including start, end and padding.
    pub context_length: usize,
    /// Whether padding of prompts has no effect. The hidden states of a prompt then have only its own tokens, and
    /// prompts of different lengths may share a call.
    pub masks_padding: bool,
    /// D: width of a token's hidden states, the sum over all encoders.
    pub context_width: usize,
    /// P: width of the vector of a whole prompt, if the U-Net takes one.
    pub pooled_width: Option<usize>,
    /// How many numbers about sizes the network takes: 6 about a picture, or 5 if the last of them is a score; 1 about
    /// a sound, which is its length in seconds; otherwise 0.
    pub time_id_count: usize,
    /// Whether the U-Net takes the guidance scale as an input, so that guidance needs no second row without the prompt.
    pub guidance_embedding: bool,
    /// Whether the conditions of an absent negative prompt are zeros, instead of the conditions of an empty prompt.
    pub zero_negative: bool,
    /// The number of text encoders.
    pub text_encoders: usize,
    /// Embedding widths of `text_encoder` and `text_encoder_2`; `None` for an encoder that the model does not have.
    pub text_widths: [Option<usize>; 2],
    /// The number of layers of the text encoder that has the fewest layers: an upper bound of `clip_skip`.
    pub text_layers: usize,
    /// Height and width of a picture are multiples of this many pixels.
    pub size_multiple: usize,
    /// Channels of the U-Net's maps on the way down. The maps of a ControlNet must have the same channels.
    pub maps: Vec<usize>,
    /// The number of groups of the U-Net's norms; 0 for other networks.
    pub norm_groups: usize,
    /// Whether the folder has a `vae_tiny`.
    pub tiny_decoder: bool,
    /// The number of classes that the network knows; 0 in most models. The label that equals this number means no
    /// class.
    pub classes: usize,
    /// The content of the U-Net's input channels.
    pub input: Input,
    /// How a model of flow matching chooses its noise levels; `None` for models whose scheduler alone chooses them.
    pub flow: Option<FlowLevels>,
    /// What is added to the guidance scale of a request: 1 for models whose guidance is `cond + s · (cond − uncond)`,
    /// where a scale of 0 means no guidance; 0 for all other models.
    pub guidance_offset: u32,
    /// Whether the model was distilled to draw without guidance.
    pub is_distilled: bool,
    /// Whether the model draws with guidance at every scale, also at scales that switch off the guidance of other
    /// models.
    pub always_guided: bool,
    /// The sizes of sounds, if the model decodes latents to spectrograms of sounds.
    pub sound: Option<SoundSpec>,
    /// The sizes of sounds, if the model decodes latents to samples of sounds.
    pub waveform: Option<WaveformSpec>,
}

/// The sizes of sounds and of their mel spectrograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundSpec {
    /// Samples per second.
    pub sample_rate: usize,
    /// Samples for each frame of a spectrogram.
    pub samples_per_frame: usize,
    /// M: frequencies of a spectrogram.
    pub frequencies: usize,
}

impl SoundSpec {
    /// Seconds for each frame of a spectrogram.
    pub fn seconds_per_frame(&self) -> f64 {
        self.samples_per_frame as f64 / self.sample_rate as f64
    }

    /// The number of frames for a sound of this length: a multiple of `multiple`, with diffusers' rounding.
    pub fn frames(&self, seconds: f64, multiple: usize) -> usize {
        ((seconds / self.seconds_per_frame()) as usize).next_multiple_of(multiple)
    }

    /// The number of samples of a sound of this length, with diffusers' rounding.
    pub fn samples(&self, seconds: f64) -> usize {
        (seconds * self.sample_rate as f64) as usize
    }
}

/// The sizes of sounds whose latents are decoded to samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaveformSpec {
    /// Samples per second and channel.
    pub sample_rate: usize,
    /// Samples of each channel for each place of the latents.
    pub samples_per_latent: usize,
    pub channels: usize,
}

impl WaveformSpec {
    /// Seconds for each place of the latents.
    pub fn seconds_per_latent(&self) -> f64 {
        self.samples_per_latent as f64 / self.sample_rate as f64
    }

    /// The number of places of the latents for this length, at least 1, with diffusers' rounding.
    pub fn latents(&self, seconds: f64) -> usize {
        let places = (seconds * self.sample_rate as f64 / self.samples_per_latent as f64).ceil();
        (places as usize).max(1)
    }

    /// The number of samples of each channel for this length, with diffusers' rounding.
    pub fn samples(&self, seconds: f64) -> usize {
        (seconds * self.sample_rate as f64) as usize
    }
}

impl Spec {
    /// The scale `s` in `uncond + s · (cond − uncond)` for the guidance scale of a request. 1 means no guidance.
    pub fn guidance_scale(&self, of_request: f64) -> f64 {
        of_request + f64::from(self.guidance_offset)
    }
}

/// The content of the U-Net's input channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The noisy latents.
    #[default]
    Latents,
    /// The noisy latents, the mask, and the latents of the picture with its masked part removed.
    MaskedPicture,
    /// The noisy latents and the latents of the picture to edit.
    Picture,
    /// The noisy latents; the latents of reference pictures are further tokens of the network.
    References,
}

impl Input {
    /// The input of a U-Net with `unet` input channels on latents with `latents` channels; `None` if they do not match.
    pub(super) fn of(unet: usize, latents: usize) -> Option<Input> {
        match unet {
            _ if unet == latents => Some(Input::Latents),
            _ if unet == 2 * latents => Some(Input::Picture),
            _ if unet == 2 * latents + 1 => Some(Input::MaskedPicture),
            _ => None,
        }
    }
}

/// A kind of network call, with the sizes that its demand depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Encodes one prompt with all text encoders. `sees`: with a picture that the text encoder sees.
    Text { sees: bool },
    /// Denoises latents of `size` (h, w) with `tokens` text tokens. `shallow`: with only the U-Net's shallowest branch;
    /// `adapted`: with LoRAs.
    Denoise { size: [usize; 2], tokens: usize, shallow: bool, adapted: bool },
    /// Encodes a picture of `size` (H, W) pixels.
    Encode { size: [usize; 2] },
    /// Decodes one tile of `size` (h, w) latent pixels, in all stages together.
    Decode { size: [usize; 2] },
    /// Decodes latents of `size` (h, w) with the small decoder.
    DecodeTiny { size: [usize; 2] },
}
