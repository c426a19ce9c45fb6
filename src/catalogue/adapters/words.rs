//! Which learned words a prompt has, and whether a model can use them.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Adapters, File, Unfit, unfit};
use crate::{
    catalogue::embedded,
    generation::{Draw, ModelCard, PromptSyntax, weighted},
    models::word_tags::{folded, word_tags},
    weights::textual_inversion::{EmbeddingOutline, TextualInversion},
};

/// The most different learned words of one prompt: each takes memory as long as the generation runs, and a prompt has room
/// for far fewer.
const MOST_WORDS: usize = 32;

/// Which file each word stands for. Words are compared in lower case (see [`folded`]), so that files whose names differ in
/// letter case alone have one word, and one of them is used.
#[derive(Debug, Default)]
pub(super) struct WordIndex {
    /// By the folded tag, the name of the file that is used.
    files: BTreeMap<String, String>,
    /// By the name of a file whose word stands for another file, that file's name.
    hidden: BTreeMap<String, String>,
}

impl WordIndex {
    /// Of files with one word, own ones go before embedded ones, then those whose heads are sound before others, then the
    /// first by name.
    pub(super) fn of(files: &BTreeMap<String, File>) -> WordIndex {
        let mut by_word: BTreeMap<String, Vec<(&String, &File)>> = BTreeMap::new();
        for (name, file) in files {
            by_word.entry(folded(&format!("<{name}>"))).or_default().push((name, file));
        }
        let mut index = WordIndex::default();
        for (word, mut files) in by_word {
            if files.len() > 1 {
                files.sort_by_cached_key(|(name, file)| (file.is_embedded(), Reverse(is_word(name, file))));
            }
            let mut names = files.into_iter().map(|(name, _)| name.clone());
            let first = names.next().expect("every word is of a file");
            index.hidden.extend(names.map(|name| (name, first.clone())));
            index.files.insert(word, first);
        }
        index
    }

    /// Why the file of this name is not used although others of its kind may be.
    pub(super) fn fault(&self, name: &str) -> Option<String> {
        let used = self.hidden.get(name)?;
        Some(format!(
            "its word <{name}> stands for the file {used:?}, since letter case does not count; rename one of the two"
        ))
    }

    /// Logs what [`WordIndex::fault`] says, where it did not say so before.
    pub(super) fn warn(&self, before: Option<&WordIndex>) {
        for (name, used) in &self.hidden {
            if before.and_then(|before| before.hidden.get(name)) != Some(used)
                && let Some(fault) = self.fault(name)
            {
                tracing::warn!(name, "embeddings.dir: cannot be used: {fault}");
            }
        }
    }
}

/// Whether the head of a file is that of a textual inversion.
fn is_word(name: &str, file: &File) -> bool {
    file.fault().is_none() && file.open(name).is_ok_and(|content| EmbeddingOutline::read(name, &content).is_ok())
}

impl Adapters {
    /// The words that a text has, by name, for a model of this name: `<NAME>` in any letter case stands for the file
    /// `NAME.safetensors`.
    fn words(&self, model: &str, syntax: PromptSyntax, text: &str) -> BTreeMap<&str, &File> {
        let mut found = BTreeMap::new();
        for span in spans(syntax, text) {
            for tag in word_tags(&span) {
                let name = self.word_index.files.get(&tag.folded);
                let file = name.and_then(|name| self.embeddings.files.get_key_value(name));
                let usable = file.filter(|(_, file)| !file.is_embedded() || model == embedded::NAME);
                found.extend(usable.map(|(name, file)| (name.as_str(), file)));
            }
        }
        found
    }

    /// The words of all prompts of a generation.
    pub(super) fn words_of(&self, model: &str, draw: &Draw) -> BTreeMap<&str, &File> {
        draw.texts().flat_map(|text| self.words(model, draw.prompt_syntax, text)).collect()
    }

    /// Whether the model can use the learned words that a prompt has: their files are read. The errors are codes and what is
    /// wrong.
    pub fn check_words(&self, card: &ModelCard, syntax: PromptSyntax, text: &str) -> Vec<(&'static str, String)> {
        let words = self.words(&card.name, syntax, text);
        if words.len() > MOST_WORDS {
            let detail = format!("must have at most {MOST_WORDS} different learned words, not {}", words.len());
            return vec![("out_of_range", detail)];
        }
        let check = |(name, file): (&str, &File)| {
            let (code, error) = self.check_word(name, file, card.text_widths).err()?;
            Some((code, format!("has the learned word <{name}>, which cannot be used here: {error}")))
        };
        words.into_iter().filter_map(check).collect()
    }

    /// Why no model can use the textual inversion of this name, by the head of its file and the names of the others.
    pub(in crate::catalogue) fn embedding_fault(&self, name: &str, file: &File) -> Option<String> {
        file.fault().map(str::to_owned).or_else(|| self.word_index.fault(name))
    }

    /// Whether a word of this file is for a model of such text encoders; the error is a code and what is wrong.
    pub(in crate::catalogue) fn check_word(
        &self,
        name: &str,
        file: &File,
        widths: [Option<usize>; 2],
    ) -> Result<(), Unfit> {
        let unsupported = |reason| ("unsupported_for_model", reason);
        if let Some(fault) = file.fault() {
            return Err(unsupported(fault.to_owned()));
        }
        self.bounded(file).map_err(unsupported)?;
        file.open(name).and_then(|content| TextualInversion::check(name, &content, widths)).map_err(unfit)
    }
}

/// The texts that are encoded each on its own.
fn spans(syntax: PromptSyntax, text: &str) -> Vec<String> {
    match syntax {
        PromptSyntax::Plain => vec![text.to_owned()],
        PromptSyntax::Weighted => weighted(text).into_iter().flatten().map(|span| span.text).collect(),
    }
}
