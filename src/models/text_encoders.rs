//! One or two text encoders, each with its tokenizer. The hidden states of two encoders are concatenated.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use sha2::{Digest, Sha256};

use super::{
    ClipTextModel, ClipTokenizer,
    adapters::{AdapterSet, RowAdapters, by_rows},
    clip_text::TextRow,
    qwen3_vl::Picture,
    tokenizer::Triggers,
};
use crate::generation::Token;

/// The text encoders of a model.
#[derive(Debug)]
pub struct TextEncoders {
    pub(super) encoders: Vec<(ClipTokenizer, ClipTextModel)>,
    pub(super) way: EncoderOutput,
}

/// Which outputs of the encoders are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncoderOutput {
    /// The hidden states of the last layer, after the final norm: Stable Diffusion 1 and 2.
    Last,
    /// The hidden states of the second-to-last layer, and the vector of the whole prompt: SDXL.
    Penultimate,
    /// As `Penultimate`, with the vectors of all encoders, concatenated: Stable Diffusion 3.
    PenultimateOfAll,
}

impl EncoderOutput {
    /// Assigns the values of a folder's encoders to `text_encoder` and `text_encoder_2`.
    pub fn placed<T: Copy>(self, of_all: &[T]) -> [Option<T>; 2] {
        match (self, of_all) {
            // A single encoder in a model of SDXL's kind is `text_encoder_2`.
            (EncoderOutput::Penultimate, [only]) => [None, Some(*only)],
            (_, of_all) => [of_all.first().copied(), of_all.get(1).copied()],
        }
    }
}

/// A prompt in the form that the encoders take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// For each encoder, L ids with padding.
    pub ids: Vec<Vec<u32>>,
    /// For each encoder, the weight of each token's hidden state; empty for prompts in plain syntax, which have no
    /// weights.
    pub weights: Vec<Vec<f32>>,
    /// Textual inversions. Ids beyond the vocabulary stand for their vectors.
    pub learned: LearnedTokens,
    /// Adapters that change the encoders for this prompt.
    pub adapters: AdapterSet,
    /// The picture that the encoder sees.
    pub picture: Option<SeenPicture>,
}

/// A picture that a text encoder sees with a prompt. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SeenPicture {
    picture: Arc<Picture>,
    digest: [u32; 8],
}

impl SeenPicture {
    pub fn new(picture: Picture) -> SeenPicture {
        let mut digest = Sha256::new();
        picture.size().into_iter().for_each(|side| digest.update((side as u64).to_le_bytes()));
        digest.update(picture.levels());
        let digest: [u8; 32] = digest.finalize().into();
        let (words, _) = digest.as_chunks::<4>();
        let mut of_words = [0; 8];
        of_words.iter_mut().zip(words).for_each(|(number, word)| *number = u32::from_le_bytes(*word));
        SeenPicture { picture: Arc::new(picture), digest: of_words }
    }

    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// The digest of the picture. Different pictures have different digests.
    pub fn digest(&self) -> [u32; 8] {
        self.digest
    }
}

impl PartialEq for SeenPicture {
    fn eq(&self, other: &SeenPicture) -> bool {
        self.digest == other.digest
    }
}

impl Tokens {
    /// Whether the encoding depends only on the model and the ids.
    pub fn is_plain(&self) -> bool {
        self.learned.is_empty()
            && self.adapters == AdapterSet::default()
            && self.weights.iter().flatten().all(|weight| *weight == 1.0)
    }
}

/// Textual inversions (Gal et al. 2022, arXiv:2208.01618): triggers in prompts that stand for learned vectors. Cheap to
/// clone. Two lists are equal if both are empty or both share the same memory.
#[derive(Clone, Debug, Default)]
pub struct LearnedTokens(Option<Arc<[LearnedToken]>>);

/// A textual inversion: a trigger and its learned vectors.
#[derive(Clone, Debug)]
pub struct LearnedToken {
    /// The text of the trigger in a prompt, such as `<cat>`.
    pub trigger: String,
    /// For each encoder, a list of vectors, which are as wide as the encoder. The list is empty if the file has no
    /// vectors for the encoder.
    pub vectors: Vec<Vec<Vec<f32>>>,
}

impl LearnedTokens {
    pub fn new(tokens: Vec<LearnedToken>) -> LearnedTokens {
        LearnedTokens((!tokens.is_empty()).then(|| tokens.into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn list(&self) -> &[LearnedToken] {
        self.0.as_deref().unwrap_or_default()
    }

    /// All vectors for one encoder, in the order of their ids.
    fn vectors(&self, encoder: usize) -> Vec<Vec<f32>> {
        self.list().iter().filter_map(|token| token.vectors.get(encoder)).flatten().cloned().collect()
    }

    /// Each trigger with the ids of its vectors for one encoder. The ids begin at `vocabulary`, the size of the
    /// encoder's vocabulary.
    fn triggers(&self, encoder: usize, vocabulary: u32) -> Triggers<'_> {
        let mut next = vocabulary;
        let ids_of = |token: &'_ LearnedToken| {
            let count = token.vectors.get(encoder).map_or(0, Vec::len) as u32;
            next += count;
            (next - count..next).collect()
        };
        let mut ids_of = ids_of;
        Triggers::new(self.list().iter().map(|token| (token.trigger.as_str(), ids_of(token))).collect())
    }
}

impl PartialEq for LearnedTokens {
    fn eq(&self, other: &LearnedTokens) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The encoding of B prompts.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Hidden states of the tokens, (B, L, D).
    pub hidden: Tensor,
    /// Vectors of the whole prompts, (B, P), if the U-Net takes them.
    pub pooled: Option<Tensor>,
}

impl TextEncoders {
    /// Encoders whose hidden states and vectors are all concatenated, as in Stable Diffusion 3.
    pub fn joined(encoders: Vec<(ClipTokenizer, ClipTextModel)>) -> TextEncoders {
        TextEncoders { encoders, way: EncoderOutput::PenultimateOfAll }
    }

    /// The ids of a prompt, which may differ between encoders. `prompts` has one text per encoder. If there are fewer
    /// texts, the last text is for all remaining encoders.
    pub fn tokenize(&self, prompts: &[&str], learned: &LearnedTokens) -> Tokens {
        let ids = self.encoders.iter().enumerate().map(|(i, (tokenizer, model))| {
            tokenizer.encode(self.prompt_of(i, prompts), &learned.triggers(i, model.vocabulary() as u32))
        });
        Tokens { ids: ids.collect(), learned: learned.clone(), ..Tokens::default() }
    }

    /// Splits a prompt in A1111's syntax into one or more chunks, each of which is encoded on its own.
    pub fn tokenize_weighted(&self, prompts: &[&str], learned: &LearnedTokens) -> Vec<Tokens> {
        let of_encoder = |(i, (tokenizer, model)): (usize, &(ClipTokenizer, ClipTextModel))| {
            let triggers = learned.triggers(i, model.vocabulary() as u32);
            let chunks = tokenizer.chunks(&tokenizer.segments(self.prompt_of(i, prompts), &triggers));
            chunks.into_iter().map(|chunk| framed(tokenizer, &chunk)).collect::<Vec<_>>()
        };
        let encoders: Vec<Vec<_>> = self.encoders.iter().enumerate().map(of_encoder).collect();
        let most = encoders.iter().map(Vec::len).max().unwrap_or(0);
        let chunk = |at: usize| {
            let of_all = encoders
                .iter()
                .zip(&self.encoders)
                .map(|(chunks, (tokenizer, _))| chunks.get(at).cloned().unwrap_or_else(|| framed(tokenizer, &[])));
            let (ids, weights) = of_all.unzip();
            Tokens { ids, weights, learned: learned.clone(), ..Tokens::default() }
        };
        (0..most).map(chunk).collect()
    }

    /// The text for the encoder with this index.
    fn prompt_of<'a>(&self, encoder: usize, prompts: &[&'a str]) -> &'a str {
        // A single encoder that is `text_encoder_2` takes the text for `text_encoder_2`.
        let is_second = self.encoders.len() == 1 && self.way == EncoderOutput::Penultimate;
        let index = if is_second { 1 } else { encoder };
        prompts.get(index).or(prompts.last()).copied().unwrap_or_default()
    }

    /// Encodes prompts. The hidden states skip the last `clip_skip` layers of each encoder.
    pub async fn encode(&self, prompts: &[Tokens], clip_skip: usize) -> Result<Encoded> {
        let models: Vec<&ClipTextModel> = self.encoders.iter().map(|(_, model)| model).collect();
        self.encode_with(&models, prompts, clip_skip).await
    }

    /// As [`TextEncoders::encode`], with these models in place of the encoders' own.
    pub(super) async fn encode_with(
        &self,
        models: &[&ClipTextModel],
        prompts: &[Tokens],
        clip_skip: usize,
    ) -> Result<Encoded> {
        let adapters = RowAdapters::of(prompts.iter().map(|prompt| &prompt.adapters));
        let mut hidden = Vec::with_capacity(models.len());
        let mut pooled: Vec<Tensor> = Vec::new();
        for (i, model) in models.iter().enumerate() {
            let learned: Vec<_> = prompts.iter().map(|prompt| prompt.learned.vectors(i)).collect();
            let rows = prompts.iter().zip(&learned).map(|(prompt, learned)| {
                let Some(ids) = prompt.ids.get(i) else { candle_core::bail!("no ids for text encoder {i}") };
                Ok(TextRow { ids, learned })
            });
            let rows = rows.collect::<Result<Vec<TextRow<'_>>>>()?;
            let states = match self.way {
                EncoderOutput::Last => model.forward(&rows, clip_skip, &adapters).await?,
                EncoderOutput::Penultimate | EncoderOutput::PenultimateOfAll => {
                    let (states, of_prompts) = model.forward_pooled(&rows, clip_skip, &adapters).await?;
                    if self.way == EncoderOutput::Penultimate && of_prompts.is_some() {
                        pooled.clear();
                    }
                    pooled.extend(of_prompts.map(|vectors| vectors.to_dtype(DType::F32)).transpose()?);
                    states
                }
            };
            // Sums of states are float32. The layers of the U-Net convert the results to their own precision.
            let states = states.to_dtype(DType::F32)?;
            hidden.push(emphasized(states, prompts.iter().map(|prompt| prompt.weights.get(i)))?);
        }
        let pooled = if pooled.is_empty() { None } else { Some(Tensor::cat(&pooled, 1)?) };
        Ok(Encoded { hidden: Tensor::cat(&hidden, 2)?, pooled })
    }
}

/// The ids of a chunk with start, end and padding, and the weight of each id.
fn framed(tokenizer: &ClipTokenizer, chunk: &[Token]) -> (Vec<u32>, Vec<f32>) {
    let ids = tokenizer.framed(chunk.iter().map(|token| token.id).collect());
    let mut weights = vec![1.0];
    weights.extend(chunk.iter().map(|token| token.weight));
    weights.resize(ids.len(), 1.0);
    (ids, weights)
}

/// Multiplies the hidden states (B, L, D) of each row that has weights other than 1 by these weights, and then restores
/// the mean of the row, as A1111 does.
fn emphasized<'a>(states: Tensor, weights: impl Iterator<Item = Option<&'a Vec<f32>>>) -> Result<Tensor> {
    let weighs = |weights: &&Vec<f32>| weights.iter().any(|weight| *weight != 1.0);
    let rows = weights.enumerate().filter_map(|(row, weights)| Some((row..row + 1, weights.filter(weighs)?)));
    by_rows(states, rows.collect(), |_, row, weights| {
        let mean = |x: &Tensor| -> Result<f64> {
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64)
        };
        let scaled = row.broadcast_mul(&Tensor::from_slice(weights, (1, weights.len(), 1), row.device())?)?;
        let restored = mean(&row)? / mean(&scaled)?;
        if restored.is_finite() { scaled.affine(restored, 0.0) } else { Ok(scaled) }
    })
}
