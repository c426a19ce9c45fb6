//! The text encoders: two CLIP encoders, whose states are concatenated, and after them the states of a T5 encoder.

use candle_core::{DType, Result, Tensor};

use crate::{
    models::{
        ClipTokenizer, T5Tokenizer,
        clip_text::ClipTextConfig,
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
        t5_encoder::{T5Config, T5EncoderModel},
        text_encoders::{Encoded, LearnedTokens, TextEncoders, Tokens},
    },
    pipelines::TextEmbedding,
    weights::{LoadError, ModelFolder},
};

/// The tokenizers of a folder.
#[derive(Debug)]
pub(super) struct Tokenizers {
    pub clip: [ClipTokenizer; 2],
    pub t5: Option<T5Tokenizer>,
}

impl Tokenizers {
    /// Reads the tokenizers for text encoders with these configurations.
    ///
    /// # Errors
    /// A file is missing or broken, or a tokenizer has ids that its text encoder does not have.
    pub fn read(
        folder: &ModelFolder,
        clip_configs: &[ClipTextConfig; 2],
        t5_config: Option<&T5Config>,
    ) -> std::result::Result<Tokenizers, LoadError> {
        let clip = |part, i: usize| ClipTokenizer::load(folder, part, clip_configs[i].max_position_embeddings);
        let usual = super::SEQUENCE_LENGTHS.0 as usize;
        let t5 = t5_config.map(|_| T5Tokenizer::load(folder, "tokenizer_3", usual)).transpose()?;
        let tokenizers = Tokenizers { clip: [clip("tokenizer", 0)?, clip("tokenizer_2", 1)?], t5 };
        let [first, second] = [0, 1].map(|i| tokenizers.clip[i].length());
        if first != second {
            return Err(LoadError::Disagree {
                left: "the prompt length of tokenizer_2",
                left_value: second.to_string(),
                right: "the prompt length of tokenizer",
                right_value: first.to_string(),
            });
        }
        let of_clip = tokenizers.clip.iter().zip(clip_configs).map(|(of, text)| (of.largest_id(), text.vocab_size));
        let of_t5 = tokenizers.t5.iter().zip(t5_config).map(|(of, text)| (of.largest_id(), text.vocab_size));
        const KEYS: [(&str, &str); 3] = [
            ("the largest id of tokenizer", "text_encoder vocab_size"),
            ("the largest id of tokenizer_2", "text_encoder_2 vocab_size"),
            ("the largest id of tokenizer_3", "text_encoder_3 vocab_size"),
        ];
        for ((largest, vocabulary), (left, right)) in of_clip.chain(of_t5).zip(KEYS) {
            if largest as usize >= vocabulary {
                return Err(LoadError::Disagree {
                    left,
                    left_value: largest.to_string(),
                    right,
                    right_value: vocabulary.to_string(),
                });
            }
        }
        Ok(tokenizers)
    }

    /// The tokenizers in the order of the text encoders.
    pub fn of_prompts(self) -> PromptTokenizers {
        let t5 = self.t5.map(PromptTokenizer::T5);
        PromptTokenizers(self.clip.into_iter().map(PromptTokenizer::Clip).chain(t5).collect())
    }
}

/// The text encoders, in memory.
#[derive(Debug)]
pub(super) struct Text {
    pub clip: TextEncoders,
    pub t5: Option<(T5Tokenizer, T5EncoderModel)>,
    /// Width of the states. The states of CLIP are padded with zeros to this width.
    pub width: usize,
}

impl Text {
    /// The ids for each encoder. The third list has `length` ids; without T5, they only give the length.
    pub fn tokenize(&self, prompts: &[&str], length: usize, learned: &LearnedTokens) -> Tokens {
        let mut tokens = self.clip.tokenize(prompts, learned);
        tokens.ids.push(self.third(prompts.last().copied().unwrap_or_default(), length));
        tokens
    }

    fn third(&self, prompt: &str, length: usize) -> Vec<u32> {
        self.t5.as_ref().map_or_else(|| vec![0; length], |(tokenizer, _)| tokenizer.encode(prompt, length).ids)
    }

    /// One embedding per prompt: the states of CLIP and T5, one after the other, and the vectors of both CLIP encoders.
    /// `clip_skip` applies to the CLIP encoders. Without T5, its states are zeros, as in diffusers.
    pub async fn encode(&self, prompts: &[Tokens], clip_skip: usize) -> Result<Vec<TextEmbedding>> {
        let Encoded { hidden, pooled } = self.clip.encode(prompts, clip_skip).await?;
        let Some(pooled) = pooled else { candle_core::bail!("the CLIP text encoders have no projection") };
        let (_, tokens, width) = hidden.dims3()?;
        let of_clip = hidden.pad_with_zeros(2, 0, self.width.saturating_sub(width))?;
        let mut embeddings = Vec::with_capacity(prompts.len());
        for (row, prompt) in prompts.iter().enumerate() {
            let ids = prompt.ids.last().map(Vec::as_slice).unwrap_or_default();
            let of_t5 = match &self.t5 {
                Some((_, model)) => model.forward(&[ids], None).await?.get(0)?.to_dtype(DType::F32)?,
                None => Tensor::zeros((ids.len(), self.width), DType::F32, hidden.device())?,
            };
            let of_clip = of_clip.get(row)?.narrow(0, 0, tokens)?;
            let pooled = Some(pooled.get(row)?.force_contiguous()?);
            embeddings.push(TextEmbedding { hidden: Tensor::cat(&[of_clip, of_t5], 0)?, pooled });
        }
        Ok(embeddings)
    }
}
