//! Warnings about a valid request: the model cuts its prompt, does not know a word, or was not made for its size.

use std::sync::Arc;

use super::Catalogue;
use crate::{
    generation::{Draw, Job, ModelCard, PromptSyntax, Warning, Work},
    models::{
        prompt_tokenizers::{Cut, PromptText, PromptTokenizers},
        word_tags::WordTag,
    },
};

/// Maximum number of models whose tokenizers are in memory. A tokenizer with a large vocabulary takes some 20 MB.
pub(super) const MOST_TOKENIZERS: usize = 4;
/// Maximum number of unknown words that are listed per text, because a text may consist of unknown words alone.
const MOST_WORDS: usize = 8;

/// One text of a request.
struct Text<'a> {
    pointer: &'static str,
    text: &'a str,
    /// The text encoders that read the text; see [`PromptText::readers`].
    readers: Vec<usize>,
    is_negative: bool,
}

impl Catalogue {
    /// The warnings for a valid job. Reads files, and blocks meanwhile, only if [`Catalogue::reads_for_warnings`]
    /// returns true.
    pub fn warnings(&self, job: &Job) -> Vec<Warning> {
        let Some(card) = self.card(&job.model) else { return Vec::new() };
        let draw = match &job.work {
            Work::Draw(draw) => draw,
            Work::Sound(sound) => {
                let negative = sound.is_guided().then_some(&*sound.negative_prompt);
                return self.of_prompts(&job.model, &sound.prompt, negative, None, false);
            }
            Work::Film(_) if !card.takes_prompt => return Vec::new(),
            Work::Film(film) => {
                let negative = film.is_guided().then_some(&*film.negative_prompt);
                let (length, has_words) = (film.max_sequence_length, film.motion_adapter.is_some());
                return self.of_prompts(&job.model, &film.prompt, negative, length, has_words);
            }
        };
        let mut warnings: Vec<Warning> = of_size(draw, &card).into_iter().collect();
        if !card.takes_prompt {
            return warnings;
        }
        let texts = texts(draw, &card);
        for text in texts.iter().filter(|text| may_be_cut(text.text, draw, &card)) {
            warnings.extend(self.of_length(draw, (&job.model, &card), text));
        }
        for text in texts.iter().filter(|text| text.text.contains('<')) {
            warnings.extend(self.of_words(&job.model, draw.prompt_syntax, text));
        }
        warnings
    }

    /// Whether [`Catalogue::warnings`] may read files of the model or of textual inversions.
    pub fn reads_for_warnings(&self, job: &Job) -> bool {
        let draw = match &job.work {
            Work::Draw(draw) => draw,
            Work::Sound(_) => return true,
            Work::Film(_) => return self.card(&job.model).is_some_and(|card| card.takes_prompt),
        };
        let may_be_cut = |card: &ModelCard| texts(draw, card).iter().any(|text| may_be_cut(text.text, draw, card));
        self.card(&job.model).is_some_and(|card| may_be_cut(&card))
    }

    /// The warnings for a request with plain prompts, of which the model reads `length` tokens, if the request gives a
    /// number. `has_words` says whether the prompts may have words of textual inversions.
    fn of_prompts(
        &self,
        model: &str,
        prompt: &str,
        negative: Option<&str>,
        length: Option<u32>,
        has_words: bool,
    ) -> Vec<Warning> {
        let Some(tokenizers) = self.tokenizers(model) else { return Vec::new() };
        let (syntax, sequence_length) = (PromptSyntax::Plain, length.map(|length| length as usize));
        let mut warnings = Vec::new();
        let texts = [("/prompt", Some(prompt), false), ("/negative_prompt", negative, true)];
        for (pointer, text, is_negative) in texts {
            let Some(text) = text else { continue };
            let words = if has_words { self.adapters().vectors_of(model, syntax, text) } else { Vec::new() };
            let read =
                PromptText { text, readers: &[0], syntax, words: &words, sequence_length, is_negative, sees: false };
            warnings.extend(tokenizers.cut(&read).map(|cut| of_cut(pointer, cut, "")));
            if has_words && text.contains('<') {
                warnings.extend(self.of_words(model, syntax, &Text { pointer, text, readers: vec![0], is_negative }));
            }
        }
        warnings
    }

    fn of_length(
        &self,
        draw: &Draw,
        (model, card): (&str, &ModelCard),
        &Text { pointer, text, ref readers, is_negative }: &Text<'_>,
    ) -> Option<Warning> {
        let syntax = draw.prompt_syntax;
        let words = &self.adapters().vectors_of(model, syntax, text);
        let sequence_length = draw.max_sequence_length.map(|length| length as usize);
        let sees = card.edits_beside && draw.source.is_some();
        let text = PromptText { text, readers, syntax, words, sequence_length, is_negative, sees };
        let cut = self.tokenizers(model)?.cut(&text)?;
        let can_be_longer = card.sequence_lengths.is_some_and(|(_, most)| draw.max_sequence_length < Some(most));
        let hint = match syntax {
            _ if can_be_longer => "; with a larger max_sequence_length it reads longer prompts",
            PromptSyntax::Plain if card.weighted_prompts => "; with prompt_syntax \"weighted\" it reads longer prompts",
            PromptSyntax::Plain | PromptSyntax::Weighted => "",
        };
        Some(of_cut(pointer, cut, hint))
    }

    fn of_words(&self, model: &str, syntax: PromptSyntax, text: &Text<'_>) -> Vec<Warning> {
        let adapters = self.adapters();
        let is_known = |tag: &WordTag<'_>| self.tokenizers(model).is_some_and(|tokenizers| tokenizers.knows(tag));
        let unknown = adapters.unknown_words(model, syntax, text.text, is_known);
        let warning = |(word, near): (String, Option<String>)| {
            let hint = match near {
                Some(near) => format!("; did you mean {near}?"),
                None => "; GET /v1/embeddings lists the textual inversions".to_owned(),
            };
            let detail = format!("{} has {word}, which names no known textual inversion{hint}", field(text.pointer));
            Warning::new("unknown_word", text.pointer, detail)
        };
        unknown.into_iter().take(MOST_WORDS).map(warning).collect()
    }

    /// The tokenizers of a model, read at first use; `None` if it has none, or they cannot be read.
    fn tokenizers(&self, model: &str) -> Option<Arc<PromptTokenizers>> {
        let entry = self.entry(model)?;
        let read = || {
            let usable = entry.usable()?;
            let tokenizers = usable.family.tokenizers(&usable.folder).map_err(|error| error.to_string())?;
            tokenizers.map(Arc::new).ok_or_else(|| "the model has no tokenizers".to_owned())
        };
        self.tokenizers.get(&entry.key, "", read).ok()
    }
}

/// The warning about a text that the model does not read as a whole.
fn of_cut(pointer: &'static str, Cut { used, total }: Cut, hint: &str) -> Warning {
    let detail = format!(
        "{} has {total} tokens; this model reads {used} of them, and the last {} are cut{hint}",
        field(pointer),
        total - used
    );
    Warning::new("prompt_cut", pointer, detail)
}

/// The texts that the model reads. Without guidance it reads no negative prompt.
fn texts<'a>(draw: &'a Draw, card: &ModelCard) -> Vec<Text<'a>> {
    let further = &draw.further_prompts;
    let is_guided = card.is_guided(draw);
    let negative = draw.negative_prompt.as_deref().filter(|_| is_guided);
    let (prompt_2, prompt_3) = (further.prompt_2.as_deref(), further.prompt_3.as_deref());
    let negative_2 = further.negative_prompt_2.as_deref().filter(|_| is_guided);
    let negative_3 = further.negative_prompt_3.as_deref().filter(|_| is_guided);
    let encoders = card.text_encoders.clamp(2, 3);
    let prompts = [("/prompt", Some(draw.prompt.as_str())), ("/prompt_2", prompt_2), ("/prompt_3", prompt_3)];
    let negatives =
        [("/negative_prompt", negative), ("/negative_prompt_2", negative_2), ("/negative_prompt_3", negative_3)];
    let mut texts = of_encoders(&prompts[..encoders], false);
    texts.extend(of_encoders(&negatives[..encoders], true));
    texts
}

/// The texts for the first text encoder, the second one, and so on. An encoder without a text of its own reads the
/// first text.
fn of_encoders<'a>(fields: &[(&'static str, Option<&'a str>)], is_negative: bool) -> Vec<Text<'a>> {
    let without: Vec<usize> = (1..fields.len()).filter(|encoder| fields[*encoder].1.is_none()).collect();
    let mut texts = Vec::new();
    for (encoder, (pointer, text)) in fields.iter().copied().enumerate() {
        let Some(text) = text else { continue };
        let mut readers = vec![encoder];
        if encoder == 0 {
            readers.extend(&without);
        }
        texts.push(Text { pointer, text, readers, is_negative });
    }
    texts
}

/// Whether a text may have more tokens than the model reads; decided from the number of bytes, without a tokenizer. A
/// token of CLIP stands for at least one byte of the text. Texts with `<` always may have too many tokens, because the
/// word of a textual inversion has any number of tokens. For T5, the bound has a margin, because T5 normalizes texts
/// before it divides them: it replaces some characters with longer ones and adds spaces.
fn may_be_cut(text: &str, draw: &Draw, card: &ModelCard) -> bool {
    let most = match draw.max_sequence_length {
        Some(length) => length as usize / 8,
        None => card.context_length,
    };
    text.contains('<') || text.len() > most.saturating_sub(2)
}

fn of_size(draw: &Draw, card: &ModelCard) -> Option<Warning> {
    let (width, height) = (card.default_width, card.default_height);
    let pointer = match (draw.width != width, draw.height != height) {
        (false, false) => return None,
        (true, _) => "/width",
        (false, true) => "/height",
    };
    let detail = format!(
        "the size is {}x{}, and this model was made for {width}x{height}: it may repeat things or draw less well",
        draw.width, draw.height
    );
    Some(Warning::new("size_not_native", pointer, detail))
}

/// The name of the field that a pointer refers to. The sentences of warnings begin with it.
fn field(pointer: &str) -> &str {
    pointer.trim_start_matches('/')
}
