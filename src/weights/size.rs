//! The memory that weights take, computed before any weight is read.

use super::{LoadError, ModelFolder, header::Header, shards};
use crate::{device::Precision, kernels::winograd::most_kept};

/// The memory of a component's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightSize {
    /// Numbers in all tensors.
    stored: u64,
    /// The most transformed weights that 3 × 3 convolutions keep for Winograd's algorithm, with tiles of one size.
    kept: u64,
}

impl WeightSize {
    /// The size of `component/stem.safetensors`, in one file or in shards. If the folder stands for a single-file
    /// checkpoint, `stem` is ignored. Only the headers of the files are read.
    ///
    /// # Errors
    /// The files are missing, or their headers are broken.
    pub fn read(folder: &ModelFolder, component: &str, stem: &str) -> Result<WeightSize, LoadError> {
        if let Some(single) = folder.single_file() {
            return Ok(WeightSize::of(single.tensors(component)?.values().map(|tensor| tensor.shape.as_slice())));
        }
        let mut size = WeightSize::default();
        for path in shards::find(folder, component, stem)?.paths {
            let header = Header::read(&path, &folder.file(&path)?)?;
            size = size.and(WeightSize::of(header.tensors.values().map(|tensor| tensor.shape.as_slice())));
        }
        Ok(size)
    }

    /// The size of tensors of these shapes. The header's check has compared the shapes with the length of the file, so
    /// only a file of absurd size saturates here.
    fn of<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> WeightSize {
        let one = |shape: &[usize]| WeightSize {
            stored: shape.iter().fold(1u64, |count, side| count.saturating_mul(*side as u64)),
            kept: if let [outputs, inputs, 3, 3] = *shape { most_kept(inputs, outputs) as u64 } else { 0 },
        };
        shapes.map(one).fold(WeightSize::default(), WeightSize::and)
    }

    pub fn and(self, other: WeightSize) -> WeightSize {
        let (stored, kept) = (self.stored.saturating_add(other.stored), self.kept.saturating_add(other.kept));
        WeightSize { stored, kept }
    }

    /// Bytes in memory. Only the CPU's kernels keep transformed weights, and they compute in float32.
    pub fn bytes(self, precision: Precision) -> u64 {
        let kept = if precision == Precision::F32 { self.kept } else { 0 };
        self.stored.saturating_add(kept).saturating_mul(precision.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_convolutions_also_keep_transformed_weights() {
        let of = |shapes: &[&[usize]]| WeightSize::of(shapes.iter().copied());
        let bytes = |shapes: &[&[usize]]| of(shapes).bytes(Precision::F32);
        assert_eq!(bytes(&[&[3, 5], &[7]]), 4 * 22);
        // 36 numbers in place of 9.
        assert_eq!(bytes(&[&[32, 32, 3, 3]]), 4 * (9 + 36) * 1024);
        // The transformed weights of large layers are not kept.
        assert_eq!(bytes(&[&[1280, 1280, 3, 3]]), 4 * 9 * 1280 * 1280);
        assert_eq!(bytes(&[&[32, 32, 1, 1]]), 4 * 1024);
        assert_eq!(
            of(&[&[32, 32, 3, 3], &[7]]).bytes(Precision::Bf16),
            2 * (9 * 1024 + 7),
            "half of the numbers' bytes"
        );
    }
}
