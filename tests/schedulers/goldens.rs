//! Golden results of diffusers and torch, from `components/` in `LATENTD_PARITY_DIR` or `tests/fixtures/parity`.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One golden file: a JSON index of cases and a safetensors file with their tensors.
pub struct Goldens {
    pub index: Value,
    tensors: Vec<u8>,
}

impl Goldens {
    pub fn read(name: &str) -> Goldens {
        let fixtures = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        let folder = std::env::var_os("LATENTD_PARITY_DIR").map_or_else(fixtures, PathBuf::from);
        let file = |ext| std::fs::read(folder.join(format!("components/{name}.{ext}"))).unwrap();
        Goldens { index: serde_json::from_slice(&file("json")).unwrap(), tensors: file("safetensors") }
    }

    pub fn tensor(&self, key: &str) -> Option<Vec<f64>> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let view = tensors.tensor(key).ok()?;
        let bytes = view.data();
        Some(match view.dtype() {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("{key}: {other:?}"),
        })
    }
}

/// The largest absolute difference, or infinity if the lengths differ or a number is not finite.
pub fn distance(got: &[f64], wanted: &[f64]) -> f64 {
    if got.len() != wanted.len() || !got.iter().chain(wanted).all(|x| x.is_finite()) {
        return f64::INFINITY;
    }
    got.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

pub fn largest(values: &[f64]) -> f64 {
    values.iter().map(|x| x.abs()).fold(0.0, f64::max)
}

/// Whether each number has a relative error of at most 1e-6.
pub fn close(got: &[f64], wanted: &[f64]) -> bool {
    got.len() == wanted.len() && got.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs())
}

pub fn wide(data: &[f32]) -> Vec<f64> {
    data.iter().map(|x| f64::from(*x)).collect()
}
