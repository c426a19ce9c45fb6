//! One-dimensional convolutions of sequences (B, T, C), on the kernels of two-dimensional convolutions.

use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        conv2d::{Conv2d, Geometry},
        finish::Epilogue,
    },
    weights::Weights,
};

/// PyTorch's `Conv1d` with an odd kernel, which keeps the length of the sequence.
#[derive(Debug)]
pub(super) struct Conv1d {
    conv: Conv2d,
    dilation: usize,
}

impl Conv1d {
    /// `kernel` is odd. Between two neighboring taps are `dilation` − 1 numbers of the sequence.
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kernel: usize, dilation: usize) -> Self {
        let bias = weights.tensor("bias", &[outputs]);
        Self::with_bias(weights, inputs, &bias, kernel, dilation)
    }

    /// A convolution of single places, without a bias.
    pub fn pointwise_without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self::with_bias(weights, inputs, &weights.zeros(&[outputs]), 1, 1)
    }

    fn with_bias(weights: &Weights, inputs: usize, bias: &Tensor, kernel: usize, dilation: usize) -> Self {
        let outputs = bias.elem_count();
        let laid_out = |weight: Tensor| weight.permute((2, 1, 0))?.contiguous()?.reshape((kernel * inputs, outputs));
        let stored = weight(weights, [outputs, inputs, kernel]);
        // A tensor that is not contiguous is a placeholder that needs no memory.
        let weight = match stored.is_contiguous() {
            true => laid_out(stored).expect("the weight has the requested shape"),
            false => weights.zeros(&[kernel * inputs, outputs]),
        };
        let padding = kernel / 2;
        let geometry = lines(kernel, padding, padding);
        let conv = Conv2d::new(&weight, bias, geometry, weights.kernels().exact());
        Self { conv: conv.expect("the weights have the requested shapes"), dilation }
    }

    /// (B, T, in) → (B, T, out)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, None)
    }

    /// As [`Conv1d::forward`], plus `residual` (B, T, out).
    ///
    /// With a dilation of d, a kernel reads every d-th number of the sequence. So the sequence is a map of d columns,
    /// and the taps are below each other in a column.
    pub fn forward_with(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let height = t.div_ceil(self.dilation);
        let columns = |x: &Tensor| {
            let more = height * self.dilation - t;
            let x = if more == 0 { x.clone() } else { x.pad_with_zeros(1, 0, more)? };
            x.contiguous()?.reshape((b, height, self.dilation, ()))
        };
        let residual = residual.map(columns).transpose()?;
        let epilogue = residual.as_ref().map_or(Epilogue::default(), Epilogue::residual);
        let y = self.conv.forward_with(&columns(x)?, epilogue)?;
        y.reshape((b, height * self.dilation, ()))?.narrow(1, 0, t)?.contiguous()
    }
}

/// PyTorch's `ConvTranspose1d`, which makes a sequence `stride` times as long, without an output padding.
#[derive(Debug)]
pub(super) struct ConvTranspose1d {
    /// Computes `stride` numbers of the output from the numbers around one place of the input.
    conv: Conv2d,
    stride: usize,
    /// The number of outputs in addition to the `stride` outputs for each input: 0 or 1.
    more: usize,
}

impl ConvTranspose1d {
    /// The padding is (`kernel` − `stride`) / 2, rounded down; `kernel` is at least `stride`.
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        let padding = (kernel - stride) / 2;
        let more = kernel - stride - 2 * padding;
        // The number n = q · stride + r of the output is the sum of the products of the number i of the input with tap
        // k, for all i and k with i · stride + k = n + padding. So i goes from q − before to q + after, whatever r is.
        let (before, after) = ((kernel - 1 - padding) / stride, padding.div_ceil(stride));
        let taps = before + 1 + after;
        let stored = weight(weights, [inputs, outputs, kernel]);
        let weight = match stored.is_contiguous() {
            true => {
                let phases = Phases { stride, padding, before, taps };
                phases.matrix(&stored).expect("the weight has the requested shape")
            }
            false => weights.zeros(&[taps * inputs, stride * outputs]),
        };
        let bias = weights.tensor("bias", &[outputs]);
        let bias = match bias.is_contiguous() {
            true => bias.repeat(stride).expect("a bias has one dimension"),
            false => weights.zeros(&[stride * outputs]),
        };
        let conv = Conv2d::new(&weight, &bias, lines(taps, before, after + more), weights.kernels().exact());
        Self { conv: conv.expect("the weights have the requested shapes"), stride, more }
    }

    /// The length of the output for an input of length `t`.
    pub fn length(t: usize, kernel: usize, stride: usize) -> usize {
        t * stride + (kernel - stride) % 2
    }

    /// (B, T, in) → (B, T · stride, out), or one number longer if the difference of kernel and stride is odd
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let y = self.conv.forward(&x.contiguous()?.unsqueeze(2)?)?; // (B, Q, 1, stride · out)
        let y = y.reshape((b, (t + self.more) * self.stride, ()))?;
        y.narrow(1, 0, t * self.stride + self.more)?.contiguous()
    }
}

/// The numbers that determine which tap of a transposed convolution connects an input with an output.
struct Phases {
    stride: usize,
    padding: usize,
    /// The distance of the first input of an output from the place of this output.
    before: usize,
    taps: usize,
}

impl Phases {
    /// The weight (in, out, kernel) of the transposed convolution as the weight (taps · in, stride · out) of a
    /// convolution.
    fn matrix(&self, weight: &Tensor) -> Result<Tensor> {
        let &Phases { stride, padding, before, taps } = self;
        let (inputs, outputs, kernel) = weight.dims3()?;
        let stored: Vec<f32> = weight.flatten_all()?.to_vec1()?;
        let mut matrix = vec![0.0; taps * inputs * stride * outputs];
        for (line, values) in matrix.chunks_exact_mut(stride * outputs).enumerate() {
            let (tap, input) = (line / inputs, line % inputs);
            for (column, value) in values.iter_mut().enumerate() {
                let (phase, output) = (column / outputs, column % outputs);
                // The input is (tap − before) places after the place of the output.
                let k = (phase + padding + before * stride).checked_sub(tap * stride);
                if let Some(k) = k.filter(|k| *k < kernel) {
                    *value = stored[(input * outputs + output) * kernel + k];
                }
            }
        }
        Tensor::from_vec(matrix, (taps * inputs, stride * outputs), weight.device())
    }
}

/// A kernel of one column, with zeros above and below the map.
fn lines(kernel: usize, top: usize, bottom: usize) -> Geometry {
    Geometry { kernel: (kernel, 1), stride: 1, top, bottom, left: 0, right: 0 }
}

/// The weight of a convolution. If the file has it with weight normalization, as a direction and a length for each
/// slice of the first dimension (Salimans & Kingma 2016, arXiv:1602.07868), both are multiplied here. The two tensors
/// have the names of PyTorch's older or newer implementation.
fn weight(weights: &Weights, shape: [usize; 3]) -> Tensor {
    let names = [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]];
    let normed = names.into_iter().find(|[length, _]| weights.has(length)).filter(|_| !weights.has("weight"));
    let Some([length, direction]) = normed else { return weights.tensor("weight", &shape) };
    let length = weights.tensor(length, &[shape[0], 1, 1]);
    let direction = weights.tensor(direction, &shape);
    if !direction.is_contiguous() {
        return direction;
    }
    let product = || -> Result<Tensor> {
        let norm = direction.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
        direction.broadcast_mul(&length.broadcast_div(&norm)?)
    };
    product().expect("a direction and its length have matching shapes")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        device::Device,
        kernels::{Kernels, random::Random},
        weights::{ModelFolder, as_stored},
    };

    /// Builds a layer from a file with these tensors.
    fn built<L>(tensors: &HashMap<&str, Tensor>, kernels: Kernels, build: impl FnOnce(&Weights) -> L) -> L {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("vocoder")).unwrap();
        candle_core::safetensors::save(tensors, folder.path().join("vocoder/model.safetensors")).unwrap();
        let (model, device) = (ModelFolder::open(folder.path()).unwrap(), Device::host().with_kernels(kernels));
        let weights = Weights::open(&model, "vocoder", "model", &device, as_stored).unwrap();
        let layer = build(&weights);
        weights.finish().unwrap();
        layer
    }

    /// candle's convolutions take (B, C, T).
    fn turned(x: &Tensor) -> Tensor {
        x.transpose(1, 2).unwrap().contiguous().unwrap()
    }

    fn close(made: &Tensor, expected: &Tensor) -> bool {
        let error = (made - expected).unwrap().abs().unwrap().max_all().unwrap();
        made.dims() == expected.dims() && error.to_scalar::<f32>().unwrap() < 1e-4
    }

    /// PyTorch's definition of a transposed convolution: number i of the input times tap k is added to number i ·
    /// stride + k of the output, whose first `padding` numbers are cut off. (B, T, in), (in, out, K) → (B, out, T').
    /// candle's own is wrong from the second row of a batch on.
    fn upsampled(x: &Tensor, weight: &Tensor, stride: usize, padding: usize, length: usize) -> Tensor {
        let (x, weight) = (x.to_vec3::<f32>().unwrap(), weight.to_vec3::<f32>().unwrap());
        let outputs = weight[0].len();
        let rows = x.iter().map(|row| {
            let mut made = vec![vec![0.0; length]; outputs];
            for (i, inputs) in row.iter().enumerate() {
                for (value, taps) in inputs.iter().zip(&weight) {
                    for (made, taps) in made.iter_mut().zip(taps) {
                        for (k, tap) in taps.iter().enumerate() {
                            let at = (i * stride + k).checked_sub(padding);
                            if let Some(made) = at.and_then(|at| made.get_mut(at)) {
                                *made += value * tap;
                            }
                        }
                    }
                }
            }
            made
        });
        Tensor::new(rows.collect::<Vec<_>>(), &candle_core::Device::Cpu).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn like_candle(
            b in 1usize..3, t in 1usize..20, inputs in 1usize..5, outputs in 1usize..5, half in 0usize..4,
            dilation in 1usize..6, stride in 1usize..6, longer in 0usize..12, seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let (kernel, long) = (2 * half + 1, stride + longer);
            let (x, bias) = (random(&[b, t, inputs]), random(&[outputs]));
            let (weight, transposed) = (random(&[outputs, inputs, kernel]), random(&[inputs, outputs, long]));
            let shift = bias.reshape((1, outputs, 1)).unwrap();
            let plain = turned(&x).conv1d(&weight, half * dilation, 1, dilation, 1).unwrap().broadcast_add(&shift).unwrap();
            let up = upsampled(&x, &transposed, stride, longer / 2, t * stride + longer % 2).broadcast_add(&shift).unwrap();
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let tensors = HashMap::from([("weight", weight.clone()), ("bias", bias.clone())]);
                let conv = built(&tensors, kernels, |w| Conv1d::new(w, inputs, outputs, kernel, dilation));
                let residual = turned(&plain);
                prop_assert!(close(&turned(&conv.forward(&x).unwrap()), &plain));
                let twice = conv.forward_with(&x, Some(&residual)).unwrap();
                prop_assert!(close(&turned(&twice), &(&plain * 2.0).unwrap()));

                let tensors = HashMap::from([("weight", transposed.clone()), ("bias", bias.clone())]);
                let conv = built(&tensors, kernels, |w| ConvTranspose1d::new(w, inputs, outputs, long, stride));
                let made = turned(&conv.forward(&x).unwrap());
                prop_assert_eq!(made.dim(2).unwrap(), ConvTranspose1d::length(t, long, stride));
                prop_assert!(close(&made, &up));
            }
        }
    }

    #[test]
    fn a_weight_with_weight_normalization_is_multiplied() {
        let mut random = Random::new(1);
        let mut random = |shape: &[usize]| random.normal(shape, 0.0);
        let (x, bias, weight) = (random(&[1, 9, 3]), random(&[2]), random(&[2, 3, 5]));
        let length = weight.sqr().unwrap().sum_keepdim((1, 2)).unwrap().sqrt().unwrap();
        let direction = (&weight * 7.0).unwrap();
        let made = |tensors: &[(&'static str, &Tensor)]| {
            let tensors = tensors.iter().map(|(name, tensor)| (*name, (*tensor).clone()));
            let tensors = tensors.chain([("bias", bias.clone())]).collect();
            built(&tensors, Kernels::default(), |w| Conv1d::new(w, 3, 2, 5, 1)).forward(&x).unwrap()
        };
        let plain = made(&[("weight", &weight)]);
        assert!(close(&made(&[("weight_g", &length), ("weight_v", &direction)]), &plain));
        let names = ["parametrizations.weight.original0", "parametrizations.weight.original1"];
        assert!(close(&made(&[(names[0], &length), (names[1], &direction)]), &plain));
    }
}
