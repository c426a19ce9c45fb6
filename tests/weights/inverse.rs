//! Converts the tensors of a diffusers folder to a checkpoint in the original layout, the inverse of the tested code.

use std::collections::BTreeMap;

use crate::files::{Raw, Tensors};

/// Converts the tensors of a pipeline, by component, to a single file. Tensors without bytes stay without bytes.
pub fn single_file(parts: &BTreeMap<&str, Tensors>) -> Tensors {
    let mut file = Tensors::new();
    let is_xl = parts.contains_key("text_encoder_2");
    let is_refiner = is_xl && !parts.contains_key("text_encoder");
    for (component, tensors) in parts {
        match *component {
            "unet" => file.extend(renamed(tensors, |name| format!("model.diffusion_model.{}", unet(name, tensors)))),
            "vae" => file.extend(vae(tensors)),
            "text_encoder" if is_xl => {
                file.extend(renamed(tensors, |name| format!("conditioner.embedders.0.transformer.{name}")));
            }
            // In diffusers' layout, OpenCLIP and CLIP have the same tensors; the width distinguishes them.
            "text_encoder" if is_open_clip(tensors) => file.extend(open_clip(tensors, "cond_stage_model.model.")),
            "text_encoder" => {
                file.extend(renamed(tensors, |name| format!("cond_stage_model.transformer.{name}")));
            }
            "text_encoder_2" if is_refiner => file.extend(open_clip(tensors, "conditioner.embedders.0.model.")),
            "text_encoder_2" => file.extend(open_clip(tensors, "conditioner.embedders.1.model.")),
            other => panic!("{other}"),
        }
    }
    file
}

/// Whether the text encoder is OpenCLIP. Stable Diffusion 2 has width 1024, its fixture 48.
fn is_open_clip(tensors: &Tensors) -> bool {
    let width = tensors["text_model.final_layer_norm.weight"].shape[0];
    width == 1024 || width == 48
}

/// Converts the tensors of a ControlNet to the original layout.
pub fn control_net(tensors: &Tensors) -> Tensors {
    let last = tensors.keys().filter(|name| name.starts_with("controlnet_cond_embedding.blocks.")).count() + 2;
    renamed(tensors, |name| {
        let rest = |prefix: &str| name.strip_prefix(prefix);
        let own = if let Some(rest) = rest("controlnet_cond_embedding.conv_in.") {
            format!("input_hint_block.0.{rest}")
        } else if let Some(rest) = rest("controlnet_cond_embedding.conv_out.") {
            format!("input_hint_block.{last}.{rest}")
        } else if let Some(rest) = rest("controlnet_cond_embedding.blocks.") {
            let (block, rest) = numbered(rest);
            format!("input_hint_block.{}.{rest}", 2 * block + 2)
        } else if let Some(rest) = rest("controlnet_down_blocks.") {
            let (row, rest) = numbered(rest);
            format!("zero_convs.{row}.0.{rest}")
        } else if let Some(rest) = rest("controlnet_mid_block.") {
            format!("middle_block_out.0.{rest}")
        } else {
            unet(name, tensors)
        };
        format!("control_model.{own}")
    })
}

fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, raw)| (rename(name), raw.clone())).collect()
}

fn numbered(text: &str) -> (usize, &str) {
    let (number, rest) = text.split_once('.').unwrap();
    (number.parse().unwrap(), rest)
}

/// The original name of a tensor of the U-Net.
fn unet(name: &str, all: &Tensors) -> String {
    let outside = [
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("time_embedding.cond_proj.", "time_embed.cond_proj."),
        ("add_embedding.linear_1.", "label_emb.0.0."),
        ("add_embedding.linear_2.", "label_emb.0.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
    ];
    if let Some((to, rest)) = outside.iter().find_map(|(from, to)| Some((to, name.strip_prefix(from)?))) {
        return format!("{to}{rest}");
    }
    let (side, rest) = name.split_once('.').unwrap();
    if side == "mid_block" {
        let (kind, rest) = rest.split_once('.').unwrap();
        let (layer, rest) = numbered(rest);
        return match kind {
            "resnets" => format!("middle_block.{}.{}", 2 * layer, resnet(rest)),
            _ => format!("middle_block.1.{rest}"),
        };
    }
    let (block, rest) = numbered(rest);
    let (kind, rest) = rest.split_once('.').unwrap();
    let (layer, rest) = numbered(rest);
    let attends = all.keys().any(|name| name.starts_with(&format!("{side}.{block}.attentions.")));
    let (rows, first) = if side == "down_blocks" { ("input_blocks", 1) } else { ("output_blocks", 0) };
    let row = 3 * block + layer + first;
    match kind {
        "resnets" => format!("{rows}.{row}.0.{}", resnet(rest)),
        "attentions" => format!("{rows}.{row}.1.{rest}"),
        "downsamplers" => format!("{rows}.{}.0.op.{}", 3 * block + 3, rest.strip_prefix("conv.").unwrap()),
        "upsamplers" => format!("{rows}.{}.{}.{rest}", 3 * block + 2, if attends { 2 } else { 1 }),
        other => panic!("{other}"),
    }
}

fn resnet(rest: &str) -> String {
    rest.replace("norm1", "in_layers.0")
        .replace("conv1", "in_layers.2")
        .replace("time_emb_proj", "emb_layers.1")
        .replace("norm2", "out_layers.0")
        .replace("conv2", "out_layers.3")
        .replace("conv_shortcut", "skip_connection")
}

/// In the original layout of the VAE, attention consists of pointwise convolutions.
fn vae(tensors: &Tensors) -> Tensors {
    let levels = (0..)
        .find(|level| !tensors.keys().any(|name| name.starts_with(&format!("decoder.up_blocks.{level}."))))
        .unwrap();
    let rename = |(name, raw): (&String, &Raw)| {
        let mut raw = raw.clone();
        if name.contains(".attentions.") && raw.shape.len() == 2 {
            raw.shape.extend([1, 1]);
        }
        let mut name = name.clone();
        for level in 0..levels {
            name = name.replace(&format!("decoder.up_blocks.{level}."), &format!("decoder.up.{}.", levels - 1 - level));
        }
        let name = name
            .replace("encoder.down_blocks.", "encoder.down.")
            .replace("mid_block.resnets.0", "mid.block_1")
            .replace("mid_block.resnets.1", "mid.block_2")
            .replace("mid_block.attentions.0", "mid.attn_1")
            .replace(".resnets.", ".block.")
            .replace(".downsamplers.0.", ".downsample.")
            .replace(".upsamplers.0.", ".upsample.")
            .replace("conv_shortcut", "nin_shortcut")
            .replace("conv_norm_out", "norm_out")
            .replace("group_norm", "norm")
            .replace("to_out.0", "proj_out")
            .replace("to_q", "q")
            .replace("to_k", "k")
            .replace("to_v", "v");
        (format!("first_stage_model.{name}"), raw)
    };
    tensors.iter().map(rename).collect()
}

fn open_clip(tensors: &Tensors, prefix: &str) -> Tensors {
    let mut file = Tensors::new();
    for (name, raw) in tensors {
        if name.contains(".k_proj.") || name.contains(".v_proj.") {
            continue; // Concatenated with the queries below.
        }
        if name == "text_projection.weight" {
            file.insert(format!("{prefix}text_projection"), transposed(raw));
            continue;
        }
        let own = name
            .replace("text_model.embeddings.token_embedding.weight", "token_embedding.weight")
            .replace("text_model.embeddings.position_embedding.weight", "positional_embedding")
            .replace("text_model.final_layer_norm", "ln_final")
            .replace("text_model.encoder.layers", "transformer.resblocks")
            .replace("layer_norm", "ln_")
            .replace("mlp.fc1", "mlp.c_fc")
            .replace("mlp.fc2", "mlp.c_proj")
            .replace("self_attn.", "attn.")
            .replace("attn.q_proj.", "attn.in_proj_");
        if !name.contains(".q_proj.") {
            file.insert(format!("{prefix}{own}"), raw.clone());
            continue;
        }
        let mut all = raw.clone();
        for letter in ["k", "v"] {
            let other = &tensors[&name.replace(".q_proj.", &format!(".{letter}_proj."))];
            all.shape[0] += other.shape[0];
            all.bytes.extend(&other.bytes);
        }
        file.insert(format!("{prefix}{own}"), all);
    }
    file.insert(format!("{prefix}logit_scale"), Raw::floats(&[], |_| 4.6));
    file
}

/// The transposed matrix.
pub fn transposed(raw: &Raw) -> Raw {
    let [rows, columns] = raw.shape[..] else { panic!("{:?}", raw.shape) };
    let size = raw.bytes.len() / (rows * columns);
    let mut bytes = Vec::with_capacity(raw.bytes.len());
    if size > 0 {
        for column in 0..columns {
            for row in 0..rows {
                let at = (row * columns + column) * size;
                bytes.extend(&raw.bytes[at..at + size]);
            }
        }
    }
    Raw { shape: vec![columns, rows], bytes, ..raw.clone() }
}
