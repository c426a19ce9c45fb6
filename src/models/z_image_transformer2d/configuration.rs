//! The configuration of a `ZImageTransformer2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{MULTIPLE, TIME_MIDDLE, TIME_WIDTH};
use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, LARGEST_SAMPLE, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ZImageTransformer2DConfig {
    pub in_channels: usize,
    /// D: width of a token.
    pub dim: usize,
    pub n_layers: usize,
    pub n_refiner_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub norm_eps: f64,
    /// Width of the states of the text encoder.
    pub cap_feat_dim: usize,
    pub rope_theta: f64,
    /// The factor of the time, which runs from 0 to 1.
    pub t_scale: f64,
    /// How many channels of a head rotate with each of the three coordinates of a position: the index in the sequence,
    /// the row and the column.
    pub axes_dims: [usize; 3],
    /// Upper bounds of the three coordinates.
    pub axes_lens: [usize; 3],
}

impl Default for ZImageTransformer2DConfig {
    fn default() -> Self {
        Self {
            in_channels: 16,
            dim: 3840,
            n_layers: 30,
            n_refiner_layers: 2,
            n_heads: 30,
            n_kv_heads: 30,
            norm_eps: 1e-5,
            cap_feat_dim: 2560,
            rope_theta: 256.0,
            t_scale: 1000.0,
            axes_dims: [32, 48, 48],
            axes_lens: [1024, 512, 512],
        }
    }
}

const FIXED: [Fixed; 4] = [
    ("all_patch_size", &["[2]"]),
    ("all_f_patch_size", &["[1]"]),
    ("qk_norm", &["true"]),
    ("siglip_feat_dim", &["null"]),
];

impl ZImageTransformer2DConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, &FIXED)?;
        let bounds = [
            ("in_channels", config.in_channels, WIDEST),
            ("dim", config.dim, WIDEST),
            ("n_layers", config.n_layers, 1000),
            ("n_refiner_layers", config.n_refiner_layers, 1000),
            ("n_heads", config.n_heads, 1024),
            ("cap_feat_dim", config.cap_feat_dim, WIDEST),
            ("axes_lens", config.axes_lens[0], 1 << 20),
            ("axes_lens", config.axes_lens[1], LARGEST_SAMPLE),
            ("axes_lens", config.axes_lens[2], LARGEST_SAMPLE),
        ];
        bounds.into_iter().try_for_each(|(key, value, most)| within(path, key, value, most))?;
        divides(path, "n_heads", config.n_heads, config.dim)?;
        let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
        if config.n_kv_heads != config.n_heads {
            return bad("n_kv_heads", format!("must be {}, the n_heads", config.n_heads));
        }
        let head = config.dim / config.n_heads;
        let sum = config.axes_dims.iter().fold(0usize, |sum, d| sum.saturating_add(*d));
        if config.axes_dims.iter().any(|d| d % 2 != 0) || sum != head {
            return bad("axes_dims", format!("must be even numbers that add up to {head}, the width of a head"));
        }
        between(path, "norm_eps", config.norm_eps, 0.0, LARGEST_EPS)?;
        between(path, "rope_theta", config.rope_theta, 1.0, 1e12)?;
        between(path, "t_scale", config.t_scale, 0.0, 1e6)?;
        Ok(config)
    }

    /// Width of the embedding of the time.
    pub(super) fn time(&self) -> usize {
        self.dim.min(TIME_WIDTH)
    }

    /// Inner width of the feed-forward parts.
    pub(super) fn inner(&self) -> usize {
        (self.dim as f64 / 3.0 * 8.0) as usize
    }

    /// The tokens of latents of (h, w), with padding.
    pub(super) fn tokens(&self, [h, w]: [usize; 2]) -> usize {
        (h / 2 * (w / 2)).next_multiple_of(MULTIPLE)
    }

    /// The demand of one row with latents of (h, w) and a caption of `caption` tokens. `adapted`: with LoRAs.
    pub fn demand(&self, size: [usize; 2], caption: usize, adapted: bool) -> Demand {
        let (picture, d) = (self.tokens(size) as f64, self.dim as f64);
        let all = picture + caption as f64;
        let block = |n: f64| n * (4.0 * d * d + 3.0 * d * self.inner() as f64 + 2.0 * n * d);
        let modulation = 4.0 * self.time() as f64 * d;
        let blocks = self.n_layers as f64 * (block(all) + modulation)
            + self.n_refiner_layers as f64 * (block(picture) + modulation);
        let pixels = 4.0 * self.in_channels as f64;
        let ends = 2.0 * pixels * d * picture + (TIME_MIDDLE * (TIME_WIDTH + self.time())) as f64;
        // Memory holds the state, its norm, and either queries, keys, values and their rotated copies, or the two inner
        // activations of the feed-forward part and their product.
        let widest = (6 * self.dim).max(3 * self.inner());
        // LoRAs add a copy of an inner activation, and its changed rows.
        let widest = widest + if adapted { 2 * self.inner() } else { 0 };
        Demand { work: blocks + ends, bytes: bytes(all as usize * (3 * self.dim + widest)) }
    }

    /// The demand of refining a caption of `caption` tokens.
    pub fn caption_demand(&self, caption: usize) -> Demand {
        let (n, d) = (caption as f64, self.dim as f64);
        let block = n * (4.0 * d * d + 3.0 * d * self.inner() as f64 + 2.0 * n * d);
        let work = self.n_refiner_layers as f64 * block + n * d * self.cap_feat_dim as f64;
        Demand { work, bytes: bytes(caption * (3 * self.dim + (6 * self.dim).max(3 * self.inner()))) }
    }
}
