//! The headers of files with the weights of networks: safetensors or GGUF.

use super::{FileContent, LoadError, gguf, header::Header, scales};

/// Reads the header of a file, which is a GGUF file if its name says so. The tensors have their scales.
///
/// # Errors
/// Those of [`Header::read`] or of [`gguf::read`].
pub(super) fn header(path: &str, file: &FileContent) -> Result<Header, LoadError> {
    let mut header = if gguf::is_gguf(path) { gguf::read(path, file)? } else { Header::read(path, file)? };
    scales::attach(&mut header.tensors);
    Ok(header)
}
