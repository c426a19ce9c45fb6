//! Tests with the real clients of other protocols, in fixed versions, and with schemathesis. They need Python 3,
//! Node.js and a package registry to install from; without these, the tests print that they are skipped.

#[path = "support/films.rs"]
mod films;
#[path = "clients/packages.rs"]
mod packages;
#[path = "support/random.rs"]
mod random;
#[path = "clients/scripts.rs"]
mod scripts;
#[path = "support/server.rs"]
mod server;
#[path = "support/transformers.rs"]
mod transformers;

#[path = "clients/contract.rs"]
mod contract;
#[path = "clients/ollama.rs"]
mod ollama;
#[path = "clients/openai.rs"]
mod openai;
#[cfg(feature = "provenance")]
#[path = "clients/provenance.rs"]
mod provenance;
#[path = "clients/webui.rs"]
mod webui;
