//! Tensor names of the autoencoder.

use super::{number, tail};

/// Translates the original name of a tensor of the autoencoder to diffusers' name. Returns `None` if `name` is not such
/// a name. For instance, `decoder.up.3.block.0.nin_shortcut.weight` becomes
/// `decoder.up_blocks.0.resnets.0.conv_shortcut.weight`: the decoder's blocks are numbered in the opposite order.
/// `levels` is the number of blocks of the encoder, and of the decoder.
pub fn vae_name(name: &str, levels: usize) -> Option<String> {
    for (from, to) in OUTSIDE {
        if let Some(rest) = tail(name, from, '.') {
            return Some(format!("{to}{rest}"));
        }
    }
    if let Some((side, rest)) = name.split_once(".mid.") {
        let (layer, rest) = rest.split_once('.')?;
        let layer = match layer {
            "block_1" => format!("resnets.0.{}", resnet(rest)?),
            "block_2" => format!("resnets.1.{}", resnet(rest)?),
            "attn_1" => format!("attentions.0.{}", attention(rest)?),
            _ => return None,
        };
        return matches!(side, "encoder" | "decoder").then(|| format!("{side}.mid_block.{layer}"));
    }
    let (blocks, sampler, level, rest) = match name.strip_prefix("encoder.down.") {
        Some(rest) => {
            let (level, rest) = number(rest, '.')?;
            ("encoder.down_blocks", "downsample", level, rest)
        }
        None => {
            let (level, rest) = number(name.strip_prefix("decoder.up.")?, '.')?;
            ("decoder.up_blocks", "upsample", levels.checked_sub(level + 1)?, rest)
        }
    };
    if let Some(rest) = rest.strip_prefix("block.") {
        let (layer, rest) = number(rest, '.')?;
        return Some(format!("{blocks}.{level}.resnets.{layer}.{}", resnet(rest)?));
    }
    let rest = rest.strip_prefix(sampler)?.strip_prefix(".conv.")?;
    Some(format!("{blocks}.{level}.{sampler}rs.0.conv.{rest}"))
}

const OUTSIDE: [(&str, &str); 8] = [
    ("encoder.conv_in", "encoder.conv_in"),
    ("encoder.norm_out", "encoder.conv_norm_out"),
    ("encoder.conv_out", "encoder.conv_out"),
    ("decoder.conv_in", "decoder.conv_in"),
    ("decoder.norm_out", "decoder.conv_norm_out"),
    ("decoder.conv_out", "decoder.conv_out"),
    ("quant_conv", "quant_conv"),
    ("post_quant_conv", "post_quant_conv"),
];

fn resnet(rest: &str) -> Option<String> {
    let (layer, rest) = rest.split_once('.')?;
    let layer = match layer {
        "norm1" | "conv1" | "norm2" | "conv2" => layer,
        "nin_shortcut" => "conv_shortcut",
        _ => return None,
    };
    Some(format!("{layer}.{rest}"))
}

fn attention(rest: &str) -> Option<String> {
    let (layer, rest) = rest.split_once('.')?;
    let layer = match layer {
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        _ => return None,
    };
    Some(format!("{layer}.{rest}"))
}
