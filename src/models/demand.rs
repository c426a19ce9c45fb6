//! Work and memory of network calls, computed from the sizes of the layers alone.

use super::transformer2d::TransformerKind;
use crate::device::{Device, Precision};

/// The work and memory of one or more rows of a network call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Multiplications.
    pub work: f64,
    /// Peak memory of the activations, in bytes.
    pub bytes: u64,
}

impl Demand {
    /// The demand of two computations, one after the other.
    pub fn then(self, next: Demand) -> Demand {
        Demand { work: self.work + next.work, bytes: self.bytes.max(next.bytes) }
    }

    /// The demand of two computations whose activations are in memory at the same time.
    pub fn and(self, other: Demand) -> Demand {
        Demand { work: self.work + other.work, bytes: self.bytes + other.bytes }
    }

    /// The demand of a network in this precision on a device. On a GPU it is planned with twice the memory, because
    /// reference kernels make copies that packed kernels do not make. How much they really take has not been measured.
    pub fn on(self, device: &Device, precision: Precision) -> Demand {
        let copies = if device.is_gpu() { 2 } else { 1 };
        Demand { bytes: self.bytes / 4 * precision.bytes() * copies, ..self }
    }

    /// The demand with `bytes` additional bytes in memory, such as weights that are copied for the call.
    pub fn with_bytes(self, bytes: u64) -> Demand {
        Demand { bytes: self.bytes + bytes, ..self }
    }

    /// The demand with `floats` additional numbers in memory.
    pub(super) fn beside(self, floats: usize) -> Demand {
        Demand { bytes: self.bytes + bytes(floats), ..self }
    }
}

/// Bytes of this many float32 numbers.
pub(super) fn bytes(floats: usize) -> u64 {
    (floats * size_of::<f32>()) as u64
}

/// The demand of a `kernel` × `kernel` convolution from a map of `input_places` places with `inputs` channels to a map
/// of `places` places with `outputs` channels.
pub(super) fn conv(places: usize, kernel: usize, inputs: usize, outputs: usize, input_places: usize) -> Demand {
    let work = (kernel * kernel * inputs * outputs) as f64 * places as f64;
    Demand { work, bytes: bytes(input_places * inputs + places * outputs) }
}

/// The count of numbers that LoRAs add to the memory of a layer whose output map has `places` places and `outputs`
/// channels. LoRAs need two such maps: the output before the change, and the changed rows before all rows are joined.
pub(super) fn adapted_conv(places: usize, outputs: usize) -> usize {
    2 * places * outputs
}

/// The count of numbers that LoRAs add to the memory of [`transformer`]. With LoRAs, memory peaks in the GEGLU, which
/// then holds 23 maps instead of 11.
pub(super) fn adapted_transformer(places: usize, channels: usize) -> usize {
    12 * places * channels
}

/// The demand of a `ResnetBlock2D`: two convolutions, and a 1 × 1 convolution if the width changes. Memory holds the
/// input, its norm, and at most four maps of the output width.
pub(super) fn resnet(places: usize, inputs: usize, outputs: usize) -> Demand {
    let shortcut = if inputs == outputs { 0 } else { inputs * outputs };
    let work = (9 * outputs * (inputs + outputs) + shortcut) as f64 * places as f64;
    Demand { work, bytes: bytes(places * (2 * inputs + 4 * outputs)) }
}

/// As [`resnet`] with depthwise-separable convolutions, the first of which doubles the width. Memory holds the input,
/// its norm and its depthwise convolution, and at most four maps of the inner width.
pub(super) fn separable_resnet(places: usize, inputs: usize, outputs: usize) -> Demand {
    let shortcut = if inputs == outputs { 0 } else { inputs * outputs };
    let (inner, taps) = (2 * outputs, 9);
    let work = (taps * (inputs + inner) + inner * (inputs + outputs) + shortcut) as f64 * places as f64;
    Demand { work, bytes: bytes(places * (3 * inputs + 4 * inner)) }
}

/// The demand of a `Transformer2DModel` for a map of `places` places and a text of `tokens` tokens. Memory peaks in the
/// feed-forward layer, and is counted as eleven maps: the transformer's input, the block's state, the norm of this
/// state, and four maps each (`ff_mult`) for the values and the gates of GEGLU. The packed kernel
/// (`kernels/src/geglu.rs`) stores only the products of values and gates, four maps. The other four maps are counted
/// for the output and for scratch memory.
pub(super) fn transformer(places: usize, kind: TransformerKind, tokens: usize) -> Demand {
    let (n, c, m) = (places as f64, kind.channels as f64, tokens as f64);
    let keys_and_values = 2.0 * c * kind.kv_heads as f64 / kind.heads as f64;
    let to_itself = if kind.attends_to_itself { (2.0 * c + keys_and_values) * c * n + 2.0 * n * n * c } else { 0.0 };
    let to_text = 2.0 * c * c * n + keys_and_values * m * kind.cross_attention_dim as f64 + 2.0 * n * m * c;
    let feed_forward = 3.0 * kind.ff_mult as f64 * c * c * n;
    let work = kind.layers as f64 * (to_itself + to_text + feed_forward) + 2.0 * c * c * n;
    Demand { work, bytes: bytes((3 + 2 * kind.ff_mult) * places * kind.channels) }
}

/// The demand of a layer that computes this number of frames, each on its own.
pub fn of_frames(frames: usize, layer: Demand) -> Demand {
    Demand { work: frames as f64 * layer.work, bytes: frames as u64 * layer.bytes }
}

/// The demand of a `TemporalResnetBlock` for one clip: two convolutions of three frames. Memory holds the input and at
/// most three maps of each frame.
pub(super) fn temporal_resnet(places: usize, frames: usize, channels: usize) -> Demand {
    let work = (6 * channels * channels) as f64 * (places * frames) as f64;
    Demand { work, bytes: bytes(4 * frames * places * channels) }
}

/// The demand of a `TransformerSpatioTemporalModel` for one clip. Its attention to the vector of the picture gives the
/// same vector for all places. Memory peaks in a feed-forward layer, as in [`transformer`], with the maps that are
/// mixed.
pub(super) fn clip_transformer(places: usize, frames: usize, channels: usize, layers: usize) -> Demand {
    let (n, f, c) = (places as f64, frames as f64, channels as f64);
    let spatial = (4.0 + 12.0) * c * c * n * f + 2.0 * n * n * c * f;
    let temporal = (4.0 + 24.0) * c * c * n * f + 2.0 * f * f * c * n;
    let work = layers as f64 * (spatial + temporal) + 2.0 * c * c * n * f;
    Demand { work, bytes: bytes(13 * frames * places * channels) }
}

/// The demand of a module of a motion adapter for one clip: two attentions between the frames of each place, and a
/// feed-forward layer. Memory peaks in that layer, as in [`transformer`], with the map that enters the module.
pub(super) fn motion_transformer(places: usize, frames: usize, channels: usize, layers: usize) -> Demand {
    let (n, f, c) = (places as f64, frames as f64, channels as f64);
    let work = layers as f64 * ((8.0 + 12.0) * c * c * n * f + 4.0 * f * f * c * n) + 2.0 * c * c * n * f;
    Demand { work, bytes: bytes(12 * frames * places * channels) }
}

/// The demand of the self-attention of a map, with its four projections and the norm before it.
pub(super) fn attention(places: usize, channels: usize) -> Demand {
    let (n, c) = (places as f64, channels as f64);
    Demand { work: 4.0 * c * c * n + 2.0 * n * n * c, bytes: bytes(9 * places * channels) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> TransformerKind {
        TransformerKind {
            channels: 8,
            heads: 4,
            layers: 1,
            cross_attention_dim: 16,
            groups: 4,
            use_linear_projection: true,
            kv_heads: 4,
            qk_norm: false,
            attends_to_itself: true,
            ff_mult: 4,
        }
    }

    #[test]
    fn attention_grows_with_the_square_of_the_places() {
        let of = |places| transformer(places, kind(), 77).work;
        let linear = |places: f64| places * (4 + 2 + 12 + 2) as f64 * 64.0 + 2.0 * 77.0 * 8.0 * (16.0 + places);
        assert_eq!(of(100), linear(100.0) + 2.0 * 100.0 * 100.0 * 8.0);
        assert_eq!(of(1000), linear(1000.0) + 2.0 * 1000.0 * 1000.0 * 8.0);
    }

    #[test]
    fn one_call_after_the_other_takes_the_work_of_both_and_the_memory_of_the_larger() {
        let (a, b) = (conv(10, 3, 4, 8, 40), resnet(10, 8, 8));
        assert_eq!(a, Demand { work: (9 * 32 * 10) as f64, bytes: 4 * (160 + 80) });
        assert_eq!(a.then(b), Demand { work: a.work + b.work, bytes: b.bytes });
        assert_eq!(a.beside(7).bytes, a.bytes + 28);
        let adapted = transformer(10, kind(), 77).beside(adapted_transformer(10, 8));
        assert_eq!(adapted.bytes, 4 * 23 * 80);
    }
}
