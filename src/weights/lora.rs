//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): files of them in any of the usual spellings → one form.
//!
//! | written by | a key |
//! |---|---|
//! | kohya's trainer | `lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`, `.lora_up.weight`, `.alpha` |
//! | kohya's trainer for SDXL | `lora_unet_input_blocks_4_1_proj_in.…`, `lora_te1_text_model_encoder_…`, `lora_te2_…` |
//! | PEFT and diffusers | `unet.down_blocks.0.….to_q.lora_A.weight`, `.lora_B.weight` |
//! | earlier versions of diffusers | `….to_q.lora.down.weight`, `….q_proj.lora_linear_layer.up.weight`, `….processor.to_q_lora.up.weight` |

mod entry;
mod key;
mod mismatch;
mod modules;
mod notes;
mod pair;
mod pattern;

use std::collections::BTreeMap;

pub use mismatch::LoraMismatch;
pub use modules::Modules;

use self::{entry::Entries, notes::Notes, pair::Pair};
use super::{
    FileContent, LoadError,
    header::Header,
    tensors::{check_numbers, floats},
};

/// The largest rank of an adapter.
pub const LARGEST_RANK: usize = 1024;

/// Bytes that are read at a time where numbers are only looked at: whole numbers of every type.
const PORTION: usize = 4 << 20;

/// What an adapter adds to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// By component and module, as the model's own tensors are named, without `.weight`:
    /// `unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`,
    /// `text_encoder.text_model.encoder.layers.0.self_attn.q_proj` (always with `text_model`, as in published weights).
    pub sites: BTreeMap<String, LowRank>,
}

/// What it adds to one module: `scale · up · down`, of the shape of the module's weight.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// r
    pub rank: usize,
    /// What `down` reads.
    pub inputs: usize,
    /// What `up` writes.
    pub outputs: usize,
    /// (kh, kw) of the convolution `down`, with the stride and the padding of the module's own; (1, 1) for a linear layer.
    pub kernel: (usize, usize),
    /// (r, in, kh, kw)
    pub down: Vec<f32>,
    /// (out, r)
    pub up: Vec<f32>,
    /// α / r, or 1 where the file does not tell α.
    pub scale: f32,
}

impl Lora {
    /// Reads a safetensors file for a model that has these modules; `path` is what errors call the file.
    ///
    /// # Errors
    /// What [`Lora::check`] refuses, or weights that are not finite or too large.
    pub fn read(path: &str, file: &[u8], modules: &Modules) -> Result<Self, LoadError> {
        let header = Header::of_bytes(path, file)?;
        let mut mismatch = LoraMismatch::of(path);
        let Checked { pairs, notes } = Checked::check(&header, modules, &mut mismatch);
        let mut sites = BTreeMap::new();
        for (site, pair) in pairs {
            let noted = notes.scale(site, pair.rank);
            match pair.read(file, noted) {
                Ok(pair) => drop(sites.insert(site.to_owned(), pair)),
                Err(what) => mismatch.unfit.push((site.to_owned(), what)),
            }
        }
        mismatch.none_or(Self { sites })
    }

    /// Whether the file fits a model that has these modules, by its header and its α alone.
    ///
    /// # Errors
    /// The file is broken, or has keys that say nothing to us (other kinds of adapters, biases), modules that the model has
    /// not, halves of pairs, shapes of another model's modules, types other than floats (integers for α), notes that cannot
    /// be followed, a rank above [`LARGEST_RANK`], or an α that is not finite or too large, all of which are named; or no
    /// tensors.
    pub fn check(path: &str, file: &FileContent, modules: &Modules) -> Result<(), LoadError> {
        let header = Header::read(path, file)?;
        let mut mismatch = LoraMismatch::of(path);
        let Checked { pairs, notes } = Checked::check(&header, modules, &mut mismatch);
        for (site, pair) in pairs {
            let alpha = pair.alpha.map(|alpha| file.read(alpha.bytes.clone())).transpose();
            let alpha = alpha.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
            if let Err(what) = pair.scale(alpha.as_deref(), notes.scale(site, pair.rank)) {
                mismatch.unfit.push((site.to_owned(), what));
            }
        }
        mismatch.none_or(())
    }

    /// Whether all weights of the file are finite and small enough, for any model; α is for [`Lora::check`]. Whatever the size of
    /// the file and of its tensors, a few MiB of it are in memory at a time.
    ///
    /// # Errors
    /// One is not, which is named; or the file is broken.
    pub fn check_numbers(path: &str, file: &FileContent) -> Result<(), LoadError> {
        let header = Header::read(path, file)?;
        let weights = header.tensors.iter().filter(|(key, _)| !key.ends_with("alpha"));
        let portions = weights.flat_map(|(key, info)| {
            let starts = info.bytes.clone().step_by(PORTION);
            starts.map(move |start| (key, info.dtype, start..info.bytes.end.min(start + PORTION)))
        });
        portions.into_iter().try_for_each(|(key, dtype, portion)| {
            let bytes = file.read(portion).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
            let bad = |reason| LoadError::BadKey { path: path.to_owned(), key: key.clone(), reason };
            floats(&bytes, dtype).map_or(Ok(()), |values| check_numbers(&values)).map_err(bad)
        })
    }
}

/// What a file's header says of a model.
struct Checked<'a> {
    /// By site.
    pairs: BTreeMap<&'a str, Pair<'a>>,
    notes: Notes,
}

impl<'a> Checked<'a> {
    fn check(header: &'a Header, modules: &'a Modules, mismatch: &mut LoraMismatch) -> Self {
        let notes = Notes::read(&header.metadata).unwrap_or_else(|fault| {
            mismatch.unfit.push(fault);
            Notes::default()
        });
        if header.tensors.is_empty() {
            mismatch.unfit.push(("the file".to_owned(), "has no tensors".to_owned()));
        }
        let pairs = Entries::sort(header, modules, mismatch).pair(modules, mismatch);
        Self { pairs, notes }
    }
}
