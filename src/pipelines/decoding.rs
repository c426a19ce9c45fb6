//! A picture on its way from latents to pixels.

use candle_core::{Device, Storage, Tensor};

use super::{NetworkError, Networks};
use crate::imaging::RgbImage;

/// What the decoding of one picture has come to between two stages: (1, …), memory of its own, so that it may be kept
/// while its company is long done. A cheap handle.
#[derive(Clone, Debug)]
pub struct Activation(pub Tensor);

impl Activation {
    /// Latents (C, h, w) before the first stage.
    ///
    /// # Errors
    /// There are not C·h·w of them.
    pub fn of_latents(latents: Vec<f32>, [c, h, w]: [usize; 3]) -> Result<Activation, NetworkError> {
        Tensor::from_vec(latents, (1, c, h, w), &Device::Cpu).map(Activation).map_err(failed)
    }

    /// Rows of equal shape as one batch.
    pub(super) fn join(rows: &[Activation]) -> candle_core::Result<Tensor> {
        match rows {
            [only] => Ok(only.0.clone()),
            rows => Tensor::cat(&rows.iter().map(|row| &row.0).collect::<Vec<_>>(), 0),
        }
    }

    /// The rows of a batch.
    pub(super) fn split(batch: Tensor) -> candle_core::Result<Vec<Activation>> {
        match batch.dim(0)? {
            1 => Ok(vec![Activation(batch)]),
            rows => (0..rows).map(|row| Ok(Activation(batch.narrow(0, row, 1)?.force_contiguous()?))).collect(),
        }
    }

    /// What the last stage made, pixels (1, H, W, 3) in [-1, 1], as bytes, rounded as diffusers' image processor does:
    /// `round(255 · clamp(x / 2 + 0.5))`, halves to even.
    ///
    /// # Errors
    /// It is of another shape.
    pub fn picture(&self) -> Result<RgbImage, NetworkError> {
        let picture = || -> candle_core::Result<RgbImage> {
            let pixels = self.0.to_device(&Device::Cpu)?;
            let (1, height, width, 3) = pixels.dims4()? else {
                candle_core::bail!("{:?} is no picture", pixels.shape())
            };
            let (storage, layout) = pixels.storage_and_layout();
            let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
                candle_core::bail!("pixels are not where they should be")
            };
            let pixels = storage.as_slice::<f32>()?[start..end].iter().map(|level| byte(*level)).collect();
            Ok(RgbImage { width: width as u32, height: height as u32, pixels })
        };
        picture().map_err(failed)
    }
}

/// Decodes latents (C, h, w) of one picture, for a caller that has the networks to itself.
///
/// # Errors
/// The decoder failed.
pub fn decode(networks: &dyn Networks, shape: [usize; 3], latents: Vec<f32>) -> Result<RgbImage, NetworkError> {
    let mut picture = Activation::of_latents(latents, shape)?;
    for stage in 0..networks.decode_stages(shape).len() {
        let made = networks.decode(shape, stage, std::slice::from_ref(&picture))?;
        picture = made.into_iter().next().ok_or_else(|| failed("no answer"))?;
    }
    picture.picture()
}

fn byte(level: f32) -> u8 {
    ((level / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

fn failed(error: impl ToString) -> NetworkError {
    NetworkError { network: "vae", detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_rounded_to_the_nearest_byte_and_halves_to_even() {
        let level = |byte: f64| ((byte / 255.0 - 0.5) * 2.0) as f32;
        for value in 0..=255u8 {
            assert_eq!(byte(level(f64::from(value))), value);
        }
        assert_eq!((byte(-7.0), byte(7.0)), (0, 255));
        assert_eq!(byte(0.0), 128, "127.5, of which 128 is the even neighbour");
    }

    #[test]
    fn rows_of_a_batch_have_memory_of_their_own_and_come_back_as_they_were() {
        let row = |i: f32| Activation(Tensor::full(i, (1, 2, 3, 4), &Device::Cpu).unwrap());
        let batch = Activation::join(&[row(1.0), row(2.0), row(3.0)]).unwrap();
        assert_eq!(batch.dims(), [3, 2, 3, 4]);
        for (i, split) in Activation::split(batch).unwrap().into_iter().enumerate() {
            let (storage, _) = split.0.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else { panic!("not on the CPU") };
            assert_eq!(storage.as_slice::<f32>().unwrap(), [i as f32 + 1.0; 24]);
        }
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        let zeros = |shape: &[usize]| Activation(Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap());
        assert!(zeros(&[1, 4, 4, 4]).picture().is_err());
        assert!(zeros(&[2, 4, 4, 3]).picture().is_err());
        assert!(Activation::of_latents(vec![0.0; 5], [1, 2, 2]).is_err());
        assert_eq!(zeros(&[1, 2, 3, 3]).picture().unwrap(), RgbImage { width: 3, height: 2, pixels: vec![128; 18] });
    }
}
