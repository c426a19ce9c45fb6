//! The memory that weights take, computed before any weight is read.

use super::{
    LoadError, ModelFolder,
    number_type::NumberType,
    original::Original,
    shards,
    tensors::{LARGE, stays},
    weight_file,
};
use crate::{
    device::Precision,
    kernels::{Kernels, narrow::Narrow},
};

/// The memory of a component's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightSize {
    /// Numbers in all tensors that become floats of the device's precision on every device.
    floats: u64,
    /// Numbers in matrices that stay as they are stored if the device has packed kernels.
    stored: u64,
    /// Bytes of these matrices as they are stored.
    stored_bytes: u64,
    /// Numbers of matrices that stay float32 on a device that computes in float16.
    wide: u64,
}

impl WeightSize {
    /// The size of `component/stem.safetensors`, in one file or in shards, or of a GGUF file. If the folder stands for
    /// a single-file checkpoint, `stem` is ignored. Only the headers of the files are read.
    ///
    /// # Errors
    /// The files are missing, or their headers are broken.
    pub fn read(folder: &ModelFolder, component: &str, stem: &str) -> Result<WeightSize, LoadError> {
        Self::sum(folder, component, stem, |name, shape, dtype| WeightSize::of(name, shape, dtype, LARGE))
    }

    /// As [`WeightSize::read`], for a network whose weights all become floats.
    ///
    /// # Errors
    /// Those of [`WeightSize::read`].
    pub fn read_wide(folder: &ModelFolder, component: &str, stem: &str) -> Result<WeightSize, LoadError> {
        Self::sum(folder, component, stem, |name, shape, dtype| WeightSize::of(name, shape, dtype, usize::MAX))
    }

    /// As [`WeightSize::read`], without the tensors that the network leaves in the file.
    ///
    /// # Errors
    /// Those of [`WeightSize::read`].
    pub fn read_without(
        folder: &ModelFolder,
        component: &str,
        stem: &str,
        is_left: impl Fn(&str) -> bool,
    ) -> Result<WeightSize, LoadError> {
        Self::sum(folder, component, stem, |name, shape, dtype| match is_left(name) {
            true => WeightSize::default(),
            false => WeightSize::of(name, shape, dtype, LARGE),
        })
    }

    /// As [`WeightSize::read`], for a network that also keeps small matrices as they are stored
    /// ([`super::Weights::with_stored_matrices`]).
    ///
    /// # Errors
    /// Those of [`WeightSize::read`].
    pub fn read_as_stored(folder: &ModelFolder, component: &str, stem: &str) -> Result<WeightSize, LoadError> {
        Self::sum(folder, component, stem, |name, shape, dtype| WeightSize::of(name, shape, dtype, 0))
    }

    /// As [`WeightSize::read_as_stored`], without the tensors that the network leaves in the file.
    ///
    /// # Errors
    /// Those of [`WeightSize::read`].
    pub fn read_as_stored_without(
        folder: &ModelFolder,
        component: &str,
        stem: &str,
        is_left: impl Fn(&str) -> bool,
    ) -> Result<WeightSize, LoadError> {
        Self::sum(folder, component, stem, |name, shape, dtype| match is_left(name) {
            true => WeightSize::default(),
            false => WeightSize::of(name, shape, dtype, 0),
        })
    }

    fn sum(
        folder: &ModelFolder,
        component: &str,
        stem: &str,
        of: impl Fn(&str, &[usize], NumberType) -> WeightSize,
    ) -> Result<WeightSize, LoadError> {
        let mut size = WeightSize::default();
        if let Some(single) = folder.single_file() {
            let tensors = single.tensors(component)?.iter();
            return Ok(tensors.map(|(name, tensor)| of(name, &tensor.shape, tensor.dtype)).fold(size, WeightSize::and));
        }
        for path in shards::find(folder, component, stem)?.paths {
            let mut tensors = weight_file::header(&path, &folder.file(&path)?)?.tensors;
            if let Some(names) = Original::of(tensors.keys()) {
                names.retain(component, &mut tensors);
            }
            let tensors = tensors.iter();
            size = tensors.map(|(name, tensor)| of(name, &tensor.shape, tensor.dtype)).fold(size, WeightSize::and);
        }
        Ok(size)
    }

    /// The size of a tensor in a network that keeps weights of at least `from` numbers as they are stored. The header's
    /// check has compared the shape with the length of the file, so only a file of absurd size saturates here.
    fn of(name: &str, shape: &[usize], dtype: NumberType, from: usize) -> WeightSize {
        let numbers = shape.iter().fold(1u64, |count, side| count.saturating_mul(*side as u64));
        // T5's `wo`, whose products exceed float16.
        let is_wide = name.ends_with(".DenseReluDense.wo.weight")
            || (name.starts_with("enc.blk.") && name.ends_with(".ffn_down.weight"));
        let wide = if is_wide && from == 0 { numbers } else { 0 };
        let of = WeightSize { floats: numbers, wide, ..WeightSize::default() };
        // These tables always become floats.
        const TABLES: [&str; 3] = ["position_embedding.weight", "pos_embed.weight", "embedding_table.weight"];
        let is_weight = name.ends_with("weight") && !TABLES.iter().any(|table| name.ends_with(table));
        let Some(format) = dtype.format().filter(|format| is_weight && stays(*format, shape)) else { return of };
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        match Narrow::size(format, (inputs, outputs)).filter(|_| numbers >= from as u64) {
            Some(bytes) => WeightSize { floats: 0, stored: numbers, stored_bytes: bytes as u64, ..of },
            None => of,
        }
    }

    pub fn and(self, other: WeightSize) -> WeightSize {
        WeightSize {
            floats: self.floats.saturating_add(other.floats),
            stored: self.stored.saturating_add(other.stored),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
            wide: self.wide.saturating_add(other.wide),
        }
    }

    /// Bytes in memory. Only packed kernels, which compute in float32, multiply by matrices as they are stored.
    pub fn bytes(self, precision: Precision, kernels: Kernels) -> u64 {
        let is_packed = matches!(kernels, Kernels::Packed(_)) && precision == Precision::F32;
        let (numbers, bytes) = if is_packed { (0, self.stored_bytes) } else { (self.stored, 0) };
        let wide = if precision == Precision::F16 { self.wide.saturating_mul(2) } else { 0 };
        self.floats.saturating_add(numbers).saturating_mul(precision.bytes()).saturating_add(bytes).saturating_add(wide)
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;
    use crate::kernels::format::Format;

    const PACKED: Kernels = Kernels::Packed(crate::kernels::winograd::Use::Auto);

    #[test]
    fn weights_in_float32_take_four_bytes_for_each_number() {
        let of = |shapes: &[&[usize]]| {
            let of = |shape: &&[usize]| WeightSize::of("weight", shape, NumberType::Plain(Dtype::F32), LARGE);
            shapes.iter().map(of).fold(WeightSize::default(), WeightSize::and)
        };
        let bytes = |shapes: &[&[usize]]| of(shapes).bytes(Precision::F32, PACKED);
        assert_eq!(bytes(&[&[3, 5], &[7]]), 4 * 22);
        assert_eq!(bytes(&[&[1280, 1280, 3, 3]]), 4 * 9 * 1280 * 1280);
        assert_eq!(of(&[&[32, 32, 3, 3], &[7]]).bytes(Precision::Bf16, Kernels::REFERENCE), 2 * (9 * 1024 + 7));
    }

    #[test]
    fn weights_that_stay_as_they_are_stored_take_their_bytes() {
        let half = |shape: &[usize], from| WeightSize::of("q.weight", shape, NumberType::Plain(Dtype::BF16), from);
        assert_eq!(half(&[32, 10], 0).bytes(Precision::F32, PACKED), 2 * 320);
        assert_eq!(half(&[32, 10], 0).bytes(Precision::F32, Kernels::REFERENCE), 4 * 320);
        assert_eq!(half(&[32, 10], 0).bytes(Precision::F16, Kernels::REFERENCE), 2 * 320);
        // Small weights become float32, except in networks that keep all of them.
        assert_eq!(half(&[32, 10], LARGE).bytes(Precision::F32, PACKED), 4 * 320);
        assert_eq!(half(&[512, 512], LARGE).bytes(Precision::F32, PACKED), 2 * 512 * 512);
        assert_eq!(half(&[1280, 1280, 3, 3], LARGE).bytes(Precision::F32, PACKED), 2 * 9 * 1280 * 1280);
        assert_eq!(half(&[512, 512, 3], LARGE).bytes(Precision::F32, PACKED), 4 * 3 * 512 * 512);
        // Columns are filled up to a multiple of sixteen.
        let quantized = |shape: &[usize]| WeightSize::of("q.weight", shape, NumberType::Quantized(Format::Q4K), 0);
        assert_eq!(quantized(&[17, 512]).bytes(Precision::F32, PACKED), 32 * 288);
        let of = |name, shape: &[usize], dtype| WeightSize::of(name, shape, NumberType::Plain(dtype), 0);
        let (plain, vector) = (of("q.weight", &[17, 512], Dtype::F32), of("norm.weight", &[512], Dtype::BF16));
        assert_eq!(plain.and(vector).bytes(Precision::F32, PACKED), 4 * (17 * 512 + 512));
        let embedding = of("embeddings.position_embedding.weight", &[32, 10], Dtype::F16);
        assert_eq!(embedding.bytes(Precision::F32, PACKED), 4 * 320);
    }
}
