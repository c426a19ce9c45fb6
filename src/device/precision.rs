//! The precision of the numbers with which networks compute.

use candle_core::DType;

/// A type of floating-point numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE's 16 bits: 11 bits of precision, numbers up to 65504.
    F16,
    /// bfloat16: 8 bits of precision, the range of 32 bits.
    Bf16,
}

impl Precision {
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// The name in the settings and in digests.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::F16 | Precision::Bf16 => 2,
        }
    }

    /// The largest finite number; for float32 and bfloat16, it is rounded down.
    pub fn largest(self) -> f32 {
        match self {
            Precision::F32 | Precision::Bf16 => 3e38,
            Precision::F16 => 65504.0,
        }
    }

    /// The best precision for a GPU of this compute capability (major, minor): bfloat16 where the GPU has it, which is
    /// from 8.0 on. `None`: the driver reports no compute capability.
    pub fn of_gpu(compute_capability: Option<(u32, u32)>) -> Precision {
        match compute_capability {
            Some(capability) if capability >= (8, 0) => Precision::Bf16,
            _ => Precision::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_compute_in_bfloat16_from_8_0_on() {
        for (capability, precision) in [
            (None, Precision::F16),
            (Some((7, 5)), Precision::F16),
            (Some((8, 0)), Precision::Bf16),
            (Some((9, 0)), Precision::Bf16),
        ] {
            assert_eq!(Precision::of_gpu(capability), precision, "{capability:?}");
        }
    }

    #[test]
    fn candle_has_the_same_sizes() {
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert_eq!(precision.dtype().size_in_bytes() as u64, precision.bytes());
            assert_eq!(precision.dtype().as_str(), precision.name());
        }
    }
}
