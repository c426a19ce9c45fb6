//! Files of weights as they come from outside: adapters, embeddings, single-file checkpoints, and what is broken.
//!
//! Fixtures come from `LATENTD_PARITY_DIR`, or else from `tests/fixtures/parity`.

#[path = "weights/files.rs"]
mod files;
#[path = "weights/lora.rs"]
mod lora;
#[path = "weights/textual_inversion.rs"]
mod textual_inversion;
