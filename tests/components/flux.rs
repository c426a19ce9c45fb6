//! Tests of the transformer of FLUX.1: comparisons with diffusers, and independence of the rows of a batch.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use latentd::{
    models::{
        FluxTransformer2DModel,
        adapters::RowAdapters,
        flux_transformer2d::{FluxConditions, FluxTransformer2DConfig},
        pause::ToEnd,
    },
    weights::{LoadError, ModelFolder, Weights},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, tensors, vae},
    roots,
};

fn transformer(root: &Path) -> Result<(FluxTransformer2DModel, FluxTransformer2DConfig), LoadError> {
    let folder = pipeline_folder(root)?;
    let config = FluxTransformer2DConfig::read("transformer/config.json", &folder.json("transformer/config.json")?)?;
    let as_stored = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let host = latentd::device::Device::host();
    let weights = Weights::open(&folder, "transformer", "diffusion_pytorch_model", &host, as_stored)?;
    let network = FluxTransformer2DModel::new(&config, &weights);
    weights.finish()?;
    Ok((network, config))
}

/// A pipeline of the fixtures. Returns `None`, and prints so, if these fixtures do not contain it.
fn pipeline(name: &str) -> Option<PathBuf> {
    let folder = parity().join("pipelines").join(name);
    if !folder.is_dir() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {name}");
        println!("no {name}: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    folder.is_dir().then_some(folder)
}

/// Compares the first call of each case that stores its tensors.
#[test]
fn the_flux_transformer_equals_diffusers() {
    for (name, cases) in [("flux-dev", &["default"][..]), ("flux-schnell", &["steps_4"])] {
        let Some(folder) = pipeline(name) else { continue };
        let (network, _) = transformer(&folder).unwrap();
        for case in cases {
            let golden = tensors(&parity().join(format!("cases/{name}/{case}/intermediates.safetensors")));
            let of = |part: &str| &golden[&format!("denoiser.0.{part}")];
            let ids = of("img_ids").to_vec2::<f32>().unwrap();
            let last = ids.last().unwrap();
            let grid = [last[1] as usize + 1, last[2] as usize + 1];
            let t: Vec<f32> = of("timestep").to_vec1::<f32>().unwrap().iter().map(|t| t * 1000.0).collect();
            let guidance = golden.get("denoiser.0.guidance").map(|guidance| guidance.to_vec1::<f32>().unwrap());
            let text = golden.get("denoiser.0.encoder_hidden_states").unwrap_or_else(|| &golden["encode_prompt.0"]);
            let conditions = FluxConditions {
                t: &t,
                guidance: guidance.as_deref(),
                text,
                pooled: of("pooled_projections"),
                adapters: RowAdapters::NONE,
            };
            let made = network.forward(of("hidden_states"), grid, conditions).to_end().unwrap();
            assert_close(&made, of("out"), &format!("{name}/{case}"));
        }
    }
}

#[test]
fn the_autoencoder_with_sixteen_channels_equals_diffusers() {
    if pipeline("flux-dev").is_none() {
        return;
    }
    let golden = tensors(&parity().join("components/flux-dev.safetensors"));
    let vae = vae("flux-dev");
    let moments = vae.encode(&golden["vae.image"]).to_end().unwrap();
    assert_close(&moments.mean, &golden["vae.mean"], "mean");
    assert_close(&moments.logvar, &golden["vae.logvar"], "logvar");
    assert_close(&vae.decode(&golden["vae.latent"]).to_end().unwrap(), &golden["vae.decoded"], "decoded");
}

#[test]
fn rows_of_the_flux_transformer_do_not_depend_on_other_rows() {
    let Some(folder) = pipeline("flux-dev") else { return };
    let (network, config) = transformer(&folder).unwrap();
    let (grid, tokens) = ([3, 5], 7);
    let x = noise(&[4, 15, config.in_channels], 1);
    let text = noise(&[4, tokens, config.joint_attention_dim], 2);
    let pooled = noise(&[4, config.pooled_projection_dim], 3);
    let (t, guidance) = ([1000.0, 3.5, 3.5, 640.25], [3.5, 0.0, 7.0, 3.5]);
    let run = |rows: std::ops::Range<usize>| {
        let of = |x: &Tensor| x.narrow(0, rows.start, rows.len()).unwrap().contiguous().unwrap();
        let (text, pooled) = (of(&text), of(&pooled));
        let conditions = FluxConditions {
            t: &t[rows.clone()],
            guidance: Some(&guidance[rows.clone()]),
            text: &text,
            pooled: &pooled,
            adapters: RowAdapters::NONE,
        };
        network.forward(&of(&x), grid, conditions).to_end().unwrap()
    };
    let together = run(0..4);
    for i in 0..4 {
        assert_eq!(bits(&run(i..i + 1)), bits(&together.narrow(0, i, 1).unwrap()), "row {i}");
    }
    assert_ne!(bits(&together.narrow(0, 1, 1).unwrap()), bits(&together.narrow(0, 2, 1).unwrap()));
}

#[test]
fn missing_and_unused_tensors_of_the_flux_transformer_are_named() {
    if pipeline("flux-dev").is_none() {
        return;
    }
    let copy = Copy::of("flux-dev");
    let file = copy.path("transformer/diffusion_pytorch_model.safetensors");
    let mut tensors = tensors(&file);
    let tensor = tensors.remove("norm_out.linear.bias").unwrap();
    tensors.insert("norm_in.linear.bias".to_owned(), tensor);
    candle_core::safetensors::save(&tensors, file).unwrap();
    let error = transformer(copy.0.path()).unwrap_err().to_string();
    assert!(error.contains("norm_out.linear.bias") && error.contains("norm_in.linear.bias"), "{error}");
}

/// The tensors of a network with the original names: fused projections, and the halves of the last modulation swapped.
fn originals(tensors: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let of = |name: String| tensors[&name].clone();
    let joined = |block: &str, parts: &[&str], kind: &str| {
        let parts: Vec<Tensor> = parts.iter().map(|part| of(format!("{block}.{part}.{kind}"))).collect();
        Tensor::cat(&parts, 0).unwrap()
    };
    let mut made = HashMap::new();
    for kind in ["weight", "bias"] {
        for (original, name) in [
            ("img_in", "x_embedder"),
            ("txt_in", "context_embedder"),
            ("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
            ("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
            ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
            ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
            ("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
            ("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
            ("final_layer.linear", "proj_out"),
        ] {
            made.insert(format!("{original}.{kind}"), of(format!("{name}.{kind}")));
        }
        let last = of(format!("norm_out.linear.{kind}")).chunk(2, 0).unwrap();
        let swapped = Tensor::cat(&[&last[1], &last[0]], 0).unwrap();
        made.insert(format!("final_layer.adaLN_modulation.1.{kind}"), swapped);
        for i in 0..2 {
            let block = format!("transformer_blocks.{i}");
            for (stream, qkv, parts) in [
                (
                    "img",
                    ["attn.to_q", "attn.to_k", "attn.to_v"],
                    ["attn.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear"],
                ),
                (
                    "txt",
                    ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
                    ["attn.to_add_out", "ff_context.net.0.proj", "ff_context.net.2", "norm1_context.linear"],
                ),
            ] {
                let original = format!("double_blocks.{i}.{stream}");
                made.insert(format!("{original}_attn.qkv.{kind}"), joined(&block, &qkv, kind));
                for (end, part) in ["attn.proj", "mlp.0", "mlp.2", "mod.lin"].into_iter().zip(parts) {
                    made.insert(format!("{original}_{end}.{kind}"), of(format!("{block}.{part}.{kind}")));
                }
            }
        }
        for i in 0..3 {
            let (original, block) = (format!("single_blocks.{i}"), format!("single_transformer_blocks.{i}"));
            let linear1 = joined(&block, &["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], kind);
            made.insert(format!("{original}.linear1.{kind}"), linear1);
            for (end, part) in [("linear2", "proj_out"), ("modulation.lin", "norm.linear")] {
                made.insert(format!("{original}.{end}.{kind}"), of(format!("{block}.{part}.{kind}")));
            }
        }
    }
    for (i, part) in [(0, "query"), (1, "key")] {
        let letter = ["q", "k"][i];
        for block in 0..2 {
            for (stream, name) in [("img", "norm"), ("txt", "norm_added")] {
                let norm = of(format!("transformer_blocks.{block}.attn.{name}_{letter}.weight"));
                made.insert(format!("double_blocks.{block}.{stream}_attn.norm.{part}_norm.scale"), norm);
            }
        }
        for block in 0..3 {
            let norm = of(format!("single_transformer_blocks.{block}.attn.norm_{letter}.weight"));
            made.insert(format!("single_blocks.{block}.norm.{part}_norm.scale"), norm);
        }
    }
    assert!(made.len() < tensors.len());
    made
}

/// The folder's transformer may be a file with the original names, perhaps with a prefix.
#[test]
fn the_flux_transformer_is_read_with_its_original_names() {
    let Some(folder) = pipeline("flux-dev") else { return };
    let output = |root: &Path| {
        let (network, config) = transformer(root).unwrap();
        let (text, pooled) =
            (noise(&[1, 5, config.joint_attention_dim], 2), noise(&[1, config.pooled_projection_dim], 3));
        let conditions = FluxConditions {
            t: &[500.0],
            guidance: Some(&[3.5]),
            text: &text,
            pooled: &pooled,
            adapters: RowAdapters::NONE,
        };
        bits(&network.forward(&noise(&[1, 6, config.in_channels], 1), [2, 3], conditions).to_end().unwrap())
    };
    let expected = output(&folder);
    for prefix in ["", "model.diffusion_model."] {
        let copy = Copy::of("flux-dev");
        let file = copy.path("transformer/diffusion_pytorch_model.safetensors");
        let named = originals(&tensors(&file)).into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
        let mut named: HashMap<String, Tensor> = named.collect();
        candle_core::safetensors::save(&named, &file).unwrap();
        assert_eq!(output(copy.0.path()), expected, "{prefix}");
        let stray = noise(&[2], 1);
        named.insert(format!("{prefix}double_blocks.0.img_attn.gate.weight"), stray);
        candle_core::safetensors::save(&named, &file).unwrap();
        let error = transformer(copy.0.path()).unwrap_err().to_string();
        assert!(error.contains("double_blocks.0.img_attn.gate.weight"), "{error}");
    }
}

/// `NAME.safetensors` has the transformer, and `NAME.json` names the folder with the other parts.
#[test]
fn a_file_with_only_a_transformer_takes_the_other_parts_from_a_folder() {
    let Some(folder) = pipeline("flux-dev") else { return };
    let place = Copy::of("flux-dev");
    let base = place.path("base");
    std::fs::create_dir(&base).unwrap();
    for part in ["model_index.json", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"] {
        std::fs::rename(place.path(part), base.join(part)).unwrap();
    }
    let stored = tensors(&place.path("transformer/diffusion_pytorch_model.safetensors"));
    let (file, note) = (place.path("mine.safetensors"), place.path("mine.json"));
    candle_core::safetensors::save(&originals(&stored), &file).unwrap();
    let open = || ModelFolder::single(&file, &latentd::families::checkpoints());
    let error = open().unwrap_err().to_string();
    assert!(error.contains("mine.json"), "{error}");
    for (json, named) in
        [(json!({"base": "../base"}), "base"), (json!({"transformer": {}}), "base"), (json!({"vae": {}}), "vae")]
    {
        std::fs::write(&note, json.to_string()).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains(named), "{json}: {error}");
    }
    std::fs::write(&note, json!({"base": "base", "transformer": {"axes_dims_rope": [4, 6, 6]}}).to_string()).unwrap();
    let model = open().unwrap();
    let (config, whole) = (model.json("transformer/config.json").unwrap(), pipeline_folder(&folder).unwrap());
    let read = |keys: &Map<String, Value>| FluxTransformer2DConfig::read("transformer/config.json", keys).unwrap();
    let expected = read(&whole.json("transformer/config.json").unwrap());
    assert_eq!(read(&config), FluxTransformer2DConfig { out_channels: Some(expected.outputs()), ..expected });
    let family = latentd::families::of(&model).unwrap();
    assert_eq!(family.name(), "flux");
    let description = family.describe("mine", &model).unwrap();
    assert_eq!(description.size, family.describe("whole", &whole).unwrap().size);
    family.load(&model, &latentd::device::Device::host()).map(drop).unwrap();
}

#[test]
fn configurations_of_the_flux_transformer_are_honored_or_refused_by_key() {
    for (key, value) in [
        ("patch_size", json!(2)),
        ("axes_dims_rope", json!([16, 56])),
        ("axes_dims_rope", json!([16, 56, 57])),
        ("axes_dims_rope", json!([15, 57, 56])),
        ("attention_head_dim", json!(64)),
        ("num_layers", json!(0)),
        ("num_attention_heads", json!(1 << 20)),
        ("joint_attention_dim", json!(-1)),
        ("qk_norm", json!("layer_norm")),
    ] {
        let keys = Map::from_iter([(key.to_owned(), value)]);
        let error = FluxTransformer2DConfig::read("transformer/config.json", &keys).unwrap_err().to_string();
        assert!(error.contains(key) || key == "attention_head_dim", "{key}: {error}");
    }
    let keys = Map::from_iter([("patch_size".to_owned(), Value::from(1))]);
    assert_eq!(FluxTransformer2DConfig::read("", &keys).unwrap(), FluxTransformer2DConfig::default());
}

/// Compares with the names and shapes of the published networks.
#[test]
fn the_tensors_of_the_flux_transformer_are_those_of_published_networks() {
    for name in ["flux1-dev--transformer", "flux1-schnell--transformer"] {
        let (keys, tensors) = roots::manifest(name);
        let weights = Weights::outline("transformer");
        let config = FluxTransformer2DConfig::read(name, &keys).unwrap();
        drop(FluxTransformer2DModel::new(&config, &weights));
        assert_eq!(weights.requested(), tensors, "{name}");
    }
}
