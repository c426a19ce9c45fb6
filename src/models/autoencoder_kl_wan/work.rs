//! Work and memory of the layers of an `AutoencoderKLWan`.

use super::{
    AutoencoderKlWanConfig,
    layer_plan::{LayerKind, LayerPlan},
};
use crate::models::demand::{Demand, attention, bytes, of_frames};

/// A stage of several layers does at most this number of multiplications for one film.
pub const STAGE_WORK: f64 = 1e9;

/// Frames of each piece of a film after the first.
const PIECE: usize = 4;

impl AutoencoderKlWanConfig {
    /// The demand of decoding a film of `frames` latent frames of (h, w) pixels, one latent frame at a time.
    pub fn decode_demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        let pieces = [true, false].map(|is_first| self.decode_layers(1, size, is_first));
        of_film(pieces, frames)
    }

    /// The demand of encoding a film of `frames` frames of (H, W) pixels.
    pub fn encode_demand(&self, frames: usize, size: [usize; 2]) -> Demand {
        let pieces = [(1, true), (PIECE, false)].map(|(frames, is_first)| self.encode_layers(frames, size, is_first));
        of_film(pieces, self.latent_frames(frames))
    }

    /// The demand of each layer of the decoder for `frames` latent frames of (h, w) pixels. Memory includes the earlier
    /// frames that all layers keep.
    pub(super) fn decode_layers(&self, frames: usize, [h, w]: [usize; 2], is_first: bool) -> Vec<Demand> {
        demands(&self.decoder(), frames, h * w, is_first)
    }

    /// As [`AutoencoderKlWanConfig::decode_layers`], for the encoder and `frames` frames of (H, W) pixels.
    pub(super) fn encode_layers(&self, frames: usize, [height, width]: [usize; 2], is_first: bool) -> Vec<Demand> {
        demands(&self.encoder(), frames, height * width, is_first)
    }
}

/// The demand of a film of `count` pieces. `pieces` has the demands of the layers for the first piece and for a later
/// piece.
fn of_film(pieces: [Vec<Demand>; 2], count: usize) -> Demand {
    let [first, later] = pieces.map(|layers| layers.into_iter().fold(Demand::default(), Demand::then));
    let later = Demand { work: count.saturating_sub(1) as f64 * later.work, ..later };
    if count > 1 { first.then(later) } else { first }
}

/// The demands of layers that take `frames` frames of `places` places.
fn demands(plan: &[LayerPlan], mut frames: usize, mut places: usize, is_first: bool) -> Vec<Demand> {
    let (mut layers, mut pasts, mut kept) = (Vec::with_capacity(plan.len()), 0, 0);
    for LayerPlan { kind, .. } in plan {
        let before = frames * places;
        let layer = of_layer(*kind, &mut frames, &mut places, is_first);
        pasts += past(*kind, places);
        match kind {
            LayerKind::Average(_) | LayerKind::Repeat(_) => kept = 0,
            LayerKind::Resnet { inputs, .. } if kept == 1 => kept = before * inputs,
            LayerKind::Keep => kept = 1,
            _ => {}
        }
        layers.push(Demand { bytes: layer.bytes + bytes(kept), ..layer });
    }
    layers.into_iter().map(|layer| Demand { bytes: layer.bytes + bytes(pasts), ..layer }).collect()
}

/// The demand of a layer, without the memory for earlier frames. Changes `frames` and `places` to the numbers of the
/// layer's output.
fn of_layer(kind: LayerKind, frames: &mut usize, places: &mut usize, is_first: bool) -> Demand {
    let conv = |taps: usize, inputs: usize, outputs: usize, at: usize| (taps * inputs * outputs) as f64 * at as f64;
    // Memory holds the input of a convolution over frames, a copy of the input with the frames before it, and two sums.
    let causal = |taps: usize, frames: usize, places: usize, inputs: usize, outputs: usize| Demand {
        work: conv(taps, inputs, outputs, frames * places),
        bytes: bytes(places * ((2 * frames + 2) * inputs + 2 * frames * outputs)),
    };
    match kind {
        LayerKind::Normalize | LayerKind::Denormalize | LayerKind::Keep => Demand::default(),
        LayerKind::Fold { patch } => {
            let colors = 3 * *frames * *places;
            *places /= patch * patch;
            Demand { work: 0.0, bytes: bytes(2 * colors) }
        }
        LayerKind::Unfold { patch } => {
            *places *= patch * patch;
            Demand { work: 0.0, bytes: bytes(3 * 3 * *frames * *places) }
        }
        LayerKind::Pointwise { inputs, outputs } => {
            let n = *frames * *places;
            Demand { work: conv(1, inputs, outputs, n), bytes: bytes(n * (inputs + outputs)) }
        }
        LayerKind::Conv { inputs, outputs } => causal(27, *frames, *places, inputs, outputs),
        LayerKind::Out { inputs, outputs } => {
            let layer = causal(27, *frames, *places, inputs, outputs);
            layer.beside(*frames * *places * inputs)
        }
        LayerKind::Resnet { inputs, outputs } => {
            let n = *frames * *places;
            let shortcut = if inputs == outputs { 0.0 } else { conv(1, inputs, outputs, n) };
            let first = causal(27, *frames, *places, inputs, outputs).beside(n * inputs);
            let second = causal(27, *frames, *places, outputs, outputs).beside(n * (inputs + outputs));
            let both = first.then(second);
            Demand { work: both.work + shortcut, ..both }
        }
        LayerKind::Attention { channels } => of_frames(*frames, attention(*places, channels)),
        LayerKind::Down { channels, in_time } => {
            let input = *frames * *places;
            *places /= 4;
            let work = conv(9, channels, channels, *frames * *places);
            let layer = Demand { work, bytes: bytes((input + *frames * *places) * channels) };
            if !in_time || is_first {
                return layer;
            }
            *frames /= 2;
            let halved = causal(3, *frames, *places, channels, channels);
            layer.then(halved.beside(2 * *frames * *places * channels))
        }
        LayerKind::Up { inputs, outputs, in_time } => {
            let mut layer = Demand::default();
            if in_time && !is_first {
                layer = causal(3, *frames, *places, inputs, 2 * inputs).beside(2 * *frames * *places * inputs);
                *frames *= 2;
            }
            *places *= 4;
            let n = *frames * *places;
            let work = conv(9, inputs, outputs, n);
            layer.then(Demand { work, bytes: bytes(n / 4 * inputs + n * (inputs + outputs)) })
        }
        LayerKind::Average(shortcut) => Demand {
            work: 0.0,
            bytes: bytes(*frames * *places * (2 * shortcut.factor() * shortcut.inputs + 3 * shortcut.outputs)),
        },
        LayerKind::Repeat(shortcut) => Demand { work: 0.0, bytes: bytes(*frames * *places * 4 * shortcut.outputs) },
    }
}

/// The numbers that a layer keeps of earlier frames, for an output of `places` places.
fn past(kind: LayerKind, places: usize) -> usize {
    match kind {
        LayerKind::Conv { inputs, .. } | LayerKind::Out { inputs, .. } => 2 * places * inputs,
        LayerKind::Resnet { inputs, outputs } => 2 * places * (inputs + outputs),
        LayerKind::Down { channels, in_time: true } => places * channels,
        LayerKind::Up { inputs, in_time: true, .. } => 2 * places / 4 * inputs,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_grows_with_the_length_of_a_film_and_memory_does_not() {
        let config = AutoencoderKlWanConfig::default();
        let size = [60, 104];
        let [one, two, long] = [1, 2, 21].map(|frames| config.decode_demand(frames, size));
        assert!(((long.work - one.work) / (two.work - one.work) - 20.0).abs() < 1e-9);
        assert!(two.work > 4.0 * one.work && two.bytes == long.bytes && one.bytes < two.bytes);
        let pixels = size.map(|side| 8 * side);
        let [one, five, long] = [1, 5, 81].map(|frames| config.encode_demand(frames, pixels));
        assert!(((long.work - one.work) / (five.work - one.work) - 20.0).abs() < 1e-9);
        assert!(five.bytes == long.bytes && one.bytes < five.bytes);
    }

    #[test]
    fn stages_are_all_layers_in_order() {
        let small = AutoencoderKlWanConfig { base_dim: 8, ..AutoencoderKlWanConfig::default() };
        for (config, is_first) in [(&small, true), (&small, false), (&AutoencoderKlWanConfig::default(), false)] {
            let stages = [config.decode_stages(1, [6, 8], is_first), config.encode_stages(4, [48, 64], is_first)];
            for (stages, plan) in stages.iter().zip([config.decoder(), config.encoder()]) {
                let layers: Vec<usize> = stages.iter().flat_map(|stage| stage.layers.clone()).collect();
                assert_eq!(layers, (0..plan.len()).collect::<Vec<_>>());
                let fits = |stage: &crate::models::autoencoder_kl::Stage| {
                    stage.layers.len() == 1 || stage.demand.work <= STAGE_WORK
                };
                assert!(stages.iter().all(fits));
            }
        }
    }

    #[test]
    fn the_work_of_a_layer_is_that_of_its_convolutions() {
        let config = AutoencoderKlWanConfig { base_dim: 2, z_dim: 3, ..AutoencoderKlWanConfig::default() };
        let layers = config.decode_layers(1, [2, 3], true);
        assert_eq!(layers[2].work, (27 * 3 * 8 * 6) as f64, "conv_in");
        assert_eq!(layers[3].work, (2 * 27 * 8 * 8 * 6) as f64, "the first block of the middle");
        // After the middle and three blocks comes the first upsampler, which doubles the frames of later pieces.
        assert_eq!(layers[9].work, (9 * 8 * 4 * 24) as f64);
        let later = config.decode_layers(1, [2, 3], false);
        assert_eq!(later[9].work, (3 * 8 * 16 * 6 + 9 * 8 * 4 * 48) as f64);
    }
}
