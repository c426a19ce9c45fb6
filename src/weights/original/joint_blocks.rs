//! Translates the names of layers in Stability's transformer to diffusers' names.

use serde_json::{Value, json};

use super::{
    Code, Other,
    shapes::Shapes,
    slice::{Slice, swapped, thirds, whole, within},
};
use crate::weights::ldm::number;

pub(super) const CODE: Code = Code {
    first: "joint_blocks.0.x_block.attn.qkv.weight",
    slices,
    alone: &[("pos_embed", "pos_embed.pos_embed", 3)],
    unused: &[],
    others: &[
        Other::text_encoder("text_encoder", "text_encoders.clip_l.transformer."),
        Other::text_encoder("text_encoder_2", "text_encoders.clip_g.transformer."),
        Other::text_encoder("text_encoder_3", "text_encoders.t5xxl.transformer."),
        Other::autoencoder("vae."),
        Other::autoencoder("first_stage_model."),
    ],
    config,
};

fn slices(flat: &str, blocks: usize) -> Option<Vec<Slice>> {
    if let Some(outer) = outer(flat) {
        return Some(outer);
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
        // The original code has shift and scale in this order. In the last block, diffusers has scale and shift.
        ("adaLN_modulation_1", true) if block + 1 == blocks => swapped("norm1_context.linear"),
        ("adaLN_modulation_1", true) => whole("norm1_context.linear"),
        _ => return None,
    };
    Some(within(&format!("transformer_blocks.{block}."), slices))
}

/// The slices of a module outside the blocks.
fn outer(flat: &str) -> Option<Vec<Slice>> {
    Some(whole(match flat {
        "x_embedder_proj" => "pos_embed.proj",
        "context_embedder" => "context_embedder",
        "t_embedder_mlp_0" => "time_text_embed.timestep_embedder.linear_1",
        "t_embedder_mlp_2" => "time_text_embed.timestep_embedder.linear_2",
        "y_embedder_mlp_0" => "time_text_embed.text_embedder.linear_1",
        "y_embedder_mlp_2" => "time_text_embed.text_embedder.linear_2",
        "final_layer_linear" => "proj_out",
        "final_layer_adaLN_modulation_1" => return Some(swapped("norm_out.linear")),
        _ => return None,
    }))
}

fn config(shapes: &Shapes<'_>) -> Result<Value, String> {
    let blocks = shapes.blocks("joint_blocks.");
    let (width, patch) = (shapes.axis("x_embedder.proj.weight", 0)?, shapes.axis("x_embedder.proj.weight", 2)?);
    let norm = "joint_blocks.0.x_block.attn.ln_q.weight";
    // The heads of all published models have 64 channels.
    let head = if shapes.has(norm) { shapes.axis(norm, 0)? } else { 64 }.clamp(1, width.max(1));
    let second = |block: &usize| shapes.has(&format!("joint_blocks.{block}.x_block.attn2.qkv.weight"));
    // The embeddings of positions are (1, N, D); GGUF files may lack the first axis.
    let positions = shapes.shape("pos_embed").and_then(|shape| shape.iter().rev().nth(1).copied());
    let positions = positions.ok_or_else(|| "it has no pos_embed".to_owned())?.isqrt();
    Ok(json!({
        "patch_size": patch,
        "in_channels": shapes.axis("x_embedder.proj.weight", 1)?,
        "out_channels": shapes.axis("final_layer.linear.weight", 0)? / patch.saturating_pow(2).max(1),
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": width / head,
        "joint_attention_dim": shapes.axis("context_embedder.weight", 1)?,
        "caption_projection_dim": width,
        "pooled_projection_dim": shapes.axis("y_embedder.mlp.0.weight", 1)?,
        "pos_embed_max_size": positions,
        // All published models were trained on latents of this size.
        "sample_size": positions.saturating_mul(patch).min(128),
        "dual_attention_layers": (0..blocks).filter(second).collect::<Vec<usize>>(),
        "qk_norm": shapes.has(norm).then_some("rms_norm"),
    }))
}
