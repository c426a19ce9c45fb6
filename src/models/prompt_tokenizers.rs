//! The tokenizers of a model without its networks, to find out how much of a prompt the model reads.

use super::{ClipTokenizer, tokenizer::Triggers, word_tags::WordTag};
use crate::generation::PromptSyntax;

/// The tokenizers of a model's text encoders, in order.
#[derive(Debug)]
pub struct PromptTokenizers(pub Vec<ClipTokenizer>);

/// A prompt that is longer than what a model reads, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tokens that the model reads.
    pub used: usize,
    pub total: usize,
}

impl PromptTokenizers {
    /// Whether a text of `prompt` or `negative_prompt` (`is_second` false), or of their second forms, is too long.
    /// `words` are the words of textual inversions in the text, with their numbers of vectors.
    pub fn cut(&self, text: &str, is_second: bool, syntax: PromptSyntax, words: &[(String, usize)]) -> Option<Cut> {
        let tokenizer = if is_second { self.0.last() } else { self.0.first() }?;
        let ids = words.iter().map(|(trigger, vectors)| (trigger.as_str(), vec![0; *vectors]));
        let triggers = Triggers::new(ids.collect());
        let (used, total) = match syntax {
            PromptSyntax::Plain => {
                let total = tokenizer.words(text, &triggers).len();
                (total.min(tokenizer.content()), total)
            }
            PromptSyntax::Weighted => {
                let segments = tokenizer.segments(text, &triggers);
                let total = segments.iter().map(Vec::len).sum();
                (tokenizer.chunks(&segments).iter().map(Vec::len).sum(), total)
            }
        };
        (used < total).then_some(Cut { used, total })
    }

    /// Whether the vocabulary has the tag as one token.
    pub fn knows(&self, tag: &WordTag<'_>) -> bool {
        self.0.iter().any(|tokenizer| tokenizer.knows(&tag.folded) || tokenizer.knows(tag.spelled))
    }
}
