//! A classifier of noisy pictures and its gradient, which guides a diffusion model to a class (Dhariwal and Nichol
//! 2021, arXiv:2105.05233; the encoder half of their U-Net).
//!
//! All layers consist of candle's differentiable operations. Each row is computed alone, because the bits of small
//! matrix products depend on the size of the batch.

mod configuration;
mod layers;

use candle_core::{Result, Tensor, Var};
use candle_nn::ops::log_softmax;

pub use configuration::NoisyClassifierConfig;
use layers::{AttentionBlock, AttentionPool, Conv, GroupNorm, Linear, ResBlock};

use super::{pause::pause, time_embedding::Sinusoids};
use crate::weights::Weights;

/// Predicts the class of a noisy picture at a timestep.
#[derive(Debug)]
pub struct NoisyClassifier {
    time_features: Sinusoids,
    time_embed: [Linear; 2],
    input_blocks: Vec<Vec<Layer>>,
    middle_block: Vec<Layer>,
    norm_out: GroupNorm,
    pool: AttentionPool,
}

#[derive(Debug)]
enum Layer {
    Conv(Conv),
    Res(ResBlock),
    Attention(AttentionBlock),
}

impl NoisyClassifier {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &NoisyClassifierConfig, weights: &Weights) -> Self {
        let (base, mult) = (config.model_channels, &config.channel_mult);
        let embedding = 4 * base;
        let blocks = weights.pp("input_blocks");
        let mut width = mult[0] * base;
        let mut side = config.image_size;
        let first = Conv::new(&blocks.pp("0.0"), config.in_channels, width, 3, 1);
        let mut input_blocks = vec![vec![Layer::Conv(first)]];
        for (level, mult) in mult.iter().enumerate() {
            for _ in 0..config.num_res_blocks {
                let path = blocks.pp(input_blocks.len());
                let outputs = mult * base;
                let mut block = vec![Layer::Res(ResBlock::new(&path.pp(0), config, width, outputs, false))];
                width = outputs;
                if config.attention_resolutions.contains(&side) {
                    block.push(Layer::Attention(AttentionBlock::new(&path.pp(1), config, width)));
                }
                input_blocks.push(block);
            }
            if level + 1 < config.channel_mult.len() {
                let path = blocks.pp(input_blocks.len()).pp(0);
                let down = match config.resblock_updown {
                    true => Layer::Res(ResBlock::new(&path, config, width, width, true)),
                    false => Layer::Conv(Conv::new(&path.pp("op"), width, width, 3, 2)),
                };
                input_blocks.push(vec![down]);
                side /= 2;
            }
        }
        let middle = weights.pp("middle_block");
        let res = |i: usize| Layer::Res(ResBlock::new(&middle.pp(i), config, width, width, false));
        Self {
            time_features: Sinusoids { width: base, flip_sin_to_cos: true, freq_shift: 0.0 },
            time_embed: [
                Linear::new(&weights.pp("time_embed.0"), base, embedding),
                Linear::new(&weights.pp("time_embed.2"), embedding, embedding),
            ],
            input_blocks,
            middle_block: vec![res(0), Layer::Attention(AttentionBlock::new(&middle.pp(1), config, width)), res(2)],
            norm_out: GroupNorm::new(&weights.pp("out.0"), config.norm_num_groups, width),
            pool: AttentionPool::new(&weights.pp("out.2"), config, side, width),
        }
    }

    /// x (B, C, H, W), t (B) in training timesteps → logits (B, K) for K classes
    pub async fn forward(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        let mut logits = Vec::with_capacity(t.len());
        for (row, t) in rows(x, t)? {
            pause().await;
            logits.push(self.logits(&row, t)?);
        }
        Tensor::cat(&logits, 0)
    }

    /// `∇_x ln p(y | x, t)`: x (B, C, H, W), t (B), labels y (B) → (B, C, H, W)
    pub async fn gradient(&self, x: &Tensor, t: &[f32], labels: &[u32]) -> Result<Tensor> {
        if labels.len() != t.len() {
            candle_core::bail!("{} times, but {} labels", t.len(), labels.len());
        }
        let mut gradients = Vec::with_capacity(t.len());
        for ((row, t), label) in rows(x, t)?.into_iter().zip(labels) {
            pause().await;
            let row = Var::from_tensor(&row)?;
            let log_p = log_softmax(&self.logits(&row, t)?, 1)?.narrow(1, *label as usize, 1)?;
            let Some(gradient) = log_p.sum_all()?.backward()?.remove(&row) else {
                candle_core::bail!("the classifier does not depend on the picture")
            };
            gradients.push(gradient);
        }
        Tensor::cat(&gradients, 0)
    }

    /// The logits of one row: x (1, C, H, W) → (1, K)
    fn logits(&self, x: &Tensor, t: f32) -> Result<Tensor> {
        let times = self.time_features.forward(&[t], 1, x.device())?;
        let [first, second] = &self.time_embed;
        let embedding = second.forward(&first.forward(&times)?.silu()?)?.silu()?; // every block takes this SiLU
        let mut x = x.clone();
        for layer in self.input_blocks.iter().flatten().chain(&self.middle_block) {
            x = match layer {
                Layer::Conv(conv) => conv.forward(&x)?,
                Layer::Res(block) => block.forward(&x, &embedding)?,
                Layer::Attention(block) => block.forward(&x)?,
            };
        }
        self.pool.forward(&self.norm_out.forward(&x)?.silu()?)
    }
}

/// The rows (1, C, H, W) of a batch, each with its time.
fn rows(x: &Tensor, t: &[f32]) -> Result<Vec<(Tensor, f32)>> {
    if x.dim(0)? != t.len() {
        candle_core::bail!("pictures {:?}, but {} times", x.shape(), t.len());
    }
    t.iter().enumerate().map(|(i, t)| Ok((x.narrow(0, i, 1)?.contiguous()?, *t))).collect()
}
