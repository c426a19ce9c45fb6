//! The interface of a latent diffusion model's networks, and the rows of its calls.

use std::sync::Arc;

use async_trait::async_trait;
use candle_core::{DType, Tensor};

use super::{Activation, Frame, calls::FramesRow};
use crate::{
    device::{Fault, HOST},
    models::{
        adapters::{Adapter, AdapterSet},
        autoencoder_kl::Tiles,
        control_net::{ControlNet, Hint},
        demand::Demand,
        latent_diffusion::{Part, Spec},
        text_encoders::{LearnedToken, LearnedTokens, SeenPicture, Tokens},
    },
    weights::LoadError,
};

/// The text encoders' output for one prompt. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TextEmbedding {
    /// The hidden states of the tokens, (L, D).
    pub hidden: Tensor,
    /// The pooled embedding of the whole prompt, (P), for networks that use one.
    pub pooled: Option<Tensor>,
}

impl TextEmbedding {
    /// The shape (L, D) of the hidden states.
    pub fn dims(&self) -> [usize; 2] {
        let dims = self.hidden.dims();
        [dims.first().copied().unwrap_or(0), dims.get(1).copied().unwrap_or(0)]
    }

    /// Joins the embeddings of several chunks to the embedding of one long prompt. The pooled embedding comes from the
    /// first chunk. Fails if the widths differ.
    pub fn joined(chunks: Vec<TextEmbedding>) -> Result<TextEmbedding, NetworkError> {
        let hidden: Vec<&Tensor> = chunks.iter().map(|chunk| &chunk.hidden).collect();
        let hidden = Tensor::cat(&hidden, 0).map_err(NetworkError::of("text_encoder"))?;
        Ok(TextEmbedding { hidden, pooled: chunks.into_iter().next().and_then(|first| first.pooled) })
    }

    /// An embedding of zeros with the model's sizes, which means "no prompt".
    pub fn zeros(spec: &Spec) -> Result<TextEmbedding, NetworkError> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &HOST).map_err(NetworkError::of("text_encoder"));
        let pooled = spec.pooled_width.map(|width| zeros(&[width])).transpose()?;
        Ok(TextEmbedding { hidden: zeros(&[spec.context_length, spec.context_width])?, pooled })
    }
}

/// The input of one row of a denoiser call.
#[derive(Clone, Debug)]
pub struct DenoiseRow {
    /// The network's input (C, h, w): the latents, scaled as the network expects, and any further channels.
    pub sample: Vec<f32>,
    /// The timestep that the network receives.
    pub t: f32,
    /// The text embedding of the branch.
    pub context: TextEmbedding,
    /// [`Spec::time_id_count`] numbers about sizes: SDXL's micro-conditioning, or the seconds of a sound.
    pub time_ids: Arc<[f32]>,
    /// The class, for networks that take one.
    pub class: Option<u32>,
    /// The guidance scale, for networks that take it.
    pub guidance: Option<f64>,
    /// The ControlNets that act on this row.
    pub controls: Vec<Control>,
    /// LoRA weights that apply to this row.
    pub adapters: AdapterSet,
    /// The blocks of the network that are left out for this row, by index.
    pub skipped: Arc<[u32]>,
    /// The pictures that the network sees as further tokens.
    pub references: Arc<[Reference]>,
    /// In a [`Depth::Shallow`] call, the features that replace the deeper layers for this row.
    pub features: Option<Features>,
}

/// A ControlNet, its picture, and its strength. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    pub net: Arc<ControlNet>,
    /// The prepared picture.
    pub hint: Arc<Hint>,
    /// Factor of the ControlNet's outputs.
    pub scale: f32,
    /// Guess mode: outer layers get smaller additions than inner ones.
    pub guess: bool,
}

/// A picture that the denoiser sees as further tokens.
#[derive(Clone, Debug)]
pub struct Reference {
    /// (C, h, w)
    pub latents: Vec<f32>,
    /// (h, w)
    pub size: [usize; 2],
}

impl Reference {
    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// How much of the denoiser a call computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// The whole network, without features in the answers.
    Full,
    /// The whole network; the answers contain deep features.
    Keeping,
    /// Only the shallow branch. The features of the rows replace the deeper layers.
    Shallow,
}

/// How a prompt is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct PromptRole<'a> {
    /// Whether the prompt says what the picture does not show.
    pub is_negative: bool,
    /// The picture that the text encoder sees with the prompt.
    pub picture: Option<&'a SeenPicture>,
}

impl Depth {
    /// Refuses shallow calls, and calls that keep deep features, for networks without a shallow branch.
    pub fn check_full(self) -> Result<(), NetworkError> {
        if self == Depth::Full { Ok(()) } else { Err(NetworkError::missing("denoiser_shallow")) }
    }
}

/// Deep features of one row, (h, w, C), where C is the width of the U-Net's first level. Cheap to clone; holds 4 · h ·
/// w · C bytes.
#[derive(Clone, Debug)]
pub struct Features(pub Tensor);

/// The answer to one [`DenoiseRow`].
#[derive(Clone, Debug)]
pub struct Denoised {
    /// The raw prediction, (C, h, w).
    pub prediction: Vec<f32>,
    /// Deep features; only in answers of a [`Depth::Keeping`] call.
    pub features: Option<Features>,
}

/// The distribution of a picture's latents: a diagonal Gaussian. `mean` and `std` are (C, h, w), scaled for the
/// denoiser except in DreamLite.
#[derive(Clone, Debug)]
pub struct Posterior {
    pub mean: Vec<f32>,
    /// The standard deviation.
    pub std: Vec<f32>,
    /// The mean without the scaling factor, (C, h, w), for models that edit pictures. May be empty for models that do
    /// not read it.
    pub unscaled: Vec<f32>,
}

/// A network rejected its input, lacked a resource, or panicked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{network} failed: {detail}")]
pub struct NetworkError {
    pub network: &'static str,
    pub detail: String,
    /// What the error says about the state of the device.
    pub fault: Fault,
}

impl NetworkError {
    /// An error with a text. The fault is recognized by this text.
    pub fn new(network: &'static str, detail: impl ToString) -> NetworkError {
        let detail = detail.to_string();
        NetworkError { network, fault: Fault::of_text(&detail), detail: without_backtrace(&detail).to_owned() }
    }

    /// The error of a call to a network that the model does not have.
    pub fn missing(network: &'static str) -> NetworkError {
        NetworkError::new(network, "the model has no such network")
    }

    /// Converts errors of candle to errors of this network.
    pub fn of(network: &'static str) -> impl Fn(candle_core::Error) -> NetworkError {
        move |error| NetworkError::new(network, error)
    }
}

/// The text of an error without the backtrace that candle appends to it if `RUST_BACKTRACE` is set: clients see the
/// text.
fn without_backtrace(text: &str) -> &str {
    text.split("\n   0: ").next().unwrap_or(text)
}

/// The networks of one latent diffusion model. Row i of every answer depends only on row i of the input, bit for bit.
///
/// The returned futures wait for nothing: each poll computes the next layer. The caller may do other work between polls
/// and may poll on any thread; the answer does not depend on this.
#[async_trait]
pub trait Networks: Send + Sync {
    /// The sizes of the model.
    fn spec(&self) -> Spec;
    /// Token ids, padded or truncated to the text encoders' length. `prompts` has one text for each encoder; if there
    /// are fewer texts than encoders, the last text is also for the remaining encoders. Requests always have a text for
    /// each encoder. Some models let requests choose the number of tokens that one of the encoders takes;
    /// `max_sequence_length` is this number.
    fn tokenize(&self, prompts: &[&str], max_sequence_length: Option<u32>, learned: &LearnedTokens) -> Tokens;

    /// As [`Networks::tokenize`], for models whose text encoder reads prompts of different roles differently.
    fn tokenize_as(
        &self,
        _role: PromptRole<'_>,
        prompts: &[&str],
        max_sequence_length: Option<u32>,
        learned: &LearnedTokens,
    ) -> Tokens {
        self.tokenize(prompts, max_sequence_length, learned)
    }
    /// Like [`Networks::tokenize`], for prompts in A1111's syntax. Returns one or more chunks, which are encoded
    /// separately.
    fn tokenize_weighted(
        &self,
        prompts: &[&str],
        max_sequence_length: Option<u32>,
        learned: &LearnedTokens,
    ) -> Vec<Tokens> {
        vec![self.tokenize(prompts, max_sequence_length, learned)]
    }
    /// One embedding per prompt, without the output of the text encoder's last `clip_skip` layers.
    async fn encode_text(&self, prompts: &[Tokens], clip_skip: u32) -> Result<Vec<TextEmbedding>, NetworkError>;
    /// One prediction per row. All rows have the shape (C, h, w).
    async fn denoise(
        &self,
        shape: [usize; 3],
        depth: Depth,
        rows: &[DenoiseRow],
    ) -> Result<Vec<Denoised>, NetworkError>;
    /// One prediction (C, F, h, w) per row, each a film of F frames. Only models that motion adapters fit have this.
    async fn denoise_frames(&self, _shape: [usize; 4], _rows: &[FramesRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        Err(NetworkError::missing("denoiser of films"))
    }
    /// The distribution of the latents of each picture with pixels (3, H, W) in [-1, 1]; `shape` is (H, W).
    async fn encode(&self, shape: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError>;
    /// The work and memory of one row of a call, computed from the sizes of the layers. It affects only the order and
    /// grouping of calls, never an answer.
    fn demand(&self, _part: Part) -> Demand {
        Demand { work: 1.0, bytes: 0 }
    }
    /// The tiles in which latents of (h, w) are decoded.
    fn tiles(&self, size: [usize; 2]) -> Tiles;
    /// The stages of decoding latents (C, h, w), each a call of [`Networks::decode`]. Returns, for each stage, its
    /// share of the total work; the shares add up to 1.
    fn decode_stages(&self, shape: [usize; 3]) -> Vec<f64>;
    /// Runs one stage, counted from 0, of decoding latents (C, h, w). The first stage takes latents (1, C, h, w), each
    /// later one takes the output of the stage before, and the last one returns pixels (1, H, W, 3), roughly in [-1,
    /// 1], or the spectrogram of a sound (1, T, M, 1), or the samples of a sound (1, N, channels, 1).
    async fn decode(
        &self,
        shape: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError>;
    /// Reads a file of adapters (safetensors) for these networks. Errors name the file `path`.
    fn adapter(&self, path: &str, _file: &[u8]) -> Result<Adapter, LoadError> {
        Err(LoadError::Safetensors { path: path.to_owned(), reason: "this model takes no adapters".to_owned() })
    }
    /// Reads the file of a textual inversion (safetensors), which defines the word `<name>` for these networks.
    fn learned(&self, name: &str, _file: &[u8]) -> Result<LearnedToken, LoadError> {
        Err(LoadError::Safetensors { path: name.to_owned(), reason: "this model learns no words".to_owned() })
    }
    /// Decodes rows of latents (C, h, w) to pictures with a smaller network. Only models with [`Spec::tiny_decoder`]
    /// have this network.
    async fn decode_tiny(&self, _shape: [usize; 3], _rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        Err(NetworkError::missing("vae_tiny"))
    }
    /// The work and memory of one row of [`Networks::vocode`], for a spectrogram of this many frames.
    fn vocode_demand(&self, _frames: usize) -> Demand {
        Demand::default()
    }
    /// Turns decoded spectrograms (1, T, M, 1) into the samples of waveforms in [-1, 1]. Only models with
    /// [`Spec::sound`] have this network.
    async fn vocode(&self, _rows: &[Activation]) -> Result<Vec<Vec<f32>>, NetworkError> {
        Err(NetworkError::missing("vocoder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_network_has_no_backtrace() {
        let frames = "   0: candle_core::error::Error::bt\n             at ./src/error.rs:260\n   1: main";
        let error = |text: &str| candle_core::Error::Msg(format!("{text}\n{frames}"));
        let made = NetworkError::of("unet")(error("shape mismatch in conv2d\nof two lines"));
        assert_eq!(made.to_string(), "unet failed: shape mismatch in conv2d\nof two lines");
        assert_eq!(NetworkError::new("vae", error("shape mismatch")).detail, "shape mismatch");
        assert_eq!(NetworkError::of("unet")(error("CUDA_ERROR_OUT_OF_MEMORY")).fault, Fault::OutOfMemory);
    }
}
