//! The conditions of a U-Net call, and the layers that embed them.

use candle_core::{DType, Device, Result, Tensor};

use super::{AddedConditions, UNet2DConditionConfig};
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        layers::Linear,
        motion_adapter::{After, Motion},
        time_embedding::{Sinusoids, TimestepEmbedding},
        transformer2d::Text,
    },
    weights::Weights,
};

/// The conditions of each row of a call, in addition to its noisy latents.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Times (B), in training timesteps; they may have a fraction.
    pub t: &'a [f32],
    /// Hidden states of the text, (B, L, D); `None` for a network that takes a vector.
    pub text: Option<&'a Tensor>,
    /// The number of tokens of each text, if the network masks padding; otherwise `None`.
    pub text_lengths: Option<&'a [usize]>,
    /// The additional conditions of SDXL, if the network takes them.
    pub added: Option<&'a Added>,
    /// (B): the guidance scale minus 1, if the network is distilled and takes it.
    pub guidance: Option<&'a [f32]>,
    /// (B, V), if a vector conditions the network in place of a text.
    pub vector: Option<&'a Tensor>,
    /// The LoRA adapters of the rows.
    pub adapters: &'a RowAdapters,
    /// The motion adapter, if the rows are the frames of clips.
    pub motion: Option<Motion<'a>>,
}

impl<'a> Conditions<'a> {
    /// A time and a text, for networks that take no other conditions.
    pub fn plain(t: &'a [f32], text: &'a Tensor) -> Self {
        Conditions { text: Some(text), ..Conditions::at(t) }
    }

    /// A time and a vector (B, V), for networks that take a vector in place of a text.
    pub fn of_vector(t: &'a [f32], vector: &'a Tensor) -> Self {
        Conditions { vector: Some(vector), ..Conditions::at(t) }
    }

    fn at(t: &'a [f32]) -> Self {
        let (text, text_lengths, added, guidance, vector) = (None, None, None, None, None);
        Conditions { t, text, text_lengths, added, guidance, vector, adapters: RowAdapters::NONE, motion: None }
    }
}

/// The additional conditions of SDXL: the prompt as a whole, and the sizes of the picture (section 2.2 of Podell et al.
/// 2023, arXiv:2307.01952).
#[derive(Clone, Debug)]
pub struct Added {
    /// Vectors of the whole prompts, (B, P), if the network takes them.
    pub text_embeds: Option<Tensor>,
    /// Numbers about the picture's sizes: for each of B rows, as many as the network takes.
    pub time_ids: Vec<f32>,
}

/// The conditions in the form that the blocks take.
pub(in crate::models) struct EmbeddedConditions<'a> {
    /// SiLU of the sum of the embeddings of the time and of the additional conditions, (B, E). With a vector in place
    /// of a text, the embedding of the vector follows, (B, 2E).
    pub time: Tensor,
    /// `None` if the network takes no text.
    pub text: Option<Text<'a>>,
    pub adapters: &'a RowAdapters,
    pub motion: Option<Motion<'a>>,
}

impl EmbeddedConditions<'_> {
    /// The map that leaves a layer, with motion if the rows are the frames of clips.
    pub async fn moved(&self, layer: After, x: Tensor) -> Result<Tensor> {
        match self.motion {
            Some(motion) => motion.after(layer, x).await,
            None => Ok(x),
        }
    }
}

/// The layers that embed the conditions, which U-Nets and ControlNets both have.
#[derive(Debug)]
pub(in crate::models) struct Embeddings {
    time_proj: Sinusoids,
    time_embedding: TimestepEmbedding,
    guidance: Option<Sinusoids>,
    add: Option<(Sinusoids, TimestepEmbedding)>,
    class_embedding: Option<Linear>,
    kernels: Kernels,
}

impl Embeddings {
    pub fn new(weights: &Weights, config: &UNet2DConditionConfig) -> Self {
        let sinusoids =
            |width| Sinusoids { width, flip_sin_to_cos: config.flip_sin_to_cos, freq_shift: config.freq_shift };
        let (time_proj, time_width) = (sinusoids(config.block_out_channels[0]), config.time_width());
        let embedding = |name, width, cond| TimestepEmbedding::new(&weights.pp(name), width, cond, time_width);
        Self {
            time_proj,
            time_embedding: embedding("time_embedding", time_proj.width, config.time_cond_proj_dim),
            // Luo et al. 2023, arXiv:2310.04378, with the frequencies of their program.
            guidance: config.time_cond_proj_dim.map(|width| Sinusoids {
                width,
                flip_sin_to_cos: false,
                freq_shift: 1.0,
            }),
            add: config.added().map(|AddedConditions { time_embed_dim, width, .. }| {
                (sinusoids(time_embed_dim), embedding("add_embedding", width, None))
            }),
            class_embedding: config
                .vector_width()
                .map(|width| Linear::new(&weights.pp("class_embedding"), width, time_width)),
            kernels: weights.kernels(),
        }
    }

    pub fn forward<'a>(&self, conditions: &Conditions<'a>, device: &Device) -> Result<EmbeddedConditions<'a>> {
        let Conditions { t, text, text_lengths, added, guidance, vector, adapters, motion } = *conditions;
        let guidance = match (self.guidance, guidance) {
            (None, None) => None,
            (Some(sinusoids), Some(scales)) if scales.len() == t.len() => {
                let thousands: Vec<f32> = scales.iter().map(|scale| scale * 1000.0).collect();
                Some(sinusoids.forward(&thousands, t.len(), device)?)
            }
            (wanted, given) => {
                candle_core::bail!("guidance scales are needed: {}, given: {given:?}", wanted.is_some())
            }
        };
        let times = self.time_proj.forward(t, t.len(), device)?;
        let mut time = self.time_embedding.forward(&times, guidance.as_ref(), adapters)?;
        match (&self.add, added) {
            (None, None) => {}
            (Some((sinusoids, embedding)), Some(Added { text_embeds, time_ids })) => {
                let ids = sinusoids.forward(time_ids, t.len(), device)?;
                let both = match text_embeds {
                    Some(vectors) => Tensor::cat(&[&vectors.to_device(device)?.to_dtype(DType::F32)?, &ids], 1)?,
                    None => ids,
                };
                time = (time + embedding.forward(&both, None, adapters)?)?;
            }
            (wanted, given) => {
                candle_core::bail!("added conditions are needed: {}, given: {}", wanted.is_some(), given.is_some())
            }
        }
        match (&self.class_embedding, vector) {
            (None, None) => {}
            (Some(layer), Some(vector)) => time = Tensor::cat(&[&time, &layer.adapted(vector, adapters)?], 1)?,
            (wanted, given) => {
                candle_core::bail!("a vector is needed: {}, given: {}", wanted.is_some(), given.is_some())
            }
        }
        if self.class_embedding.is_some() == text.is_some() {
            candle_core::bail!("a text is needed: {}, given: {}", text.is_none(), text.is_some());
        }
        let text = text.map(|hidden| Text { hidden, lengths: text_lengths });
        // Every block takes the SiLU of the time.
        Ok(EmbeddedConditions { time: self.kernels.silu(&time)?, text, adapters, motion })
    }
}
