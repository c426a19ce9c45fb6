//! Textual inversion (Gal et al. 2022, arXiv:2208.01618): vectors that stand for a new word, as files have them.

use super::{
    LoadError,
    header::{Header, Info},
    tensors::floats,
};

/// The most vectors of a word: what a prompt of 77 tokens has room for.
pub const MOST_VECTORS: usize = 75;

/// The longest word, in bytes.
pub const LONGEST_WORD: usize = 128;

/// A word, and what stands for it in each text encoder that knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct TextualInversion {
    /// The word, where the file tells it: diffusers writes it, the others name the file by it.
    pub word: Option<String>,
    /// For `text_encoder`.
    pub text_encoder: Option<Vectors>,
    /// For `text_encoder_2`.
    pub text_encoder_2: Option<Vectors>,
}

/// Embeddings of one text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// n, 1 to [`MOST_VECTORS`]
    pub count: usize,
    /// The width of the encoder's embeddings.
    pub width: usize,
    /// (n, width)
    pub values: Vec<f32>,
}

impl TextualInversion {
    /// Reads a safetensors file that has one tensor, by the word itself or by `emb_params`, or one for each encoder of
    /// Stable Diffusion XL, `clip_l` and `clip_g`.
    ///
    /// `widths` are those of the model's `text_encoder` and `text_encoder_2`, as far as it has them; a single tensor is for
    /// the one that it fits. `path` is what errors call the file.
    ///
    /// # Errors
    /// The file is broken or has other tensors, of another width, of too many vectors, or of numbers that are not finite.
    pub fn read(path: &str, file: &[u8], widths: [Option<usize>; 2]) -> Result<Self, LoadError> {
        let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
        let header = Header::read(path, file)?;
        let vectors = |(key, info): (&String, &Info)| vectors(info, file).map_err(|reason| bad(key, reason));
        let [first, second] = widths;
        let mut read = Self { word: None, text_encoder: None, text_encoder_2: None };
        let mut tensors = header.tensors.iter();
        if header.tensors.keys().all(|key| key == "clip_l" || key == "clip_g") {
            for (key, info) in tensors {
                let (place, width) = match key.as_str() {
                    "clip_l" => (&mut read.text_encoder, first),
                    _ => (&mut read.text_encoder_2, second),
                };
                let made = vectors((key, info))?;
                if width != Some(made.width) {
                    return Err(bad(key, unfit(made.width, &[width])));
                }
                *place = Some(made);
            }
        } else {
            let only = tensors.next().filter(|_| header.tensors.len() == 1);
            let only = only.ok_or_else(|| bad("the tensors", strange(&header)))?;
            let made = vectors(only)?;
            let place = match Some(made.width) {
                width if width == first => &mut read.text_encoder,
                width if width == second => &mut read.text_encoder_2,
                _ => return Err(bad(only.0, unfit(made.width, &widths))),
            };
            *place = Some(made);
            if only.0 != "emb_params" {
                read.word = Some(word(only.0).map_err(|reason| bad(only.0, reason))?);
            }
        }
        match (&read.text_encoder, &read.text_encoder_2) {
            (None, None) => Err(bad("the tensors", strange(&header))),
            (Some(a), Some(b)) if a.count != b.count => {
                Err(bad("clip_g", format!("{} vectors beside the {} of clip_l", b.count, a.count)))
            }
            _ => Ok(read),
        }
    }
}

fn vectors(info: &Info, file: &[u8]) -> Result<Vectors, String> {
    let (count, width) = match info.shape[..] {
        [width] => (1, width),
        [count, width] => (count, width),
        _ => return Err(format!("its shape {:?} is not (vectors, width)", info.shape)),
    };
    if !(1..=MOST_VECTORS).contains(&count) {
        return Err(format!("{count} vectors are not between 1 and {MOST_VECTORS}"));
    }
    let values = floats(&file[info.bytes.clone()], info.dtype)
        .ok_or_else(|| format!("of type {:?}, expected a float", info.dtype))?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err("has numbers that are not finite".into());
    }
    Ok(Vectors { count, width, values })
}

/// What a prompt can have as a word.
fn word(key: &str) -> Result<String, String> {
    if key.len() > LONGEST_WORD {
        return Err(format!("the word is longer than {LONGEST_WORD} bytes"));
    }
    if key.trim().is_empty() || key.chars().any(char::is_control) {
        return Err("the word is blank or has control characters".into());
    }
    Ok(key.to_owned())
}

fn unfit(width: usize, widths: &[Option<usize>]) -> String {
    let widths: Vec<String> = widths.iter().flatten().map(usize::to_string).collect();
    match widths.is_empty() {
        true => format!("vectors of {width} for a text encoder that the model does not have"),
        false => format!("vectors of {width}, where the text encoder has {}", widths.join(" or ")),
    }
}

fn strange(header: &Header) -> String {
    let count = header.tensors.len();
    let first: Vec<&str> = header.tensors.keys().take(4).map(String::as_str).collect();
    let more = if count > first.len() { " …" } else { "" };
    let expected = "expected one, or clip_l and clip_g";
    format!("{count} tensors ({}{more}), {expected}", first.join(", "))
}
