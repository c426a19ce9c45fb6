use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        conv2d::{Conv2d, Geometry},
        finish::Onto,
        geglu::Geglu,
        group_norm::{Then, group_norm},
        layer_norm::layer_norm,
        matrix::Matrix,
        winograd,
    },
    weights::Weights,
};

/// y = x·Wᵀ + b over the last dimension.
#[derive(Debug)]
pub(super) struct Linear(Matrix);

impl Linear {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        let bias = weights.tensor("bias", &[outputs]);
        Self(matrix(weights.matrix("weight", outputs, inputs), Some(bias)))
    }

    pub fn without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self(matrix(weights.matrix("weight", outputs, inputs), None))
    }

    /// A convolution of one pixel, which on channels-last maps is the same thing.
    pub fn pointwise(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        let bias = weights.tensor("bias", &[outputs]);
        Self(matrix(weights.conv2d("weight", outputs, inputs, (1, 1)), Some(bias)))
    }

    /// (B, …, in) → (B, …, out)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.times(x)
    }

    /// (B, …, in) → (B, …, out), and a residual on top.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.0.times_onto(x, Onto::residual(residual))
    }
}

/// Half as many outputs as its weight has: diffusers' `GEGLU`.
pub(super) fn geglu(weights: &Weights, inputs: usize, outputs: usize) -> Geglu {
    let matrix = weights.matrix("weight", 2 * outputs, inputs);
    Geglu::new(&matrix, &weights.tensor("bias", &[2 * outputs])).expect("the shapes were asked for to fit each other")
}

/// A square convolution with `padding` zeros on every side.
pub(super) fn conv2d(
    weights: &Weights,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Conv2d {
    conv2d_of(weights, inputs, outputs, Geometry::square(kernel, stride, padding))
}

/// A convolution of any geometry, at the ends of a network: exact to the last bits.
pub(super) fn conv2d_of(weights: &Weights, inputs: usize, outputs: usize, geometry: Geometry) -> Conv2d {
    let bias = weights.tensor("bias", &[outputs]);
    convolution(weights, inputs, bias, geometry, winograd::Use::Off)
}

/// A convolution of 3 × 3 within a network that keeps the size of the maps.
pub(super) fn inner_conv2d(weights: &Weights, inputs: usize, outputs: usize) -> Conv2d {
    let bias = weights.tensor("bias", &[outputs]);
    convolution(weights, inputs, bias, Geometry::square(3, 1, 1), weights.winograd())
}

/// As [`inner_conv2d`], of as many outputs as inputs, where the checkpoint has no biases.
pub(super) fn inner_conv2d_without_bias(weights: &Weights, channels: usize) -> Conv2d {
    let none = weights.zeros(&[channels]);
    convolution(weights, channels, none, Geometry::square(3, 1, 1), weights.winograd())
}

fn convolution(weights: &Weights, inputs: usize, bias: Tensor, geometry: Geometry, winograd: winograd::Use) -> Conv2d {
    let weight = weights.conv2d("weight", bias.elem_count(), inputs, geometry.kernel);
    Conv2d::new(&weight, &bias, geometry, winograd).expect("the shapes were asked for to fit each other")
}

fn matrix(plain: Tensor, bias: Option<Tensor>) -> Matrix {
    Matrix::new(&plain, bias.as_ref()).expect("the shapes were asked for to fit each other")
}

/// Group normalisation of (B, …, C).
#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub fn new(weights: &Weights, groups: usize, channels: usize, eps: f64) -> Self {
        Self { weight: weights.tensor("weight", &[channels]), bias: weights.tensor("bias", &[channels]), groups, eps }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        group_norm(x, self.groups, &self.weight, &self.bias, self.eps, Then::Nothing)
    }

    /// The norm and SiLU after it, in one pass.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        group_norm(x, self.groups, &self.weight, &self.bias, self.eps, Then::Silu)
    }
}

/// Layer normalisation of (…, C).
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub fn new(weights: &Weights, channels: usize, eps: f64) -> Self {
        Self { weight: weights.tensor("weight", &[channels]), bias: weights.tensor("bias", &[channels]), eps }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// (B, C, h, w) → (B, h, w, C), contiguous.
pub(super) fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// (B, h, w, C) → (B, C, h, w), contiguous.
pub(super) fn channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}
