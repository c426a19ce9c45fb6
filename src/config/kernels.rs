//! The section `[kernels]`: how the kernels of the CPU compute.

use serde::{Deserialize, Deserializer, Serialize};

use super::words;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    pub winograd: Winograd,
    pub matrix_unit: MatrixUnit,
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
