//! Model folders, and the tensors in them by their diffusers names.
//!
//! A [`ModelFolder`] reads files, a [`Weights`] hands out float32 tensors and keeps account of them: a load ends with
//! [`Weights::finish`], which fails unless every tensor of the files was asked for, and every tensor asked for was there.

mod clip_vocabulary;
mod error;
mod file;
mod folder;
mod header;
pub mod imprint;
mod json;
mod ldm;
mod ledger;
pub mod lora;
mod shards;
mod single_file;
mod size;
mod tensors;
pub mod textual_inversion;

pub use error::{LoadError, TensorMismatch};
pub use file::{FileContent, Stamp};
pub use folder::{LARGEST_TEXT, ModelFolder};
pub use header::check as check_header;
pub use single_file::{Checkpoint, Marks, Purpose, TextEncoder};
pub use size::float32_bytes;
pub use tensors::Weights;
