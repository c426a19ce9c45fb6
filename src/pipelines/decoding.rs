//! Decoding of latents to pixels, in tiles and stages.

use candle_core::{DType, Storage, Tensor};

use super::{Frame, NetworkError, Networks, calls::Decode, canvas::Canvas};
use crate::{device::HOST, diffusion::Latents, models::pause::ToEnd};

/// The state of one picture between two stages of decoding, as a tensor (1, …). The tensor shares no memory with the
/// other rows of its batch, so keeping it does not keep their memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Activation(pub Tensor);

impl Activation {
    /// The input of the first stage: latents (C, h, w).
    ///
    /// # Errors
    /// `latents` does not have C·h·w numbers.
    pub fn of_latents(latents: Vec<f32>, [c, h, w]: [usize; 3]) -> Result<Activation, NetworkError> {
        Tensor::from_vec(latents, (1, c, h, w), &HOST).map(Activation).map_err(failed)
    }

    /// As [`Activation::of_latents`], for a clip: latents (F, C, h, w).
    ///
    /// # Errors
    /// `latents` does not have F·C·h·w numbers.
    pub fn of_clip(latents: Vec<f32>, [f, c, h, w]: [usize; 4]) -> Result<Activation, NetworkError> {
        Tensor::from_vec(latents, (1, f, c, h, w), &HOST).map(Activation).map_err(failed)
    }

    /// Joins rows of equal shape to a batch.
    pub(crate) fn join(rows: &[Activation]) -> candle_core::Result<Tensor> {
        match rows {
            [only] => Ok(only.0.clone()),
            rows => Tensor::cat(&rows.iter().map(|row| &row.0).collect::<Vec<_>>(), 0),
        }
    }

    /// Splits a batch into its rows.
    pub(crate) fn split(batch: Tensor) -> candle_core::Result<Vec<Activation>> {
        match batch.dim(0)? {
            1 => Ok(vec![Activation(batch)]),
            rows => (0..rows).map(|row| Ok(Activation(batch.narrow(0, row, 1)?.force_contiguous()?))).collect(),
        }
    }

    /// Passes the numbers to `read`. Fails if the activation does not have the given shape.
    pub(crate) fn read<T>(&self, shape: &[usize], read: impl FnOnce(&[f32]) -> T) -> Result<T, NetworkError> {
        if self.0.dims() != shape {
            return Err(failed(format!("{:?} where {shape:?} was expected", self.0.dims())));
        }
        self.look(read).map_err(failed)
    }

    /// Whether all numbers are finite. `false` if they cannot be read.
    pub(crate) fn is_finite(&self) -> bool {
        self.look(|values| values.iter().all(|value| value.is_finite())).unwrap_or(false)
    }

    fn look<T>(&self, read: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
        let here = self.0.to_device(&HOST)?.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = here.storage_and_layout();
        let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a copy of a tensor is not contiguous in the memory of the host")
        };
        Ok(read(&storage.as_slice::<f32>()?[start..end]))
    }
}

/// Decodes latents (B, C, h, w) stage by stage, and tile by tile if they are large. `run` makes the calls.
/// Several pictures share a call if their largest tiles have at most `most` latent pixels together, which limits the
/// memory of the call. A picture that is not divided is one tile.
///
/// # Errors
/// `run` failed, or its answers are not pictures.
pub async fn decode<E: From<NetworkError>>(
    networks: &dyn Networks,
    latents: &Latents,
    most: usize,
    run: impl AsyncFn(Decode, Vec<Activation>) -> Result<Vec<Activation>, E>,
) -> Result<Vec<Frame>, E> {
    let [b, c, h, w] = latents.shape();
    let tiles = networks.tiles([h, w]);
    let (tile_h, tile_w) = tiles.largest();
    let together = (most / (tile_h * tile_w).max(1)).max(1);
    let mut frames = Vec::with_capacity(b);
    for images in (0..b).collect::<Vec<_>>().chunks(together) {
        let canvas = || Canvas::new(tiles.clone(), networks.spec().vae_scale_factor);
        let mut canvases: Vec<Canvas> = images.iter().map(|_| canvas()).collect();
        for tile in tiles.iter() {
            let shape = [c, tile.size().0, tile.size().1];
            let cut = |image: &usize| Activation::of_latents(tile.cut(latents.row(*image), (h, w)), shape);
            let mut rows = images.iter().map(cut).collect::<Result<Vec<_>, _>>()?;
            let shares = networks.decode_stages(shape);
            for (stage, share) in shares.iter().copied().enumerate() {
                let is_last = stage + 1 == shares.len();
                rows = run(Decode { shape, stage, is_last, share }, rows).await?;
            }
            for (canvas, pixels) in canvases.iter_mut().zip(&rows) {
                canvas.add(&tile, pixels)?;
            }
        }
        frames.extend(canvases.into_iter().map(Canvas::frame));
    }
    Ok(frames)
}

/// Decodes latents (B, C, h, w) without an engine, for a caller that has the networks to itself.
///
/// # Errors
/// The decoder failed.
pub fn decode_alone(networks: &dyn Networks, latents: &Latents) -> Result<Vec<Frame>, NetworkError> {
    let run = async |call: Decode, rows: Vec<Activation>| networks.decode(call.shape, call.stage, &rows).await;
    decode(networks, latents, 0, run).to_end()
}

fn failed(error: impl ToString) -> NetworkError {
    NetworkError::new("vae", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_batch_have_memory_of_their_own_and_come_back_as_they_were() {
        let row = |i: f32| Activation(Tensor::full(i, (1, 2, 3, 4), &HOST).unwrap());
        let batch = Activation::join(&[row(1.0), row(2.0), row(3.0)]).unwrap();
        assert_eq!(batch.dims(), [3, 2, 3, 4]);
        for (i, split) in Activation::split(batch).unwrap().into_iter().enumerate() {
            let (storage, _) = split.0.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else { panic!("not on the CPU") };
            assert_eq!(storage.as_slice::<f32>().unwrap(), [i as f32 + 1.0; 24]);
        }
    }

    #[test]
    fn an_activation_of_another_shape_is_an_error() {
        let zeros = Activation(Tensor::zeros((1, 2, 4, 3), candle_core::DType::F32, &HOST).unwrap());
        assert_eq!(zeros.read(&[1, 2, 4, 3], <[f32]>::len).unwrap(), 24);
        assert!(zeros.read(&[1, 4, 2, 3], <[f32]>::len).is_err());
        let turned = Activation(zeros.0.transpose(1, 2).unwrap());
        assert_eq!(turned.read(&[1, 4, 2, 3], <[f32]>::len).unwrap(), 24);
        assert!(Activation::of_latents(vec![0.0; 5], [1, 2, 2]).is_err());
    }
}
