//! The configuration of a `UNet2DConditionModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{
            Fixed, LARGEST_EPS, LARGEST_SAMPLE, PerBlock, SampleSize, WIDEST, between, divides, entries, one_of,
            per_block, read, within,
        },
        resnet::{ResnetKind, TimeEmbeddingNorm},
        transformer2d::TransformerKind,
    },
    weights::LoadError,
};

/// The keys of `unet/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<DownBlockType>,
    pub mid_block_type: MidBlockType,
    pub up_block_types: Vec<UpBlockType>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: PerBlock,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub cross_attention_dim: PerBlock,
    pub transformer_layers_per_block: PerBlock,
    pub reverse_transformer_layers_per_block: Option<Vec<usize>>,
    /// The number of heads, in spite of the key's name.
    pub attention_head_dim: PerBlock,
    pub use_linear_projection: bool,
    pub time_embedding_dim: Option<usize>,
    pub time_cond_proj_dim: Option<usize>,
    pub addition_embed_type: Option<AdditionEmbedType>,
    pub addition_time_embed_dim: Option<usize>,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    /// Not a key: networks with other blocks have a configuration of their own.
    #[serde(skip)]
    pub(in crate::models) layers: Layers,
}

/// The kinds of layers in the blocks. The default is Stable Diffusion's.
#[derive(Clone, Copy, Debug)]
pub(in crate::models) struct Layers {
    /// Whether the convolutions of residual blocks are depthwise-separable.
    pub separable: bool,
    /// Whether the queries and keys of each head are normalized.
    pub qk_norm: bool,
    /// Heads of keys and values; `None`: as many as of queries.
    pub kv_heads: Option<usize>,
    /// The inner width of feed-forward layers, in widths of the map.
    pub ff_mult: usize,
    /// Whether a vector conditions the network in place of a text. The embedding of the vector follows the embedding of
    /// the time in one longer vector, and the second attention of each transformer is another attention of the map to
    /// itself.
    pub takes_vector: bool,
}

impl Default for Layers {
    fn default() -> Self {
        Self { separable: false, qk_norm: false, kv_heads: None, ff_mult: 4, takes_vector: false }
    }
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            mid_block_type: MidBlockType::UNetMidBlock2DCrossAttn,
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::All(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::All(1280),
            transformer_layers_per_block: PerBlock::All(1),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: PerBlock::All(8),
            use_linear_projection: false,
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            layers: Layers::default(),
        }
    }
}

/// The embedding that is added to the embedding of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionEmbedType {
    /// Embeds two inputs together: the vector of the whole prompt, and numbers such as the picture's sizes.
    TextTime,
    /// Embeds only numbers such as the picture's sizes: the value `time` of DreamLite's configurations.
    #[serde(skip)]
    Time,
}

/// The sizes of the embedding that is added to the embedding of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedConditions {
    /// Number of sines and cosines of each number.
    pub time_embed_dim: usize,
    /// Width of the input: the vector of the prompt, and the sines and cosines of all numbers.
    pub width: usize,
}

impl AddedConditions {
    /// How many numbers the input has in addition to a prompt's vector of `pooled` values; `None` if no count fits.
    pub fn time_id_count(&self, pooled: usize) -> Option<usize> {
        let rest = self.width.checked_sub(pooled)?;
        rest.is_multiple_of(self.time_embed_dim).then_some(rest / self.time_embed_dim)
    }
}

/// Blocks on the way down, by diffusers' class names. In the first published files, each name has the prefix `UNetRes`,
/// which diffusers ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    #[serde(alias = "UNetResCrossAttnDownBlock2D")]
    CrossAttnDownBlock2D,
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    /// A block of DreamLite, whose transformers attend to the text only.
    #[serde(skip)]
    DreamLiteCrossAttnNoSelfAttnDownBlock2D,
}

impl DownBlockType {
    /// Whether there is a transformer after each residual block.
    pub(super) fn is_attended(self) -> bool {
        self != Self::DownBlock2D
    }

    pub(super) fn attends_to_itself(self) -> bool {
        self == Self::CrossAttnDownBlock2D
    }
}

/// Middle blocks, by diffusers' class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlockType {
    UNetMidBlock2DCrossAttn,
}

/// Blocks on the way up; see [`DownBlockType`] for the prefix of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    #[serde(alias = "UNetResCrossAttnUpBlock2D")]
    CrossAttnUpBlock2D,
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    /// A block of DreamLite, whose transformers attend to the text only.
    #[serde(skip)]
    DreamLiteCrossAttnNoSelfAttnUpBlock2D,
}

impl UpBlockType {
    /// Whether there is a transformer after each residual block.
    pub(super) fn is_attended(self) -> bool {
        self != Self::UpBlock2D
    }

    pub(super) fn attends_to_itself(self) -> bool {
        self == Self::CrossAttnUpBlock2D
    }
}

/// Keys that could change the network, with the supported values. Keys with an empty list have no effect here.
const FIXED: &[Fixed] = &[
    ("act_fn", &[r#""silu""#, r#""swish""#]),
    ("addition_embed_type_num_heads", &[]), // no supported additional embedding has heads
    ("attention_type", &[r#""default""#]),
    ("class_embed_type", &["null"]),
    ("class_embeddings_concat", &["false"]),
    ("cross_attention_norm", &["null"]),
    ("dropout", &[]), // used in training only
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("num_attention_heads", &["null"]),
    ("num_class_embeds", &["null"]),
    ("only_cross_attention", &["false"]),
    ("resnet_out_scale_factor", &["1"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &[r#""default""#]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_type", &[r#""positional""#]),
    ("timestep_post_act", &["null"]),
    ("upcast_attention", &["true", "false"]), // attention is computed in float32 either way
];

/// The values of keys that make a network of [`UNet2DConditionConfig::read_for_vector`].
const FIXED_FOR_VECTOR: &[Fixed] =
    &[("class_embed_type", &[r#""simple_projection""#]), ("class_embeddings_concat", &["true"])];

impl UNet2DConditionConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        config.check(path)?;
        Ok(config)
    }

    /// As [`UNet2DConditionConfig::read`], for a network that a vector of `projection_class_embeddings_input_dim`
    /// numbers conditions in place of a text.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read_for_vector(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        for (key, supported) in FIXED_FOR_VECTOR {
            one_of(path, key, keys.get(*key).unwrap_or(&Value::Null), supported)?;
        }
        let fixed: Vec<Fixed> = FIXED_FOR_VECTOR.iter().chain(FIXED).copied().collect();
        let read: Self = read(path, keys, &fixed)?;
        let config = Self { layers: Layers { takes_vector: true, ..Layers::default() }, ..read };
        config.check(path)?;
        Ok(config)
    }

    pub(in crate::models) fn check(&self, path: &str) -> Result<(), LoadError> {
        let blocks = self.block_out_channels.len();
        entries(path, "block_out_channels", blocks, 16)?;
        per_block(path, "down_block_types", self.down_block_types.len(), blocks)?;
        per_block(path, "up_block_types", self.up_block_types.len(), blocks)?;
        for (key, per_block, most) in [
            ("layers_per_block", &self.layers_per_block, 16),
            ("cross_attention_dim", &self.cross_attention_dim, WIDEST),
            ("transformer_layers_per_block", &self.transformer_layers_per_block, 64),
            ("attention_head_dim", &self.attention_head_dim, WIDEST),
        ] {
            per_block.check(path, key, blocks, most)?;
        }
        if let Some(layers) = &self.reverse_transformer_layers_per_block {
            PerBlock::Each(layers.clone()).check(path, "reverse_transformer_layers_per_block", blocks, 64)?;
        }
        for (i, channels) in self.block_out_channels.iter().enumerate() {
            within(path, "block_out_channels", *channels, WIDEST)?;
            divides(path, "norm_num_groups", self.norm_num_groups, *channels)?;
            divides(path, "attention_head_dim", self.attention_head_dim.at(i), *channels)?;
            let (width, key) = (self.cross_attention_dim.at(i), "cross_attention_dim".into());
            if self.layers.takes_vector && width != *channels {
                let reason = format!("must be {channels}, the channels of block {i}, not {width}");
                return Err(LoadError::BadKey { path: path.into(), key, reason });
            }
            if !self.layers.takes_vector && width != self.text_width() {
                let reason = "the blocks take texts of different widths".into();
                return Err(LoadError::BadKey { path: path.into(), key, reason });
            }
        }
        within(path, "in_channels", self.in_channels, WIDEST)?;
        within(path, "out_channels", self.out_channels, WIDEST)?;
        within(path, "time_embedding_dim", self.time_width(), 4 * WIDEST)?;
        if self.downsample_padding > 1 {
            let (key, reason) = ("downsample_padding".into(), format!("{} is not 0 or 1", self.downsample_padding));
            return Err(LoadError::BadKey { path: path.into(), key, reason });
        }
        if let Some(size) = self.sample_size {
            size.check(path, LARGEST_SAMPLE)?;
        }
        between(path, "norm_eps", self.norm_eps, 0.0, LARGEST_EPS)?;
        between(path, "mid_block_scale_factor", self.mid_block_scale_factor, 1e-3, 1e3)?;
        for (key, kernel) in [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)] {
            within(path, key, kernel, 15)?;
            if kernel % 2 == 0 {
                let reason = format!("must be odd, not {kernel}: an even kernel changes the size of the map");
                return Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
            }
        }
        if let Some(width) = self.time_cond_proj_dim {
            within(path, "time_cond_proj_dim", width, WIDEST)?;
            divides(path, "time_cond_proj_dim", 4, width)?; // at least two different frequencies
        }
        if self.layers.takes_vector {
            let width = self.projection_class_embeddings_input_dim.unwrap_or(0);
            within(path, "projection_class_embeddings_input_dim", width, WIDEST)?;
            if self.addition_embed_type.is_some() {
                let (key, reason) = ("addition_embed_type".into(), "excludes class_embed_type".into());
                return Err(LoadError::BadKey { path: path.into(), key, reason });
            }
        }
        if self.addition_embed_type.is_some() {
            for (key, value) in [
                ("addition_time_embed_dim", self.addition_time_embed_dim),
                ("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim),
            ] {
                within(path, key, value.unwrap_or(0), WIDEST)?;
            }
        }
        between(path, "freq_shift", self.freq_shift, -(WIDEST as f64), WIDEST as f64)?;
        if self.freq_shift >= (self.block_out_channels[0] / 2) as f64 {
            let reason = format!("{} leaves no frequencies", self.freq_shift);
            return Err(LoadError::BadKey { path: path.into(), key: "freq_shift".into(), reason });
        }
        if self.added().is_some_and(|added| self.freq_shift >= (added.time_embed_dim / 2) as f64) {
            let reason = format!("{} leaves no frequencies of addition_time_embed_dim", self.freq_shift);
            return Err(LoadError::BadKey { path: path.into(), key: "freq_shift".into(), reason });
        }
        Ok(())
    }

    /// Width of the time embedding.
    pub(in crate::models) fn time_width(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    /// Width of the vector that conditions the network in place of a text, if there is one.
    pub fn vector_width(&self) -> Option<usize> {
        self.projection_class_embeddings_input_dim.filter(|_| self.layers.takes_vector)
    }

    /// The sizes of the embedding that is added to the embedding of the time, if there is one.
    pub fn added(&self) -> Option<AddedConditions> {
        self.addition_embed_type?;
        Some(AddedConditions {
            time_embed_dim: self.addition_time_embed_dim?,
            width: self.projection_class_embeddings_input_dim?,
        })
    }

    /// The channels of every map on the way down, beginning with the map of the first convolution. ControlNets add to
    /// these maps.
    pub fn maps(&self) -> Vec<usize> {
        maps(&self.block_out_channels, &self.layers_per_block)
    }

    /// Width of the text's hidden states.
    pub fn text_width(&self) -> usize {
        self.cross_attention_dim.at(0)
    }

    pub(super) fn resnet(&self, output_scale_factor: f64) -> ResnetKind {
        ResnetKind {
            groups: self.norm_num_groups,
            groups_out: self.norm_num_groups,
            eps: self.norm_eps,
            time_embed_dim: Some(if self.layers.takes_vector { 2 } else { 1 } * self.time_width()),
            time_embedding_norm: TimeEmbeddingNorm::Default,
            output_scale_factor,
            separable: self.layers.separable,
        }
    }

    /// The parameters of the transformers at level `i`, counted from the input.
    pub(super) fn transformer(&self, i: usize, layers: usize, attends_to_itself: bool) -> TransformerKind {
        TransformerKind {
            channels: self.block_out_channels[i],
            heads: self.attention_head_dim.at(i),
            layers,
            cross_attention_dim: self.cross_attention_dim.at(i),
            groups: self.norm_num_groups,
            use_linear_projection: self.use_linear_projection,
            kv_heads: self.layers.kv_heads.unwrap_or_else(|| self.attention_head_dim.at(i)),
            qk_norm: self.layers.qk_norm,
            attends_to_itself,
            ff_mult: self.layers.ff_mult,
        }
    }
}

/// The channels of every map on the way down of a U-Net with blocks of these channels and numbers of layers, beginning
/// with the map of the first convolution.
pub(in crate::models) fn maps(channels: &[usize], layers: &PerBlock) -> Vec<usize> {
    let of_block = |(i, width): (usize, &usize)| {
        let downsampled = usize::from(i + 1 < channels.len());
        vec![*width; layers.at(i) + downsampled]
    };
    channels.iter().take(1).copied().chain(channels.iter().enumerate().flat_map(of_block)).collect()
}
