//! The configuration of the part that sees.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, WIDEST, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `vision_config` that the network supports, with transformers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// The number of blocks.
    pub depth: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_heads: usize,
    /// Pixels per side of a patch.
    pub patch_size: usize,
    /// Patches per side of a token.
    pub spatial_merge_size: usize,
    /// How many times a patch is repeated: pictures count as videos that stand still.
    pub temporal_patch_size: usize,
    /// The width of the tokens.
    pub out_hidden_size: usize,
    /// The positions of a square grid, which is stretched to the patches of a picture.
    pub num_position_embeddings: usize,
    /// The blocks whose states are added after the first layers of the language model, in ascending order.
    pub deepstack_visual_indexes: Vec<usize>,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            depth: 27,
            hidden_size: 1152,
            intermediate_size: 4304,
            num_heads: 16,
            patch_size: 16,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            out_hidden_size: 3584,
            num_position_embeddings: 2304,
            deepstack_visual_indexes: vec![8, 16, 24],
        }
    }
}

const FIXED: &[Fixed] = &[
    ("hidden_act", &[r#""gelu_pytorch_tanh""#]),
    ("in_channels", &["3"]),
    ("model_type", &[r#""qwen3_vl""#, r#""qwen3_vl_vision""#]),
    (
        "rope_parameters",
        &[r#"{"rope_theta": 10000.0, "rope_type": "axial"}"#, r#"{"rope_theta": 10000, "rope_type": "axial"}"#],
    ),
    // Used in training only.
    ("initializer_range", &[]),
    // These keys tell how the file was saved. They have no effect, because everything is computed in float32.
    ("dtype", &[]),
    ("torch_dtype", &[]),
];

impl VisionConfig {
    /// Reads the keys of `vision_config` in the file at `path`.
    pub(super) fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("depth", config.depth, 256),
            ("hidden_size", config.hidden_size, WIDEST),
            ("intermediate_size", config.intermediate_size, 4 * WIDEST),
            ("num_heads", config.num_heads, 1024),
            ("patch_size", config.patch_size, 256),
            ("spatial_merge_size", config.spatial_merge_size, 16),
            ("temporal_patch_size", config.temporal_patch_size, 16),
            ("out_hidden_size", config.out_hidden_size, WIDEST),
            ("num_position_embeddings", config.num_position_embeddings, 1 << 20),
        ] {
            within(path, key, value, most)?;
        }
        // A head has angles for rows and for columns, and each angle rotates two channels.
        divides(path, "num_heads", 4 * config.num_heads, config.hidden_size)?;
        let (side, positions) = (config.grid_side(), config.num_position_embeddings);
        if side * side != positions {
            let reason = format!("must be a square, not {positions}");
            return Err(LoadError::BadKey { path: path.into(), key: "num_position_embeddings".into(), reason });
        }
        let indexes = &config.deepstack_visual_indexes;
        if !indexes.is_sorted_by(|a, b| a < b) || indexes.last().is_some_and(|last| *last >= config.depth) {
            let reason = format!("must ascend and be below {}, not {indexes:?}", config.depth);
            return Err(LoadError::BadKey { path: path.into(), key: "deepstack_visual_indexes".into(), reason });
        }
        Ok(config)
    }

    /// Pixels per side of a token.
    pub fn token_side(&self) -> usize {
        self.patch_size * self.spatial_merge_size
    }

    /// Positions per side of the square grid.
    pub(in crate::models) fn grid_side(&self) -> usize {
        self.num_position_embeddings.isqrt()
    }

    /// The rows and columns of patches of a picture with these sides in pixels.
    pub(in crate::models) fn patches(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let fits = size.iter().all(|side| *side > 0 && side.is_multiple_of(self.token_side()));
        fits.then(|| size.map(|side| side / self.patch_size))
    }

    /// The demand of seeing a picture with these sides in pixels.
    pub(super) fn demand(&self, size: [usize; 2]) -> Demand {
        let n: usize = size.iter().map(|side| side / self.patch_size).product();
        let (width, inner, d) = (self.hidden_size, self.intermediate_size, self.out_hidden_size);
        let (values, group) = (3 * self.temporal_patch_size * self.patch_size.pow(2), self.spatial_merge_size.pow(2));
        let block = 4 * width * width + 2 * n * width + 2 * width * inner;
        let merger = group * width * width + width * d;
        let mergers = 1 + self.deepstack_visual_indexes.len();
        let work = (values * width + self.depth * block + mergers * merger) as f64 * n as f64;
        // Memory holds the state, its norm, and either the widest layer or the `values` of the patches.
        let widest = (8 * width).max(2 * inner + 2 * width).max(values + width);
        Demand { work, bytes: bytes(n * (2 * width + widest) + mergers * n / group * d) }
    }
}
