//! The tokenizers of a model without its networks. They show how much of a prompt the model reads.

use super::{ClipTokenizer, tokenizer::Triggers, word_tags::WordTag};
use crate::generation::PromptSyntax;

/// The tokenizers of a model's text encoders, in order.
#[derive(Debug)]
pub struct PromptTokenizers(pub Vec<ClipTokenizer>);

/// How many tokens a prompt has, and how many of them a model reads, if the model does not read all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of tokens that the model reads.
    pub used: usize,
    pub total: usize,
}

impl PromptTokenizers {
    /// Returns how much of `text` a model reads, or `None` if the model reads all of `text`. `encoder` is the index of
    /// the text encoder that reads the text: 0 for `prompt`, 1 for `prompt_2`. The last encoder reads the texts of
    /// encoders that the model does not have. `words` lists the words of textual inversions in the text, each with its
    /// number of vectors.
    pub fn cut(&self, text: &str, encoder: usize, syntax: PromptSyntax, words: &[(String, usize)]) -> Option<Cut> {
        let tokenizer = self.0.get(encoder).or(self.0.last())?;
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

    /// Whether the vocabulary of a tokenizer has the tag as one token.
    pub fn knows(&self, tag: &WordTag<'_>) -> bool {
        self.0.iter().any(|tokenizer| tokenizer.knows(&tag.folded) || tokenizer.knows(tag.spelled))
    }
}
