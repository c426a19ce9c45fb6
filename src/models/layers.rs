//! Layers that the networks share: linear layers, convolutions and norms, with LoRA adapters where needed.

use std::sync::Arc;

use candle_core::{Result, Tensor};

pub(super) use crate::kernels::maps::{channels_first, channels_last};

use super::adapters::{LowRank, RowAdapters, by_rows, narrowed};
use crate::{
    kernels::{
        Kernels,
        conv2d::{Conv2d, Geometry},
        finish::{Activation, Epilogue},
        geglu::{Gate, Geglu},
        group_norm::Then,
        matrix::Matrix,
        narrow::Narrow,
    },
    weights::{StoredMatrix, Weights},
};

/// y = x·Wᵀ + b over the last dimension.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    /// The path of the layer, which adapters use as its name.
    path: Arc<str>,
}

impl Linear {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        let bias = weights.tensor("bias", &[outputs]);
        Self { matrix: matrix(weights, inputs, outputs, Some(&bias)), path: weights.path() }
    }

    pub fn without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self { matrix: matrix(weights, inputs, outputs, None), path: weights.path() }
    }

    /// Several layers whose weights are stored as one matrix, one below the other, without biases. The name of a layer
    /// is the name of the scope followed by the number of the layer, from 0.
    pub fn split<const N: usize>(weights: &Weights, inputs: usize, outputs: [usize; N]) -> [Self; N] {
        let whole = Whole::of(weights, inputs, outputs.iter().sum());
        let (mut first, mut numbers) = (0, 0..);
        outputs.map(|count| {
            let matrix = whole.part(first, (inputs, count), weights.kernels());
            first += count;
            let path = format!("{}.{}", weights.path(), numbers.next().unwrap_or_default()).into();
            Self { matrix: matrix.expect("the parts make up the whole, which has the requested shape"), path }
        })
    }

    /// A 1 × 1 convolution, which on channels-last maps is a linear layer.
    pub fn pointwise(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        let bias = weights.tensor("bias", &[outputs]);
        Self { matrix: pointwise(weights, inputs, outputs, Some(&bias)), path: weights.path() }
    }

    /// As [`Linear::pointwise`], for a convolution that stores no bias.
    pub fn pointwise_without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self { matrix: pointwise(weights, inputs, outputs, None), path: weights.path() }
    }

    /// (B, …, in) → (B, …, out)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.matrix.times(x)
    }

    /// (B, …, in) → (B, …, out), plus the terms of `epilogue`.
    pub fn forward_finished(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        self.matrix.times_with(x, epilogue)
    }

    /// x (B, …, in), residual (B, …, out) → x·Wᵀ + b + residual, (B, …, out)
    pub fn forward_with(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.matrix.times_with(x, Epilogue::residual(residual))
    }

    /// As [`Linear::forward`], plus the changes of the rows' adapters.
    pub fn adapted(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        adapters.epilogue(&self.path, x, self.forward(x)?, None)
    }

    /// gelu(y), with the tanh approximation, for y of [`Linear::adapted`].
    pub fn adapted_gelu(&self, x: &Tensor, adapters: &RowAdapters, kernels: Kernels) -> Result<Tensor> {
        match kernels {
            Kernels::Packed(_) if adapters.changes(&self.path).is_empty() => {
                self.matrix.times_with(x, Epilogue { activation: Some(Activation::GeluTanh), ..Epilogue::default() })
            }
            _ => kernels.gelu_tanh(&self.adapted(x, adapters)?),
        }
    }

    /// residual (B, N, out) + gate (B, 1, out) · y, for y of [`Linear::adapted`].
    pub fn adapted_gated(
        &self,
        x: &Tensor,
        [residual, gate]: [&Tensor; 2],
        adapters: &RowAdapters,
        kernels: Kernels,
    ) -> Result<Tensor> {
        match kernels {
            Kernels::Packed(_) if adapters.changes(&self.path).is_empty() => {
                let (gate, residual) = (Some(gate), Some(residual));
                self.matrix.times_with(x, Epilogue { gate, residual, ..Epilogue::default() })
            }
            _ => kernels.gated_sum(residual, &self.adapted(x, adapters)?, gate),
        }
    }

    /// As [`Linear::forward_with`], plus the changes of the rows' adapters.
    pub fn adapted_with(&self, x: &Tensor, residual: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        adapters.epilogue(&self.path, x, self.forward_with(x, residual)?, None)
    }
}

/// The matrix `weight` (outputs, inputs) of a linear layer: as it is stored if the weights allow it
/// ([`Weights::with_stored_matrices`]), otherwise in the precision of the weights.
fn matrix(weights: &Weights, inputs: usize, outputs: usize, bias: Option<&Tensor>) -> Matrix {
    let made = match weights.stored_matrix("weight", outputs, inputs) {
        Some(StoredMatrix { format, scale, bytes }) => {
            let narrow = Narrow::pack(format, scale, &bytes, (inputs, outputs), |row| row);
            narrow.and_then(|narrow| Matrix::narrow(narrow, bias))
        }
        None => Matrix::new(&weights.matrix("weight", outputs, inputs), bias, weights.kernels()),
    };
    made.expect("the weights have the requested shapes")
}

/// The weight (outputs, inputs, 1, 1) of a 1 × 1 convolution, as the matrix of a linear layer.
fn pointwise(weights: &Weights, inputs: usize, outputs: usize, bias: Option<&Tensor>) -> Matrix {
    let made = match weights.stored_conv2d("weight", outputs, inputs, (1, 1)) {
        Some(StoredMatrix { format, scale, bytes }) => {
            let narrow = Narrow::pack_places(format, scale, &bytes, [outputs, inputs, 1]);
            narrow.and_then(|narrow| Matrix::narrow(narrow, bias))
        }
        None => Matrix::new(&weights.conv2d("weight", outputs, inputs, (1, 1)), bias, weights.kernels()),
    };
    made.expect("the weights have the requested shapes")
}

/// A matrix (outputs, inputs) that is to be divided by rows.
enum Whole {
    /// (inputs, outputs)
    Plain(Tensor),
    Stored(StoredMatrix),
}

impl Whole {
    fn of(weights: &Weights, inputs: usize, outputs: usize) -> Whole {
        let stored = weights.stored_matrix("weight", outputs, inputs).map(Whole::Stored);
        stored.unwrap_or_else(|| Whole::Plain(weights.matrix("weight", outputs, inputs)))
    }

    /// The matrix (outputs, inputs) that begins at row `first`.
    fn part(&self, first: usize, (inputs, outputs): (usize, usize), kernels: Kernels) -> Result<Matrix> {
        match self {
            Whole::Plain(whole) => {
                let part = whole.narrow(1, first, outputs)?;
                // A matrix that is not contiguous is a placeholder that needs no memory.
                let part = if whole.is_contiguous() { part.contiguous()? } else { part };
                Matrix::new(&part, None, kernels)
            }
            Whole::Stored(StoredMatrix { format, scale, bytes }) => {
                let line = format.bytes(inputs).unwrap_or(0);
                let rows = &bytes[first * line..][..outputs * line];
                Matrix::narrow(Narrow::pack(*format, *scale, rows, (inputs, outputs), |row| row)?, None)
            }
        }
    }
}

/// diffusers' `GEGLU`: a linear layer and a gate. It has half the number of outputs of the weight.
#[derive(Debug)]
pub(super) struct GegluLayer {
    geglu: Geglu,
    path: Arc<str>,
}

impl GegluLayer {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        let geglu = geglu(weights, inputs, outputs, Gate::GeluErf);
        Self { geglu, path: weights.path() }
    }

    /// x (B, …, in) → (B, …, out). The changes of the rows' adapters are added before the gate.
    pub fn adapted(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let changes = adapters.changes(&self.path);
        if changes.is_empty() {
            return self.geglu.times(x);
        }
        // The output of a row without adapters must have the same bits in every batch. So the whole batch is first
        // computed without adapters, and then each range with adapters is computed again.
        by_rows(self.geglu.times(x)?, changes, |rows, y, changes| {
            let x = narrowed(x, &rows)?;
            let mut shape = y.dims().to_vec();
            shape.iter_mut().last().into_iter().for_each(|width| *width *= 2);
            let zeros = Tensor::zeros(shape, y.dtype(), y.device())?;
            let change = |sum, (change, scale): (&LowRank, f64)| change.epilogue(&x, &sum, None, scale);
            self.geglu.times_with(&x, &changes.into_iter().try_fold(zeros, change)?)
        })
    }
}

/// A linear layer with a gate. It has half the number of outputs of the weight.
pub(super) fn geglu(weights: &Weights, inputs: usize, outputs: usize, gate: Gate) -> Geglu {
    let bias = weights.tensor("bias", &[2 * outputs]);
    let made = match weights.stored_matrix("weight", 2 * outputs, inputs) {
        Some(StoredMatrix { format, scale, bytes }) => {
            Geglu::narrow(format, scale, &bytes, (inputs, outputs), Some(&bias), gate)
        }
        None => Geglu::new(&weights.matrix("weight", 2 * outputs, inputs), &bias, gate, weights.kernels()),
    };
    made.expect("the weights have the requested shapes")
}

/// Two linear layers without biases. One layer gates the other: gate(x·W₀ᵀ) ⊙ (x·W₁ᵀ).
#[derive(Debug)]
pub(super) enum GatedLinear {
    Joined(Geglu),
    /// Matrices that stay as they are stored, in different formats or with different scales.
    Apart {
        w0: Matrix,
        w1: Matrix,
        gate: Gate,
        kernels: Kernels,
    },
}

impl GatedLinear {
    /// `w0` has the weights of the gate and `w1` the weights of the values, both (outputs, inputs).
    pub fn new(gate: Gate, [w0, w1]: [Weights; 2], inputs: usize, outputs: usize) -> Self {
        let kernels = w0.kernels();
        let stored = [&w1, &w0].map(|weights| weights.stored_matrix("weight", outputs, inputs));
        if let [Some(values), Some(gates)] = &stored
            && (values.format, values.scale.to_bits()) == (gates.format, gates.scale.to_bits())
        {
            let rows = [&values.bytes[..], &gates.bytes].concat();
            let geglu = Geglu::narrow(values.format, values.scale, &rows, (inputs, outputs), None, gate);
            return Self::Joined(geglu.expect("the weights have the requested shapes"));
        }
        if stored.iter().any(Option::is_some) {
            drop(stored);
            let [w0, w1] = [&w0, &w1].map(|weights| matrix(weights, inputs, outputs, None));
            return Self::Apart { w0, w1, gate, kernels };
        }
        let [bias, placeholder] = [&[2 * outputs][..], &[inputs, 2 * outputs]].map(|shape| w0.zeros(shape));
        let [w0, w1] = [w0, w1].map(|weights| weights.matrix("weight", outputs, inputs));
        // Placeholders, which are not contiguous, would take memory if they were joined.
        let geglu = match w0.is_contiguous() && w1.is_contiguous() {
            true => {
                Tensor::cat(&[w1, w0], 1).and_then(|matrix| Geglu::new(&matrix, &bias.contiguous()?, gate, kernels))
            }
            false => Geglu::new(&placeholder, &bias, gate, kernels),
        };
        Self::Joined(geglu.expect("the weights have the requested shapes"))
    }

    /// x (B, …, in) → (B, …, out)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Joined(geglu) => geglu.times(x),
            Self::Apart { w0, w1, gate, kernels } => {
                let gates = match gate {
                    Gate::GeluErf => w0.times(x)?.gelu_erf()?,
                    Gate::GeluTanh => kernels.gelu_tanh(&w0.times(x)?)?,
                    Gate::Silu => kernels.silu(&w0.times(x)?)?,
                };
                gates * w1.times(x)?
            }
        }
    }
}

/// A convolution that adapters can change.
#[derive(Debug)]
pub(super) struct Conv {
    conv: Conv2d,
    geometry: Geometry,
    path: Arc<str>,
}

impl Conv {
    /// A square convolution with `padding` zeros on every side. It never uses Winograd's algorithm, whose rounding
    /// errors are larger.
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Self::of(weights, inputs, outputs, Geometry::square(kernel, stride, padding), weights.kernels().exact())
    }

    /// A 3 × 3 convolution within a network. It keeps the size of the maps.
    pub fn inner(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self::of(weights, inputs, outputs, Geometry::square(3, 1, 1), weights.kernels())
    }

    pub fn of(weights: &Weights, inputs: usize, outputs: usize, geometry: Geometry, kernels: Kernels) -> Self {
        let bias = weights.tensor("bias", &[outputs]);
        Self { conv: convolution(weights, inputs, bias, geometry, kernels), geometry, path: weights.path() }
    }

    /// (B, h, w, in) → (B, H, W, out), plus the changes of the rows' adapters.
    pub fn adapted(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.adapted_with(x, Epilogue::default(), adapters)
    }

    /// As [`Conv::adapted`], plus `epilogue`.
    pub fn adapted_with(&self, x: &Tensor, epilogue: Epilogue<'_>, adapters: &RowAdapters) -> Result<Tensor> {
        adapters.epilogue(&self.path, x, self.conv.forward_with(x, epilogue)?, Some(self.geometry))
    }
}

/// A square convolution with `padding` zeros on every side, without adapters. It never uses Winograd's algorithm, whose
/// rounding errors are larger.
pub(super) fn conv2d(
    weights: &Weights,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Conv2d {
    let bias = weights.tensor("bias", &[outputs]);
    convolution(weights, inputs, bias, Geometry::square(kernel, stride, padding), weights.kernels().exact())
}

/// A convolution of squares of `patch` × `patch` pixels that do not overlap, without a bias and without adapters.
pub(super) fn patch_conv2d(weights: &Weights, inputs: usize, outputs: usize, patch: usize) -> Conv2d {
    let none = weights.zeros(&[outputs]);
    convolution(weights, inputs, none, Geometry::square(patch, patch, 0), weights.kernels().exact())
}

/// A 3 × 3 convolution within a network, without adapters. It keeps the size of the maps.
pub(super) fn inner_conv2d(weights: &Weights, inputs: usize, outputs: usize) -> Conv2d {
    let bias = weights.tensor("bias", &[outputs]);
    convolution(weights, inputs, bias, Geometry::square(3, 1, 1), weights.kernels())
}

/// Like [`inner_conv2d`], but without a bias and with equal numbers of inputs and outputs, for layers that store no
/// bias.
pub(super) fn inner_conv2d_without_bias(weights: &Weights, channels: usize) -> Conv2d {
    let none = weights.zeros(&[channels]);
    convolution(weights, channels, none, Geometry::square(3, 1, 1), weights.kernels())
}

/// A 3 × 3 convolution that halves the size of the maps, without a bias and with equal numbers of inputs and outputs.
pub(super) fn halving_conv2d_without_bias(weights: &Weights, channels: usize) -> Conv2d {
    let none = weights.zeros(&[channels]);
    convolution(weights, channels, none, Geometry::square(3, 2, 1), weights.kernels().exact())
}

/// A convolution with this bias, without adapters.
pub(super) fn convolution(
    weights: &Weights,
    inputs: usize,
    bias: Tensor,
    geometry: Geometry,
    kernels: Kernels,
) -> Conv2d {
    let (outputs, (kh, kw)) = (bias.elem_count(), geometry.kernel);
    let made = match weights.stored_conv2d("weight", outputs, inputs, geometry.kernel) {
        Some(StoredMatrix { format, scale, bytes }) => {
            let narrow = Narrow::pack_places(format, scale, &bytes, [outputs, inputs, kh * kw]);
            narrow.and_then(|narrow| Conv2d::narrow(narrow, &bias, geometry, kernels))
        }
        None => Conv2d::new(&weights.conv2d("weight", outputs, inputs, geometry.kernel), &bias, geometry, kernels),
    };
    made.expect("the weights have the requested shapes")
}

/// Group normalization of (B, …, C).
#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
    kernels: Kernels,
}

impl GroupNorm {
    pub fn new(weights: &Weights, groups: usize, channels: usize, eps: f64) -> Self {
        let (weight, bias) = (weights.tensor("weight", &[channels]), weights.tensor("bias", &[channels]));
        Self { weight, bias, groups, eps, kernels: weights.kernels() }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernels.group_norm(x, self.groups, &self.weight, &self.bias, self.eps, Then::Nothing)
    }

    /// Group normalization, then SiLU, in one pass.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.kernels.group_norm(x, self.groups, &self.weight, &self.bias, self.eps, Then::Silu)
    }
}

/// Layer normalization of (…, C).
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    kernels: Kernels,
}

impl LayerNorm {
    pub fn new(weights: &Weights, channels: usize, eps: f64) -> Self {
        let (weight, bias) = (weights.tensor("weight", &[channels]), weights.tensor("bias", &[channels]));
        Self { weight, bias, eps, kernels: weights.kernels() }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernels.layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// Root mean square normalization of (…, C).
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Tensor,
    eps: f64,
    kernels: Kernels,
}

impl RmsNorm {
    pub fn new(weights: &Weights, channels: usize, eps: f64) -> Self {
        Self::named(weights, "weight", channels, eps)
    }

    /// The tensor of the scale has this name.
    pub fn named(weights: &Weights, name: &str, channels: usize, eps: f64) -> Self {
        Self { weight: weights.tensor(name, &[channels]), eps, kernels: weights.kernels() }
    }

    /// The scale is 1 + `weight`.
    pub fn around_one(weights: &Weights, channels: usize, eps: f64) -> Self {
        let norm = Self::new(weights, channels, eps);
        Self { weight: (norm.weight + 1.0).expect("a vector and a number have a sum"), ..norm }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernels.rms_norm(x, &self.weight, self.eps)
    }

    /// Normalizes each head of x (B, N, H·C) on its own.
    pub fn forward_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (b, n, width) = x.dims3()?;
        let channels = self.weight.elem_count();
        self.forward(&x.reshape((b, n, width / channels.max(1), channels))?)?.reshape((b, n, width))
    }
}

/// Layer normalization without weights, then a scale and a shift that depend on the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModulatedNorm {
    eps: f64,
    kernels: Kernels,
}

impl ModulatedNorm {
    pub fn new(weights: &Weights, eps: f64) -> Self {
        Self { eps, kernels: weights.kernels() }
    }

    /// x (B, N, D), shift and scale (B, 1, D) → (B, N, D)
    pub fn forward(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        self.kernels.modulated_norm(x, shift, scale, self.eps)
    }
}

/// Splits the output of a modulation's linear layer: (B, K·D) → K tensors (B, 1, D).
pub(super) fn modulations<const K: usize>(x: &Tensor) -> Result<[Tensor; K]> {
    let parts: Result<Vec<Tensor>> = x.chunk(K, 1)?.into_iter().map(|part| part.contiguous()?.unsqueeze(1)).collect();
    parts?.try_into().or_else(|_| candle_core::bail!("{:?} cannot be split into {K} parts", x.shape()))
}
