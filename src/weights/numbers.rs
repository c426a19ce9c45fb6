//! Reads the numbers of tensors, and checks them.

use rayon::prelude::*;

use super::{lay_out::LayOut, number_type::NumberType};
use crate::{device::Precision, kernels::format::Format};

/// Refuses numbers that are not finite or whose absolute value is above [`LARGEST_NUMBER`], because the output of a
/// network with such numbers would be of no use.
pub(super) fn check_numbers(values: &[f32]) -> Result<(), String> {
    const GRAIN: usize = 1 << 14;
    // The loop over a chunk has no early exit, so that the compiler can use vector instructions. NaN fails the
    // comparison.
    let is_sound = |chunk: &[f32]| chunk.iter().fold(true, |sound, value| sound & (value.abs() <= LARGEST_NUMBER));
    if values.par_chunks(GRAIN).all(is_sound) {
        return Ok(());
    }
    let found = values.iter().find(|value| value.is_nan() || value.abs() > LARGEST_NUMBER).expect("a chunk has one");
    Err(too_large(*found))
}

fn too_large(number: f32) -> String {
    format!("has the number {number:e}; weights are finite and at most {LARGEST_NUMBER:e}")
}

/// Refuses numbers whose absolute value is above the largest number of the precision.
pub(super) fn check_range(values: &[f32], precision: Precision) -> Result<(), String> {
    if precision.largest() >= LARGEST_NUMBER {
        return Ok(());
    }
    match values.iter().find(|value| value.abs() > precision.largest()) {
        Some(found) => Err(format!("has the number {found:e}, too large for models.precision {}", precision.name())),
        None => Ok(()),
    }
}

/// Far more than any weight of a trained network. For comparison: the largest number of float16, in which many models
/// are published, is 65504.
const LARGEST_NUMBER: f32 = 1e6;

/// As [`check_numbers`], for stored numbers that are multiplied by `scale`.
pub(super) fn check_stored(bytes: &[u8], format: Format, scale: f32) -> Result<(), String> {
    const BLOCKS: usize = 1 << 8;
    let (_, length) = format.block();
    bytes.par_chunks(BLOCKS * length).try_for_each(|bytes| {
        let mut values = format.widened(bytes);
        values.iter_mut().for_each(|value| *value *= scale);
        match values.iter().find(|value| value.is_nan() || value.abs() > LARGEST_NUMBER) {
            Some(found) => Err(too_large(*found)),
            None => Ok(()),
        }
    })
}

/// The numbers of a tensor in the order of the file; `None` if they are not floats.
pub(super) fn floats(bytes: &[u8], dtype: NumberType) -> Option<Vec<f32>> {
    Some(widened(bytes, dtype.format()?, LayOut::AsStored))
}

/// Whether [`floats`] reads the type.
pub(super) fn is_float(dtype: NumberType) -> bool {
    dtype.format().is_some()
}

/// Converts stored numbers to float32, exactly except for float64, which is rounded. The bytes need not be aligned.
pub(super) fn widened(bytes: &[u8], format: Format, how: LayOut) -> Vec<f32> {
    const BLOCKS: usize = 1 << 8;
    let ((halves, _), (words, _)) = (bytes.as_chunks::<2>(), bytes.as_chunks::<4>());
    match format {
        Format::F64 => {
            let (doubles, _) = bytes.as_chunks::<8>();
            how.lay_out(doubles.len(), |i| f64::from_le_bytes(doubles[i]) as f32)
        }
        Format::F32 => how.lay_out(words.len(), |i| f32::from_le_bytes(words[i])),
        Format::F16 => how.lay_out(halves.len(), |i| half::f16::from_le_bytes(halves[i]).to_f32()),
        Format::Bf16 => how.lay_out(halves.len(), |i| half::bf16::from_le_bytes(halves[i]).to_f32()),
        Format::F8E4m3 | Format::F8E5m2 => {
            let every: [u8; 256] = std::array::from_fn(|byte| byte as u8);
            let every = format.widened(&every);
            how.lay_out(bytes.len(), |i| every[usize::from(bytes[i])])
        }
        quantized => {
            let (numbers, length) = quantized.block();
            let mut values = vec![0.0; bytes.len() / length * numbers];
            let portions = values.par_chunks_mut(BLOCKS * numbers).zip(bytes.par_chunks(BLOCKS * length));
            portions.for_each(|(values, bytes)| quantized.widen(bytes, values));
            match how {
                LayOut::AsStored => values,
                LayOut::Transposed { .. } => how.lay_out(values.len(), |i| values[i]),
            }
        }
    }
}

/// As [`widened`], for a matrix (out, in) that is stored as (in, out); `None` if `shape` is not the shape of a matrix.
pub(super) fn turned_back(bytes: &[u8], format: Format, shape: &[usize], how: LayOut) -> Option<Vec<f32>> {
    let [outputs, inputs] = *shape else { return None };
    let as_shaped = LayOut::Transposed { outputs: inputs, inputs: outputs, places: 1 };
    let values = widened(bytes, format, as_shaped);
    Some(how.lay_out(values.len(), |i| values[i]))
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    #[test]
    fn numbers_of_files_are_widened() {
        let of = |bytes: &[u8], dtype| floats(bytes, NumberType::Plain(dtype));
        assert_eq!(of(&[0x38, 0xb8, 0x7e], Dtype::F8_E4M3), Some(vec![1.0, -1.0, 448.0]));
        assert_eq!(of(&[0x3c, 0xbd], Dtype::F8_E5M2), Some(vec![1.0, -1.25]));
        assert_eq!(of(&0.1f64.to_le_bytes(), Dtype::F64), Some(vec![0.1]));
        assert_eq!(of(&[0; 8], Dtype::I64), None);
        // Scales of one half and one quarter.
        let q8: Vec<u8> = [[0x00, 0x38], [0x00, 0x34]].iter().flat_map(|d| d.iter().copied().chain(1..=32)).collect();
        let values = floats(&q8, NumberType::Quantized(Format::Q8_0)).unwrap();
        assert_eq!((values.len(), values[3], values[35]), (64, 2.0, 1.0));
        let transposed = widened(&q8, Format::Q8_0, LayOut::Transposed { outputs: 2, inputs: 32, places: 1 });
        assert_eq!(transposed[6..8], [2.0, 1.0]);
    }

    #[test]
    fn stored_numbers_are_checked() {
        assert!(check_stored(&[0x00, 0x3c, 0x00, 0x7b], Format::F16, 1.0).is_ok());
        assert!(check_stored(&[0x00, 0x3c, 0x00, 0x7c], Format::F16, 1.0).is_err(), "infinity");
        assert!(check_stored(&[0x7f], Format::F8E4m3, 1.0).is_err(), "no number");
        assert!(check_stored(&[0x7e], Format::F8E4m3, 1e4).is_err(), "too large once it is scaled");
        assert!(check_stored(&[0x01], Format::F8E4m3, f32::NAN).is_err());
    }
}
