//! The `usage` of an answer: the sizes of texts and pictures in tokens, estimated without a tokenizer.

use serde::Serialize;

use crate::generation::{Artifact, Facts, Job};

/// One image token stands for a square with sides of this many pixels.
const TOKEN_SIDE: u32 = 16;

/// The sizes of a request and its pictures. They are only information: nothing is billed by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    input_tokens: u64,
    input_tokens_details: Details,
    output_tokens: u64,
    output_tokens_details: Details,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Details {
    image_tokens: u64,
    text_tokens: u64,
}

impl Usage {
    /// The usage of these pictures and of the request. If the pictures do not include the first one of the generation,
    /// as in the event of a later picture, the request is not counted again.
    pub fn of(job: &Job, pictures: &[Artifact]) -> Usage {
        let is_first = pictures.first().is_none_or(|picture| picture.index == 0);
        let request = if is_first { request(job) } else { Details { image_tokens: 0, text_tokens: 0 } };
        let drawn = pictures.iter().map(|picture| match picture.facts {
            Facts::Picture { width, height, .. } => image_tokens(width, height),
            Facts::Sound { .. } | Facts::Clip { .. } => 0,
        });
        let drawn = Details { image_tokens: drawn.sum(), text_tokens: 0 };
        let input_tokens = request.image_tokens + request.text_tokens;
        Usage {
            input_tokens,
            input_tokens_details: request,
            output_tokens: drawn.image_tokens,
            output_tokens_details: drawn,
            total_tokens: input_tokens + drawn.image_tokens,
        }
    }
}

fn request(job: &Job) -> Details {
    let negative = job.work.draw().and_then(|draw| draw.negative_prompt.as_deref()).unwrap_or_default();
    Details {
        image_tokens: job.inputs().map(|image| image_tokens(image.width, image.height)).sum(),
        text_tokens: text_tokens(job.work.prompt()) + text_tokens(negative),
    }
}

fn image_tokens(width: u32, height: u32) -> u64 {
    u64::from(width.div_ceil(TOKEN_SIDE)) * u64::from(height.div_ceil(TOKEN_SIDE))
}

/// Counts the words, digits and groups of other characters in a text: CLIP's tokenizer first splits a text into these
/// parts.
fn text_tokens(text: &str) -> u64 {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Space,
        Letter,
        Digit,
        Other,
    }
    let class = |letter: char| match letter {
        _ if letter.is_whitespace() => Class::Space,
        _ if letter.is_alphabetic() => Class::Letter,
        _ if letter.is_numeric() => Class::Digit,
        _ => Class::Other,
    };
    let (mut tokens, mut before) = (0, Class::Space);
    for now in text.chars().map(class) {
        tokens += u64::from(now != Class::Space && (now != before || now == Class::Digit));
        before = now;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_digits_and_signs_are_tokens() {
        for (text, tokens) in
            [("", 0), ("  ", 0), ("a red fox", 3), ("a fox, 1920s!", 9), ("überall 狐", 2), ("🦊🦊 --", 2)]
        {
            assert_eq!(text_tokens(text), tokens, "{text}");
        }
    }

    #[test]
    fn pictures_are_squares_of_sixteen_pixels() {
        assert_eq!((image_tokens(1024, 1024), image_tokens(17, 16)), (4096, 2));
    }
}
