//! Reads files of textual inversion (Gal et al. 2022, arXiv:2208.01618): vectors that stand for a new word.

use super::{
    FileContent, LoadError,
    header::{Header, Info},
    number_type::NumberType,
    numbers::floats,
};

/// The largest number of vectors of a word: a prompt of 77 tokens has room for 75.
pub const MOST_VECTORS: usize = 75;

/// The largest absolute value in a vector. The values of CLIP's own vectors are below 1, and float16 has no larger
/// numbers than this bound. With far larger values, squares in the text encoder overflow, and the picture is lost.
pub const LARGEST_VALUE: f32 = 65536.0;

/// The longest word, in bytes.
pub const LONGEST_WORD: usize = 128;

/// A word, and its vectors for each text encoder for which the file has vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct TextualInversion {
    /// The word, if the file has it. diffusers writes the word into the file; other programs name the file after the
    /// word.
    pub word: Option<String>,
    /// The vectors for `text_encoder`.
    pub text_encoder: Option<Vectors>,
    /// The vectors for `text_encoder_2`.
    pub text_encoder_2: Option<Vectors>,
}

/// The vectors of one word for one text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// n, the number of vectors, 1 to [`MOST_VECTORS`].
    pub count: usize,
    /// The width of the encoder's embeddings.
    pub width: usize,
    /// (n, width)
    pub values: Vec<f32>,
}

impl TextualInversion {
    /// Reads a safetensors file in one of the layouts of [`EmbeddingOutline`].
    ///
    /// `widths` are the widths of the model's `text_encoder` and `text_encoder_2`; `None` for an encoder that the model
    /// does not have. A single tensor is for the encoder that has the tensor's width. `path` names the file in errors.
    ///
    /// # Errors
    /// The file is broken, or it has other tensors, other widths, too many vectors, or numbers that are not finite or
    /// beyond [`LARGEST_VALUE`].
    pub fn read(path: &str, file: &[u8], widths: [Option<usize>; 2]) -> Result<Self, LoadError> {
        let bad = bad(path);
        let header = Header::of_bytes(path, file)?;
        let outline = EmbeddingOutline::of(&header).map_err(bad)?;
        let places = outline.places(widths).map_err(bad)?;
        let mut read = Self { word: outline.word, text_encoder: None, text_encoder_2: None };
        for (part, place) in outline.parts.into_iter().zip(places) {
            let Info { dtype, bytes, .. } = &header.tensors[&part.key];
            let values = part.values(&file[bytes.clone()], *dtype).map_err(bad)?;
            let place = if place == 0 { &mut read.text_encoder } else { &mut read.text_encoder_2 };
            *place = Some(Vectors { count: part.count, width: part.width, values });
        }
        Ok(read)
    }

    /// Checks that [`TextualInversion::read`] would succeed. Reads the header, and the vectors only if the header is
    /// sound and has these widths.
    ///
    /// # Errors
    /// Those of [`TextualInversion::read`].
    pub fn check(path: &str, file: &FileContent, widths: [Option<usize>; 2]) -> Result<(), LoadError> {
        let bad = bad(path);
        let header = Header::read(path, file)?;
        let outline = EmbeddingOutline::of(&header).map_err(bad)?;
        outline.places(widths).map_err(bad)?;
        outline.parts.iter().try_for_each(|part| {
            let Info { dtype, bytes, .. } = &header.tensors[&part.key];
            let bytes = file.read(bytes.clone());
            let bytes = bytes.map_err(|source| LoadError::Read { path: path.into(), source })?;
            part.values(&bytes, *dtype).map(drop).map_err(bad)
        })
    }
}

/// Makes errors about the tensors of a file. `path` names the file in the errors.
fn bad(path: &str) -> impl Fn(Fault) -> LoadError + Copy {
    move |(key, reason)| LoadError::BadKey { path: path.into(), key, reason }
}

/// The content of the header of a textual inversion. The file has one tensor, named by the word itself or `emb_params`;
/// or it has one tensor for each of one or both text encoders of Stable Diffusion XL: `clip_l` or `text_encoders_0` for
/// the first, `clip_g` or `text_encoders_1` (the names of pivotal tuning) for the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingOutline {
    /// The word, if the file has it.
    pub word: Option<String>,
    parts: Vec<Part>,
}

/// The tensor for one text encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// The tensor's name.
    key: String,
    /// The text encoder that the tensor is for, 0 or 1; `None` means the encoder that has the tensor's width.
    encoder: Option<usize>,
    count: usize,
    width: usize,
}

/// A tensor's name, and what is wrong with it.
type Fault = (String, String);

impl EmbeddingOutline {
    /// Reads the header of the file, and nothing after it. `path` names the file in errors.
    ///
    /// # Errors
    /// The file is broken, has other tensors or too many vectors, or its numbers are not floats.
    pub fn read(path: &str, file: &FileContent) -> Result<Self, LoadError> {
        Self::of(&Header::read(path, file)?).map_err(bad(path))
    }

    /// How many vectors stand for the word, 1 to [`MOST_VECTORS`].
    pub fn vectors(&self) -> usize {
        self.parts.first().map_or(0, |part| part.count)
    }

    /// The widths of the vectors for `text_encoder` and `text_encoder_2`. The width of a single tensor that may be for
    /// either encoder is returned at the first position.
    pub fn widths(&self) -> [Option<usize>; 2] {
        let mut widths = [None; 2];
        self.parts.iter().for_each(|part| widths[part.encoder.unwrap_or(0)] = Some(part.width));
        widths
    }

    /// The text encoder for each part, in a model whose text encoders have these widths.
    ///
    /// # Errors
    /// The model lacks the text encoder of a tensor, or that encoder has another width: the error names both widths.
    fn places(&self, widths: [Option<usize>; 2]) -> Result<Vec<usize>, Fault> {
        let place = |part: &Part| {
            let fits = |encoder: &usize| widths[*encoder] == Some(part.width);
            let candidates = part.encoder.map_or(vec![0, 1], |encoder| vec![encoder]);
            let wanted: Vec<_> = candidates.iter().map(|encoder| widths[*encoder]).collect();
            let found = candidates.into_iter().find(fits);
            found.ok_or_else(|| (part.key.clone(), unfit(part.width, &wanted)))
        };
        self.parts.iter().map(place).collect()
    }

    fn of(header: &Header) -> Result<Self, Fault> {
        let keys = || header.tensors.keys().map(String::as_str);
        if let Some(key) = keys().find(|key| OUTPUTS.contains(key)) {
            let reason = "vectors for the output of a text encoder (OneTrainer's \"output embedding\") cannot be used";
            return Err((key.to_owned(), reason.to_owned()));
        }
        let strange = || ("the tensors".to_owned(), strange(header));
        let part = |(key, info): (&String, &Info)| part(key, info).map_err(|reason| (key.clone(), reason));
        let parts = header.tensors.iter().map(part).collect::<Result<Vec<Part>, Fault>>();
        if keys().count() > 0 && keys().all(|key| encoder_of(key).is_some()) {
            let mut parts = parts?;
            parts.sort_by_key(|part| part.encoder);
            match &parts[..] {
                [first, second] if first.encoder == second.encoder => return Err(strange()),
                [first, second] if first.count != second.count => {
                    let reason = format!("{} vectors beside the {} of {}", second.count, first.count, first.key);
                    return Err((second.key.clone(), reason));
                }
                [_] | [_, _] => return Ok(Self { word: None, parts }),
                _ => return Err(strange()),
            }
        }
        if keys().count() != 1 {
            return Err(strange());
        }
        let parts = parts?;
        let key = &parts[0].key;
        let named = (key != "emb_params").then(|| word(key).map_err(|reason| (key.clone(), reason)));
        Ok(Self { word: named.transpose()?, parts })
    }
}

impl Part {
    /// The part's numbers in `bytes`, (n, width).
    ///
    /// # Errors
    /// A number is not finite, or its absolute value is above [`LARGEST_VALUE`].
    fn values(&self, bytes: &[u8], dtype: NumberType) -> Result<Vec<f32>, Fault> {
        let values = floats(bytes, dtype).unwrap_or_default();
        match values.iter().find(|value| !(-LARGEST_VALUE..=LARGEST_VALUE).contains(*value)) {
            None => Ok(values),
            Some(value) => {
                let reason = format!("the number {value:e} is not between -{LARGEST_VALUE} and {LARGEST_VALUE}");
                Err((self.key.clone(), reason))
            }
        }
    }
}

/// Tensors of OneTrainer with vectors for the output of a text encoder.
const OUTPUTS: [&str; 3] = ["emb_params_out", "clip_l_out", "clip_g_out"];

/// The text encoder that a tensor is for, if its name shows it.
fn encoder_of(key: &str) -> Option<usize> {
    match key {
        "clip_l" | "text_encoders_0" => Some(0),
        "clip_g" | "text_encoders_1" => Some(1),
        _ => None,
    }
}

fn part(key: &str, info: &Info) -> Result<Part, String> {
    let (count, width) = match info.shape[..] {
        [width] => (1, width),
        [count, width] => (count, width),
        _ => return Err(format!("its shape {:?} is not (vectors, width)", info.shape)),
    };
    if !(1..=MOST_VECTORS).contains(&count) {
        return Err(format!("{count} vectors are not between 1 and {MOST_VECTORS}"));
    }
    if floats(&[], info.dtype).is_none() {
        return Err(format!("of type {}, expected a float", info.dtype));
    }
    Ok(Part { key: key.to_owned(), encoder: encoder_of(key), count, width })
}

/// The word, if a prompt can contain it.
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
    let expected = "expected one, or clip_l and clip_g, or text_encoders_0 and text_encoders_1";
    format!("{count} tensors ({}{more}), {expected}", first.join(", "))
}
