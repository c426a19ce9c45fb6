//! Translates the names of layers in Stability's transformer to diffusers' names.

use super::{
    bfl::{Slice, thirds, whole, within},
    ldm::number,
};

/// The slices of a module, whose name has dots or, as kohya writes it, `_` in place of dots. `None` for other names.
pub(super) fn slices(module: &str) -> Option<Vec<Slice>> {
    let flat = module.replace('.', "_");
    let (block, rest) = number(flat.strip_prefix("joint_blocks_")?, '_')?;
    let (is_text, module) = match rest.split_once("_block_")? {
        ("x", module) => (false, module),
        ("context", module) => (true, module),
        _ => return None,
    };
    let slices = match (module, is_text) {
        ("attn_qkv", false) => thirds(["attn.to_q", "attn.to_k", "attn.to_v"]),
        ("attn_qkv", true) => thirds(["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
        ("attn2_qkv", false) => thirds(["attn2.to_q", "attn2.to_k", "attn2.to_v"]),
        ("attn_proj", false) => whole("attn.to_out.0"),
        ("attn_proj", true) => whole("attn.to_add_out"),
        ("attn2_proj", false) => whole("attn2.to_out.0"),
        ("mlp_fc1", false) => whole("ff.net.0.proj"),
        ("mlp_fc1", true) => whole("ff_context.net.0.proj"),
        ("mlp_fc2", false) => whole("ff.net.2"),
        ("mlp_fc2", true) => whole("ff_context.net.2"),
        ("adaLN_modulation_1", false) => whole("norm1.linear"),
        ("adaLN_modulation_1", true) => whole("norm1_context.linear"),
        _ => return None,
    };
    Some(within(&format!("transformer_blocks.{block}."), slices))
}
