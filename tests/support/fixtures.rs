//! Folders of the models and add-ons of the parity fixtures, and the settings of a server that uses them.

#![allow(dead_code, reason = "each test target uses its part")]

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::{case, requests::Requests, transformers};

/// The models with U-Nets that requests are drawn for, from the complete set; the compact set in the repository lacks
/// some of them. Models with transformers are made with random weights.
const PIPELINES: [&str; 7] = ["sd1", "sd2", "sd1-inpaint", "ip2p", "sdxl", "sdxl-refiner", "lcm"];

/// The folders of the fixtures. The models and embeddings are copies in temporary folders.
pub struct Fixtures {
    root: PathBuf,
    models: TempDir,
    embeddings: TempDir,
    loras: TempDir,
}

impl Fixtures {
    /// All models that exist in LATENTD_PARITY_DIR or, without that variable, in the compact set.
    pub fn all() -> Fixtures {
        let compact = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        let root = std::env::var_os("LATENTD_PARITY_DIR").map_or_else(compact, PathBuf::from);
        let present = |name: &&str| root.join("pipelines").join(name).is_dir();
        let pipelines: Vec<&str> = PIPELINES.into_iter().filter(present).collect();
        let (models, loras) = (case::models(&root, &pipelines), case::loras(&[&root]));
        transformers::put_models(&transformers::NAMES, models.path());
        transformers::put_loras(loras.path());
        Fixtures { models, loras, embeddings: case::embeddings(&root), root }
    }

    /// The settings of a server that uses the folders, as environment variables.
    pub fn settings(&self) -> Vec<(String, String)> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("LATENTD_MODELS__DIR", path(self.models.path().to_owned())),
            ("LATENTD_EMBEDDINGS__DIR", path(self.embeddings.path().to_owned())),
            ("LATENTD_LORAS__DIR", path(self.loras.path().to_owned())),
            ("LATENTD_CONTROLNETS__DIR", path(self.root.join("controlnets"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Random requests for a server with these settings. `ask` must return the JSON of a GET of a path of its API.
    pub async fn requests(&self, ask: impl AsyncFn(&str) -> Value) -> Requests {
        let (mut models, loras) = (ask("/v1/models").await, ask("/v1/loras").await);
        for model in models["data"].as_array_mut().unwrap() {
            model["schema"] = ask(&format!("/v1/models/{}/schema", model["id"].as_str().unwrap())).await;
        }
        let control_nets = ask("/v1/controlnets").await;
        Requests::new(&models, &loras, &control_nets, &self.root)
    }
}
