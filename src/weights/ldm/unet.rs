//! Tensor names of the U-Net: numbered rows of anonymous modules become blocks of ResNets and transformers.

use super::{number, tail};

/// The diffusers name of a module or tensor of the U-Net; `None` for other names. For instance,
/// `input_blocks.4.1.proj_in` becomes `down_blocks.1.attentions.0.proj_in`. `dot` separates the parts of the names (`_`
/// in adapter files). `layers` is the number of ResNets in a block on the way down.
pub fn unet_name(name: &str, dot: char, layers: usize) -> Option<String> {
    let plain = |from: &str, to: &str| Some(format!("{}{}", spelled(to, dot), tail(name, &spelled(from, dot), dot)?));
    for (from, to) in OUTSIDE {
        if let Some(known) = plain(from, to) {
            return Some(known);
        }
    }
    let within = |row: &str| tail(name, &spelled(row, dot), dot)?.strip_prefix(dot);
    if let Some(rest) = within("middle_block") {
        let (place, rest) = number(rest, dot)?;
        return match place {
            0 | 2 => Some(spelled(&format!("mid_block.resnets.{}", place / 2), dot) + &resnet(rest, dot)?),
            1 => Some(spelled("mid_block.attentions.0", dot) + &dotted(rest, dot)),
            _ => None,
        };
    }
    if let Some(rest) = within("input_blocks") {
        let ((row, rest), place_of) =
            (number(rest, dot)?, |row: usize| ((row - 1) / (layers + 1), (row - 1) % (layers + 1)));
        let (place, rest) = number(rest, dot)?;
        let (block, layer) = if row == 0 { return None } else { place_of(row) };
        let block = |part: &str| spelled(&format!("down_blocks.{block}.{part}"), dot);
        return match place {
            0 if layer == layers => {
                let rest = tail(rest, "op", dot)?;
                Some(block("downsamplers.0.conv") + rest)
            }
            0 => Some(block(&format!("resnets.{layer}")) + &resnet(rest, dot)?),
            1 if layer < layers => Some(block(&format!("attentions.{layer}")) + &dotted(rest, dot)),
            _ => None,
        };
    }
    let (row, rest) = number(within("output_blocks")?, dot)?;
    let (place, rest) = number(rest, dot)?;
    let (block, layer) = (row / (layers + 1), row % (layers + 1));
    let block = |part: &str| spelled(&format!("up_blocks.{block}.{part}"), dot);
    match (place, tail(rest, "conv", dot)) {
        (0, _) => Some(block(&format!("resnets.{layer}")) + &resnet(rest, dot)?),
        (1 | 2, Some(rest)) if layer == layers => Some(block("upsamplers.0.conv") + rest),
        (1, None) => Some(block(&format!("attentions.{layer}")) + &dotted(rest, dot)),
        _ => None,
    }
}

/// The number of ResNets in the first block on the way down, from the diffusers names of the U-Net's tensors; 2 if
/// there are none.
pub fn unet_layers<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let number = |name: &str| name.strip_prefix("down_blocks.0.resnets.")?.split('.').next()?.parse::<usize>().ok();
    names.filter_map(number).max().map_or(2, |last| last.min(64) + 1)
}

/// Modules that belong to no block, with their names in the original code and in diffusers.
const OUTSIDE: [(&str, &str); 8] = [
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("time_embed.cond_proj", "time_embedding.cond_proj"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
];

/// The layers of a ResNet, with their names in the original code and in diffusers.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

fn resnet(rest: &str, dot: char) -> Option<String> {
    let known = |(from, to): &(&str, &str)| Some(dotted(to, dot) + tail(rest, &spelled(from, dot), dot)?);
    RESNET.iter().find_map(known)
}

/// `name` with `dot` as the separator of its parts.
fn spelled(name: &str, dot: char) -> String {
    name.replace('.', dot.encode_utf8(&mut [0; 4]))
}

fn dotted(rest: &str, dot: char) -> String {
    format!("{dot}{rest}")
}
