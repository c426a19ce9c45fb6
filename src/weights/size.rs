//! How much memory weights take, known before any of them is read.

use safetensors::SafeTensors;

use super::{LoadError, ModelFolder, shards};

/// Bytes of all tensors of `component/stem.safetensors`, in one file or in shards, once they are float32. Reads the heads
/// of the files alone.
///
/// # Errors
/// The files are missing, or have no sound head.
pub fn float32_bytes(folder: &ModelFolder, component: &str, stem: &str) -> Result<u64, LoadError> {
    let mut bytes: u64 = 0;
    for shard in shards::find(folder, component, stem)? {
        let file = folder.bytes(&shard.path)?;
        let (_, metadata) = SafeTensors::read_metadata(&file)
            .map_err(|error| LoadError::Safetensors { path: shard.path.clone(), reason: error.to_string() })?;
        for tensor in metadata.tensors().values() {
            // The shape fits the file's own bytes, which was checked, so that only a file of absurd size saturates here.
            let count = tensor.shape.iter().fold(1u64, |count, side| count.saturating_mul(*side as u64));
            bytes = bytes.saturating_add(count.saturating_mul(4));
        }
    }
    Ok(bytes)
}
