//! Tests of networks with classes instead of texts: the diffusion transformer and the classifier of noisy pictures.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};
use flate2::read::GzDecoder;
use latentd::{
    device::Device,
    models::{
        DiTTransformer2DModel, NoisyClassifier, dit_transformer2d::DiTTransformer2DConfig,
        noisy_classifier::NoisyClassifierConfig, pause::ToEnd,
    },
    weights::{LoadError, Weights},
};
use serde_json::{Map, Value, json};

use crate::fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors};

fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}

fn transformer(root: &Path) -> Result<(DiTTransformer2DModel, DiTTransformer2DConfig), LoadError> {
    let folder = pipeline_folder(root)?;
    let config = DiTTransformer2DConfig::read("transformer/config.json", &folder.json("transformer/config.json")?)?;
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = DiTTransformer2DModel::new(&config, &weights).unwrap();
    weights.finish()?;
    Ok((network, config))
}

fn classifier(root: &Path) -> Result<(NoisyClassifier, NoisyClassifierConfig), LoadError> {
    let folder = pipeline_folder(root)?;
    let config = NoisyClassifierConfig::read("classifier/config.json", &folder.json("classifier/config.json")?)?;
    let weights = Weights::open(&folder, "classifier", "model", &Device::host(), as_stored)?;
    let network = NoisyClassifier::new(&config, &weights);
    weights.finish()?;
    Ok((network, config))
}

fn pipeline(name: &str) -> PathBuf {
    parity().join("pipelines").join(name)
}

fn whole(x: &Tensor) -> Vec<i64> {
    x.to_dtype(DType::I64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn labels(x: &Tensor) -> Vec<u32> {
    whole(x).into_iter().map(|label| u32::try_from(label).unwrap()).collect()
}

/// Compares the first call of each case that stores its tensors.
#[test]
fn the_diffusion_transformer_equals_diffusers() {
    let (network, _) = transformer(&pipeline("dit")).unwrap();
    let cases = ["batch", "default", "dpmpp_2m", "guidance_1"];
    for case in cases {
        let golden = tensors(&parity().join(format!("cases/dit/{case}/intermediates.safetensors")));
        let t: Vec<f32> = whole(&golden["denoiser.0.timestep"]).into_iter().map(|t| t as f32).collect();
        let labels = labels(&golden["denoiser.0.class_labels"]);
        let made = network.forward(&golden["denoiser.0.sample"], &t, &labels).to_end().unwrap();
        assert_close(&made, &golden["denoiser.0.out"], case);
    }
}

#[test]
fn the_classifier_and_its_gradient_equal_torch() {
    for name in ["classifier-guidance", "classifier-guidance-uncond"] {
        let (network, _) = classifier(&pipeline(name)).unwrap();
        let golden = tensors(&parity().join(format!("components/{name}.safetensors")));
        let (x, labels) = (&golden["sample"], labels(&golden["class_labels"]));
        for t in [7f32, 951.0] {
            let logits = network.forward(x, &[t; 2]).to_end().unwrap();
            assert_close(&logits, &golden[&format!("classifier.logits.t{t}")], &format!("{name} logits at {t}"));
            let gradient = network.gradient(x, &[t; 2], &labels).to_end().unwrap();
            assert_close(&gradient, &golden[&format!("classifier.gradient.t{t}")], &format!("{name} gradient at {t}"));
        }
    }
}

/// `(ln p(y | x + h d) − ln p(y | x − h d)) / 2h` is the product of the gradient with the direction `d`.
#[test]
fn the_gradient_is_that_of_the_log_probability() {
    let (network, _) = classifier(&pipeline("classifier-guidance")).unwrap();
    let (x, direction) = (noise(&[1, 3, 32, 32], 5), noise(&[1, 3, 32, 32], 6));
    let log_p = |x: &Tensor| -> f64 {
        let logits = network.forward(x, &[300.0]).to_end().unwrap().to_dtype(DType::F64).unwrap();
        let logits: Vec<f64> = logits.flatten_all().unwrap().to_vec1().unwrap();
        logits[4] - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln()
    };
    let h = 5e-3;
    let moved = |h: f64| (&x + (&direction * h).unwrap()).unwrap();
    let difference = (log_p(&moved(h)) - log_p(&moved(-h))) / (2.0 * h);
    let gradient = network.gradient(&x, &[300.0], &[4]).to_end().unwrap();
    let product = f64::from((gradient * direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
    assert!((difference - product).abs() < 1e-2 * product.abs(), "{difference} {product}");
}

#[test]
fn rows_of_class_networks_do_not_depend_on_other_rows() {
    let (network, _) = transformer(&pipeline("dit")).unwrap();
    let (x, t, labels) = (noise(&[5, 4, 8, 8], 1), [7.0, 951.0, 500.0, 0.0, 20.5], [1000, 3, 3, 0, 999]);
    let together = network.forward(&x, &t, &labels).to_end().unwrap();
    let (classifier, _) = classifier(&pipeline("classifier-guidance")).unwrap();
    let (y, classes) = (noise(&[5, 3, 32, 32], 2), [1, 3, 3, 0, 9]);
    let gradients = classifier.gradient(&y, &t, &classes).to_end().unwrap();
    let row = |x: &Tensor, i: usize| x.narrow(0, i, 1).unwrap().contiguous().unwrap();
    for i in 0..5 {
        let alone = network.forward(&row(&x, i), &t[i..=i], &labels[i..=i]).to_end().unwrap();
        assert_eq!(bits(&alone), bits(&row(&together, i)), "transformer, row {i}");
        let alone = classifier.gradient(&row(&y, i), &t[i..=i], &classes[i..=i]).to_end().unwrap();
        assert_eq!(bits(&alone), bits(&row(&gradients, i)), "classifier, row {i}");
    }
}

#[test]
fn tensors_that_are_missing_or_unused_are_named() {
    let file = "transformer/diffusion_pytorch_model.safetensors";
    let copy = Copy::of("dit");
    copy.edit_tensors(file, |tensors| {
        let tensor = tensors.remove("proj_out_1.bias").unwrap();
        tensors.insert("proj_out_3.bias".to_owned(), tensor);
    });
    let error = transformer(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("proj_out_1.bias") && error.contains("proj_out_3.bias"), "{error}");
    let copy = Copy::of("classifier-guidance");
    copy.edit_tensors("classifier/model.safetensors", |tensors| {
        let tensor = tensors.remove("out.2.positional_embedding").unwrap();
        tensors.insert("out.3.positional_embedding".to_owned(), tensor);
    });
    let error = classifier(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("out.2.positional_embedding") && error.contains("out.3"), "{error}");
}

#[test]
fn configurations_are_honored_or_refused_by_key() {
    let refused = |key: &str, value: Value| {
        let keys = Map::from_iter([(key.to_owned(), value)]);
        let dit = DiTTransformer2DConfig::read("transformer/config.json", &keys).err();
        let classifier = NoisyClassifierConfig::read("classifier/config.json", &keys).err();
        (dit.map(|error| error.to_string()), classifier.map(|error| error.to_string()))
    };
    for (key, value) in [
        ("norm_type", json!("ada_norm")),
        ("activation_fn", json!("geglu")),
        ("norm_elementwise_affine", json!(true)),
        ("patch_size", json!(3)),
        ("num_layers", json!(0)),
        ("attention_head_dim", json!(1 << 20)),
        ("cross_attention_dim", json!(768)),
    ] {
        let error = refused(key, value).0.unwrap();
        assert!(error.contains(key), "{key}: {error}");
    }
    for (key, value) in [
        ("pool", json!("adaptive")),
        ("channel_mult", json!([])),
        ("channel_mult", json!([1, 1, 1, 1, 1, 1, 1, 1])),
        ("num_head_channels", json!(48)),
        ("norm_num_groups", json!(33)),
        ("model_channels", json!(3)),
        ("image_size", json!(0)),
        ("num_heads", json!(4)),
    ] {
        let error = refused(key, value).1.unwrap();
        assert!(error.contains(key), "{key}: {error}");
    }
}

/// Compares with the names and shapes of published networks.
#[test]
fn the_requested_tensors_are_those_of_published_networks() {
    let names = ["dit-xl-2-256--transformer", "guided-diffusion-64--classifier", "guided-diffusion-256--classifier"];
    for name in names {
        let file = fs::File::open(parity().join(format!("manifests/{name}.json.gz"))).unwrap();
        let manifest: Value = serde_json::from_reader(GzDecoder::new(file)).unwrap();
        let (keys, weights) = (manifest["config"].as_object().unwrap(), Weights::outline(name));
        if name.starts_with("dit") {
            let config = DiTTransformer2DConfig::read(name, keys).unwrap();
            drop(DiTTransformer2DModel::new(&config, &weights).unwrap());
        } else {
            let config = NoisyClassifierConfig::read(name, keys).unwrap();
            drop(NoisyClassifier::new(&config, &weights));
        }
        let tensors: BTreeMap<String, Vec<usize>> = serde_json::from_value(manifest["tensors"].clone()).unwrap();
        assert_eq!(weights.requested(), tensors, "{name}");
    }
}
