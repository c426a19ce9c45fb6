//! The memory that weights take, computed before any weight is read.

use super::{LoadError, ModelFolder, header::Header, shards};

/// Bytes of all tensors of `component/stem.safetensors`, in one file or in shards, as float32. If the folder stands for
/// a single-file checkpoint, `stem` is ignored. Only the headers of the files are read.
///
/// # Errors
/// The files are missing, or their headers are broken.
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

/// Bytes of tensors of these shapes as float32. Reading the header has compared the shapes with the length of the file,
/// so the sum saturates only for a file of absurd size.
fn sum<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> u64 {
    let count = |shape: &[usize]| shape.iter().fold(4u64, |count, side| count.saturating_mul(*side as u64));
    shapes.map(count).fold(0, u64::saturating_add)
}
