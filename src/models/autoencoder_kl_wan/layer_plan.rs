//! The layers of an `AutoencoderKLWan` with their sizes, in the order in which they run.

use super::{AutoencoderKlWanConfig, shortcut::Shortcut};

/// A layer that a configuration asks for.
#[derive(Clone, Debug)]
pub(super) struct LayerPlan {
    /// The name of the layer in the files.
    pub path: String,
    pub kind: LayerKind,
}

/// What a layer does, with the number of its channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LayerKind {
    /// The mean of moments, normalized.
    Normalize,
    /// The inverse of normalization.
    Denormalize,
    /// The pixels of each square of `patch` × `patch` become channels of one pixel.
    Fold {
        patch: usize,
    },
    /// The inverse of `Fold`; also bounds the levels.
    Unfold {
        patch: usize,
    },
    Pointwise {
        inputs: usize,
        outputs: usize,
    },
    Conv {
        inputs: usize,
        outputs: usize,
    },
    Resnet {
        inputs: usize,
        outputs: usize,
    },
    Attention {
        channels: usize,
    },
    /// Keeps the map for the next `Average` or `Repeat`.
    Keep,
    Down {
        channels: usize,
        in_time: bool,
    },
    Up {
        inputs: usize,
        outputs: usize,
        in_time: bool,
    },
    /// Adds averages of the map that was kept.
    Average(Shortcut),
    /// Adds copies of the map that was kept.
    Repeat(Shortcut),
    /// The norm and the convolution at the end.
    Out {
        inputs: usize,
        outputs: usize,
    },
}

impl LayerKind {
    pub fn average(self) -> Option<Shortcut> {
        if let Self::Average(shortcut) = self { Some(shortcut) } else { None }
    }

    pub fn repeat(self) -> Option<Shortcut> {
        if let Self::Repeat(shortcut) = self { Some(shortcut) } else { None }
    }
}

fn layer(path: impl Into<String>, kind: LayerKind) -> LayerPlan {
    LayerPlan { path: path.into(), kind }
}

impl AutoencoderKlWanConfig {
    /// The layers from pixels to normalized latents.
    pub(super) fn encoder(&self) -> Vec<LayerPlan> {
        let (moments, patch) = (2 * self.z_dim, self.patch());
        let width = |level: usize| self.base_dim * self.dim_mult[level];
        let last = self.dim_mult.len() - 1;
        let mut layers = vec![
            layer("", LayerKind::Fold { patch }),
            layer("encoder.conv_in", LayerKind::Conv { inputs: self.in_channels, outputs: self.base_dim }),
        ];
        let mut next = 0; // The blocks without shortcuts are numbered through all levels.
        for level in 0..=last {
            let (inputs, outputs) = (if level == 0 { self.base_dim } else { width(level - 1) }, width(level));
            let in_time = level < last && self.temperal_downsample[level];
            let block = format!("encoder.down_blocks.{level}");
            let mut name = |within_block: String| match self.is_residual {
                true => format!("{block}.{within_block}"),
                false => {
                    next += 1;
                    format!("encoder.down_blocks.{}", next - 1)
                }
            };
            layers.extend(self.is_residual.then(|| layer("", LayerKind::Keep)));
            for j in 0..self.num_res_blocks {
                let kind = LayerKind::Resnet { inputs: if j == 0 { inputs } else { outputs }, outputs };
                layers.push(layer(name(format!("resnets.{j}")), kind));
            }
            if level < last {
                layers.push(layer(name("downsampler".into()), LayerKind::Down { channels: outputs, in_time }));
            }
            let shortcut = Shortcut { inputs, outputs, in_time, in_space: level < last };
            layers.extend(self.is_residual.then(|| layer("", LayerKind::Average(shortcut))));
        }
        layers.extend(middle("encoder", width(last)));
        layers.push(layer("encoder", LayerKind::Out { inputs: width(last), outputs: moments }));
        layers.push(layer("quant_conv", LayerKind::Pointwise { inputs: moments, outputs: moments }));
        layers.push(layer("", LayerKind::Normalize));
        layers
    }

    /// The layers from normalized latents to pixels.
    pub(super) fn decoder(&self) -> Vec<LayerPlan> {
        let last = self.dim_mult.len() - 1;
        // Blocks are counted from the latents.
        let width = |block: usize| self.decoder_dim() * self.dim_mult[last - block];
        let mut layers = vec![
            layer("", LayerKind::Denormalize),
            layer("post_quant_conv", LayerKind::Pointwise { inputs: self.z_dim, outputs: self.z_dim }),
            layer("decoder.conv_in", LayerKind::Conv { inputs: self.z_dim, outputs: width(0) }),
        ];
        layers.extend(middle("decoder", width(0)));
        for block in 0..=last {
            let before = width(block.saturating_sub(1));
            // Without shortcuts, the upsampler of the block before has halved the width.
            let inputs = if block > 0 && !self.is_residual { before / 2 } else { before };
            let outputs = width(block);
            let in_time = block < last && self.temperal_downsample[last - 1 - block];
            let path = format!("decoder.up_blocks.{block}");
            layers.extend((self.is_residual && block < last).then(|| layer("", LayerKind::Keep)));
            for j in 0..=self.num_res_blocks {
                let kind = LayerKind::Resnet { inputs: if j == 0 { inputs } else { outputs }, outputs };
                layers.push(layer(format!("{path}.resnets.{j}"), kind));
            }
            if block < last {
                let (name, narrowed) =
                    if self.is_residual { ("upsampler", outputs) } else { ("upsamplers.0", outputs / 2) };
                let kind = LayerKind::Up { inputs: outputs, outputs: narrowed, in_time };
                layers.push(layer(format!("{path}.{name}"), kind));
                let shortcut = Shortcut { inputs, outputs, in_time, in_space: true };
                layers.extend(self.is_residual.then(|| layer("", LayerKind::Repeat(shortcut))));
            }
        }
        layers.push(layer("decoder", LayerKind::Out { inputs: width(last), outputs: self.out_channels }));
        layers.push(layer("", LayerKind::Unfold { patch: self.patch() }));
        layers
    }
}

/// diffusers' `WanMidBlock`.
fn middle(part: &str, channels: usize) -> [LayerPlan; 3] {
    let resnet = LayerKind::Resnet { inputs: channels, outputs: channels };
    [
        layer(format!("{part}.mid_block.resnets.0"), resnet),
        layer(format!("{part}.mid_block.attentions.0"), LayerKind::Attention { channels }),
        layer(format!("{part}.mid_block.resnets.1"), resnet),
    ]
}
