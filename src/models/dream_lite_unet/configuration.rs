//! The configuration of a `DreamLiteUNetModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, PerBlock, SampleSize, WIDEST, divides, read, within},
        demand::Demand,
        unet2d_condition::{AdditionEmbedType, DownBlockType, Layers, UNet2DConditionConfig, UpBlockType},
    },
    weights::LoadError,
};

/// The keys of `unet/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DreamLiteUNetConfig {
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    down_block_types: Vec<DownBlock>,
    up_block_types: Vec<UpBlock>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: PerBlock,
    pub downsample_padding: usize,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub cross_attention_dim: usize,
    pub transformer_layers_per_block: PerBlock,
    /// Width of the text encoder's hidden states.
    pub encoder_hid_dim: usize,
    /// The number of heads of queries, in spite of the key's name.
    pub attention_head_dim: PerBlock,
    /// The number of heads of keys and values; `None`: the same number as for queries.
    pub num_kv_heads: Option<usize>,
    pub use_linear_projection: bool,
    pub use_sep_conv: bool,
    pub ff_mult: usize,
    pub time_embedding_dim: Option<usize>,
    pub addition_time_embed_dim: usize,
    pub projection_class_embeddings_input_dim: usize,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
}

/// Blocks on the way down, by diffusers' class names.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum DownBlock {
    #[serde(rename = "DreamLiteDownBlock2D")]
    Plain,
    #[serde(rename = "DreamLiteCrossAttnDownBlock2D")]
    Attended,
    #[serde(rename = "DreamLiteCrossAttnNoSelfAttnDownBlock2D")]
    AttendedToText,
}

/// Blocks on the way up, by diffusers' class names.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum UpBlock {
    #[serde(rename = "DreamLiteUpBlock2D")]
    Plain,
    #[serde(rename = "DreamLiteCrossAttnUpBlock2D")]
    Attended,
    #[serde(rename = "DreamLiteCrossAttnNoSelfAttnUpBlock2D")]
    AttendedToText,
}

impl Default for DreamLiteUNetConfig {
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![DownBlock::AttendedToText, DownBlock::AttendedToText, DownBlock::Attended],
            up_block_types: vec![UpBlock::Attended, UpBlock::AttendedToText, UpBlock::Plain],
            block_out_channels: vec![320, 640, 1280],
            layers_per_block: PerBlock::All(2),
            downsample_padding: 1,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 2048,
            transformer_layers_per_block: PerBlock::All(1),
            encoder_hid_dim: 0,
            attention_head_dim: PerBlock::All(64),
            num_kv_heads: Some(1),
            use_linear_projection: false,
            use_sep_conv: true,
            ff_mult: 6,
            time_embedding_dim: None,
            addition_time_embed_dim: 0,
            projection_class_embeddings_input_dim: 0,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

/// Keys that could change the network, with the supported values. Keys with an empty list have no effect here.
const FIXED: &[Fixed] = &[
    ("act_fn", &[r#""silu""#, r#""swish""#]),
    ("addition_embed_type", &[r#""time""#]),
    ("addition_embed_type_num_heads", &[]),
    ("attention_type", &[r#""default""#]),
    ("center_input_sample", &["false"]),
    ("class_embed_type", &["null"]),
    ("class_embeddings_concat", &["false"]),
    ("cross_attention_norm", &["null"]),
    ("dropout", &[]), // used in training only
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim_type", &[r#""text_proj_rms""#]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("mid_block_scale_factor", &["1"]),
    ("mid_block_type", &[r#""DreamLiteUNetMidBlock2DCrossAttn""#]),
    ("num_attention_heads", &["null"]),
    ("num_class_embeds", &["null"]),
    ("num_mid_layers", &["1"]),
    ("only_cross_attention", &["false"]),
    ("qk_norm", &[r#""rms_norm""#]),
    ("resnet_out_scale_factor", &[]), // no block takes it
    ("resnet_skip_time_act", &[]),    // no block takes it
    ("resnet_time_scale_shift", &[r#""default""#]),
    ("reverse_transformer_layers_per_block", &["null"]),
    ("time_cond_proj_dim", &["null"]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_type", &[r#""positional""#]),
    ("timestep_post_act", &["null"]),
    ("upcast_attention", &["true", "false"]), // attention is computed in float32 either way
];

/// Keys that must be present, because diffusers builds another network without them.
const REQUIRED: [&str; 2] = ["addition_embed_type", "encoder_hid_dim_type"];

impl DreamLiteUNetConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        if let Some(key) = REQUIRED.into_iter().find(|key| !keys.contains_key(*key)) {
            return Err(LoadError::BadKey { path: path.into(), key: key.into(), reason: "is missing".into() });
        }
        let blocks = config.block_out_channels.len();
        within(path, "encoder_hid_dim", config.encoder_hid_dim, WIDEST)?;
        within(path, "ff_mult", config.ff_mult, 16)?;
        within(path, "addition_time_embed_dim", config.addition_time_embed_dim, WIDEST)?;
        config.unet().check(path)?;
        for i in 0..blocks {
            divides(path, "num_kv_heads", config.num_kv_heads.unwrap_or(1), config.attention_head_dim.at(i))?;
        }
        let (key, width) = ("projection_class_embeddings_input_dim", config.projection_class_embeddings_input_dim);
        for (key, value, wanted, what) in [
            (key, width, 2 * config.addition_time_embed_dim, "twice the addition_time_embed_dim"),
            ("out_channels", config.out_channels, config.in_channels, "the in_channels"),
        ] {
            if value != wanted {
                let reason = format!("must be {wanted}, {what}, not {value}");
                return Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
            }
        }
        Ok(config)
    }

    /// The demand of one row of (h, w) latent pixels and `tokens` text tokens. The network computes twice as many
    /// pixels. In addition to the maps, memory holds the text, and its keys and values of one block.
    pub fn demand(&self, [h, w]: [usize; 2], tokens: usize) -> Demand {
        let widest = self.block_out_channels.iter().copied().max().unwrap_or(0);
        let text = tokens * (self.cross_attention_dim + 2 * widest);
        self.unet().demand([h, 2 * w], tokens, false).beside(text)
    }

    /// The demand of [`DreamLiteUNetModel::text`](super::DreamLiteUNetModel::text) for `tokens` tokens.
    pub fn text_demand(&self, tokens: usize) -> Demand {
        let (inputs, outputs) = (self.encoder_hid_dim, self.cross_attention_dim);
        let floats = tokens * (inputs + 2 * outputs);
        Demand { work: (tokens * inputs * outputs) as f64, bytes: (floats * size_of::<f32>()) as u64 }
    }

    /// The configuration of the network behind the projection of the text.
    pub(super) fn unet(&self) -> UNet2DConditionConfig {
        let down = |block: &DownBlock| match block {
            DownBlock::Plain => DownBlockType::DownBlock2D,
            DownBlock::Attended => DownBlockType::CrossAttnDownBlock2D,
            DownBlock::AttendedToText => DownBlockType::DreamLiteCrossAttnNoSelfAttnDownBlock2D,
        };
        let up = |block: &UpBlock| match block {
            UpBlock::Plain => UpBlockType::UpBlock2D,
            UpBlock::Attended => UpBlockType::CrossAttnUpBlock2D,
            UpBlock::AttendedToText => UpBlockType::DreamLiteCrossAttnNoSelfAttnUpBlock2D,
        };
        UNet2DConditionConfig {
            sample_size: self.sample_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            down_block_types: self.down_block_types.iter().map(down).collect(),
            up_block_types: self.up_block_types.iter().map(up).collect(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block.clone(),
            downsample_padding: self.downsample_padding,
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            cross_attention_dim: PerBlock::All(self.cross_attention_dim),
            transformer_layers_per_block: self.transformer_layers_per_block.clone(),
            attention_head_dim: self.attention_head_dim.clone(),
            use_linear_projection: self.use_linear_projection,
            time_embedding_dim: self.time_embedding_dim,
            addition_embed_type: Some(AdditionEmbedType::Time),
            addition_time_embed_dim: Some(self.addition_time_embed_dim),
            projection_class_embeddings_input_dim: Some(self.projection_class_embeddings_input_dim),
            conv_in_kernel: self.conv_in_kernel,
            conv_out_kernel: self.conv_out_kernel,
            layers: Layers {
                separable: self.use_sep_conv,
                qk_norm: true,
                kv_heads: self.num_kv_heads,
                ff_mult: self.ff_mult,
                ..Layers::default()
            },
            ..UNet2DConditionConfig::default()
        }
    }
}
