//! Translates the names of layers in Stability's transformer to diffusers' names.

use serde_json::{Value, json};

use super::slice::{Slice, thirds, whole, within};
use crate::weights::ldm::number;

/// The slices of a module, whose name has dots or, as kohya writes it, `_` in place of dots. `None` for other names.
pub(super) fn slices(module: &str) -> Option<Vec<Slice>> {
    let flat = module.replace('.', "_");
    if let Some(outer) = outer(&flat) {
        return Some(whole(outer));
    }
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
        ("attn_ln_q", false) => whole("attn.norm_q"),
        ("attn_ln_k", false) => whole("attn.norm_k"),
        ("attn_ln_q", true) => whole("attn.norm_added_q"),
        ("attn_ln_k", true) => whole("attn.norm_added_k"),
        ("attn2_ln_q", false) => whole("attn2.norm_q"),
        ("attn2_ln_k", false) => whole("attn2.norm_k"),
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

/// The name in diffusers of a module outside the blocks.
fn outer(flat: &str) -> Option<&'static str> {
    Some(match flat {
        "x_embedder_proj" => "pos_embed.proj",
        "context_embedder" => "context_embedder",
        "t_embedder_mlp_0" => "time_text_embed.timestep_embedder.linear_1",
        "t_embedder_mlp_2" => "time_text_embed.timestep_embedder.linear_2",
        "y_embedder_mlp_0" => "time_text_embed.text_embedder.linear_1",
        "y_embedder_mlp_2" => "time_text_embed.text_embedder.linear_2",
        _ => return None,
    })
}

/// `transformer/config.json` of a transformer with `blocks` blocks and tensors of these shapes, whose names have no
/// prefix; the error names a tensor that is missing.
pub(in crate::weights) fn config(shape: &dyn Fn(&str) -> Option<Vec<usize>>, blocks: usize) -> Result<Value, String> {
    let axis = |name: &str, axis: usize| -> Result<usize, String> {
        let shape = shape(name).ok_or_else(|| format!("it has no {name}"))?;
        shape.get(axis).copied().ok_or_else(|| format!("{name} has the shape {shape:?}"))
    };
    let (width, patch) = (axis("x_embedder.proj.weight", 0)?, axis("x_embedder.proj.weight", 2)?);
    let positions = axis(POSITIONS, 1)?.isqrt();
    let norm = "joint_blocks.0.x_block.attn.ln_q.weight";
    // The heads of all published models have 64 channels.
    let head = if shape(norm).is_some() { axis(norm, 0)? } else { 64 }.clamp(1, width.max(1));
    let second = |block: &usize| shape(&format!("joint_blocks.{block}.x_block.attn2.qkv.weight")).is_some();
    Ok(json!({
        "patch_size": patch,
        "in_channels": axis("x_embedder.proj.weight", 1)?,
        "out_channels": axis("final_layer.linear.weight", 0)? / patch.saturating_pow(2).max(1),
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": width / head,
        "joint_attention_dim": axis("context_embedder.weight", 1)?,
        "caption_projection_dim": width,
        "pooled_projection_dim": axis("y_embedder.mlp.0.weight", 1)?,
        "pos_embed_max_size": positions,
        // All published models were made for 128 by 128 latents.
        "sample_size": positions.saturating_mul(patch).min(128),
        "dual_attention_layers": (0..blocks).filter(second).collect::<Vec<usize>>(),
        "qk_norm": shape(norm).map(|_| "rms_norm"),
    }))
}

/// The embeddings of positions, and their name in diffusers.
pub(super) const POSITIONS: &str = "pos_embed";
pub(super) const DIFFUSERS_POSITIONS: &str = "pos_embed.pos_embed";
