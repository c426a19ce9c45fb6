//! Translates the names of layers in Tongyi's transformer, which refines picture and caption before it joins them, to
//! diffusers' names.

use serde_json::{Value, json};

use super::{
    Code, Other,
    shapes::Shapes,
    slice::{Slice, thirds, whole, within},
};
use crate::weights::ldm::number;

pub(super) const CODE: Code = Code {
    first: "layers.0.attention.qkv.weight",
    slices: |module, _| slices(module),
    alone: &[("x_pad_token", "x_pad_token", 2), ("cap_pad_token", "cap_pad_token", 2)],
    unused: &["norm_final.weight"],
    others: &[
        Other::text_encoder("text_encoder", "text_encoders.qwen3_4b.transformer."),
        Other::autoencoder("vae."),
        Other::autoencoder("first_stage_model."),
    ],
    config,
};

fn slices(module: &str) -> Option<Vec<Slice>> {
    let outer = match module {
        "x_embedder" => "all_x_embedder.2-1",
        "final_layer_linear" => "all_final_layer.2-1.linear",
        "final_layer_adaLN_modulation_1" => "all_final_layer.2-1.adaLN_modulation.1",
        "t_embedder_mlp_0" => "t_embedder.mlp.0",
        "t_embedder_mlp_2" => "t_embedder.mlp.2",
        "cap_embedder_0" => "cap_embedder.0",
        "cap_embedder_1" => "cap_embedder.1",
        _ => "",
    };
    if !outer.is_empty() {
        return Some(whole(outer));
    }
    let kinds = ["layers", "noise_refiner", "context_refiner"];
    let (kind, rest) =
        kinds.into_iter().find_map(|kind| Some((kind, module.strip_prefix(kind)?.strip_prefix('_')?)))?;
    let (block, module) = number(rest, '_')?;
    let slices = match module {
        "attention_qkv" => thirds(["attention.to_q", "attention.to_k", "attention.to_v"]),
        "attention_out" => whole("attention.to_out.0"),
        "attention_q_norm" => whole("attention.norm_q"),
        "attention_k_norm" => whole("attention.norm_k"),
        "feed_forward_w1" => whole("feed_forward.w1"),
        "feed_forward_w2" => whole("feed_forward.w2"),
        "feed_forward_w3" => whole("feed_forward.w3"),
        "adaLN_modulation_0" => whole("adaLN_modulation.0"),
        "attention_norm1" => whole("attention_norm1"),
        "attention_norm2" => whole("attention_norm2"),
        "ffn_norm1" => whole("ffn_norm1"),
        "ffn_norm2" => whole("ffn_norm2"),
        _ => return None,
    };
    Some(within(&format!("{kind}.{block}."), slices))
}

fn config(shapes: &Shapes<'_>) -> Result<Value, String> {
    let width = shapes.axis("layers.0.attention.qkv.weight", 1)?;
    let head = shapes.axis("layers.0.attention.q_norm.weight", 0)?.max(1);
    // The published models divide a head of 128 channels in this proportion.
    let first = head / 8 * 2;
    let rest = head.saturating_sub(first) / 2;
    let heads = width / head;
    Ok(json!({
        // A patch has 2 × 2 pixels.
        "in_channels": shapes.axis("x_embedder.weight", 1)? / 4,
        "dim": width,
        "n_layers": shapes.blocks("layers."),
        "n_refiner_layers": shapes.blocks("noise_refiner."),
        "n_heads": heads,
        "n_kv_heads": heads,
        "cap_feat_dim": shapes.axis("cap_embedder.1.weight", 1)?,
        "axes_dims": [first, rest, rest],
    }))
}
