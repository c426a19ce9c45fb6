//! Finds the words of textual inversions in prompts, and checks whether a model can use them.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Adapters, File, Unfit, unfit};
use crate::{
    catalogue::embedded,
    generation::{ModelCard, PromptSyntax, Work, weighted},
    models::word_tags::{WordTag, folded, word_tags},
    weights::textual_inversion::{EmbeddingOutline, TextualInversion},
};

/// Maximum number of different textual inversions in a prompt, because each takes memory while the generation runs.
const MOST_WORDS: usize = 32;

/// The file of each word. Words are compared in lower case (see [`folded`]), so files whose names differ only in letter
/// case have the same word; only one of them is used.
#[derive(Debug, Default)]
pub(super) struct WordIndex {
    /// The name of the file that is used for each word. The key is the word with its brackets, folded.
    files: BTreeMap<String, String>,
    /// Files that are not used because another file has the same word. The value is the name of that file.
    hidden: BTreeMap<String, String>,
}

impl WordIndex {
    /// Indexes the files. Among files with the same word, files on disk take precedence over embedded ones, then files
    /// with a sound header over others, then the first by name.
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

    /// Why the file is hidden by another one; `None` if it is not.
    pub(super) fn fault(&self, name: &str) -> Option<String> {
        let used = self.hidden.get(name)?;
        Some(format!(
            "the word <{name}> stands for the file {used:?}, because letter case does not count in words; rename one \
             of the two files"
        ))
    }

    /// Logs the faults of [`WordIndex::fault`] that are not in `before`.
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

/// Whether a file with this header is a textual inversion.
fn is_word(name: &str, file: &File) -> bool {
    file.fault().is_none() && file.open(name).is_ok_and(|content| EmbeddingOutline::read(name, &content).is_ok())
}

impl Adapters {
    /// The textual inversions, by file name, whose words are in a text and that the model `model` may use. `<NAME>` in
    /// any letter case is the word of `NAME.safetensors`.
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

    /// The words of textual inversions in a text, with their numbers of vectors. Words whose files cannot be read are
    /// left out.
    pub(in crate::catalogue) fn vectors_of(
        &self,
        model: &str,
        syntax: PromptSyntax,
        text: &str,
    ) -> Vec<(String, usize)> {
        let vectors = |(name, file): (&str, &File)| {
            let outline = EmbeddingOutline::read(name, &file.open(name).ok()?).ok()?;
            Some((format!("<{name}>"), outline.vectors()))
        };
        self.words(model, syntax, text).into_iter().filter_map(vectors).collect()
    }

    /// The tags (`<…>`) in a text that look like words of textual inversions, but are no words of the model `model`.
    /// Each tag is returned as the text spells it, with the most similar word that the model has. `is_token` says
    /// whether a tag is a token of the model's own vocabulary; such tags are left out.
    pub(in crate::catalogue) fn unknown_words(
        &self,
        model: &str,
        syntax: PromptSyntax,
        text: &str,
        is_token: impl Fn(&WordTag<'_>) -> bool,
    ) -> Vec<(String, Option<String>)> {
        let known: Vec<&String> = self.usable_words(model).collect();
        let mut unknown = Vec::new();
        for span in spans(syntax, text) {
            for tag in word_tags(&span) {
                let is_new = unknown.iter().all(|(spelled, _)| spelled != tag.spelled);
                if is_new && looks_learned(&tag.folded) && !known.contains(&&tag.folded) && !is_token(&tag) {
                    unknown.push((tag.spelled.to_owned(), nearest(&tag.folded, &known)));
                }
            }
        }
        unknown
    }

    /// The words of the textual inversions that the model `model` may use, with their brackets.
    fn usable_words(&self, model: &str) -> impl Iterator<Item = &String> {
        let usable = move |name: &String| {
            self.embeddings.files.get(name).is_some_and(|file| !file.is_embedded() || model == embedded::NAME)
        };
        self.word_index.files.iter().filter(move |(_, name)| usable(name)).map(|(word, _)| word)
    }

    /// The textual inversions, by file name, whose words are in the prompts of a generation.
    pub(super) fn words_of(&self, model: &str, work: &Work) -> BTreeMap<&str, &File> {
        let (syntax, texts) = work.texts_with_words();
        texts.into_iter().flat_map(|text| self.words(model, syntax, text)).collect()
    }

    /// Checks whether the model can use the textual inversions whose words are in a prompt; reads their files. The
    /// errors are codes and reasons.
    pub fn check_words(&self, card: &ModelCard, syntax: PromptSyntax, text: &str) -> Vec<(&'static str, String)> {
        let words = self.words(&card.name, syntax, text);
        if words.len() > MOST_WORDS {
            let detail = format!("must have at most {MOST_WORDS} different textual inversions, not {}", words.len());
            return vec![("out_of_range", detail)];
        }
        let check = |(name, file): (&str, &File)| {
            let (code, error) = self.check_word(name, file, card.text_widths).err()?;
            Some((code, format!("has the textual inversion <{name}>, which cannot be used here: {error}")))
        };
        words.into_iter().filter_map(check).collect()
    }

    /// Why no model can use this textual inversion, judged by its header and by the names of other files.
    pub(in crate::catalogue) fn embedding_fault(&self, name: &str, file: &File) -> Option<String> {
        file.fault().map(str::to_owned).or_else(|| self.word_index.fault(name))
    }

    /// Checks whether a model with text encoders of these widths can use the file's word. The error is a code and a
    /// reason.
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

/// Whether a tag has the form of a textual inversion's word, unlike tags of other syntaxes, such as `<lora:ink:1>`.
fn looks_learned(folded: &str) -> bool {
    let name = folded.trim_start_matches('<').trim_end_matches('>');
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ' | '/');
    (2..=64).contains(&name.len())
        && name.starts_with(char::is_alphanumeric)
        && name.chars().any(char::is_alphabetic)
        && name.chars().all(is_part)
}

/// The word of `known` that is most similar to `tag`; `None` if no word is similar enough.
fn nearest(tag: &str, known: &[&String]) -> Option<String> {
    let near = known.iter().map(|word| (strsim::osa_distance(tag, word), *word)).min()?;
    (near.0 <= (tag.chars().count() - 2) / 3).then(|| near.1.clone())
}

/// The parts of a prompt that are tokenized separately.
fn spans(syntax: PromptSyntax, text: &str) -> Vec<String> {
    match syntax {
        PromptSyntax::Plain => vec![text.to_owned()],
        PromptSyntax::Weighted => weighted(text).into_iter().flatten().map(|span| span.text).collect(),
    }
}
