//! Everything of the parity fixtures that a server can serve, in folders as its settings name them.

#![allow(dead_code, reason = "each test target uses its part")]

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::{case, requests::Requests};

/// Those of the whole set; the compact one in the repository lacks the last ones.
const PIPELINES: [&str; 7] = ["sd1", "sd2", "sd1-inpaint", "ip2p", "sdxl", "sdxl-refiner", "lcm"];

pub struct Fixtures {
    root: PathBuf,
    models: TempDir,
    embeddings: TempDir,
}

impl Fixtures {
    /// LATENTD_PARITY_DIR may name the whole set.
    pub fn all() -> Fixtures {
        let compact = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        let root = std::env::var_os("LATENTD_PARITY_DIR").map_or_else(compact, PathBuf::from);
        let present = |name: &&str| root.join("pipelines").join(name).is_dir();
        let pipelines: Vec<&str> = PIPELINES.into_iter().filter(present).collect();
        Fixtures { models: case::models(&root, &pipelines), embeddings: case::embeddings(&root), root }
    }

    pub fn settings(&self) -> Vec<(String, String)> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("LATENTD_MODELS__DIR", path(self.models.path().to_owned())),
            ("LATENTD_EMBEDDINGS__DIR", path(self.embeddings.path().to_owned())),
            ("LATENTD_LORAS__DIR", path(self.root.join("adapters"))),
            ("LATENTD_CONTROLNETS__DIR", path(self.root.join("controlnets"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Random requests for a server with these settings. `ask` gets a path of its API.
    pub async fn requests(&self, ask: impl AsyncFn(&str) -> Value) -> Requests {
        let (models, loras) = (ask("/v1/models").await, ask("/v1/loras").await);
        let control_nets = ask("/v1/controlnets").await;
        Requests::new(&models, &loras, &control_nets, &self.root)
    }
}
