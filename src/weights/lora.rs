//! Reads files of low-rank adapters (LoRA: Hu et al. 2021, arXiv:2106.09685) in all usual formats.
//!
//! | written by | a key |
//! |---|---|
//! | kohya's trainer | `lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`, `.lora_up.weight`, `.alpha` |
//! | kohya's trainer for SDXL | `lora_unet_input_blocks_4_1_proj_in.…`, `lora_te1_text_model_encoder_…`, `lora_te2_…` |
//! | kohya's trainer for FLUX.1 | `lora_unet_double_blocks_0_img_attn_qkv.…`, one product for several layers |
//! | kohya's trainer for SD3 | `lora_unet_joint_blocks_0_x_block_attn_qkv.…` |
//! | trainers that use the original names | `diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight`, `.lora_B.weight` |
//! | PEFT and diffusers | `unet.down_blocks.0.….to_q.lora_A.weight`, `.lora_B.weight` |
//! | earlier versions of diffusers | `….to_q.lora.down.weight`, `….processor.to_q_lora.up.weight` |
//! | the same, in text encoders | `….q_proj.lora_linear_layer.up.weight` |

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
    numbers::{check_numbers, floats},
};

/// The largest rank of an adapter.
pub const LARGEST_RANK: usize = 1024;

/// Bytes that are read at a time if numbers are only checked: a multiple of the size of every type.
const PORTION: usize = 4 << 20;

/// The changes that an adapter makes to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The changes by site. A site is a module of the model, named by its component and its path in that component,
    /// like the model's own tensors without `.weight`:
    /// `unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`,
    /// `text_encoder.text_model.encoder.layers.0.self_attn.q_proj` (always with `text_model`, as in published weights).
    pub sites: BTreeMap<String, LowRank>,
}

/// The change of one module: `scale · up · down` is added to the module's weight and has the shape of the weight.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// The rank r.
    pub rank: usize,
    /// Number of inputs of `down`.
    pub inputs: usize,
    /// Number of outputs of `up`.
    pub outputs: usize,
    /// (kh, kw) of the convolution `down`, which has the module's stride and padding; (1, 1) for a linear layer.
    pub kernel: (usize, usize),
    /// (r, in, kh, kw)
    pub down: Vec<f32>,
    /// (out, r)
    pub up: Vec<f32>,
    /// α / r, or α / √r for rank-stabilized adapters; 1 if the file has no α.
    pub scale: f32,
}

impl Lora {
    /// Reads a safetensors file for a model with these modules. `path` names the file in errors.
    ///
    /// # Errors
    /// Those of [`Lora::check`], or weights that are not finite or too large.
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

    /// Divides each change of a module that consists of several layers into one change for each layer. `outputs`
    /// returns the number of outputs of each layer of a site, or `None` for a site with a single layer. The sites of
    /// the layers are `SITE.0`, `SITE.1` and so on.
    pub fn divided(self, outputs: impl Fn(&str) -> Option<Vec<usize>>) -> Self {
        let layers = |(site, change): (String, LowRank)| match outputs(&site) {
            None => vec![(site, change)],
            Some(outputs) => {
                let mut first = 0;
                let layer = |(i, outputs): (usize, usize)| {
                    let up = change.up[first * change.rank..][..outputs * change.rank].to_vec();
                    first += outputs;
                    (format!("{site}.{i}"), LowRank { outputs, up, ..change.clone() })
                };
                outputs.into_iter().enumerate().map(layer).collect()
            }
        };
        Self { sites: self.sites.into_iter().flat_map(layers).collect() }
    }

    /// Checks that the file fits a model with these modules. Only its header and its α are read.
    ///
    /// # Errors
    /// The file is broken or has no tensors; or it has unknown keys (other kinds of adapters, biases), modules that the
    /// model does not have, incomplete pairs of matrices, shapes that do not fit the model's modules, types other than
    /// floats (integers for α are allowed), PEFT settings in its metadata that cannot be applied, a rank above
    /// [`LARGEST_RANK`], or an α that is not finite or too large. The error names all of these.
    pub fn check(path: &str, file: &FileContent, modules: &Modules) -> Result<(), LoadError> {
        let header = Header::read(path, file)?;
        let mut mismatch = LoraMismatch::of(path);
        let Checked { pairs, notes } = Checked::check(&header, modules, &mut mismatch);
        for (site, pair) in pairs {
            let alpha = pair.alpha.as_ref().map(|alpha| file.read(alpha.bytes.clone())).transpose();
            let alpha = alpha.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
            if let Err(what) = pair.scale(alpha.as_deref(), notes.scale(site, pair.rank)) {
                mismatch.unfit.push((site.to_owned(), what));
            }
        }
        mismatch.none_or(())
    }

    /// Checks that all weights of the file are finite and small enough, for any model; [`Lora::check`] checks α. At
    /// most a few MiB of the file are in memory at a time, whatever its size.
    ///
    /// # Errors
    /// A tensor has numbers that are not finite or too large, and the error names this tensor; or the file is broken.
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

/// The contents of a file's header for one model.
struct Checked<'a> {
    /// The pairs of matrices, by site.
    pairs: BTreeMap<&'a str, Pair>,
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
        for (site, pair) in &pairs {
            if let Err(what) = notes.check_rank(site, pair.rank) {
                mismatch.unfit.push(((*site).to_owned(), what));
            }
        }
        Self { pairs, notes }
    }
}
