//! The pair of matrices, down and up, that a LoRA file has for a module, and the numbers in them.

use safetensors::Dtype;

use super::LowRank;
use crate::{
    generation::Shown,
    weights::{
        header::Info,
        number_type::NumberType,
        numbers::{check_numbers, floats},
    },
};

/// The largest |α / r|. Trained adapters have 1 or little more; a much larger factor destroys every picture.
const LARGEST_SCALE: f64 = 65536.0;

/// Tensors of a file that make up the low-rank change of one module.
pub(super) struct Pair {
    /// r
    pub rank: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// (kh, kw)
    pub kernel: (usize, usize),
    /// (r, in) or (r, in, kh, kw), floats
    pub down: Info,
    /// (out, r) or (out, r, 1, 1), floats
    pub up: Info,
    /// The tensor of α, which has one number; `None` if the file has none.
    pub alpha: Option<Info>,
    /// Whether the two halves of the rows of `up` are in the opposite order.
    pub is_swapped: bool,
}

impl Pair {
    /// The factor of the product, such as α / r. `alpha` has the bytes of α's tensor; `noted` is the factor if the file
    /// has no such tensor.
    ///
    /// # Errors
    /// The factor is not finite, or its absolute value is above [`LARGEST_SCALE`].
    pub fn scale(&self, alpha: Option<&[u8]>, noted: f64) -> Result<f32, String> {
        let scale = match (&self.alpha, alpha) {
            (Some(info), Some(bytes)) => {
                number(bytes, info.dtype).expect("sorting has left numbers only") / self.rank as f64
            }
            _ => noted,
        };
        match scale.is_finite() && scale.abs() <= LARGEST_SCALE {
            true => Ok(scale as f32),
            false => {
                Err(format!("alpha / rank = {} is not between -{LARGEST_SCALE} and {LARGEST_SCALE}", Shown(scale)))
            }
        }
    }

    /// Reads the numbers from the file. `noted` is the factor if the file has no tensor of α.
    ///
    /// # Errors
    /// Those of [`Pair::scale`], or weights that are not finite or too large.
    pub fn read(self, file: &[u8], noted: f64) -> Result<LowRank, String> {
        let scale = self.scale(self.alpha.as_ref().map(|alpha| &file[alpha.bytes.clone()]), noted)?;
        let read = |info: &Info| floats(&file[info.bytes.clone()], info.dtype).expect("sorting has left floats only");
        let (down, mut up) = (read(&self.down), read(&self.up));
        check_numbers(&down)?;
        check_numbers(&up)?;
        if self.is_swapped {
            let half = up.len() / 2;
            up.rotate_left(half);
        }
        let Self { rank, inputs, outputs, kernel, .. } = self;
        Ok(LowRank { rank, inputs, outputs, kernel, down, up, scale })
    }
}

/// Whether a tensor of this type can hold α.
pub(super) fn is_number(dtype: NumberType) -> bool {
    let NumberType::Plain(plain) = dtype else { return false };
    number(&[0; 8][..plain.bitsize() / 8], dtype).is_some()
}

/// The value of a little-endian tensor with one number; `None` for other types and lengths.
fn number(bytes: &[u8], dtype: NumberType) -> Option<f64> {
    let NumberType::Plain(plain) = dtype else { return None };
    Some(match plain {
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
