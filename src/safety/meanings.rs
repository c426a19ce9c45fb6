//! Compares the meaning of prompts for the embedded model with the meaning of refused words and phrases, by the vectors
//! of the text encoder of this model.

use super::block_list::words;
use crate::{
    device::Device,
    models::{
        ClipTextModel, ClipTokenizer,
        adapters::RowAdapters,
        clip_text::{ClipTextConfig, TextRow},
        pause::ToEnd,
        tokenizer::Triggers,
    },
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// The text encoder of the embedded model with the vectors of the refused words and phrases.
#[derive(Debug)]
pub(super) struct Meanings {
    tokenizer: ClipTokenizer,
    encoder: ClipTextModel,
    /// Vectors of length 1.
    refused: Vec<Vec<f32>>,
    /// The cosine from which two texts count as similar.
    least: f32,
}

/// Groups of up to this many words of a prompt are compared.
const LONGEST_GROUP: usize = 3;
/// Maximum number of words of a prompt that are compared. The text encoder that draws reads about 30 tokens of a prompt
/// (of a weighted prompt, a few times this number).
const MOST_WORDS: usize = 96;
/// Tokens of a group or of an entry, with start and end; longer texts are cut.
const TOKENS: usize = 14;
/// Texts that are encoded together; this bounds the memory.
const ROWS: usize = 64;

impl Meanings {
    /// Maximum number of entries. The number is bounded because each group of words is compared with each entry.
    pub const MOST_ENTRIES: usize = 2000;

    /// Loads the text encoder of a folder, and encodes the entries.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn load(folder: &ModelFolder, entries: &[String], least: f32) -> Result<Meanings, LoadError> {
        let path = "text_encoder/config.json";
        let config = ClipTextConfig::read(path, &folder.json(path)?)?;
        let tokenizer = ClipTokenizer::load(folder, "tokenizer", TOKENS.min(config.max_position_embeddings))?;
        let weights = Weights::open(folder, "text_encoder", "model", &Device::host(), as_stored)?;
        let encoder = ClipTextModel::new(&config, &weights);
        weights.finish()?;
        let mut meanings = Meanings { tokenizer, encoder, refused: Vec::new(), least };
        meanings.refused = meanings.vectors(entries).map_err(LoadError::from)?;
        Ok(meanings)
    }

    /// Whether the meaning of up to three successive words of the text is similar to the meaning of an entry. Blocks
    /// while the network computes.
    ///
    /// # Errors
    /// An operation of the device failed.
    pub fn has_similar_in(&self, text: &str) -> Result<bool, candle_core::Error> {
        let words: Vec<String> = words(text).into_iter().take(MOST_WORDS).collect();
        let groups = (1..=LONGEST_GROUP).flat_map(|length| words.windows(length).map(|group| group.join(" ")));
        let groups: Vec<String> = groups.collect();
        for group in self.vectors(&groups)? {
            let cosine = |entry: &Vec<f32>| group.iter().zip(entry).map(|(a, b)| a * b).sum::<f32>();
            if self.refused.iter().any(|entry| cosine(entry) >= self.least) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The vectors of texts, scaled to length 1.
    fn vectors(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, candle_core::Error> {
        let none = Triggers::default();
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(ROWS) {
            let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.tokenizer.encode(text, &none)).collect();
            let rows: Vec<TextRow<'_>> = ids.iter().map(|ids| TextRow { ids, learned: &[] }).collect();
            let pooled = self.encoder.pooled(&rows, RowAdapters::NONE).to_end()?.to_vec2::<f32>()?;
            vectors.extend(pooled.into_iter().map(|vector| {
                let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                vector.into_iter().map(|value| value / length).collect::<Vec<f32>>()
            }));
        }
        Ok(vectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::embedded_folder;

    #[test]
    fn synonyms_are_similar_and_other_words_are_not() {
        let entries = ["gun", "naked person", "dog"].map(str::to_owned);
        let meanings = Meanings::load(&embedded_folder(), &entries, 0.75).unwrap();
        let finds = |text: &str| meanings.has_similar_in(text).unwrap();
        for text in ["a gun", "a Firearm on a table", "two pistols, or a pistol", "some nude woman", "a puppy"] {
            assert!(finds(text), "{text}");
        }
        for text in ["", "a red fox", "a cat on a chair", "a green rocket", "the sun and the moon", "a slice of pizza"]
        {
            assert!(!finds(text), "{text}");
        }
        assert!(finds(&format!("{} dog", "tree ".repeat(90))));
        assert!(!finds(&"tree ".repeat(3000)), "a long prompt is compared in bounded time");
    }
}
