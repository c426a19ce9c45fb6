//! Tests of the networks of Stable Diffusion 3 and 3.5.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor};
use latentd::{
    device::Device,
    families,
    models::{
        AutoencoderKl, ClipTextModel, ClipTokenizer, Sd3Transformer2DModel,
        adapters::RowAdapters,
        autoencoder_kl::AutoencoderKlConfig,
        clip_text::{ClipTextConfig, TextRow},
        pause::ToEnd,
        sd3_transformer2d::{Sd3Conditions, Sd3Transformer2DConfig},
        t5_encoder::{T5Config, T5EncoderModel},
        tokenizer::Triggers,
    },
    weights::{LoadError, ModelFolder, Weights},
};
use serde_json::json;

use crate::{
    fixtures::{Copy, assert_close, bits, noise, parity, pipeline_folder, prompts, tensors, vae},
    roots::manifest,
};

/// The pipelines of the fixtures. The compact part has none of them.
fn pipelines() -> Vec<&'static str> {
    let found: Vec<&str> =
        ["sd3", "sd35"].into_iter().filter(|name| parity().join("pipelines").join(name).exists()).collect();
    if found.len() < 2 {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have {found:?} alone");
        println!("skipped: LATENTD_PARITY_DIR does not name the complete fixtures");
    }
    found
}

fn as_stored(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    (name.to_owned(), shape.to_vec())
}

fn transformer(folder: &ModelFolder) -> Result<Sd3Transformer2DModel, LoadError> {
    let path = "transformer/config.json";
    let config = Sd3Transformer2DConfig::read(path, &folder.json(path)?)?;
    let weights = Weights::open(folder, "transformer", "diffusion_pytorch_model", &Device::host(), as_stored)?;
    let network = Sd3Transformer2DModel::new(&config, &weights);
    weights.finish()?;
    Ok(network)
}

fn conditions<'a>(t: &'a [f32], text: &'a Tensor, pooled: &'a Tensor, skipped: &'a [u32]) -> Sd3Conditions<'a> {
    Sd3Conditions { t, text, pooled, adapters: RowAdapters::NONE, skipped }
}

#[test]
fn the_transformer_of_sd3_equals_diffusers() {
    for pipeline in pipelines() {
        let network = transformer(&pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap()).unwrap();
        let golden = tensors(&parity().join(format!("cases/{pipeline}/default/intermediates.safetensors")));
        let t: Vec<f32> = golden["denoiser.0.timestep"].to_dtype(DType::F32).unwrap().to_vec1().unwrap();
        // The first row belongs to the negative prompt.
        let text = Tensor::cat(&[&golden["encode_prompt.1"], &golden["encode_prompt.0"]], 0).unwrap();
        let pooled = &golden["denoiser.0.pooled_projections"];
        let of = conditions(&t, &text, pooled, &[]);
        let made = network.forward(&golden["denoiser.0.hidden_states"], &of).to_end().unwrap();
        assert_close(&made, &golden["denoiser.0.out"], pipeline);
    }
}

#[test]
fn the_clip_encoders_and_the_autoencoder_of_sd3_equal_diffusers() {
    for pipeline in pipelines() {
        let folder = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
        let golden = tensors(&parity().join(format!("components/{pipeline}.safetensors")));
        for (part, tokenizer) in [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")] {
            let config = folder.json(&format!("{part}/config.json")).unwrap();
            let config = ClipTextConfig::read(part, &config).unwrap();
            let reader = ClipTokenizer::load(&folder, tokenizer, config.max_position_embeddings).unwrap();
            let ids: Vec<Vec<u32>> =
                prompts().iter().map(|prompt| reader.encode(prompt, &Triggers::new(Vec::new()))).collect();
            let expected = golden[&format!("{tokenizer}.input_ids")].to_dtype(DType::U32).unwrap();
            assert_eq!(ids, expected.to_vec2::<u32>().unwrap(), "{pipeline} {tokenizer}");
            let weights = Weights::open(&folder, part, "model", &Device::host(), as_stored).unwrap();
            let model = ClipTextModel::new(&config, &weights);
            weights.finish().unwrap();
            let rows: Vec<TextRow<'_>> = ids.iter().map(|ids| TextRow { ids, learned: &[] }).collect();
            let (hidden, pooled) = model.forward_pooled(&rows, 0, RowAdapters::NONE).to_end().unwrap();
            assert_close(&hidden, &golden[&format!("{part}.hidden_states.-2")], &format!("{pipeline} {part}"));
            assert_close(
                &pooled.unwrap(),
                &golden[&format!("{part}.text_embeds")],
                &format!("{pipeline} {part} vector"),
            );
        }
        let vae = vae(pipeline);
        let moments = vae.encode(&golden["vae.image"]).to_end().unwrap();
        assert_close(&moments.mean, &golden["vae.mean"], "vae.mean");
        assert_close(&moments.logvar, &golden["vae.logvar"], "vae.logvar");
        assert_close(&vae.decode(&golden["vae.latent"]).to_end().unwrap(), &golden["vae.decoded"], "vae.decoded");
    }
}

#[test]
fn rows_of_sd3_do_not_depend_on_other_rows() {
    for pipeline in pipelines() {
        let network = transformer(&pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap()).unwrap();
        let (x, text, pooled) = (noise(&[5, 16, 8, 6], 1), noise(&[5, 11, 96], 2), noise(&[5, 80], 3));
        let t = [999.0, 7.0, 500.5, 0.0, 20.5];
        let row = |x: &Tensor, i: usize| x.narrow(0, i, 1).unwrap().contiguous().unwrap();
        let mut seen = Vec::new();
        for skipped in [&[][..], &[1], &[0, 3]] {
            let together = network.forward(&x, &conditions(&t, &text, &pooled, skipped)).to_end().unwrap();
            for i in 0..5 {
                let (text, pooled) = (row(&text, i), row(&pooled, i));
                let of = conditions(&t[i..=i], &text, &pooled, skipped);
                let alone = network.forward(&row(&x, i), &of).to_end().unwrap();
                assert_eq!(bits(&alone), bits(&row(&together, i)), "{pipeline} without {skipped:?}, row {i}");
            }
            seen.push(bits(&together));
        }
        assert!(seen[0] != seen[1] && seen[1] != seen[2], "blocks are left out");
        let large = noise(&[1, 16, 66, 8], 1);
        let of = conditions(&t[..1], &text, &pooled, &[]);
        assert!(network.forward(&large, &of).to_end().is_err(), "more patches than positions");
    }
}

#[test]
fn the_requested_tensors_are_those_of_published_sd3_models() {
    let names = ["sd3-medium--transformer", "sd35-medium--transformer", "sd35-large--transformer"];
    let further =
        ["sd3-medium--text_encoder", "sd3-medium--text_encoder_2", "sd3-medium--text_encoder_3", "sd3-medium--vae"];
    for name in names.into_iter().chain(further) {
        if !parity().join(format!("manifests/{name}.json.gz")).exists() {
            assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {name}");
            println!("skipped: {name}");
            continue;
        }
        let (config, mut published) = manifest(name);
        let part = name.split("--").nth(1).unwrap();
        let weights = Weights::outline(part);
        match part {
            "transformer" => {
                drop(Sd3Transformer2DModel::new(&Sd3Transformer2DConfig::read(name, &config).unwrap(), &weights))
            }
            "vae" => drop(AutoencoderKl::new(&AutoencoderKlConfig::read(name, &config).unwrap(), &weights)),
            "text_encoder_3" => {
                drop(T5EncoderModel::new(&T5Config::read(name, &config).unwrap(), &weights).unwrap());
                published.remove("encoder.embed_tokens.weight");
            }
            _ => {
                let architectures = serde_json::json!([config["_class_name"]]);
                let config = config.into_iter().chain([("architectures".to_owned(), architectures)]).collect();
                drop(ClipTextModel::new(&ClipTextConfig::read(name, &config).unwrap(), &weights))
            }
        }
        let requested: BTreeMap<_, _> = weights.requested();
        assert_eq!(requested, published, "{name}");
    }
}

#[test]
fn folders_of_sd3_that_do_not_fit_are_refused_by_name() {
    for pipeline in pipelines().into_iter().take(1) {
        let refused = |file: &str, key: &str, value: serde_json::Value| {
            let copy = Copy::of(pipeline);
            copy.edit(file, |json| json[key] = value);
            let folder = pipeline_folder(copy.0.path()).unwrap();
            families::of(&folder).unwrap().describe("sd3", &folder).err().map(|error| error.to_string())
        };
        assert_eq!(refused("model_index.json", "_diffusers_version", json!("9")), None);
        for (file, key, value, named) in [
            ("model_index.json", "unet", json!(["diffusers", "UNet2DConditionModel"]), "unet"),
            (
                "model_index.json",
                "transformer",
                json!(["diffusers", "FluxTransformer2DModel"]),
                "SD3Transformer2DModel",
            ),
            ("transformer/config.json", "qk_norm", json!("layer_norm"), "qk_norm"),
            ("transformer/config.json", "pooled_projection_dim", json!(64), "pooled_projection_dim"),
            ("transformer/config.json", "caption_projection_dim", json!(64), "caption_projection_dim"),
            ("transformer/config.json", "dual_attention_layers", json!([4]), "dual_attention_layers"),
            ("transformer/config.json", "num_layers", json!(3), "transformer_blocks.3"),
            ("vae/config.json", "latent_channels", json!(4), "latent_channels"),
            ("text_encoder_3/config.json", "d_model", json!(64), "d_model"),
        ] {
            let error = refused(file, key, value).unwrap_or_default();
            assert!(error.contains(named), "{file} {key}: {error}");
        }
    }
}

/// The tensors of a transformer with the names of Stability's code: fused projections, and the halves of the last
/// modulations exchanged.
fn originals(tensors: &HashMap<String, Tensor>, blocks: usize) -> HashMap<String, Tensor> {
    let swapped = |x: &Tensor| {
        let half = x.dim(0).unwrap() / 2;
        Tensor::cat(&[x.narrow(0, half, half).unwrap(), x.narrow(0, 0, half).unwrap()], 0).unwrap()
    };
    let mut made = HashMap::from([("pos_embed".to_owned(), tensors["pos_embed.pos_embed"].clone())]);
    let mut put = |original: String, names: &[String], is_swapped: bool| {
        for kind in ["weight", "bias"] {
            let parts: Option<Vec<&Tensor>> = names.iter().map(|name| tensors.get(&format!("{name}.{kind}"))).collect();
            if let Some(parts) = parts {
                let joined = Tensor::cat(&parts, 0).unwrap();
                made.insert(format!("{original}.{kind}"), if is_swapped { swapped(&joined) } else { joined });
            }
        }
    };
    for (original, name) in [
        ("x_embedder.proj", "pos_embed.proj"),
        ("context_embedder", "context_embedder"),
        ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
        ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
        ("final_layer.linear", "proj_out"),
    ] {
        put(original.to_owned(), &[name.to_owned()], false);
    }
    put("final_layer.adaLN_modulation.1".to_owned(), &["norm_out.linear".to_owned()], true);
    for i in 0..blocks {
        let streams = [
            ("x", "attn", ["to_q", "to_k", "to_v"], "to_out.0", ["norm_q", "norm_k"], "ff", "norm1"),
            (
                "context",
                "attn",
                ["add_q_proj", "add_k_proj", "add_v_proj"],
                "to_add_out",
                ["norm_added_q", "norm_added_k"],
                "ff_context",
                "norm1_context",
            ),
            ("x", "attn2", ["to_q", "to_k", "to_v"], "to_out.0", ["norm_q", "norm_k"], "ff", "norm1"),
        ];
        for (stream, attention, qkv, out, norms, ff, norm) in streams {
            let (to, from) = (format!("joint_blocks.{i}.{stream}_block"), format!("transformer_blocks.{i}"));
            put(format!("{to}.{attention}.qkv"), &qkv.map(|name| format!("{from}.{attention}.{name}")), false);
            put(format!("{to}.{attention}.proj"), &[format!("{from}.{attention}.{out}")], false);
            put(format!("{to}.{attention}.ln_q"), &[format!("{from}.{attention}.{}", norms[0])], false);
            put(format!("{to}.{attention}.ln_k"), &[format!("{from}.{attention}.{}", norms[1])], false);
            put(format!("{to}.mlp.fc1"), &[format!("{from}.{ff}.net.0.proj")], false);
            put(format!("{to}.mlp.fc2"), &[format!("{from}.{ff}.net.2")], false);
            let is_last = stream == "context" && i + 1 == blocks;
            put(format!("{to}.adaLN_modulation.1"), &[format!("{from}.{norm}.linear")], is_last);
        }
    }
    made
}

/// `NAME.safetensors` has the transformer with Stability's names, and `NAME.json` names the folder with the other
/// parts.
#[test]
fn a_file_with_stabilitys_names_takes_the_other_parts_from_a_folder() {
    for (pipeline, keys) in [("sd35", json!({})), ("sd3", json!({"attention_head_dim": 8, "num_attention_heads": 4}))] {
        if !pipelines().contains(&pipeline) {
            continue;
        }
        let output = |folder: &ModelFolder| {
            let (text, pooled) = (noise(&[1, 7, 96], 2), noise(&[1, 80], 3));
            let of = conditions(&[500.0], &text, &pooled, &[]);
            bits(&transformer(folder).unwrap().forward(&noise(&[1, 16, 8, 6], 1), &of).to_end().unwrap())
        };
        let whole = pipeline_folder(&parity().join("pipelines").join(pipeline)).unwrap();
        let stored =
            tensors(&parity().join(format!("pipelines/{pipeline}/transformer/diffusion_pytorch_model.safetensors")));
        for prefix in ["", "model.diffusion_model."] {
            let place = Copy::of(pipeline);
            let base = place.path("base");
            std::fs::create_dir(&base).unwrap();
            for entry in std::fs::read_dir(place.0.path()).unwrap().map(Result::unwrap) {
                if !["base", "transformer"].contains(&entry.file_name().to_str().unwrap()) {
                    std::fs::rename(entry.path(), base.join(entry.file_name())).unwrap();
                }
            }
            let (file, note) = (place.path("mine.safetensors"), place.path("mine.json"));
            let named = originals(&stored, 4).into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
            candle_core::safetensors::save(&named.collect::<HashMap<_, _>>(), &file).unwrap();
            std::fs::write(&note, json!({"base": "base", "transformer": keys}).to_string()).unwrap();
            let model = ModelFolder::single(&file, &families::checkpoints()).unwrap();
            assert_eq!(output(&model), output(&whole), "{pipeline} {prefix}");
            let family = families::of(&model).unwrap();
            let (mine, of_folder) =
                (family.describe("mine", &model).unwrap(), family.describe("whole", &whole).unwrap());
            assert_eq!(mine.size, of_folder.size);
        }
    }
}
