//! Tests of weight files from other programs: adapters, embeddings, single-file checkpoints, and broken files.
//!
//! Fixtures come from `LATENTD_PARITY_DIR` if it is set, otherwise from `tests/fixtures/parity`.

#[path = "weights/files.rs"]
mod files;
#[path = "weights/gguf.rs"]
mod gguf;
#[path = "weights/hostile.rs"]
mod hostile;
#[path = "weights/inverse.rs"]
mod inverse;
#[path = "weights/lora.rs"]
mod lora;
#[path = "weights/manifests.rs"]
mod manifests;
#[path = "support/originals.rs"]
mod originals;
#[path = "weights/single_file.rs"]
mod single_file;
#[path = "weights/textual_inversion.rs"]
mod textual_inversion;
#[path = "weights/transformers.rs"]
mod transformers;
#[path = "weights/whole_models.rs"]
mod whole_models;
