//! Work and memory of a call of the U-Net, layer by layer in the order of `forward`.

use super::UNet2DConditionConfig;
use crate::models::{
    demand::{Demand, adapted_conv, adapted_transformer, conv, resnet, separable_resnet, transformer},
    transformer2d::TransformerKind,
};

/// The demand of the layers so far, and the skips in memory.
struct Walk {
    so_far: Demand,
    /// Whether LoRAs change the layers.
    adapted: bool,
    /// Whether the convolutions of residual blocks are depthwise-separable.
    separable: bool,
    /// Whether transformers attend to the map in place of a text.
    without_text: bool,
    /// Floats of each skip that is still in memory.
    skips: Vec<usize>,
}

impl Walk {
    fn take(&mut self, layer: Demand) {
        self.so_far = self.so_far.then(layer.beside(self.skips.iter().sum()));
    }

    fn conv(&mut self, places: usize, kernel: usize, inputs: usize, outputs: usize, input_places: usize) {
        let more = if self.adapted { adapted_conv(places, outputs) } else { 0 };
        self.take(conv(places, kernel, inputs, outputs, input_places).beside(more));
    }

    fn resnet(&mut self, places: usize, inputs: usize, outputs: usize) {
        let more = if self.adapted { adapted_conv(places, outputs) } else { 0 };
        let demand = if self.separable { separable_resnet } else { resnet };
        self.take(demand(places, inputs, outputs).beside(more));
    }

    fn transformer(&mut self, places: usize, kind: TransformerKind, tokens: usize) {
        let more = if self.adapted { adapted_transformer(places, kind.channels) } else { 0 };
        let tokens = if self.without_text { places } else { tokens };
        self.take(transformer(places, kind, tokens).beside(more));
    }
}

impl UNet2DConditionConfig {
    /// The demand of one row of (h, w) latent pixels and `tokens` text tokens. `adapted` says whether LoRAs change the
    /// layers.
    pub fn demand(&self, [h, w]: [usize; 2], tokens: usize, adapted: bool) -> Demand {
        let mut walk = self.way_down([h, w], tokens, adapted);
        let (channels, last) = (&self.block_out_channels, self.block_out_channels.len() - 1);
        for i in 0..=last {
            let level = last - i;
            let (outputs, previous) = (channels[level], channels[(level + 1).min(last)]);
            let skipped_below = channels[level.saturating_sub(1)];
            let layers = self.layers_per_block.at(level) + 1;
            let transformer_layers = match &self.reverse_transformer_layers_per_block {
                Some(layers) => layers[i],
                None => self.transformer_layers_per_block.at(level),
            };
            let block = self.up_block_types[i];
            let kind = self.transformer(level, transformer_layers, block.attends_to_itself());
            let places = places([h, w], level);
            for j in 0..layers {
                let below = if j == 0 { previous } else { outputs };
                let skipped = if j + 1 == layers { skipped_below } else { outputs };
                walk.resnet(places, below + skipped, outputs);
                walk.skips.pop();
                if block.is_attended() {
                    walk.transformer(places, kind, tokens);
                }
            }
            if i < last {
                let above = self::places([h, w], level - 1);
                walk.conv(above, 3, outputs, outputs, above);
            }
        }
        let places = h * w;
        walk.conv(places, self.conv_out_kernel, channels[0], self.out_channels, 2 * places);
        walk.so_far
    }

    /// The demand of one row for only the shallowest branch.
    pub fn demand_shallow(&self, [h, w]: [usize; 2], tokens: usize, adapted: bool) -> Demand {
        let (places, outer) = (h * w, self.block_out_channels[0]);
        let last = self.block_out_channels.len() - 1;
        let mut walk = self.walk(adapted);
        walk.skips.push(2 * places * outer);
        walk.conv(places, self.conv_in_kernel, self.in_channels, outer, places);
        walk.resnet(places, 2 * outer, outer);
        if let Some(block) = self.up_block_types.last().filter(|block| block.is_attended()) {
            let layers = match &self.reverse_transformer_layers_per_block {
                Some(layers) => layers[last],
                None => self.transformer_layers_per_block.at(0),
            };
            walk.transformer(places, self.transformer(0, layers, block.attends_to_itself()), tokens);
        }
        walk.conv(places, self.conv_out_kernel, outer, self.out_channels, 2 * places);
        walk.so_far
    }

    /// The demand of one row for a ControlNet of this configuration, without the embedding of its picture: the way
    /// down, and a 1 × 1 convolution after every map.
    pub(in crate::models) fn demand_down(&self, [h, w]: [usize; 2], tokens: usize) -> Demand {
        let mut walk = self.way_down([h, w], tokens, false);
        let behind: Vec<(usize, usize)> = self.skips([h, w]);
        let residuals: usize = behind.iter().map(|(places, width)| places * width).sum();
        for (places, width) in behind {
            walk.take(conv(places, 1, width, width, places).beside(residuals));
        }
        walk.so_far
    }

    /// The demand of the layers from the input up to and including the middle block, and the skips that they leave.
    fn way_down(&self, [h, w]: [usize; 2], tokens: usize, adapted: bool) -> Walk {
        let (channels, last) = (&self.block_out_channels, self.block_out_channels.len() - 1);
        let mut walk = self.walk(adapted);
        walk.conv(h * w, self.conv_in_kernel, self.in_channels, channels[0], h * w);
        walk.skips.push(h * w * channels[0]);
        for i in 0..=last {
            let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
            let (places, block) = (places([h, w], i), self.down_block_types[i]);
            let layers = self.transformer_layers_per_block.at(i);
            for j in 0..self.layers_per_block.at(i) {
                walk.resnet(places, if j == 0 { inputs } else { outputs }, outputs);
                if block.is_attended() {
                    walk.transformer(places, self.transformer(i, layers, block.attends_to_itself()), tokens);
                }
                walk.skips.push(places * outputs);
            }
            if i < last {
                let below = self::places([h, w], i + 1);
                walk.conv(below, 3, outputs, outputs, places);
                walk.skips.push(below * outputs);
            }
        }
        let (places, width) = (places([h, w], last), channels[last]);
        walk.resnet(places, width, width);
        walk.transformer(places, self.transformer(last, self.transformer_layers_per_block.at(last), true), tokens);
        walk.resnet(places, width, width);
        walk
    }

    fn walk(&self, adapted: bool) -> Walk {
        let (separable, without_text) = (self.layers.separable, self.layers.takes_vector);
        Walk { so_far: Demand::default(), adapted, separable, without_text, skips: Vec::new() }
    }

    /// Places and channels of every map that ControlNets add to, including the output of the middle block.
    fn skips(&self, size: [usize; 2]) -> Vec<(usize, usize)> {
        let (channels, last) = (&self.block_out_channels, self.block_out_channels.len() - 1);
        let mut skips = vec![(places(size, 0), channels[0])];
        for (i, width) in channels.iter().enumerate() {
            skips.extend(vec![(places(size, i), *width); self.layers_per_block.at(i)]);
            skips.extend((i < last).then(|| (places(size, i + 1), *width)));
        }
        skips.push((places(size, last), channels[last]));
        skips
    }
}

/// Places of the maps at `level`. Each level has half the height and width of the level above it, rounded up.
fn places([h, w]: [usize; 2], level: usize) -> usize {
    h.div_ceil(1 << level) * w.div_ceil(1 << level)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Profiles of the U-Net of Stable Diffusion 1 at 512 × 512 pixels report 803 GFLOPs for one call. Each
    /// multiplication counts as two operations.
    #[test]
    fn stable_diffusion_1_takes_what_is_published() {
        let config = UNet2DConditionConfig { cross_attention_dim: per_block(768), ..UNet2DConditionConfig::default() };
        let demand = config.demand([64, 64], 77, false);
        assert!((2.0 * demand.work / 803e9 - 1.0).abs() < 0.01, "{demand:?}");
        let larger = config.demand([128, 128], 77, false);
        assert!(larger.work > 5.0 * demand.work, "attention grows with the square: {larger:?}");
        assert!(larger.bytes > 39 * demand.bytes / 10 && larger.bytes < 41 * demand.bytes / 10);
        assert!(config.demand_shallow([64, 64], 77, false).work < 0.2 * demand.work);
        assert!(config.demand_down([64, 64], 77).work < 0.5 * demand.work);
        // With LoRAs, only some layers take more: the peak is less than in proportion to the transformers' 23 / 11.
        let adapted = config.demand([64, 64], 77, true);
        assert_eq!(adapted.work, demand.work);
        assert!(adapted.bytes > demand.bytes && adapted.bytes < 23 * demand.bytes / 11, "{adapted:?}");
    }

    fn per_block(n: usize) -> crate::models::configuration::PerBlock {
        crate::models::configuration::PerBlock::All(n)
    }
}
