//! Translates the names of Black Forest Labs' transformer to diffusers' names.

use serde_json::{Value, json};

use super::{
    Code, Other,
    shapes::Shapes,
    slice::{Slice, slice, swapped, thirds, whole, within},
};
use crate::weights::ldm::number;

pub(super) const CODE: Code = Code {
    first: "double_blocks.0.img_attn.qkv.weight",
    slices: |module, _| slices(module),
    alone: &[],
    unused: &[],
    others: &[
        Other::plain_clip("text_encoder", "text_encoders.clip_l.transformer."),
        Other::text_encoder("text_encoder_2", "text_encoders.t5xxl.transformer."),
        Other::autoencoder("vae."),
        Other::autoencoder("first_stage_model."),
    ],
    config,
};

fn slices(flat: &str) -> Option<Vec<Slice>> {
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
    match flat {
        "img_in" => Some(whole("x_embedder")),
        "txt_in" => Some(whole("context_embedder")),
        "final_layer_linear" => Some(whole("proj_out")),
        // The original code has shift and scale in this order, diffusers has scale and shift.
        "final_layer_adaLN_modulation_1" => Some(swapped("norm_out.linear")),
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

fn config(shapes: &Shapes<'_>) -> Result<Value, String> {
    let width = shapes.axis("double_blocks.0.img_attn.qkv.weight", 1)?;
    let head = shapes.axis("double_blocks.0.img_attn.norm.query_norm.scale", 0)?.max(1);
    // The published models divide a head of 128 channels in this proportion.
    let first = head / 16 * 2;
    Ok(json!({
        "in_channels": shapes.axis("img_in.weight", 1)?,
        "out_channels": shapes.axis("final_layer.linear.weight", 0)?,
        "num_layers": shapes.blocks("double_blocks."),
        "num_single_layers": shapes.blocks("single_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width / head,
        "joint_attention_dim": shapes.axis("txt_in.weight", 1)?,
        "pooled_projection_dim": shapes.axis("vector_in.in_layer.weight", 1)?,
        "guidance_embeds": shapes.has("guidance_in.in_layer.weight"),
        "axes_dims_rope": [first, (head - first) / 2, (head - first) / 2],
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn fused_layers_are_divided() {
        let slices = |module: &str| super::slices(&module.replace('.', "_"));
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
