//! Layers that connect the frames of clips. A batch of clips is a batch of frames: the frames of one clip follow each
//! other, so B clips of F frames are B · F rows.

use candle_core::{DType, Result, Tensor};

use crate::{
    kernels::{
        conv2d::{Conv2d, Geometry},
        finish::Epilogue,
        maps::swapped,
    },
    weights::Weights,
};

/// PyTorch's `Conv3d` with a kernel of three frames and one place, which keeps the number of frames.
#[derive(Debug)]
pub(super) struct FrameConv(Conv2d);

impl FrameConv {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self::scaled(weights, inputs, outputs, 1.0)
    }

    /// A convolution whose outputs are multiplied by `factor`.
    pub fn scaled(weights: &Weights, inputs: usize, outputs: usize, factor: f64) -> Self {
        let laid_out = |weight: Tensor| -> Result<Tensor> {
            let weight = weight.reshape((outputs, inputs, 3))?.permute((2, 1, 0))?.contiguous()?;
            (weight.reshape((3 * inputs, outputs))? * factor)?.contiguous()
        };
        let (stored, bias) =
            (weights.tensor("weight", &[outputs, inputs, 3, 1, 1]), weights.tensor("bias", &[outputs]));
        // A tensor that is not contiguous is a placeholder that needs no memory.
        let weight = match stored.is_contiguous() {
            true => laid_out(stored).expect("the weight has the requested shape"),
            false => weights.zeros(&[3 * inputs, outputs]),
        };
        let bias = if bias.is_contiguous() { (&bias * factor).expect("a tensor times a number") } else { bias };
        let geometry = Geometry { kernel: (3, 1), stride: 1, top: 1, bottom: 1, left: 0, right: 0 };
        let conv = Conv2d::new(&weight, &bias, geometry, weights.kernels().exact());
        Self(conv.expect("the weights have the requested shapes"))
    }

    /// x (B, F, P, in) → (B, F, P, out) for P places, plus the terms of `epilogue`.
    pub fn forward_with(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        self.0.forward_with(x, epilogue)
    }
}

/// The share of one of two results in a learned mixture: σ of the stored `mix_factor` (diffusers' `AlphaBlender`).
pub(super) fn learned_share(weights: &Weights) -> f64 {
    let stored = weights.tensor("mix_factor", &[1]).to_dtype(DType::F32).and_then(|factor| factor.to_vec1::<f32>());
    let factor = stored.ok().and_then(|values| values.first().copied()).unwrap_or(0.0);
    1.0 / (1.0 + libm::exp(-f64::from(factor)))
}

/// x (B · F, P, C) → (B · P, F, C)
pub(super) fn places_first(x: &Tensor, frames: usize) -> Result<Tensor> {
    let (rows, places, c) = x.dims3()?;
    let x = x.reshape((clips(rows, frames)?, frames, places, c))?;
    swapped(&x)?.reshape((rows / frames * places, frames, c))
}

/// x (B · P, F, C) → (B · F, P, C)
pub(super) fn frames_first(x: &Tensor, places: usize) -> Result<Tensor> {
    let (rows, frames, c) = x.dims3()?;
    let x = x.reshape((clips(rows, places)?, places, frames, c))?;
    swapped(&x)?.reshape((rows / places * frames, places, c))
}

/// x (B, E) → (B · F, E): the vector of a clip for each of its frames.
pub(super) fn for_each_frame(x: &Tensor, frames: usize) -> Result<Tensor> {
    let (b, width) = x.dims2()?;
    x.unsqueeze(1)?.broadcast_as((b, frames, width))?.contiguous()?.reshape((b * frames, width))
}

/// The number of clips of `frames` frames in this number of rows.
pub(super) fn clips(rows: usize, frames: usize) -> Result<usize> {
    match frames {
        0 => candle_core::bail!("clips without frames"),
        _ if !rows.is_multiple_of(frames) => candle_core::bail!("{rows} rows are no clips of {frames} frames"),
        _ => Ok(rows / frames),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{
        device::Device,
        kernels::{Kernels, random::Random},
        weights::{ModelFolder, as_stored},
    };

    #[test]
    fn a_convolution_over_frames_is_that_of_each_place() {
        let mut random = Random::new(3);
        let mut random = |shape: &[usize]| random.normal(shape, 0.0);
        let (b, frames, places, inputs, outputs) = (2, 5, 6, 4, 3);
        let (weight, bias) = (random(&[outputs, inputs, 3]), random(&[outputs]));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("unet")).unwrap();
        let stored = weight.reshape((outputs, inputs, 3, 1, 1)).unwrap();
        let tensors = HashMap::from([("weight", stored), ("bias", bias.clone())]);
        candle_core::safetensors::save(&tensors, folder.path().join("unet/model.safetensors")).unwrap();
        let x = random(&[b, frames, places, inputs]);
        // candle's convolution takes (B, C, T).
        let lines = x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let lines = lines.reshape((b * places, inputs, frames)).unwrap();
        let expected = lines.conv1d(&weight, 1, 1, 1, 1).unwrap();
        let expected = expected.broadcast_add(&bias.reshape((1, outputs, 1)).unwrap()).unwrap();
        let expected = expected.reshape((b, places, outputs, frames)).unwrap().permute((0, 3, 1, 2)).unwrap();
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            let (model, device) = (ModelFolder::open(folder.path()).unwrap(), Device::host().with_kernels(kernels));
            let weights = Weights::open(&model, "unet", "model", &device, as_stored).unwrap();
            let conv = FrameConv::scaled(&weights, inputs, outputs, 0.5);
            let made = conv.forward_with(&x, Epilogue::default()).unwrap();
            let error = ((made * 2.0).unwrap() - &expected).unwrap().abs().unwrap().max_all().unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
        }
    }

    #[test]
    fn frames_and_places_change_their_order_and_back() {
        let x = Random::new(1).normal(&[6, 4, 2], 0.0);
        let turned = places_first(&x, 3).unwrap();
        assert_eq!(turned.dims(), [8, 3, 2]);
        let of = |x: &Tensor, i: [usize; 3]| x.get(i[0]).unwrap().get(i[1]).unwrap().get(i[2]).unwrap();
        let number = |x: &Tensor, i| of(x, i).to_scalar::<f32>().unwrap();
        assert_eq!(number(&turned, [4 + 1, 2, 1]), number(&x, [3 + 2, 1, 1]), "clip 1, frame 2, place 1");
        let back = frames_first(&turned, 4).unwrap();
        assert_eq!(back.to_vec3::<f32>().unwrap(), x.to_vec3::<f32>().unwrap());
        assert!(places_first(&x, 4).is_err() && places_first(&x, 0).is_err());
    }
}
