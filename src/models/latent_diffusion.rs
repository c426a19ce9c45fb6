//! What the networks of a latent diffusion model are to those who call them: sizes, and the parts of a run.

/// The sizes of a model, as the callers of its networks need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// C of the latents.
    pub latent_channels: usize,
    /// Pixels per latent pixel and side.
    pub vae_scale_factor: usize,
    /// (h, w) of the latents the U-Net was trained on; times `vae_scale_factor` the size of a picture nobody gave one for.
    pub sample_size: (usize, usize),
    /// L: tokens of a prompt.
    pub context_length: usize,
    /// D: width of a token's hidden states, of all encoders together.
    pub context_width: usize,
    /// P: width of the vector of a whole prompt, where the U-Net is told one.
    pub pooled_width: Option<usize>,
    /// How many numbers the U-Net is told of the sizes of a picture: none, 6, or 5 where the last is a score.
    pub time_ids: usize,
    /// Whether the U-Net is told the guidance scale, in place of a second row without the prompt.
    pub guidance_embedding: bool,
    /// Whether a negative prompt that nobody gave is zeros, in place of an empty prompt.
    pub zero_negative: bool,
    pub text_encoders: usize,
    /// Widths of the embeddings of `text_encoder` and `text_encoder_2`, as far as there are such.
    pub text_widths: [Option<usize>; 2],
    /// Layers of the text encoder, the most that `clip_skip` can be.
    pub text_layers: usize,
    /// Height and width of a picture are multiples of this many pixels.
    pub size_multiple: usize,
    /// Channels of the U-Net's maps on the way down.
    pub maps: Vec<usize>,
    /// Whether the folder has a `vae_tiny`.
    pub tiny_decoder: bool,
    /// Classes that the network knows; none in most models. The number itself stands for no class.
    pub classes: usize,
    /// What the U-Net sees.
    pub input: Input,
}

/// What stands in the channels of the U-Net's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The noisy latents.
    #[default]
    Latents,
    /// These, the mask, and the latents of the picture without what the mask covers.
    MaskedPicture,
    /// These, and the latents of the picture that is to be changed.
    Picture,
}

impl Input {
    /// By the number of the U-Net's channels and of the latents'.
    pub(super) fn of(unet: usize, latents: usize) -> Option<Input> {
        match unet {
            _ if unet == latents => Some(Input::Latents),
            _ if unet == 2 * latents => Some(Input::Picture),
            _ if unet == 2 * latents + 1 => Some(Input::MaskedPicture),
            _ => None,
        }
    }
}

/// What one call of the networks computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One prompt by all text encoders.
    Text,
    /// `size` is (h, w), `tokens` those of the text beside it; `shallow`: by the shallowest branch alone.
    Denoise { size: [usize; 2], tokens: usize, shallow: bool },
    /// `size` is (H, W) of the picture.
    Encode { size: [usize; 2] },
    /// `size` is (h, w) of one tile; all stages together.
    Decode { size: [usize; 2] },
    /// `size` is (h, w).
    DecodeTiny { size: [usize; 2] },
}
