//! Reads model folders, and the tensors in them by their diffusers names.
//!
//! A [`ModelFolder`] reads files. A [`Weights`] returns float32 tensors and records which tensors were requested. A
//! load ends with [`Weights::finish`], which fails unless every tensor of the files was requested and every requested
//! tensor was found.

mod build_report;
mod clip_vocabulary;
mod error;
mod file;
pub mod fingerprint;
mod folder;
mod header;
mod json;
mod ldm;
pub mod lora;
mod original;
mod shards;
mod single_file;
mod size;
mod tensors;
pub mod textual_inversion;
mod transformer_file;

pub use error::{LoadError, TensorMismatch};
pub use file::{FileContent, Stamp, unreadable};
pub use folder::{LARGEST_TEXT, ModelFolder};
pub use header::check as check_header;
pub use single_file::{Checkpoint, Marks, Purpose, TextEncoder};
pub use size::WeightSize;
pub use tensors::Weights;
