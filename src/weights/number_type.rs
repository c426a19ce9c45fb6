//! The types of the numbers in tensors of files.

use std::fmt;

use safetensors::Dtype;

use crate::kernels::format::Format;

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberType {
    /// A type of safetensors, with one number after the other.
    Plain(Dtype),
    /// Blocks of quantized numbers, in GGUF files.
    Quantized(Format),
}

impl NumberType {
    /// How networks read the numbers; `None` for types that are not floats.
    pub fn format(self) -> Option<Format> {
        Some(match self {
            Self::Quantized(format) => format,
            Self::Plain(Dtype::F64) => Format::F64,
            Self::Plain(Dtype::F32) => Format::F32,
            Self::Plain(Dtype::F16) => Format::F16,
            Self::Plain(Dtype::BF16) => Format::Bf16,
            Self::Plain(Dtype::F8_E4M3) => Format::F8E4m3,
            Self::Plain(Dtype::F8_E5M2) => Format::F8E5m2,
            Self::Plain(_) => return None,
        })
    }

    /// Whether the numbers are 8-bit floats, which come with a scale in some files.
    pub fn is_f8(self) -> bool {
        matches!(self, Self::Plain(Dtype::F8_E4M3 | Dtype::F8_E5M2))
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => write!(f, "{dtype:?}"),
            Self::Quantized(format) => write!(f, "{format:?}"),
        }
    }
}
