//! How much memory weights take, known before any of them is read.

use super::{LoadError, ModelFolder, header::Header, shards};

/// Bytes of all tensors of `component/stem.safetensors`, in one file or in shards, once they are float32; of a folder made of
/// a single file those of the component, whatever the stem. Reads the heads of the files alone.
///
/// # Errors
/// The files are missing, or have no sound head.
pub fn float32_bytes(folder: &ModelFolder, component: &str, stem: &str) -> Result<u64, LoadError> {
    if let Some(single) = folder.single_file() {
        return Ok(sum(single.tensors(component)?.values().map(|tensor| tensor.shape.as_slice())));
    }
    let mut bytes: u64 = 0;
    for path in shards::find(folder, component, stem)?.paths {
        let header = Header::read(&path, &folder.file(&path)?)?;
        bytes = bytes.saturating_add(sum(header.tensors.values().map(|tensor| tensor.shape.as_slice())));
    }
    Ok(bytes)
}

/// The shapes fit the file's own bytes, which was checked, so that only a file of absurd size saturates here.
fn sum<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> u64 {
    let count = |shape: &[usize]| shape.iter().fold(4u64, |count, side| count.saturating_mul(*side as u64));
    shapes.map(count).fold(0, u64::saturating_add)
}
