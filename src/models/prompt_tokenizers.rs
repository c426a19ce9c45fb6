//! The tokenizers of a model without its networks. They show how much of a prompt the model reads.

use super::{
    ClipTokenizer, GemmaTokenizer, QwenTokenizer, RobertaTokenizer, T5Tokenizer,
    qwen3_vl::{Chat, Qwen3VlTokenizer},
    tokenizer::Triggers,
    word_tags::WordTag,
};
use crate::generation::PromptSyntax;

/// The tokenizers of a model's text encoders, in order.
#[derive(Debug)]
pub struct PromptTokenizers(pub Vec<PromptTokenizer>);

/// The tokenizer of one text encoder.
#[derive(Debug)]
pub enum PromptTokenizer {
    Clip(ClipTokenizer),
    T5(T5Tokenizer),
    Qwen(QwenTokenizer),
    Gemma(GemmaTokenizer),
    /// The model reads at most `negative_length` tokens of a negative prompt, with start and end.
    Roberta {
        tokenizer: RobertaTokenizer,
        negative_length: usize,
    },
    /// The model reads `length` tokens of a chat, after its fixed beginning and in addition to the tokens of a picture.
    Qwen3Vl {
        tokenizer: Qwen3VlTokenizer,
        length: usize,
    },
}

/// A text of a request.
#[derive(Clone, Copy, Debug)]
pub struct PromptText<'a> {
    pub text: &'a str,
    /// The text encoders that read the text, counted from 0. If the model has fewer encoders, its last encoder reads
    /// the text.
    pub readers: &'a [usize],
    pub syntax: PromptSyntax,
    /// The words of textual inversions in the text, each with its number of vectors.
    pub words: &'a [(String, usize)],
    /// The number of tokens that T5 or Qwen3 reads, if the request gives a number.
    pub sequence_length: Option<usize>,
    /// Whether the text says what the picture does not show.
    pub is_negative: bool,
    /// Whether the text encoder sees a picture with the text.
    pub sees: bool,
}

/// How many tokens a prompt has, and how many of them a model reads, if the model does not read all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of tokens that the model reads.
    pub used: usize,
    pub total: usize,
}

impl PromptTokenizers {
    /// Returns how much of a text the model reads, or `None` if one of its encoders reads all of the text. Otherwise,
    /// the encoder that reads most tokens counts.
    pub fn cut(&self, text: &PromptText<'_>) -> Option<Cut> {
        let last = self.0.len().checked_sub(1)?;
        let cuts = text.readers.iter().map(|reader| self.0[*reader.min(&last)].cut(text));
        cuts.collect::<Option<Vec<Cut>>>()?.into_iter().max_by_key(|cut| cut.used)
    }

    /// Whether the vocabulary of a tokenizer has the tag as one token.
    pub fn knows(&self, tag: &WordTag<'_>) -> bool {
        self.0.iter().any(|tokenizer| match tokenizer {
            PromptTokenizer::Clip(clip) => clip.knows(&tag.folded) || clip.knows(tag.spelled),
            PromptTokenizer::T5(t5) => t5.knows(tag.spelled),
            PromptTokenizer::Qwen(_)
            | PromptTokenizer::Qwen3Vl { .. }
            | PromptTokenizer::Roberta { .. }
            | PromptTokenizer::Gemma(_) => false,
        })
    }
}

impl PromptTokenizer {
    fn cut(&self, prompt: &PromptText<'_>) -> Option<Cut> {
        let PromptText { text, syntax, words, sequence_length, is_negative, sees, .. } = *prompt;
        let (used, total) = match self {
            // T5 reads the words of textual inversions as ordinary text.
            PromptTokenizer::T5(t5) => {
                let (total, end) = (t5.words(text).len(), 1);
                (total.min(sequence_length.unwrap_or_else(|| t5.length()).saturating_sub(end)), total)
            }
            // The text of the chat around the prompt counts too.
            PromptTokenizer::Qwen(qwen) => {
                let total = qwen.encode(text).len();
                (total.min(sequence_length.unwrap_or(total)), total)
            }
            PromptTokenizer::Roberta { tokenizer, negative_length } => {
                let (total, ends) = (tokenizer.words(text).len(), 2);
                let most = if is_negative { *negative_length } else { usize::MAX };
                (total.min(most.min(tokenizer.longest()).saturating_sub(ends)), total)
            }
            PromptTokenizer::Gemma(gemma) => {
                let total = gemma.words(text).len();
                (total.min(gemma.longest() - gemma.starts()), total)
            }
            PromptTokenizer::Qwen3Vl { tokenizer, length } => {
                let chat = if sees { Chat::Edit } else { Chat::Generate };
                let total = match is_negative {
                    true => tokenizer.kept(chat, text),
                    false => tokenizer.kept(chat, &chat.instruction(text)),
                };
                (total.min(*length), total)
            }
            PromptTokenizer::Clip(clip) => {
                let ids = words.iter().map(|(trigger, vectors)| (trigger.as_str(), vec![0; *vectors]));
                let triggers = Triggers::new(ids.collect());
                match syntax {
                    PromptSyntax::Plain => {
                        let total = clip.words(text, &triggers).len();
                        (total.min(clip.content()), total)
                    }
                    PromptSyntax::Weighted => {
                        let segments = clip.segments(text, &triggers);
                        let total = segments.iter().map(Vec::len).sum();
                        (clip.chunks(&segments).iter().map(Vec::len).sum(), total)
                    }
                }
            }
        };
        (used < total).then_some(Cut { used, total })
    }
}
