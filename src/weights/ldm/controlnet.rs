//! Tensor names of ControlNets: the down half of a U-Net, and convolutions that are zero before training.

use super::{number, tail, unet_name};

/// The diffusers name of a tensor of a ControlNet; `None` for other names. `layers` is the number of ResNets in a
/// block, `hints` is the number in the name of the last convolution of the hint's embedding.
pub fn controlnet_name(name: &str, layers: usize, hints: usize) -> Option<String> {
    if let Some(rest) = name.strip_prefix("zero_convs.") {
        let (row, rest) = number(rest, '.')?;
        return Some(format!("controlnet_down_blocks.{row}{}", tail(rest, "0", '.')?));
    }
    if let Some(rest) = tail(name, "middle_block_out.0", '.') {
        return Some(format!("controlnet_mid_block{rest}"));
    }
    if let Some(rest) = name.strip_prefix("input_hint_block.") {
        let (place, rest) = number(rest, '.')?;
        return match place {
            0 => Some(format!("controlnet_cond_embedding.conv_in.{rest}")),
            _ if place == hints => Some(format!("controlnet_cond_embedding.conv_out.{rest}")),
            // Convolutions have even numbers; the activations between them have odd numbers.
            _ if place.is_multiple_of(2) => Some(format!("controlnet_cond_embedding.blocks.{}.{rest}", place / 2 - 1)),
            _ => None,
        };
    }
    unet_name(name, '.', layers)
}
