//! The autoencoder of FLUX.2 (diffusers' `AutoencoderKLFlux2`): squares of 2 × 2 latent pixels are folded into
//! channels, whose stored means and variances normalize the latents.

use std::ops::Range;

use candle_core::{Result, Tensor};
use serde_json::{Map, Value};

use super::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig, Stage, Tiles};
use crate::{
    models::{
        configuration::{LARGEST_EPS, between, one_of},
        demand::Demand,
    },
    weights::{LoadError, Weights},
};

/// The keys of `vae/config.json`: the keys of an autoencoder and of the normalization.
#[derive(Clone, Debug)]
pub struct AutoencoderKlFlux2Config {
    pub kl: AutoencoderKlConfig,
    /// Added to the variances.
    pub batch_norm_eps: f64,
}

/// The network.
#[derive(Debug)]
pub struct AutoencoderKlFlux2 {
    kl: AutoencoderKl,
    /// Means and standard deviations of the folded channels, (1, 4·C, 1, 1).
    mean: Tensor,
    deviation: Tensor,
}

impl AutoencoderKlFlux2Config {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> std::result::Result<Self, LoadError> {
        let mut keys = keys.clone();
        // Used in training only.
        keys.remove("batch_norm_momentum");
        for (key, supported) in [("patch_size", "[2,2]"), ("decoder_block_out_channels", "null")] {
            if let Some(value) = keys.remove(key) {
                one_of(path, key, &value, &[supported])?;
            }
        }
        let eps = keys.remove("batch_norm_eps").unwrap_or_else(|| 1e-4.into());
        let Some(batch_norm_eps) = eps.as_f64() else {
            let (path, key) = (path.into(), "batch_norm_eps".into());
            return Err(LoadError::BadKey { path, key, reason: "must be a number".to_owned() });
        };
        between(path, "batch_norm_eps", batch_norm_eps, 0.0, LARGEST_EPS)?;
        if let Some(key) = ["scaling_factor", "shift_factor"].into_iter().find(|key| keys.contains_key(*key)) {
            let value = keys[key].clone();
            return Err(LoadError::UnknownKey { path: path.into(), key: key.into(), value: Box::new(value) });
        }
        let kl = AutoencoderKlConfig::read(path, &keys)?;
        for (key, channels) in [("in_channels", kl.in_channels), ("out_channels", kl.out_channels)] {
            if channels != 3 {
                let reason = format!("must be 3, the channels of a picture, not {channels}");
                return Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
            }
        }
        Ok(Self { kl, batch_norm_eps })
    }

    /// The channels of folded latents.
    pub fn channels(&self) -> usize {
        4 * self.kl.latent_channels
    }

    /// Pixels per folded latent pixel, along one side.
    pub fn scale(&self) -> usize {
        2 * self.kl.scale()
    }

    /// The tiles in which folded latents of (h, w) are decoded.
    pub fn tiles(&self, h: usize, w: usize) -> Tiles {
        match self.kl.tiles(2 * h, 2 * w).largest() {
            (tile_h, tile_w) if (tile_h, tile_w) == (2 * h, 2 * w) => Tiles::whole(h, w),
            (tile_h, tile_w) => Tiles::new(h, w, tile_h.max(tile_w) / 2),
        }
    }

    /// The demand of encoding a picture of (H, W) pixels.
    pub fn encode_demand(&self, size: [usize; 2]) -> Demand {
        self.kl.encode_demand(size)
    }

    /// The demand of decoding folded latents of (h, w).
    pub fn decode_demand(&self, h: usize, w: usize) -> Demand {
        self.kl.decode_demand(2 * h, 2 * w)
    }
}

impl AutoencoderKlFlux2 {
    /// Builds the network. The caller then calls [`Weights::finish`].
    ///
    /// # Errors
    /// The tensors do not fit into memory.
    pub fn new(config: &AutoencoderKlFlux2Config, weights: &Weights) -> Result<Self> {
        // A number of training steps.
        weights.leave("bn.num_batches_tracked");
        let statistics = |name: &str| {
            let values = weights.pp("bn").tensor(name, &[config.channels()]).to_dtype(candle_core::DType::F32)?;
            values.contiguous()?.reshape((1, config.channels(), 1, 1))
        };
        let variance = statistics("running_var")?;
        Ok(Self {
            kl: AutoencoderKl::new(&config.kl, weights),
            mean: statistics("running_mean")?,
            deviation: (variance + config.batch_norm_eps)?.sqrt()?,
        })
    }

    /// Pixels (B, 3, H, W) in [-1, 1] → the most probable latents, folded and normalized, (B, 4·C, h, w).
    pub async fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let folded = folded(&self.kl.encode(pixels).await?.mean)?;
        folded.broadcast_sub(&self.mean)?.broadcast_div(&self.deviation)
    }

    /// Folded and normalized latents (B, 4·C, h, w) → the input of [`Self::decode_layers`], (B, C, 2h, 2w).
    pub fn unfolded(&self, latents: &Tensor) -> Result<Tensor> {
        unfolded(&latents.broadcast_mul(&self.deviation)?.broadcast_add(&self.mean)?)
    }

    /// Runs some layers of the decoder; see [`AutoencoderKl::decode_layers`].
    pub async fn decode_layers(&self, layers: Range<usize>, x: Tensor) -> Result<Tensor> {
        self.kl.decode_layers(layers, x).await
    }

    /// The stages of decoding folded latents of (h, w); see [`AutoencoderKl::decode_stages`].
    pub fn decode_stages(&self, h: usize, w: usize, quantum: f64) -> Vec<Stage> {
        self.kl.decode_stages(2 * h, 2 * w, quantum)
    }
}

/// (B, C, 2h, 2w) → (B, 4·C, h, w). The order of the channels is: channel, row in the square, column in the square.
fn folded(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape(&[b, c, h / 2, 2, w / 2, 2][..])?.permute([0, 1, 3, 5, 2, 4])?;
    x.contiguous()?.reshape((b, 4 * c, h / 2, w / 2))
}

/// The inverse of [`folded`].
fn unfolded(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape(&[b, c / 4, 2, 2, h, w][..])?.permute([0, 1, 4, 2, 5, 3])?;
    x.contiguous()?.reshape((b, c / 4, 2 * h, 2 * w))
}
