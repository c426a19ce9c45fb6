//! Translates the names of Black Forest Labs' second transformer to diffusers' names. Its blocks share their
//! modulations.

use serde_json::{Value, json};

use super::{
    Code, Other,
    shapes::Shapes,
    slice::{Slice, swapped, thirds, whole, within},
};
use crate::weights::ldm::number;

pub(super) const CODE: Code = Code {
    first: "double_stream_modulation_img.lin.weight",
    slices: |module, _| slices(module),
    alone: &[],
    unused: &[],
    others: &[
        Other::text_encoder("text_encoder", "text_encoders.qwen3_4b.transformer."),
        Other::text_encoder("text_encoder", "text_encoders.qwen3_8b.transformer."),
    ],
    config,
};

fn slices(module: &str) -> Option<Vec<Slice>> {
    let outer = match module {
        "img_in" => "x_embedder",
        "txt_in" => "context_embedder",
        "time_in_in_layer" => "time_guidance_embed.timestep_embedder.linear_1",
        "time_in_out_layer" => "time_guidance_embed.timestep_embedder.linear_2",
        "double_stream_modulation_img_lin" => "double_stream_modulation_img.linear",
        "double_stream_modulation_txt_lin" => "double_stream_modulation_txt.linear",
        "single_stream_modulation_lin" => "single_stream_modulation.linear",
        "final_layer_linear" => "proj_out",
        // The original code has shift and scale in this order, diffusers has scale and shift.
        "final_layer_adaLN_modulation_1" => return Some(swapped("norm_out.linear")),
        _ => "",
    };
    if !outer.is_empty() {
        return Some(whole(outer));
    }
    if let Some(rest) = module.strip_prefix("double_blocks_") {
        let (block, rest) = number(rest, '_')?;
        return double(rest).map(|slices| within(&format!("transformer_blocks.{block}."), slices));
    }
    let (block, rest) = number(module.strip_prefix("single_blocks_")?, '_')?;
    let name = match rest {
        "linear1" => "attn.to_qkv_mlp_proj",
        "linear2" => "attn.to_out",
        "norm_query_norm" => "attn.norm_q",
        "norm_key_norm" => "attn.norm_k",
        _ => return None,
    };
    Some(within(&format!("single_transformer_blocks.{block}."), whole(name)))
}

/// The slices of a module of a block with two streams.
fn double(module: &str) -> Option<Vec<Slice>> {
    Some(match module {
        "img_attn_qkv" => thirds(["attn.to_q", "attn.to_k", "attn.to_v"]),
        "txt_attn_qkv" => thirds(["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
        "img_attn_proj" => whole("attn.to_out.0"),
        "txt_attn_proj" => whole("attn.to_add_out"),
        "img_attn_norm_query_norm" => whole("attn.norm_q"),
        "img_attn_norm_key_norm" => whole("attn.norm_k"),
        "txt_attn_norm_query_norm" => whole("attn.norm_added_q"),
        "txt_attn_norm_key_norm" => whole("attn.norm_added_k"),
        "img_mlp_0" => whole("ff.linear_in"),
        "img_mlp_2" => whole("ff.linear_out"),
        "txt_mlp_0" => whole("ff_context.linear_in"),
        "txt_mlp_2" => whole("ff_context.linear_out"),
        _ => return None,
    })
}

fn config(shapes: &Shapes<'_>) -> Result<Value, String> {
    let width = shapes.axis("img_in.weight", 0)?.max(1);
    let head = shapes.axis("double_blocks.0.img_attn.norm.query_norm.scale", 0)?.max(1);
    Ok(json!({
        "in_channels": shapes.axis("img_in.weight", 1)?,
        "num_layers": shapes.blocks("double_blocks."),
        "num_single_layers": shapes.blocks("single_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width / head,
        "joint_attention_dim": shapes.axis("txt_in.weight", 1)?,
        "timestep_guidance_channels": shapes.axis("time_in.in_layer.weight", 1)?,
        "mlp_ratio": shapes.axis("double_blocks.0.img_mlp.2.weight", 1)? as f64 / width as f64,
        "guidance_embeds": shapes.has("guidance_in.in_layer.weight"),
        // The published models divide a head of 128 channels evenly.
        "axes_dims_rope": [head / 4, head / 4, head / 4, head / 4],
    }))
}
