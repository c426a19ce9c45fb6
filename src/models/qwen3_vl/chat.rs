//! The chats of DreamLite: the texts around a prompt.

use super::{Qwen3VlConfig, SIDE, processor};
use crate::{
    models::{QwenTokenizer, qwen_tokenizer::Answer},
    weights::{LoadError, ModelFolder},
};

/// What the model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chat {
    /// A picture of what a text describes.
    Generate,
    /// A picture, changed as a text describes.
    Edit,
}

impl Chat {
    const ALL: [Chat; 2] = [Chat::Generate, Chat::Edit];

    /// The instruction that contains this prompt. A negative prompt becomes an instruction without changes.
    pub fn instruction(self, prompt: &str) -> String {
        match self {
            Chat::Generate => format!("[Generate]: {prompt}"),
            Chat::Edit => format!(
                "[Edit]: A diptych with two side-by-side images of the same scene. Compared to the right side, the \
                 left one has {prompt}"
            ),
        }
    }

    /// The number of tokens at the beginning of the chat whose states are not used: about the length of the text before
    /// the user's part in the published vocabulary, but a fixed number for every vocabulary.
    pub const fn dropped(self) -> usize {
        match self {
            Chat::Generate => 34,
            Chat::Edit => 64,
        }
    }

    /// The whole text with this instruction. A picture is one token.
    fn text(self, instruction: &str) -> String {
        let (system, picture) = match self {
            Chat::Generate => (
                "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial \
                 relationships of the objects and background:",
                "",
            ),
            Chat::Edit => (
                "Describe the key features of the input image (color, shape, size, texture, objects, background), \
                 then explain how the user's text instruction should alter or modify the image. Generate a new image \
                 that meets the user's requirements while maintaining consistency with the original input where \
                 appropriate.",
                "<|vision_start|><|image_pad|><|vision_end|>",
            ),
        };
        format!(
            "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{picture}{instruction}<|im_end|>\n\
             <|im_start|>assistant\n"
        )
    }
}

/// The tokens that stand for a picture in a chat.
const SPECIAL: [&str; 3] = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"];

/// Turns instructions into the ids of chats.
#[derive(Debug)]
pub struct Qwen3VlTokenizer {
    tokenizer: QwenTokenizer,
    image_token: u32,
    picture_tokens: usize,
}

impl Qwen3VlTokenizer {
    /// Reads the subfolders `tokenizer` and `processor` of a model with this text encoder.
    ///
    /// # Errors
    /// A file is missing or broken, the text encoder has no vector for a token, or the settings of the processor do not
    /// fit the text encoder.
    pub fn load(folder: &ModelFolder, config: &Qwen3VlConfig) -> Result<Self, LoadError> {
        let tokenizer = QwenTokenizer::load(folder, "tokenizer", Answer::Thinking)?;
        let bad = |reason: String| LoadError::Tokenizer { path: "tokenizer".into(), reason };
        let (largest, vocabulary) = (tokenizer.largest_id() as usize, config.text.vocab_size);
        if largest >= vocabulary {
            let reason = format!("the id {largest} is not in the vocabulary of {vocabulary} tokens of text_encoder");
            return Err(bad(reason));
        }
        let id = |token: &str| tokenizer.id(token).ok_or_else(|| bad(format!("the vocabulary has no {token:?}")));
        let [_, image_token, _] = [id(SPECIAL[0])?, id(SPECIAL[1])?, id(SPECIAL[2])?];
        if image_token as usize != config.image_token_id {
            let wanted = config.image_token_id;
            return Err(bad(format!("the id of {:?} is {image_token}, but text_encoder has {wanted}", SPECIAL[1])));
        }
        processor::check(folder, &config.vision)?;
        let picture_tokens = config.picture_tokens([SIDE as usize; 2]).unwrap_or(0);
        let made = Self { tokenizer, image_token, picture_tokens };
        for chat in Chat::ALL {
            // A negative prompt may be empty.
            let (tokens, dropped) = (made.tokens(chat, ""), chat.dropped());
            if tokens <= dropped {
                let reason =
                    format!("a chat without a prompt has {tokens} tokens, but the first {dropped} are not used");
                return Err(bad(reason));
            }
        }
        Ok(made)
    }

    /// The ids of the chat with this instruction, however long. In a chat about a picture, the first image token and
    /// those right after it stand for a picture of [`super::SIDE`] × [`super::SIDE`] pixels.
    pub fn encode(&self, chat: Chat, instruction: &str) -> Vec<u32> {
        let mut ids = self.tokenizer.ids(&chat.text(instruction));
        // The picture stands before the instruction, which could contain the text of an image token too.
        if chat == Chat::Edit
            && let Some(at) = ids.iter().position(|id| *id == self.image_token)
        {
            ids.splice(at..=at, std::iter::repeat_n(self.image_token, self.picture_tokens));
        }
        ids
    }

    /// The number of tokens of the chat with this instruction whose states are used, without the tokens of a picture.
    pub fn kept(&self, chat: Chat, instruction: &str) -> usize {
        self.tokens(chat, instruction).saturating_sub(chat.dropped())
    }

    /// The number of tokens of [`Qwen3VlTokenizer::kept`] that do not come from the prompt, in the longest chat.
    pub fn around(&self) -> usize {
        Chat::ALL.map(|chat| self.kept(chat, &chat.instruction(""))).into_iter().max().unwrap_or(0)
    }

    /// The number of tokens of the chat with this instruction, without the tokens of a picture.
    fn tokens(&self, chat: Chat, instruction: &str) -> usize {
        let pictures = if chat == Chat::Edit { self.picture_tokens } else { 0 };
        self.encode(chat, instruction).len().saturating_sub(pictures)
    }
}
