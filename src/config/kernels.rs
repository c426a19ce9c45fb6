//! The section `[kernels]`: how the kernels of the CPU compute.

use serde::{Deserialize, Deserializer, Serialize};

use super::words;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    pub winograd: Winograd,
    pub matrix_unit: MatrixUnit,
    pub fast: Fast,
}

/// Whether linear layers and attention compute on the matrix unit of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixUnit {
    Off,
    /// If the processor has one.
    Auto,
}

impl<'de> Deserialize<'de> for MatrixUnit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words::one_of(deserializer, &[("off", MatrixUnit::Off), ("auto", MatrixUnit::Auto)])
    }
}

/// What multiplies the numbers of requests with `precision: fast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fast {
    /// What is measured to be fastest when the process starts.
    #[serde(rename = "auto")]
    Auto,
    /// As for requests with `precision: exact`.
    #[serde(rename = "off")]
    Off,
    #[serde(rename = "amx")]
    Amx,
    #[serde(rename = "avx512_bf16")]
    Avx512Bf16,
}

impl<'de> Deserialize<'de> for Fast {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = [("auto", Fast::Auto), ("off", Fast::Off), ("amx", Fast::Amx), ("avx512_bf16", Fast::Avx512Bf16)];
        words::one_of(deserializer, &words)
    }
}

/// Which convolutions use Winograd's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Winograd {
    Auto,
    Off,
    Force,
}

impl<'de> Deserialize<'de> for Winograd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words::one_of(deserializer, &[("auto", Winograd::Auto), ("off", Winograd::Off), ("force", Winograd::Force)])
    }
}
