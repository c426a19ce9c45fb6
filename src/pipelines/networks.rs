//! The networks of one model, row by row: what the engine runs.

use std::sync::Arc;

use async_trait::async_trait;
use candle_core::{DType, Tensor};

use super::{Activation, Frame};
use crate::{
    device::HOST,
    models::{
        adapters::{Adapter, AdapterSet},
        autoencoder_kl::Tiles,
        control_net::{ControlNet, Hint},
        demand::Demand,
        latent_diffusion::{Part, Spec},
        text_encoders::{LearnedToken, LearnedTokens, Tokens},
    },
    weights::LoadError,
};

/// What the text encoders make of one prompt. A cheap handle.
#[derive(Clone, Debug)]
pub struct TextEmbedding {
    /// The tokens' hidden states, (L, D).
    pub hidden: Tensor,
    /// The vector of the whole prompt, (P), for networks that take one.
    pub pooled: Option<Tensor>,
}

impl TextEmbedding {
    /// (L, D)
    pub fn dims(&self) -> [usize; 2] {
        let dims = self.hidden.dims();
        [dims.first().copied().unwrap_or(0), dims.get(1).copied().unwrap_or(0)]
    }

    /// Those of several chunks as that of one long prompt; the vector of the whole is the first's.
    pub fn joined(chunks: Vec<TextEmbedding>) -> Result<TextEmbedding, NetworkError> {
        let hidden: Vec<&Tensor> = chunks.iter().map(|chunk| &chunk.hidden).collect();
        let hidden = Tensor::cat(&hidden, 0)
            .map_err(|error| NetworkError { network: "text_encoder", detail: error.to_string() })?;
        Ok(TextEmbedding { hidden, pooled: chunks.into_iter().next().and_then(|first| first.pooled) })
    }

    /// That of no prompt at all: zeros, of the sizes that the model has.
    pub fn zeros(spec: &Spec) -> Result<TextEmbedding, NetworkError> {
        let zeros = |shape: &[usize]| {
            Tensor::zeros(shape, DType::F32, &HOST)
                .map_err(|error| NetworkError { network: "text_encoder", detail: error.to_string() })
        };
        let pooled = spec.pooled_width.map(|width| zeros(&[width])).transpose()?;
        Ok(TextEmbedding { hidden: zeros(&[spec.context_length, spec.context_width])?, pooled })
    }
}

/// One sample of one ask for a prediction.
#[derive(Clone, Debug)]
pub struct DenoiseRow {
    /// (C, h, w), scaled for the network.
    pub sample: Vec<f32>,
    /// The timestep that the network sees; each row has its own.
    pub t: f32,
    pub context: TextEmbedding,
    /// The numbers that SDXL is told of the picture's sizes; as many as [`Spec::time_ids`].
    pub time_ids: Arc<[f32]>,
    /// For networks that are told a class.
    pub class: Option<u32>,
    /// The guidance scale less one, for networks that are told it.
    pub guidance: Option<f32>,
    /// What a second picture adds; each network at most once.
    pub controls: Vec<Control>,
    /// What changes the layers for this row.
    pub adapters: AdapterSet,
    /// What the row starts from in a [`Depth::Shallow`] call.
    pub features: Option<Features>,
}

/// A ControlNet, what it sees, and how strongly it acts. A cheap handle.
#[derive(Clone, Debug)]
pub struct Control {
    pub net: Arc<ControlNet>,
    pub hint: Arc<Hint>,
    pub scale: f32,
    /// Adds less to outer maps than to inner ones.
    pub guess: bool,
}

/// How much of the denoiser a call computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    Full,
    /// All of it, and the answers carry features.
    Keeping,
    /// Its shallow branch alone, which takes the rows' features for what the rest would have given.
    Shallow,
}

/// Deep features of one row, (h, w, C) for the U-Net's first number of channels C. A cheap handle of 4 · h · w · C bytes.
#[derive(Clone, Debug)]
pub struct Features(pub Tensor);

/// The answer to one [`DenoiseRow`].
#[derive(Clone, Debug)]
pub struct Denoised {
    /// (C, h, w)
    pub prediction: Vec<f32>,
    /// Of a [`Depth::Keeping`] call.
    pub features: Option<Features>,
}

/// What the autoencoder knows of the latents of a picture: a diagonal Gaussian, scaled for the denoiser; (C, h, w) each.
#[derive(Clone, Debug)]
pub struct Posterior {
    pub mean: Vec<f32>,
    /// The standard deviation.
    pub std: Vec<f32>,
    /// The mean before the scaling, as models take it that are told what to change.
    pub unscaled: Vec<f32>,
}

/// A network refused its input, ran out of something, or panicked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{network} failed: {detail}")]
pub struct NetworkError {
    pub network: &'static str,
    pub detail: String,
}

/// The networks of one model. Row i of every answer depends on row i of the input alone, to the bit.
///
/// The calls are futures that wait for nothing but the next poll, which computes the next layer: whoever polls may do
/// something else in between, on any thread, and the answer does not depend on it.
#[async_trait]
pub trait Networks: Send + Sync {
    fn spec(&self) -> Spec;
    /// Token ids padded or truncated to the text encoders' length. The prompts are one for each encoder; the last is for all
    /// that follow.
    fn tokenize(&self, prompts: &[&str], learned: &LearnedTokens) -> Tokens;
    /// The same of prompts in A1111's syntax, in one or more chunks that are encoded each on its own.
    fn tokenize_weighted(&self, prompts: &[&str], learned: &LearnedTokens) -> Vec<Tokens> {
        vec![self.tokenize(prompts, learned)]
    }
    async fn encode_text(&self, prompts: &[Tokens], clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError>;
    /// All rows have the shape (C, h, w).
    async fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError>;
    /// Pixels (3, H, W) in [-1, 1] → the distribution of their latents.
    async fn encode(&self, shape: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError>;
    /// What one row of a call asks of the machine, a function of the layers' sizes. Only the order of calls and the rows that
    /// share one depend on it, and never an answer.
    fn demand(&self, _part: Part) -> Demand {
        Demand { work: 1.0, bytes: 0 }
    }
    /// The pieces that latents of (h, w) are decoded in.
    fn tiles(&self, size: [usize; 2]) -> Tiles;
    /// Into how many calls of [`Networks::decode`] the decoding of latents (C, h, w) falls, one or more, and which share of
    /// the work each of them does; the shares add up to 1.
    fn decode_stages(&self, shape: [usize; 3]) -> Vec<f64>;
    /// One stage, counted from 0, of decoding latents (C, h, w). The first takes them as (1, C, h, w), each later stage
    /// takes what the one before it made, and the last gives pixels (1, H, W, 3), roughly in [-1, 1].
    async fn decode(
        &self,
        shape: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError>;
    /// What a file of adapters (safetensors) does to these networks; `path` is what errors call it.
    fn adapter(&self, path: &str, _file: &[u8]) -> Result<Adapter, LoadError> {
        Err(LoadError::Safetensors { path: path.to_owned(), reason: "this model takes no adapters".to_owned() })
    }
    /// What a file of textual inversion (safetensors) teaches these networks: the word `<name>`.
    fn learned(&self, name: &str, _file: &[u8]) -> Result<LearnedToken, LoadError> {
        Err(LoadError::Safetensors { path: name.to_owned(), reason: "this model learns no words".to_owned() })
    }
    /// Rows of latents of the shape (C, h, w) to pictures, by a smaller network which only models have whose
    /// [`Spec::tiny_decoder`] says so.
    async fn decode_tiny(&self, shape: [usize; 3], rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError>;
}
