//! Translates the names that transformers have in their original code to diffusers' names. A layer that diffusers
//! divides is divided by rows.

mod bfl;
mod bfl2;
mod joint_blocks;
mod others;
mod refiners;
mod shapes;
mod slice;

use std::{collections::BTreeMap, fmt, ops::Range};

use serde_json::{Map, Value};

pub(super) use others::Other;
use shapes::Shapes;
pub(super) use slice::Slice;

use super::{header::Info, ldm::number};

/// A code in which transformers were first published, which gives their layers the original names.
struct Code {
    /// A tensor of every transformer of this code, and of none of the codes after it in [`CODES`].
    first: &'static str,
    /// The slices of a module, whose name has `_` in place of dots; `None` for other names. The argument is the number
    /// of the transformer's joint blocks.
    slices: fn(&str, usize) -> Option<Vec<Slice>>,
    /// Tensors that are not the weight or the bias of a layer: the name, diffusers' name, and the number of axes. GGUF
    /// files may lack axes of length 1 in front.
    alone: &'static [(&'static str, &'static str, usize)],
    /// Tensors that some files have and the network does not use.
    unused: &'static [&'static str],
    /// The networks that a file may have in addition to the transformer.
    others: &'static [Other],
    /// The keys of `transformer/config.json` that follow from the shapes of the tensors; the error names a tensor that
    /// is missing.
    config: fn(&Shapes<'_>) -> Result<Value, String>,
}

static CODES: [&Code; 4] = [&bfl2::CODE, &bfl::CODE, &joint_blocks::CODE, &refiners::CODE];

/// For each code that knows the module, the slices of the module in a transformer with this number of joint blocks. The
/// module's name has dots or, as kohya writes it, `_` in place of dots.
pub(super) fn slices(module: &str, joint_blocks: usize) -> impl Iterator<Item = Vec<Slice>> {
    let flat = module.replace('.', "_");
    CODES.iter().filter_map(move |code| (code.slices)(&flat, joint_blocks))
}

/// A tensor of diffusers that is all or a part of a tensor of the original code.
pub(super) struct TensorPart {
    pub name: String,
    pub shape: Vec<usize>,
    /// The range of the file that contains the numbers.
    pub bytes: Range<usize>,
    /// Whether the two halves of the numbers are in the opposite order.
    pub is_swapped: bool,
}

/// The prefixes of the transformer's tensors in files of several programs.
const PREFIXES: [&str; 3] = ["model.diffusion_model.", "diffusion_model.", ""];

/// The prefixes of all other networks in files with whole models.
const OTHERS: [&str; 3] = ["vae.", "text_encoders.", "first_stage_model."];

/// The original names in a file.
#[derive(Clone, Copy)]
pub(super) struct Original {
    code: &'static Code,
    /// The prefix of the transformer's tensors.
    prefix: &'static str,
    joint_blocks: usize,
}

impl Original {
    /// `None` if a file with these tensors does not have the original names.
    pub fn of<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<Original> {
        let found = |code: &&'static Code| {
            let mut prefixes = names.clone().filter_map(|name| name.strip_suffix(code.first));
            let known = prefixes.find_map(|prefix| PREFIXES.into_iter().find(|known| *known == prefix))?;
            Some((*code, known))
        };
        let (code, prefix) = CODES.iter().find_map(found)?;
        let block = |name: &'a String| number(name.strip_prefix(prefix)?.strip_prefix("joint_blocks.")?, '.');
        let joint_blocks = names.filter_map(block).map(|(block, _)| block + 1).max().unwrap_or(0);
        Some(Original { code, prefix, joint_blocks })
    }

    /// The keys of `transformer/config.json` that follow from the shapes of a file's tensors; the error names a tensor
    /// that is missing.
    pub fn config(self, tensors: &BTreeMap<String, Info>) -> Result<Map<String, Value>, String> {
        match (self.code.config)(&Shapes { tensors, prefix: self.prefix })? {
            Value::Object(config) => Ok(config),
            _ => Ok(Map::new()),
        }
    }

    /// Whether a tensor belongs to another network than the transformer.
    fn is_beside(self, name: &str) -> bool {
        !self.prefix.is_empty() && OTHERS.iter().any(|other| name.starts_with(other))
    }

    /// The parts of a tensor with an original name; none for a tensor that the transformer does not use. `None` for
    /// unknown names, and if the rows cannot be divided.
    pub fn parts(self, name: &str, info: &Info) -> Option<Vec<TensorPart>> {
        if self.is_beside(name) {
            return Some(Vec::new());
        }
        let name = name.strip_prefix(self.prefix)?;
        if self.code.unused.contains(&name) {
            return Some(Vec::new());
        }
        if let Some((_, name, axes)) = self.code.alone.iter().find(|(original, ..)| *original == name) {
            let missing = axes.saturating_sub(info.shape.len());
            let shape = std::iter::repeat_n(1, missing).chain(info.shape.iter().copied()).collect();
            let (name, bytes) = ((*name).to_owned(), info.bytes.clone());
            return Some(vec![TensorPart { name, shape, bytes, is_swapped: false }]);
        }
        let (module, kind) = name.rsplit_once('.')?;
        let kind = match kind {
            "weight" | "scale" => "weight",
            "bias" => "bias",
            _ => return None,
        };
        let part = |slice: Slice| {
            let (rows, bytes) = slice.rows(*info.shape.first()?, &info.bytes)?;
            let mut shape = info.shape.clone();
            shape[0] = rows;
            Some(TensorPart { name: format!("{}.{kind}", slice.module), shape, bytes, is_swapped: slice.is_swapped })
        };
        let slices = (self.code.slices)(&module.replace('.', "_"), self.joint_blocks)?;
        slices.into_iter().map(part).collect()
    }
}

impl fmt::Debug for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Original({}{})", self.prefix, self.code.first)
    }
}
