//! The text encoders: CLIP gives the vector of the whole prompt, T5 gives the states of its tokens.

use candle_core::{DType, Result, Tensor};

use super::sizes::Sizes;
use crate::{
    models::{
        ClipTextModel, ClipTokenizer, T5Tokenizer,
        adapters::RowAdapters,
        clip_text::TextRow,
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
        t5_encoder::T5EncoderModel,
        text_encoders::Tokens,
        tokenizer::Triggers,
    },
    pipelines::TextEmbedding,
    weights::{LoadError, ModelFolder},
};

/// The tokenizers of a folder.
#[derive(Debug)]
pub(super) struct Tokenizers {
    pub clip: ClipTokenizer,
    pub t5: T5Tokenizer,
}

impl Tokenizers {
    /// Reads both tokenizers.
    ///
    /// # Errors
    /// A file is missing or broken, or a tokenizer has ids that its text encoder does not have.
    pub fn read(folder: &ModelFolder, sizes: &Sizes) -> std::result::Result<Tokenizers, LoadError> {
        let tokenizers = Tokenizers {
            clip: ClipTokenizer::load(folder, "tokenizer", sizes.clip.max_position_embeddings)?,
            t5: T5Tokenizer::load(folder, "tokenizer_2", sizes.sequence_length())?,
        };
        for (left, largest, right, vocabulary) in [
            (
                "the largest id of tokenizer",
                tokenizers.clip.largest_id(),
                "text_encoder vocab_size",
                sizes.clip.vocab_size,
            ),
            (
                "the largest id of tokenizer_2",
                tokenizers.t5.largest_id(),
                "text_encoder_2 vocab_size",
                sizes.t5.vocab_size,
            ),
        ] {
            if largest as usize >= vocabulary {
                let (left_value, right_value) = (largest.to_string(), vocabulary.to_string());
                return Err(LoadError::Disagree { left, left_value, right, right_value });
            }
        }
        Ok(tokenizers)
    }

    /// The tokenizers in the order of the text encoders.
    pub fn of_prompts(self) -> PromptTokenizers {
        PromptTokenizers(vec![PromptTokenizer::Clip(self.clip), PromptTokenizer::T5(self.t5)])
    }
}

/// The text encoders, in memory.
#[derive(Debug)]
pub(super) struct Text {
    pub tokenizers: Tokenizers,
    pub clip: ClipTextModel,
    pub t5: T5EncoderModel,
}

impl Text {
    /// The ids for each encoder. `prompts` has the text for CLIP, then the text for T5. T5 reads `length` tokens.
    pub fn tokenize(&self, prompts: &[&str], length: usize) -> Tokens {
        let first = prompts.first().copied().unwrap_or_default();
        let second = prompts.get(1).copied().unwrap_or(first);
        let Tokenizers { clip, t5 } = &self.tokenizers;
        let ids = vec![clip.encode(first, &Triggers::new(Vec::new())), t5.encode(second, length).ids];
        Tokens { ids, ..Tokens::default() }
    }

    /// One embedding per prompt. Adapters can change CLIP.
    pub async fn encode(&self, prompts: &[Tokens]) -> Result<Vec<TextEmbedding>> {
        let ids = |encoder: usize| {
            let of = |prompt: &'_ Tokens| prompt.ids.get(encoder).cloned();
            let Some(ids) = prompts.iter().map(of).collect::<Option<Vec<Vec<u32>>>>() else {
                candle_core::bail!("no ids for text encoder {encoder}")
            };
            Ok(ids)
        };
        let (of_clip, of_t5) = (ids(0)?, ids(1)?);
        let adapters = RowAdapters::of(prompts.iter().map(|prompt| &prompt.adapters));
        let rows: Vec<TextRow<'_>> = of_clip.iter().map(|ids| TextRow { ids, learned: &[] }).collect();
        let pooled = self.clip.pooled(&rows, &adapters).await?.to_dtype(DType::F32)?;
        let mut hidden: Vec<Option<Tensor>> = vec![None; prompts.len()];
        // Prompts of the same length are encoded together.
        while let Some(length) = hidden.iter().position(Option::is_none).map(|first| of_t5[first].len()) {
            let group: Vec<usize> = (0..prompts.len()).filter(|row| of_t5[*row].len() == length).collect();
            let rows: Vec<&[u32]> = group.iter().map(|row| of_t5[*row].as_slice()).collect();
            let states = self.t5.forward(&rows, None).await?.to_dtype(DType::F32)?;
            for (i, row) in group.into_iter().enumerate() {
                // A copy, because a view in the cache of embeddings would keep the whole batch in memory.
                hidden[row] = Some(states.get(i)?.force_contiguous()?);
            }
        }
        let embedding = |(row, hidden): (usize, Tensor)| {
            Ok(TextEmbedding { hidden, pooled: Some(pooled.get(row)?.force_contiguous()?) })
        };
        hidden.into_iter().flatten().enumerate().map(embedding).collect()
    }
}
