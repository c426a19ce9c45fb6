//! Which learned words a prompt has, and whether a model can use them.

use std::collections::BTreeMap;

use super::{Adapters, File};
use crate::{
    generation::{Generation, ModelCard, PromptSyntax, weighted},
    models::word_tags::{folded, word_tags},
    pipelines::embedded,
    weights::textual_inversion::EmbeddingOutline,
};

/// The most different learned words of one prompt: each takes memory as long as the generation runs, and a prompt has room
/// for far fewer.
const MOST_WORDS: usize = 32;

/// The names of words by what their tags are compared as (see [`folded`]).
#[derive(Debug, Default)]
pub(super) struct WordIndex(BTreeMap<String, Vec<String>>);

impl WordIndex {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a String>) -> WordIndex {
        let mut index: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names {
            index.entry(folded(&format!("<{name}>"))).or_default().push(name.clone());
        }
        WordIndex(index)
    }
}

impl Adapters {
    /// The words that a text has, by name, for a model of this name: `<NAME>` in any letter case stands for the file
    /// `NAME.safetensors`. Of files whose names differ in nothing else, the one that is spelled so goes first.
    fn words(&self, model: &str, syntax: PromptSyntax, text: &str) -> BTreeMap<&str, &File> {
        let mut found = BTreeMap::new();
        for span in spans(syntax, text) {
            for tag in word_tags(&span) {
                let names = self.word_index.0.get(&tag.folded).into_iter().flatten();
                let files = names.filter_map(|name| self.embeddings.files.get_key_value(name));
                let mut usable = files.filter(|(_, file)| !file.is_embedded() || model == embedded::NAME).peekable();
                let first = usable.peek().copied();
                let spelled = usable.find(|(name, _)| tag.spelled == format!("<{name}>"));
                found.extend(spelled.or(first).map(|(name, file)| (name.as_str(), file)));
            }
        }
        found
    }

    /// The words of all prompts of a generation.
    pub(super) fn words_of(&self, model: &str, generation: &Generation) -> BTreeMap<&str, &File> {
        generation.texts().flat_map(|text| self.words(model, generation.prompt_syntax, text)).collect()
    }

    /// Whether the model can use the learned words that a prompt has, by the headers of their files. The errors are codes
    /// and what is wrong.
    pub fn check_words(&self, card: &ModelCard, syntax: PromptSyntax, text: &str) -> Vec<(&'static str, String)> {
        let words = self.words(&card.name, syntax, text);
        if words.len() > MOST_WORDS {
            let detail = format!("must have at most {MOST_WORDS} different learned words, not {}", words.len());
            return vec![("out_of_range", detail)];
        }
        let check = |(name, file): (&str, &File)| {
            let error = self.check_word(name, file, card.text_widths).err()?;
            Some((
                "unsupported_for_model",
                format!("has the learned word <{name}>, which cannot be used here: {error}"),
            ))
        };
        words.into_iter().filter_map(check).collect()
    }

    /// Whether a word of this file is for a model of such text encoders, by the header of the file.
    pub(in crate::pipelines) fn check_word(
        &self,
        name: &str,
        file: &File,
        widths: [Option<usize>; 2],
    ) -> Result<(), String> {
        if let Some(fault) = file.fault() {
            return Err(fault.to_owned());
        }
        self.bounded(file)?;
        let content = file.open(name).map_err(|error| error.to_string())?;
        EmbeddingOutline::read(name, &content).map_err(|error| error.to_string())?.fits(widths)
    }
}

/// The texts that are encoded each on its own.
fn spans(syntax: PromptSyntax, text: &str) -> Vec<String> {
    match syntax {
        PromptSyntax::Plain => vec![text.to_owned()],
        PromptSyntax::Weighted => weighted(text).into_iter().flatten().map(|span| span.text).collect(),
    }
}
