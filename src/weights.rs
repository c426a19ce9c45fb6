//! Reads model folders, and the tensors in them by their diffusers names.
//!
//! A [`ModelFolder`] reads files. A [`Weights`] returns float32 tensors, or matrices as they are stored, and records
//! which tensors were requested. A load ends with [`Weights::finish`], which fails unless every tensor of the files was
//! requested and every requested tensor was found.

mod build_report;
mod clip_vocabulary;
mod conv3d;
mod error;
mod file;
pub mod fingerprint;
mod folder;
mod gguf;
mod header;
mod json;
mod lay_out;
mod ldm;
pub mod lora;
mod number_type;
mod numbers;
mod original;
mod scales;
mod shards;
mod single_file;
mod size;
mod tensors;
pub mod textual_inversion;
mod transformer_file;
mod weight_file;

pub use error::{LoadError, TensorMismatch};
pub use file::{FileContent, Stamp, unreadable};
pub use folder::{LARGEST_TEXT, ModelFolder};
pub use header::check as check_header;
pub use single_file::{Checkpoint, Marks, Purpose, TextEncoder};
pub use size::WeightSize;
pub use tensors::{StoredMatrix, Weights};
pub use transformer_file::base_folder;

/// The `rename` of [`Weights::open`] for files that have the names and shapes of the network.
pub fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}
