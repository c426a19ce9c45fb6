//! The two halves that a file has for a module, and the numbers of them.

use safetensors::Dtype;

use super::LowRank;
use crate::weights::{header::Info, tensors::floats};

/// Tensors of a file that make a low-rank change of one module.
pub(super) struct Pair<'a> {
    /// r
    pub rank: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// (kh, kw)
    pub kernel: (usize, usize),
    /// (r, in) or (r, in, kh, kw), floats
    pub down: &'a Info,
    /// (out, r) or (out, r, 1, 1), floats
    pub up: &'a Info,
    /// One number.
    pub alpha: Option<&'a Info>,
}

impl Pair<'_> {
    /// Reads the numbers from the file; `noted` is α / r where the file has no tensor of α.
    ///
    /// # Errors
    /// α is not finite.
    pub fn read(self, file: &[u8], noted: f64) -> Result<LowRank, String> {
        let scale = match self.alpha {
            None => noted,
            Some(alpha) => {
                let alpha = number(&file[alpha.bytes.clone()], alpha.dtype);
                alpha.expect("sorting has left numbers only") / self.rank as f64
            }
        };
        let scale = scale as f32;
        if !scale.is_finite() {
            return Err(format!("alpha / rank = {scale} is not a finite number"));
        }
        let Self { rank, inputs, outputs, kernel, .. } = self;
        let read = |info: &Info| floats(&file[info.bytes.clone()], info.dtype).expect("sorting has left floats only");
        Ok(LowRank { rank, inputs, outputs, kernel, down: read(self.down), up: read(self.up), scale })
    }
}

/// Whether a tensor of this type can hold α.
pub(super) fn is_number(dtype: Dtype) -> bool {
    number(&[0; 8][..dtype.bitsize() / 8], dtype).is_some()
}

/// A tensor of one number, little-endian; None for other types and lengths.
fn number(bytes: &[u8], dtype: Dtype) -> Option<f64> {
    Some(match dtype {
        Dtype::I8 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::U8 => u8::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I16 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::U16 => u16::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I32 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::U32 => u32::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        Dtype::U64 => u64::from_le_bytes(bytes.try_into().ok()?) as f64,
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
        _ => (*floats(bytes, dtype)?.first()?).into(),
    })
}
