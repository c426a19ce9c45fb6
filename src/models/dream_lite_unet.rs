//! The U-Net of DreamLite (diffusers' `DreamLiteUNetModel`): the U-Net of Stable Diffusion with cheaper layers. Its map
//! has two pictures side by side: on the left the picture that is drawn, on the right the picture to edit.

mod configuration;

use candle_core::{Result, Tensor};

pub use configuration::DreamLiteUNetConfig;

use super::{
    control_net::Residuals,
    layers::{Linear, RmsNorm},
    unet2d_condition::{Added, Conditions, UNet2DConditionModel},
};
use crate::weights::Weights;

/// Predicts the velocity of noisy latents from a time, a text, and the latents of another picture.
#[derive(Debug)]
pub struct DreamLiteUNetModel {
    /// `encoder_hid_proj` of the checkpoint.
    text: (Linear, RmsNorm),
    unet: UNet2DConditionModel,
}

/// The conditions of the rows of a call.
#[derive(Clone, Copy, Debug)]
pub struct DreamLiteConditions<'a> {
    /// Latents of the pictures to change, (B, C, h, w); zeros for rows without one.
    pub pictures: &'a Tensor,
    /// Times (B), from 1000 for noise to 0 for the picture.
    pub t: &'a [f32],
    /// Texts of [`DreamLiteUNetModel::text`], (B, L, D).
    pub texts: &'a Tensor,
    /// The number of tokens of each text, from 1 to L. The rest is padding.
    pub lengths: &'a [usize],
    /// Width and height of the pictures, in pixels.
    pub size: [f32; 2],
}

impl DreamLiteUNetModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &DreamLiteUNetConfig, weights: &Weights) -> Self {
        let (text, width) = (weights.pp("encoder_hid_proj"), config.cross_attention_dim);
        Self {
            text: (Linear::new(&text.pp(0), config.encoder_hid_dim, width), RmsNorm::new(&text.pp(1), width, 1e-5)),
            unet: UNet2DConditionModel::new(&config.unet(), weights),
        }
    }

    /// Hidden states of the text encoder (B, L, E) → texts for [`DreamLiteUNetModel::forward`], (B, L, D). They do not
    /// depend on the time.
    pub fn text(&self, states: &Tensor) -> Result<Tensor> {
        let (linear, norm) = &self.text;
        norm.forward(&linear.forward(states)?)
    }

    /// samples (B, C, h, w) → (B, C, h, w)
    pub async fn forward(&self, samples: &Tensor, conditions: DreamLiteConditions<'_>) -> Result<Tensor> {
        let DreamLiteConditions { pictures, t, texts, lengths, size } = conditions;
        let width = samples.dim(3)?;
        let both = Tensor::cat(&[samples, pictures], 3)?;
        let added = Added { text_embeds: None, time_ids: size.repeat(t.len()) };
        let conditions = Conditions { text_lengths: Some(lengths), added: Some(&added), ..Conditions::plain(t, texts) };
        let both = self.unet.forward(&both, &conditions, Residuals::NONE).await?;
        both.narrow(3, 0, width)?.contiguous()
    }
}
