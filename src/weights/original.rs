//! Translates the names that transformers have in their original code to diffusers' names. A layer that diffusers
//! divides is divided by rows.

mod bfl;
mod joint_blocks;
mod slice;

use std::ops::Range;

pub(super) use joint_blocks::config as joint_config;
pub(super) use slice::Slice;

use super::{header::Info, ldm::number};

/// The slices of a module, whose name has dots or, as kohya writes it, `_` in place of dots. `None` for other names.
pub(super) fn slices(module: &str) -> Option<Vec<Slice>> {
    bfl::slices(module).or_else(|| joint_blocks::slices(module))
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

/// The prefixes of other networks in files with whole models.
const OTHERS: [&str; 3] = ["vae.", "text_encoders.", "first_stage_model."];

/// The first layers of the transformers of Black Forest Labs and of Stability.
const FIRST: [&str; 2] = ["double_blocks.0.img_attn.qkv.weight", "joint_blocks.0.x_block.attn.qkv.weight"];

/// The original names in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Original {
    /// The prefix of the transformer's tensors.
    pub prefix: &'static str,
    /// The number of joint blocks: of the blocks of Stability's transformer, otherwise 0.
    pub joint_blocks: usize,
}

impl Original {
    /// `None` if a file with these tensors does not have the original names.
    pub fn of<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<Original> {
        let found = |name: &'a String| FIRST.iter().find_map(|first| name.strip_suffix(first));
        let prefix = names.clone().filter_map(found).next()?;
        let prefix = PREFIXES.into_iter().find(|known| *known == prefix)?;
        let block = |name: &'a String| number(name.strip_prefix(prefix)?.strip_prefix("joint_blocks.")?, '.');
        let joint_blocks = names.filter_map(block).map(|(block, _)| block + 1).max().unwrap_or(0);
        Some(Original { prefix, joint_blocks })
    }

    /// Whether a module is the modulation of the prompt in the last joint block, whose halves have the opposite order
    /// in diffusers.
    fn is_last_modulation(self, module: &str) -> bool {
        let last = self.joint_blocks.checked_sub(1);
        last.is_some_and(|last| module == format!("joint_blocks.{last}.context_block.adaLN_modulation.1"))
    }
}

/// The parts of a tensor with an original name; none for a tensor of another network. `None` for unknown names, and if
/// the rows cannot be divided.
pub(super) fn tensor_parts(original: Original, name: &str, info: &Info) -> Option<Vec<TensorPart>> {
    let prefix = original.prefix;
    if !prefix.is_empty() && OTHERS.iter().any(|other| name.starts_with(other)) {
        return Some(Vec::new());
    }
    let name = name.strip_prefix(prefix)?;
    if name == joint_blocks::POSITIONS && original.joint_blocks > 0 {
        let (name, shape, bytes) =
            (joint_blocks::DIFFUSERS_POSITIONS.to_owned(), info.shape.clone(), info.bytes.clone());
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
        let is_swapped = slice.is_swapped || original.is_last_modulation(module);
        Some(TensorPart { name: format!("{}.{kind}", slice.module), shape, bytes, is_swapped })
    };
    slices(module)?.into_iter().map(part).collect()
}
