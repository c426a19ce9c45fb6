//! Tests of the transformers of Z-Image and FLUX.2 Klein in single files, and of their LoRAs.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use candle_core::Tensor;
use latentd::{
    device::Device,
    families,
    models::{
        Flux2Transformer2DModel,
        adapters::{Adapter, AdapterSet, RowAdapters},
        flux2_transformer2d::Flux2Transformer2DConfig,
        pause::ToEnd,
    },
    weights::{
        ModelFolder,
        lora::{Lora, Modules},
    },
};
use serde_json::{Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors},
    flux2,
    originals::{Place, flux2 as flux2_name, z_image},
    qwen::{self, has},
};

const FILE: &str = "transformer/diffusion_pytorch_model.safetensors";

type Names = fn(&str) -> Place;

/// The tensors of diffusers with the original names.
fn renamed(tensors: &HashMap<String, Tensor>, names: Names) -> HashMap<String, Tensor> {
    let mut places: Vec<(Place, &Tensor)> = tensors.iter().map(|(name, tensor)| (names(name), tensor)).collect();
    places.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut made: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for (Place { name, is_swapped, .. }, tensor) in places {
        let mut parts = if is_swapped { tensor.chunk(2, 0).unwrap() } else { vec![tensor.clone()] };
        parts.reverse();
        made.entry(name).or_default().extend(parts);
    }
    made.into_iter().map(|(name, parts)| (name, Tensor::cat(&parts, 0).unwrap())).collect()
}

/// `mine.safetensors` has the transformer, and `mine.json` names the folder with the other parts.
#[test]
fn a_single_file_of_a_transformer_is_a_model_with_the_parts_of_its_base() {
    for (pipeline, names, config) in [
        ("z-image", z_image as Names, json!({"axes_dims": [4, 6, 6], "axes_lens": [128, 64, 64]})),
        ("flux2-klein", flux2_name, json!({})),
    ] {
        if !has(pipeline) {
            continue;
        }
        let place = Copy::of(pipeline);
        let stored = tensors(&place.path(FILE));
        let base = place.path("base");
        fs::create_dir(&base).unwrap();
        for entry in fs::read_dir(place.0.path()).unwrap().map(Result::unwrap) {
            if !["base", "transformer"].contains(&&*entry.file_name().to_string_lossy()) {
                fs::rename(entry.path(), base.join(entry.file_name())).unwrap();
            }
        }
        let file = place.path("mine.safetensors");
        candle_core::safetensors::save(&renamed(&stored, names), &file).unwrap();
        fs::write(place.path("mine.json"), json!({"base": "base", "transformer": config}).to_string()).unwrap();
        let model = ModelFolder::single(&file, &families::checkpoints()).unwrap();
        let whole = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
        let published = whole.json("transformer/config.json").unwrap();
        for (key, made) in model.json("transformer/config.json").unwrap() {
            let wanted = &published[&key];
            let is_same = made == *wanted || made.as_f64().is_some_and(|made| wanted.as_f64() == Some(made));
            assert!(is_same, "{pipeline}: {key} is {made}, not {wanted}");
        }
        let family = families::of(&model).unwrap();
        assert_eq!(family.name(), families::of(&whole).unwrap().name());
        let [made, wanted] = [&model, &whole].map(|folder| family.describe(pipeline, folder).unwrap());
        assert_eq!(format!("{:?}", made.card), format!("{:?}", wanted.card));
        family.load(&model, &Device::host()).map(drop).unwrap();

        // The folder's transformer may be the same file.
        let copy = Copy::of(pipeline);
        fs::copy(&file, copy.path(FILE)).unwrap();
        let root = parity().join("pipelines").join(pipeline);
        assert_eq!(drawn(pipeline, copy.0.path(), None), drawn(pipeline, &root, None), "{pipeline}");
    }
}

/// The bits of a transformer's output. `adapters`: for each of the rows.
fn drawn(pipeline: &str, root: &Path, adapters: Option<&[AdapterSet]>) -> Vec<Vec<u32>> {
    let rows = output(pipeline, root, adapters);
    (0..rows.dim(0).unwrap()).map(|row| bits(&rows.narrow(0, row, 1).unwrap().contiguous().unwrap())).collect()
}

fn output(pipeline: &str, root: &Path, adapters: Option<&[AdapterSet]>) -> Tensor {
    let none = vec![AdapterSet::default(); 3];
    let adapters = adapters.unwrap_or(&none);
    let rows = RowAdapters::of(adapters);
    let part = |x: &Tensor, row: usize| x.narrow(0, row, 1).unwrap().contiguous().unwrap();
    let same = |shape: &[usize], seed| {
        let row = noise(&[&[1], shape].concat(), seed);
        Tensor::cat(&vec![row; adapters.len()], 0).unwrap()
    };
    let times = vec![0.4; adapters.len()];
    match pipeline {
        "z-image" => {
            let network = qwen::transformer(root).unwrap();
            let states = same(&[40, 32], 2);
            let caption = |row: usize| {
                let adapters = RowAdapters::of([&adapters[row]]);
                network.caption(&part(&states, row), &adapters).to_end().unwrap()
            };
            let captions: Vec<Tensor> = (0..adapters.len()).map(caption).collect();
            let captions = Tensor::cat(&captions, 0).unwrap();
            network.forward(&same(&[16, 6, 10], 1), &times, &captions, &rows).to_end().unwrap()
        }
        _ => {
            let network = flux2::transformer(root).unwrap();
            let states = same(&[7, 72], 2);
            let text = |row: usize| network.text(&part(&states, row), &RowAdapters::of([&adapters[row]])).unwrap();
            let texts: Vec<Tensor> = (0..adapters.len()).map(text).collect();
            let times: Vec<f32> = times.iter().map(|t| t * 1000.0).collect();
            let texts = Tensor::cat(&texts, 0).unwrap();
            network.forward(&same(&[128, 2, 5], 1), &times, &texts, None, &rows).to_end().unwrap()
        }
    }
}

/// A LoRA for all layers has the effect of weights to which its products were added, and only for its own rows.
#[test]
fn a_lora_changes_a_transformer_as_merged_weights_do() {
    for pipeline in ["z-image", "flux2-klein"] {
        if !has(pipeline) {
            continue;
        }
        let root = parity().join("pipelines").join(pipeline);
        let stored = tensors(&root.join(FILE));
        let mut shapes = BTreeMap::new();
        let (mut lora, mut merged) = (HashMap::new(), HashMap::new());
        for (seed, (name, weight)) in (7..).zip(stored.iter().collect::<BTreeMap<_, _>>()) {
            shapes.insert(name.clone(), weight.dims().to_vec());
            let (Some(module), &[outputs, inputs]) = (name.strip_suffix(".weight"), weight.dims()) else {
                merged.insert(name.clone(), weight.clone());
                continue;
            };
            let down = (noise(&[2, inputs], seed) / (inputs as f64).sqrt()).unwrap();
            let up = (noise(&[outputs, 2], 1000 + seed) * 0.2).unwrap();
            let weight = weight.to_dtype(candle_core::DType::F32).unwrap();
            merged.insert(name.clone(), (weight + (up.matmul(&down).unwrap() * 0.7).unwrap()).unwrap());
            lora.insert(format!("transformer.{module}.lora_A.weight"), down);
            lora.insert(format!("transformer.{module}.lora_B.weight"), up);
        }
        assert!(lora.len() > 40);
        let place = Copy::of(pipeline);
        candle_core::safetensors::save(&merged, place.path(FILE)).unwrap();
        let file = place.path("lora.safetensors");
        candle_core::safetensors::save(&lora, &file).unwrap();
        let mut modules = Modules::default();
        modules.add("transformer", &shapes);
        let mut lora = Lora::read("lora.safetensors", &fs::read(file).unwrap(), &modules).unwrap();
        if pipeline == "flux2-klein" {
            let config: serde_json::Map<String, Value> =
                pipeline_folder(&root).unwrap().json("transformer/config.json").unwrap();
            lora = Flux2Transformer2DModel::divide(&Flux2Transformer2DConfig::read("", &config).unwrap(), lora);
        }
        let adapter = Arc::new(Adapter::of(lora, &Device::host()).unwrap());
        let (none, set) = (AdapterSet::default(), AdapterSet::new(vec![(adapter, 0.7)]));
        let wanted = output(pipeline, place.0.path(), Some(std::slice::from_ref(&none)));
        let alone = output(pipeline, &root, Some(std::slice::from_ref(&set)));
        assert_close(&alone, &wanted, pipeline);
        let rows = drawn(pipeline, &root, Some(&[none.clone(), set.clone(), none.clone()]));
        let plain = drawn(pipeline, &root, Some(std::slice::from_ref(&none)));
        assert_eq!(rows[1], bits(&alone), "{pipeline}");
        assert_eq!([&rows[0], &rows[2]], [&plain[0]; 2], "{pipeline}");
        assert_ne!(rows[1], plain[0], "{pipeline}");
    }
}
