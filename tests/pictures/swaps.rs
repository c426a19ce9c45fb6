//! Tests of scheduler files that diffusers saves when one class is replaced by another. `swaps.py` made the files and
//! the pictures.
//!
//! `LATENTD_SWAPS_DIR` names a folder with other output of that script.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use latentd::{engine::Cancel, pipelines::Model};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use super::*;

/// The number of swaps that diffusers can save and run.
const SWAPS: usize = 1154;

#[test]
fn scheduler_swaps_saved_by_diffusers_give_its_pictures() {
    let swaps = Swaps::read();
    let folder = swaps.models();
    let catalogue = Catalogue::open(folder.path(), "sd1").unwrap();
    let limits = Limits {
        max_side_pixels: 64,
        max_pixels: 1 << 12,
        max_images: 1,
        max_steps: 100,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 100,
    };
    let rules = CatalogueRules { catalogue: &catalogue, limits: &limits };
    let max_runs = NonZeroUsize::new(swaps.runs().len()).unwrap();
    let (engine, thread) = engine::engine(Device::cpu("cpu", None, 0).unwrap(), settings(max_runs), Metrics::new());
    let computing = std::thread::spawn(move || thread.run());
    let models: BTreeMap<&str, Arc<Model>> =
        PIPELINES.into_iter().map(|name| (name, catalogue.load(name).unwrap())).collect();

    // Each file is drawn once per pipeline, even if several swaps gave the same file.
    let mut outcomes: BTreeMap<String, Result<Outcome, String>> = BTreeMap::new();
    for swap in swaps.runs() {
        let name = model_name(swap);
        let model = &models[swap["pipeline"].as_str().unwrap()];
        outcomes.entry(name.clone()).or_insert_with(|| swaps.start(&name, model, &rules, &engine));
    }
    let pictures: BTreeMap<String, Result<RgbImage, String>> = outcomes
        .into_iter()
        .map(|(name, outcome)| {
            let picture = outcome.and_then(|outcome| outcome.recv().unwrap().map_err(|error| error.to_string()));
            let first = |mut frames: Vec<Frame>| {
                let Frame::Picture(picture) = frames.remove(0) else { panic!("a picture") };
                picture
            };
            (name, picture.map(first))
        })
        .collect();
    drop(engine);
    computing.join().unwrap();

    let (mut worst, mut failures) = (0, Vec::new());
    for swap in swaps.runs() {
        let golden = swaps.picture(swap["picture"].as_u64().unwrap() as usize);
        let why = match &pictures[&model_name(swap)] {
            Err(why) => why.clone(),
            Ok(picture) => {
                let (max, mean) = distance(picture, &golden);
                worst = worst.max(max);
                if max <= MAX_LEVELS && mean <= MEAN_LEVELS {
                    continue;
                }
                format!("{max} levels at most, {mean:.3} on average")
            }
        };
        failures.push(format!("{} {}: {why}", swap["pipeline"], swap["name"]));
    }
    let count = swaps.runs().len();
    println!("swaps: {} of {count} give the picture of diffusers; {worst} levels at most", count - failures.len());
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(std::env::var_os("LATENTD_SWAPS_DIR").is_some() || count == SWAPS);
}

const PIPELINES: [&str; 2] = ["sd1", "sdxl"];

struct Swaps {
    about: Value,
    pictures: Vec<u8>,
}

impl Swaps {
    fn read() -> Swaps {
        let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
        let folder = std::env::var_os("LATENTD_SWAPS_DIR").map_or_else(own, PathBuf::from);
        let file = |ending| fs::read(folder.join(format!("swaps.{ending}"))).unwrap();
        Swaps { about: serde_json::from_slice(&file("json")).unwrap(), pictures: file("safetensors") }
    }

    fn runs(&self) -> &[Value] {
        self.about["runs"].as_array().unwrap()
    }

    fn picture(&self, index: usize) -> RgbImage {
        let tensors = SafeTensors::deserialize(&self.pictures).unwrap();
        let pictures = tensors.tensor("pictures").unwrap();
        let [_, height, width, 3] = *pictures.shape() else { panic!("{:?}", pictures.shape()) };
        let length = height * width * 3;
        let pixels = pictures.data()[index * length..][..length].to_vec();
        RgbImage { width: width as u32, height: height as u32, pixels }
    }

    /// A folder with the pipelines, and with a copy of each for every scheduler file.
    fn models(&self) -> tempfile::TempDir {
        // The pictures were drawn with the models of the compact fixtures.
        let compact = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        let folder = case::models(&compact, &PIPELINES);
        for swap in self.runs() {
            let to = folder.path().join(model_name(swap));
            if !to.exists() {
                link(&folder.path().join(swap["pipeline"].as_str().unwrap()), &to);
                let text = self.about["files"][swap["file"].as_u64().unwrap() as usize].as_str().unwrap();
                let path = to.join("scheduler/scheduler_config.json");
                fs::remove_file(&path).unwrap();
                fs::write(path, text).unwrap();
                // As after `save_pretrained`, the index names the class too.
                let path = to.join("model_index.json");
                let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                let (_, class) = text.split_once("\"_class_name\": \"").unwrap();
                index["scheduler"] = json!(["diffusers", class.split('"').next().unwrap()]);
                fs::remove_file(&path).unwrap();
                fs::write(path, index.to_string()).unwrap();
            }
        }
        folder
    }

    fn start(
        &self,
        name: &str,
        model: &Arc<Model>,
        rules: &CatalogueRules<'_>,
        engine: &engine::Engine,
    ) -> Result<Outcome, String> {
        let mut body: Map<String, Value> = self.about["request"].as_object().unwrap().clone();
        body.insert("model".to_owned(), json!(name));
        let job = resolve(Fields::new(body), rules).map_err(|invalid| format!("{invalid:?}"))?;
        let prepared = rules.catalogue.prepare(job, Inputs::default(), model.clone(), None).unwrap();
        let (sender, receiver) = mpsc::channel();
        let run = Run {
            prepared,
            replay: Log::default(),
            observer: Box::new(OutcomeSender(sender)),
            cancel: Cancel::default(),
            attempt: None,
            trace: engine::RunTrace::default(),
        };
        assert!(engine.submit(run).is_ok(), "{name}");
        Ok(receiver)
    }
}

fn model_name(swap: &Value) -> String {
    format!("{}-{}", swap["pipeline"].as_str().unwrap(), swap["file"])
}

/// Makes hard links to all files in another folder.
fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => link(&entry.path(), &to),
            false => fs::hard_link(entry.path(), to).unwrap(),
        }
    }
}
