//! Motion adapters: attention between frames that is added to a U-Net of pictures, so that it makes films (diffusers'
//! `MotionAdapter`; Guo et al. 2023, arXiv:2307.04725).

mod configuration;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::MotionAdapterConfig;

use super::{
    adapters::RowAdapters,
    demand::Demand,
    frames::{clips, frames_first, places_first},
    layers::{GroupNorm, LayerNorm, Linear},
    pause::pause,
    transformer2d::{Attention, FeedForward, Text, TransformerKind},
};
use crate::{
    device::Device,
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The stem of the file of weights.
const WEIGHTS: &str = "diffusion_pytorch_model";

/// The modules of one adapter. The U-Net runs one after each layer of its blocks.
#[derive(Debug)]
pub struct MotionAdapter {
    /// The modules of each block on the way down, one for each layer.
    down: Vec<Vec<MotionModule>>,
    mid: Option<MotionModule>,
    /// The modules of each block on the way up, counted from the middle.
    up: Vec<Vec<MotionModule>>,
    config: MotionAdapterConfig,
    device: Device,
}

/// An adapter, and the number of frames of the clips that it moves: the rows of a call are the frames of clips.
#[derive(Clone, Copy, Debug)]
pub struct Motion<'a> {
    pub adapter: &'a MotionAdapter,
    /// F: frames per clip.
    pub frames: usize,
}

/// A layer of a U-Net after which a module may run.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// A layer of a block on the way down; both are counted from the input.
    Down { block: usize, layer: usize },
    /// The attention of the middle block.
    Mid,
    /// A layer of a block on the way up; both are counted from the middle.
    Up { block: usize, layer: usize },
}

impl MotionAdapter {
    /// Loads an adapter in diffusers' layout from the subfolder `name` of `folder`.
    ///
    /// # Errors
    /// The configuration is not supported, or the tensors do not fit.
    pub fn load(folder: &ModelFolder, name: &str, device: &Device) -> std::result::Result<MotionAdapter, LoadError> {
        let config = MotionAdapterConfig::of(folder, name)?;
        let weights = Weights::open(folder, name, WEIGHTS, device, as_stored)?;
        let adapter = MotionAdapter::new(&config, &weights.in_precision(device.precision()));
        weights.finish()?;
        Ok(MotionAdapter { device: device.clone(), ..adapter })
    }

    /// Checks that the headers of the files have the tensors that the adapter needs. No weights are read.
    ///
    /// # Errors
    /// Those of [`MotionAdapter::load`].
    pub fn check(folder: &ModelFolder, name: &str) -> std::result::Result<(), LoadError> {
        let config = MotionAdapterConfig::of(folder, name)?;
        let weights = Weights::open(folder, name, WEIGHTS, &Device::host(), as_stored)?;
        weights.check(|weights| drop(MotionAdapter::new(&config, weights)))
    }

    /// Builds the modules. The caller then calls [`Weights::finish`].
    pub fn new(config: &MotionAdapterConfig, weights: &Weights) -> Self {
        let blocks = config.block_out_channels.len();
        let modules = |way: &str, i: usize, level: usize, layers: usize| -> Vec<MotionModule> {
            let weights = weights.pp(way).pp(i).pp("motion_modules");
            let module = |j: usize| MotionModule::new(&weights.pp(j), config, config.module(level));
            (0..layers).map(module).collect()
        };
        let down = |i: usize| modules("down_blocks", i, i, config.motion_layers_per_block.at(i));
        let up = |i: usize| {
            let level = blocks - 1 - i;
            modules("up_blocks", i, level, config.motion_layers_per_block.at(level) + 1)
        };
        let mid = || MotionModule::new(&weights.pp("mid_block.motion_modules.0"), config, config.middle());
        // The modules are read and packed in parallel.
        let (down, (mid, up)) = rayon::join(
            || (0..blocks).into_par_iter().map(down).collect(),
            || {
                let mid = config.use_motion_mid_block.then(mid);
                (mid, (0..blocks).into_par_iter().map(up).collect())
            },
        );
        Self { down, mid, up, config: config.clone(), device: Device::host() }
    }

    /// Maximum number of frames of a clip.
    pub fn max_frames(&self) -> usize {
        self.config.motion_max_seq_length
    }

    /// The demand of the modules for one clip of `frames` frames of (h, w) latent pixels.
    pub fn demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        self.config.demand(frames, size).on(&self.device, self.device.precision())
    }
}

impl Motion<'_> {
    /// x (B · F, h, w, C) → (B · F, h, w, C): the map that leaves a layer, with motion if the adapter has a module
    /// for this layer.
    pub(super) async fn after(self, layer: After, x: Tensor) -> Result<Tensor> {
        let MotionAdapter { down, mid, up, .. } = self.adapter;
        let module = match layer {
            After::Down { block, layer } => down.get(block).and_then(|modules| modules.get(layer)),
            After::Mid => mid.as_ref(),
            After::Up { block, layer } => up.get(block).and_then(|modules| modules.get(layer)),
        };
        match module {
            Some(module) => module.forward(&x, self.frames).await,
            None => Ok(x),
        }
    }
}

/// diffusers' `AnimateDiffTransformer3D`: a transformer over the frames of each place.
#[derive(Debug)]
struct MotionModule {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TemporalBlock>,
    proj_out: Linear,
}

impl MotionModule {
    fn new(weights: &Weights, config: &MotionAdapterConfig, kind: TransformerKind) -> Self {
        let (c, blocks) = (kind.channels, weights.pp("transformer_blocks"));
        let block = |i: usize| TemporalBlock::new(&blocks.pp(i), config.motion_max_seq_length, kind);
        Self {
            norm: GroupNorm::new(&weights.pp("norm"), kind.groups, c, 1e-6),
            proj_in: Linear::new(&weights.pp("proj_in"), c, c),
            blocks: (0..kind.layers).map(block).collect(),
            proj_out: Linear::new(&weights.pp("proj_out"), c, c),
        }
    }

    /// x (B · F, h, w, C) → (B · F, h, w, C)
    async fn forward(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        pause().await;
        let (rows, h, w, c) = x.dims4()?;
        // The norm is computed over whole clips.
        let normed = self.norm.forward(&x.reshape((clips(rows, frames)?, frames * h, w, c))?)?;
        let hidden = self.proj_in.forward(&normed.reshape((rows, h * w, c))?)?;
        let mut hidden = places_first(&hidden, frames)?;
        for block in &self.blocks {
            hidden = block.forward(hidden).await?;
        }
        let hidden = frames_first(&hidden, h * w)?.reshape((rows, h, w, c))?;
        self.proj_out.forward_with(&hidden, x)
    }
}

/// diffusers' `BasicTransformerBlock` with two self-attentions and positions of frames.
#[derive(Debug)]
struct TemporalBlock {
    /// A vector for each frame, (S, C).
    positions: Tensor,
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TemporalBlock {
    fn new(weights: &Weights, frames: usize, kind: TransformerKind) -> Self {
        let c = kind.channels;
        let norm = |name| LayerNorm::new(&weights.pp(name), c, 1e-5);
        let attention = |name| Attention::new(&weights.pp(name), c, kind);
        let positions = weights.pp("pos_embed").tensor("pe", &[1, frames, c]);
        Self {
            positions: positions.squeeze(0).expect("the first size is 1"),
            norm1: norm("norm1"),
            attn1: attention("attn1"),
            norm2: norm("norm2"),
            attn2: attention("attn2"),
            norm3: norm("norm3"),
            ff: FeedForward::new(&weights.pp("ff"), c, kind.ff_mult),
        }
    }

    /// x (B · P, F, C) → (B · P, F, C)
    async fn forward(&self, mut x: Tensor) -> Result<Tensor> {
        let frames = x.dim(1)?;
        let positions = self.positions.narrow(0, 0, frames)?;
        for (norm, attention) in [(&self.norm1, &self.attn1), (&self.norm2, &self.attn2)] {
            let hidden = &norm.forward(&x)?.broadcast_add(&positions)?;
            let itself = Text { hidden, lengths: None };
            x = attention.forward_with(hidden, itself, &x, RowAdapters::NONE).await?;
        }
        pause().await;
        self.ff.forward_with(&self.norm3.forward(&x)?, &x, RowAdapters::NONE)
    }
}
