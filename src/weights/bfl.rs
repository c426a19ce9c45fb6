//! Translates the names of Black Forest Labs' transformer to diffusers' names.

use std::ops::Range;

use super::{header::Info, joint_blocks, ldm::number};

/// A module of diffusers that is all or a part of a module of the original code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The module's name in diffusers.
    pub module: String,
    /// The rows of the original weight, counted in parts of equal length.
    pub parts: Range<usize>,
    /// The number of parts of the original weight.
    pub of: usize,
    /// Whether the two halves of the rows are in the opposite order.
    pub is_swapped: bool,
}

impl Slice {
    /// The byte range of this slice's rows, and their number, of a tensor with `rows` rows in `bytes`. `None` if the
    /// rows cannot be divided.
    pub fn rows(&self, rows: usize, bytes: &Range<usize>) -> Option<(usize, Range<usize>)> {
        if rows == 0 || !rows.is_multiple_of(self.of) || !bytes.len().is_multiple_of(rows) {
            return None;
        }
        let (part, line) = (rows / self.of, bytes.len() / rows);
        let at = |parts: usize| bytes.start + parts * part * line;
        Some((self.parts.len() * part, at(self.parts.start)..at(self.parts.end)))
    }
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
    slices(module).or_else(|| joint_blocks::slices(module))?.into_iter().map(part).collect()
}

/// The slices of a module, whose name has dots or, as kohya writes it, `_` in place of dots. `None` for other names.
pub(super) fn slices(module: &str) -> Option<Vec<Slice>> {
    let flat = module.replace('.', "_");
    if let Some(rest) = flat.strip_prefix("double_blocks_") {
        let (block, rest) = number(rest, '_')?;
        return double(rest).map(|slices| within(&format!("transformer_blocks.{block}."), slices));
    }
    if let Some(rest) = flat.strip_prefix("single_blocks_") {
        let (block, rest) = number(rest, '_')?;
        return single(rest).map(|slices| within(&format!("single_transformer_blocks.{block}."), slices));
    }
    let embedder = |name: &str, layer: &str| {
        let layer = match layer {
            "in_layer" => "linear_1",
            "out_layer" => "linear_2",
            _ => return None,
        };
        Some(whole(&format!("time_text_embed.{name}.{layer}")))
    };
    match flat.as_str() {
        "img_in" => Some(whole("x_embedder")),
        "txt_in" => Some(whole("context_embedder")),
        "final_layer_linear" => Some(whole("proj_out")),
        // The original code has shift and scale in this order, diffusers has scale and shift.
        "final_layer_adaLN_modulation_1" => {
            let slice = |slice| Slice { is_swapped: true, ..slice };
            Some(whole("norm_out.linear").into_iter().map(slice).collect())
        }
        _ => {
            [("time_in_", "timestep_embedder"), ("guidance_in_", "guidance_embedder"), ("vector_in_", "text_embedder")]
                .into_iter()
                .find_map(|(start, name)| embedder(name, flat.strip_prefix(start)?))
        }
    }
}

/// The slices of a module of a block with two streams.
fn double(module: &str) -> Option<Vec<Slice>> {
    let (stream, module) = module.split_once('_')?;
    let is_text = match stream {
        "img" => false,
        "txt" => true,
        _ => return None,
    };
    let of = |picture: &str, text: &str| Some(whole(if is_text { text } else { picture }));
    match module {
        "attn_qkv" if is_text => Some(thirds(["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"])),
        "attn_qkv" => Some(thirds(["attn.to_q", "attn.to_k", "attn.to_v"])),
        "attn_proj" => of("attn.to_out.0", "attn.to_add_out"),
        "attn_norm_query_norm" => of("attn.norm_q", "attn.norm_added_q"),
        "attn_norm_key_norm" => of("attn.norm_k", "attn.norm_added_k"),
        "mlp_0" => of("ff.net.0.proj", "ff_context.net.0.proj"),
        "mlp_2" => of("ff.net.2", "ff_context.net.2"),
        "mod_lin" => of("norm1.linear", "norm1_context.linear"),
        _ => None,
    }
}

/// The slices of a module of a block with one stream.
fn single(module: &str) -> Option<Vec<Slice>> {
    match module {
        // Queries, keys and values, and then a feed-forward layer that is four times as wide.
        "linear1" => Some(vec![
            slice("attn.to_q", 0..1, 7),
            slice("attn.to_k", 1..2, 7),
            slice("attn.to_v", 2..3, 7),
            slice("proj_mlp", 3..7, 7),
        ]),
        "linear2" => Some(whole("proj_out")),
        "modulation_lin" => Some(whole("norm.linear")),
        "norm_query_norm" => Some(whole("attn.norm_q")),
        "norm_key_norm" => Some(whole("attn.norm_k")),
        _ => None,
    }
}

fn slice(module: &str, parts: Range<usize>, of: usize) -> Slice {
    Slice { module: module.to_owned(), parts, of, is_swapped: false }
}

pub(super) fn whole(module: &str) -> Vec<Slice> {
    vec![slice(module, 0..1, 1)]
}

pub(super) fn thirds(modules: [&str; 3]) -> Vec<Slice> {
    (0..3).map(|i| slice(modules[i], i..i + 1, 3)).collect()
}

pub(super) fn within(block: &str, slices: Vec<Slice>) -> Vec<Slice> {
    slices.into_iter().map(|slice| Slice { module: format!("{block}{}", slice.module), ..slice }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_layers_are_divided() {
        let names = |module: &str| slices(module).unwrap().into_iter().map(|slice| slice.module).collect::<Vec<_>>();
        assert_eq!(names("img_in"), ["x_embedder"]);
        assert_eq!(names("time_in.out_layer"), ["time_text_embed.timestep_embedder.linear_2"]);
        assert_eq!(names("double_blocks_12_txt_mlp_0"), ["transformer_blocks.12.ff_context.net.0.proj"]);
        assert_eq!(names("double_blocks.0.img_attn.qkv")[1], "transformer_blocks.0.attn.to_k");
        let linear1 = slices("single_blocks.3.linear1").unwrap();
        let rows: Vec<_> = linear1.iter().map(|slice| slice.rows(14, &(100..240)).unwrap()).collect();
        assert_eq!(rows, [(2, 100..120), (2, 120..140), (2, 140..160), (8, 160..240)]);
        assert_eq!(linear1[0].rows(15, &(0..150)), None);
        assert_eq!(linear1[0].rows(0, &(0..0)), None);
        for unknown in
            ["double_blocks.x.img_attn.qkv", "double_blocks.1.vid_mlp.0", "single_blocks.1.linear3", "time_in"]
        {
            assert_eq!(slices(unknown), None, "{unknown}");
        }
    }
}
