//! Tests of LoRA files with the key names and scales of several trainers, and of files that are refused.

use std::collections::{BTreeMap, BTreeSet};

use latentd::weights::{
    FileContent, LoadError,
    lora::{Lora, LoraMismatch, Modules},
};

use crate::files::{Raw, Tensors, parity, read_at, shapes, write};

/// The modules of a pipeline, from the tensors of its files.
fn modules(pipeline: &str) -> Modules {
    let mut modules = Modules::default();
    for (component, file) in [
        ("unet", "unet/diffusion_pytorch_model.safetensors"),
        ("transformer", "transformer/diffusion_pytorch_model.safetensors"),
        ("text_encoder", "text_encoder/model.safetensors"),
        ("text_encoder_2", "text_encoder_2/model.safetensors"),
    ] {
        let path = parity().join("pipelines").join(pipeline).join(file);
        if path.exists() {
            modules.add(component, &shapes(&read_at(path)));
        }
    }
    modules
}

/// The tensors of an adapter of the fixtures. Returns `None`, and prints so, if these fixtures do not contain it.
fn adapter(name: &str) -> Option<Tensors> {
    let path = parity().join("adapters").join(name);
    if !path.exists() {
        assert!(std::env::var_os("LATENTD_PARITY_DIR").is_none(), "the fixtures have no {name}");
        println!("waiting: {}", path.display());
    }
    path.exists().then(|| read_at(path))
}

fn load(tensors: &Tensors, modules: &Modules) -> Result<Lora, LoadError> {
    Lora::read("adapter.safetensors", &write(tensors), modules)
}

fn mismatch(tensors: &Tensors, modules: &Modules) -> LoraMismatch {
    match load(tensors, modules) {
        Err(LoadError::Lora(mismatch)) => *mismatch,
        other => panic!("{other:?}"),
    }
}

/// The sites of a pipeline that match one of the kinds. A kind is `component:part of the name`.
fn sites(modules: &Modules, kinds: &[&str]) -> BTreeSet<String> {
    let of_kind = |site: &&str| {
        kinds.iter().any(|kind| {
            let (component, end) = kind.split_once(':').unwrap();
            site.split_once('.').unwrap().0.starts_with(component) && format!(".{site}").contains(end)
        })
    };
    modules.sites().filter(of_kind).map(str::to_owned).collect()
}

const ATTENTION: [&str; 2] = ["unet:.attn1.", "unet:.attn2."];
const FEED: [&str; 3] = ["unet:.ff.net.", "unet:.proj_in", "unet:.proj_out"];
const CONVOLUTIONS: [&str; 4] = ["unet:.resnets.", "unet:.downsamplers.", "unet:.upsamplers.", "unet:.conv_shortcut"];
const TEXT_ATTENTION: [&str; 1] = ["text_encoder:.self_attn."];
const TEXT_FEED: [&str; 1] = ["text_encoder:.mlp."];

/// All forms of LoRAs for FLUX.1. A product for a fused layer is divided by rows.
#[test]
fn fused_layers_of_transformers_are_divided() {
    let modules = modules("flux-dev");
    let blocks = |site: &str| site.contains("transformer_blocks.");
    let attention = |site: &str| blocks(site) && site.contains(".attn.");
    let text = |site: &str| site.starts_with("text_encoder.") && site.contains(".layers.");
    type Changes<'a> = &'a dyn Fn(&str) -> bool;
    let kinds: [(&str, Changes<'_>, f32); 4] = [
        ("flux_kohya", &|site| blocks(site) || text(site), 0.5),
        ("flux_peft", &|site| attention(site) || text(site) && site.contains("self_attn"), 1.0),
        ("flux_bfl", &blocks, 1.0),
        ("flux_ai_toolkit", &blocks, 1.0),
    ];
    for (name, changes, scale) in kinds {
        let Some(tensors) = adapter(&format!("{name}.safetensors")) else { continue };
        let lora = load(&tensors, &modules).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected: BTreeSet<&str> = modules.sites().filter(|site| changes(site)).collect();
        assert_eq!(lora.sites.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{name}");
        assert!(lora.sites.values().all(|site| site.scale == scale), "{name}");
        let Some((prefix, up, separator)) = (match name {
            "flux_kohya" => Some(("lora_unet_", ".lora_up.weight", "_")),
            "flux_bfl" => Some(("diffusion_model.", ".lora_B.weight", ".")),
            _ => None,
        }) else {
            continue;
        };
        let fused = |module: &str| {
            let key = format!("{prefix}{}{up}", module.replace('.', separator));
            let (halves, _) = tensors[&key].bytes.as_chunks::<2>();
            halves.iter().map(|half| half::f16::from_le_bytes(*half).to_f32()).collect::<Vec<f32>>()
        };
        for (module, parts) in [
            ("double_blocks.0.img_attn.qkv", &["attn.to_q", "attn.to_k", "attn.to_v"][..]),
            ("double_blocks.1.txt_attn.qkv", &["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
            ("single_blocks.2.linear1", &["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]),
        ] {
            let block = module.split('.').nth(1).unwrap();
            let kind = if module.starts_with("double") { "transformer_blocks" } else { "single_transformer_blocks" };
            let site = |part: &&str| &lora.sites[&format!("transformer.{kind}.{block}.{part}")];
            let joined: Vec<f32> = parts.iter().flat_map(|part| site(part).up.clone()).collect();
            assert_eq!(joined, fused(module), "{name}: {module}");
            assert!(parts.iter().all(|part| site(part).down == site(&parts[0]).down), "{name}: {module}");
        }
    }
}

#[test]
fn a_lora_of_a_transformer_is_used_whole_or_refused() {
    let Some(tensors) = adapter("flux_bfl.safetensors") else { return };
    let modules = modules("flux-dev");
    let renamed = |from: &str, to: &str| -> Tensors {
        tensors.iter().map(|(key, tensor)| (key.replace(from, to), tensor.clone())).collect()
    };
    for (from, to) in [
        ("diffusion_model.double_blocks.0.img_attn.qkv", "diffusion_model.double_blocks.9.img_attn.qkv"),
        ("diffusion_model.single_blocks.0.linear1", "diffusion_model.vector_in.mid_layer"),
        ("diffusion_model.single_blocks.0.linear2", "diffusion_model.single_blocks.0.linear3"),
    ] {
        let refused = mismatch(&renamed(from, to), &modules);
        assert_eq!(refused.elsewhere.len(), 2, "{to}: {refused}");
        assert!(refused.elsewhere.iter().all(|key| key.starts_with(to)), "{to}: {refused}");
    }
}

#[test]
fn every_fixture_changes_the_expected_sites() {
    let all = |kinds: &[&[&'static str]]| kinds.concat();
    for (name, pipeline, kinds, rank, scale) in [
        ("sd1_peft", "sd1", all(&[&ATTENTION, &TEXT_ATTENTION]), 4, 1.0),
        ("sd1_peft_unet_only", "sd1", all(&[&ATTENTION]), 8, 1.0),
        ("sd1_kohya", "sd1", all(&[&ATTENTION, &FEED, &TEXT_ATTENTION, &TEXT_FEED]), 4, 0.5),
        ("sd1_kohya_locon", "sd1", all(&[&ATTENTION, &FEED, &CONVOLUTIONS, &TEXT_ATTENTION, &TEXT_FEED]), 4, 0.25),
        ("sdxl_peft", "sdxl", all(&[&ATTENTION, &TEXT_ATTENTION]), 4, 1.0),
        ("sdxl_kohya", "sdxl", all(&[&ATTENTION, &FEED, &TEXT_ATTENTION, &TEXT_FEED]), 4, 0.5),
    ] {
        let Some(tensors) = adapter(&format!("{name}.safetensors")) else { continue };
        let modules = modules(pipeline);
        let lora = load(&tensors, &modules).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found: BTreeSet<String> = lora.sites.keys().cloned().collect();
        let expected = sites(&modules, &kinds);
        let differ: Vec<_> = found.symmetric_difference(&expected).collect();
        assert!(differ.is_empty(), "{name}: {differ:?}");
        println!("{name}: {} sites, {:?}", found.len(), lora.sites.values().map(|s| (s.rank, s.scale)).next());
        for (site, pair) in &lora.sites {
            let shape = modules.shape(site).unwrap();
            assert_eq!((pair.outputs, pair.inputs, pair.rank, pair.scale), (shape[0], shape[1], rank, scale), "{site}");
            let (kh, kw) = pair.kernel;
            assert_eq!(pair.kernel, if shape.len() == 4 { (shape[2], shape[3]) } else { (1, 1) }, "{site}");
            assert_eq!((pair.down.len(), pair.up.len()), (rank * shape[1] * kh * kw, shape[0] * rank), "{site}");
        }
    }
}

/// The tensors with other names. `spell` gets component, module and whether the tensor is the down matrix.
fn respelled(tensors: &Tensors, spell: impl Fn(&str, &str, bool) -> String) -> Tensors {
    let rename = |key: &String| {
        let (module, down) = match key.strip_suffix(".lora_A.weight") {
            Some(module) => (module, true),
            None => (key.strip_suffix(".lora_B.weight").unwrap(), false),
        };
        let (component, module) = module.split_once('.').unwrap();
        spell(component, module, down)
    };
    tensors.iter().map(|(key, raw)| (rename(key), raw.clone())).collect()
}

fn kohya(component: &str, module: &str, down: bool) -> String {
    let prefix = match component {
        "unet" => "lora_unet_",
        "text_encoder" => "lora_te1_",
        _ => "lora_te2_",
    };
    format!("{prefix}{}.lora_{}.weight", module.replace('.', "_"), if down { "down" } else { "up" })
}

/// The name of a U-Net module in the original Stable Diffusion numbering, for two ResNets per block.
fn ldm(module: &str) -> String {
    let parts: Vec<&str> = module.split('.').collect();
    let rest = || parts[4..].join(".");
    let number = |i: usize| parts[i].parse::<usize>().unwrap();
    match (parts[0], parts.get(2).copied()) {
        ("down_blocks", Some("attentions")) => format!("input_blocks.{}.1.{}", number(1) * 3 + number(3) + 1, rest()),
        ("up_blocks", Some("attentions")) => format!("output_blocks.{}.1.{}", number(1) * 3 + number(3), rest()),
        ("mid_block", _) => format!("middle_block.1.{}", parts[3..].join(".")),
        _ => panic!("{module}"),
    }
}

#[test]
fn all_spellings_give_the_same_lora() {
    for (name, pipeline) in [("sd1_peft", "sd1"), ("sdxl_peft", "sdxl")] {
        let Some(tensors) = adapter(&format!("{name}.safetensors")) else { continue };
        let modules = modules(pipeline);
        let expected = load(&tensors, &modules).unwrap();
        let half = |down: bool| if down { "down" } else { "up" };
        let mut others: Vec<(&str, Tensors)> = vec![
            ("kohya", respelled(&tensors, kohya)),
            ("diffusers", {
                respelled(&tensors, |component, module, down| match component {
                    "unet" => format!("{component}.{module}.lora.{}.weight", half(down)),
                    _ => format!("{component}.{module}.lora_linear_layer.{}.weight", half(down)),
                })
            }),
            ("processors", {
                respelled(&tensors, |component, module, down| {
                    let module = module.replace(".to_out.0", ".to_out").replace("_proj", "").replace("out", "to_out");
                    let module = module.replace(".to_to_out", ".to_out").replace(".attn1.", ".attn1.processor.");
                    let module = module.replace(".attn2.", ".attn2.processor.");
                    let module = ["q", "k", "v"].iter().fold(module, |module, letter| {
                        module.replace(&format!(".self_attn.{letter}"), &format!(".self_attn.to_{letter}"))
                    });
                    format!("{component}.{module}_lora.{}.weight", half(down))
                })
            }),
            ("PEFT with the adapter's name", {
                respelled(&tensors, |component, module, down| {
                    format!("{component}.{module}.lora_{}.default_0.weight", if down { "A" } else { "B" })
                })
            }),
            ("newer text encoders", {
                respelled(&tensors, |component, module, down| {
                    let module = module.strip_prefix("text_model.").unwrap_or(module);
                    format!("{component}.{module}.lora_{}.weight", if down { "A" } else { "B" })
                })
            }),
        ];
        if tensors.keys().any(|key| key.contains("down_blocks.1.attentions.1.")) {
            let first = respelled(&tensors, |component, module, down| match component {
                "unet" => kohya(component, &ldm(module), down),
                _ => kohya(component, module, down),
            });
            others.push(("kohya with the first numbering", first));
        }
        assert!(others.len() == 6 || pipeline != "sd1", "sd1 has two ResNets per block");
        let alphas = |tensors: &Tensors, alpha: f32| {
            let bases: BTreeSet<String> = tensors.keys().map(|key| key.split('.').next().unwrap().into()).collect();
            bases.into_iter().map(|base| (format!("{base}.alpha"), Raw::floats(&[], |_| alpha))).collect::<Tensors>()
        };
        let mut scaled = others[0].1.clone();
        scaled.extend(alphas(&scaled, 4.0));
        others.push(("kohya with alpha = rank", scaled));
        for (spelling, tensors) in &others {
            let read = load(tensors, &modules).unwrap_or_else(|e| panic!("{pipeline}, {spelling}: {e}"));
            assert!(read == expected, "{pipeline}, {spelling}");
        }
        let mut halved = others[0].1.clone();
        halved.extend(alphas(&halved, 2.0));
        assert!(load(&halved, &modules).unwrap().sites.values().all(|pair| pair.scale == 0.5));
    }
}

#[test]
fn every_layer_has_a_name_in_the_original_numbering() {
    let unet = |name: &str, shape: &[usize]| (format!("{name}.weight"), shape.to_vec());
    let places = [
        ("time_embed_0", "time_embedding.linear_1"),
        ("label_emb_0_2", "add_embedding.linear_2"),
        ("input_blocks_0_0", "conv_in"),
        ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
        ("input_blocks_2_0_emb_layers_1", "down_blocks.0.resnets.1.time_emb_proj"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_4_0_skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
        ("input_blocks_8_1_proj_out", "down_blocks.2.attentions.1.proj_out"),
        ("middle_block_0_out_layers_3", "mid_block.resnets.0.conv2"),
        ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block_2_in_layers_2", "mid_block.resnets.1.conv1"),
        (
            "output_blocks_0_1_transformer_blocks_9_ff_net_0_proj",
            "up_blocks.0.attentions.0.transformer_blocks.9.ff.net.0.proj",
        ),
        ("output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
        ("output_blocks_8_0_in_layers_2", "up_blocks.2.resnets.2.conv1"),
        ("out_2", "conv_out"),
    ];
    let mut modules = Modules::default();
    modules.add("unet", &places.iter().map(|(_, module)| unet(module, &[6, 5])).collect());
    let mut tensors = Tensors::new();
    for (place, _) in places {
        tensors.insert(format!("lora_unet_{place}.lora_down.weight"), Raw::floats(&[2, 5], |i| i as f32));
        tensors.insert(format!("lora_unet_{place}.lora_up.weight"), Raw::floats(&[6, 2], |i| i as f32));
    }
    let lora = load(&tensors, &modules).unwrap();
    let expected: BTreeSet<String> = places.iter().map(|(_, module)| format!("unet.{module}")).collect();
    assert_eq!(lora.sites.into_keys().collect::<BTreeSet<_>>(), expected);
    for wrong in [
        "input_blocks_0_1_proj_in",
        "input_blocks_3_1_proj_in",
        "middle_block_3_proj_in",
        "output_blocks_0_2_conv",
        "input_blocks_18446744073709551616_0_op",
    ] {
        let tensors = [(format!("lora_unet_{wrong}.alpha"), Raw::floats(&[], |_| 1.0))].into();
        assert_eq!(mismatch(&tensors, &modules).elsewhere.len(), 1, "{wrong}");
    }
}

/// A model of three layers.
fn small() -> Modules {
    let mut modules = Modules::default();
    let shape = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    modules.add(
        "unet",
        &BTreeMap::from([
            shape("conv_in.weight", &[6, 4, 3, 3]),
            shape("conv_in.bias", &[6]),
            shape("proj.weight", &[6, 5]),
            shape("point.weight", &[6, 5, 1, 1]),
        ]),
    );
    modules
}

/// A LoRA of one module. `down` and `up` are the shapes of its matrices.
fn pair(module: &str, down: &[usize], up: &[usize]) -> Tensors {
    let number = |i: usize| i as f32;
    [
        (format!("unet.{module}.lora_A.weight"), Raw::floats(down, number)),
        (format!("unet.{module}.lora_B.weight"), Raw::floats(up, number)),
    ]
    .into()
}

#[test]
fn matrices_and_pointwise_convolutions_give_the_same_pair() {
    for (down, up) in [(&[2, 5][..], &[6, 2][..]), (&[2, 5, 1, 1], &[6, 2, 1, 1]), (&[2, 5], &[6, 2, 1, 1])] {
        let loras = ["proj", "point"].map(|module| load(&pair(module, down, up), &small()).unwrap());
        assert_eq!(loras[0].sites["unet.proj"], loras[1].sites["unet.point"]);
        assert_eq!(loras[0].sites["unet.proj"].kernel, (1, 1));
    }
}

#[test]
fn every_key_that_does_not_fit_is_named() {
    let modules = small();
    for (module, down, up) in [
        ("proj", &[2, 4][..], &[6, 2][..]),
        ("proj", &[2, 5], &[5, 2]),
        ("proj", &[2, 5], &[6, 3]),
        ("proj", &[0, 5], &[6, 0]),
        ("proj", &[1025, 5], &[6, 1025]),
        ("proj", &[10], &[6, 2]),
        ("proj", &[2, 5, 3, 3], &[6, 2, 1, 1]),
        ("conv_in", &[2, 4, 1, 1], &[6, 2, 1, 1]),
        ("conv_in", &[2, 4, 3, 3], &[6, 2, 3, 3]),
    ] {
        let unfit = mismatch(&pair(module, down, up), &modules).unfit;
        assert_eq!(unfit[0].0, format!("unet.{module}"), "{down:?} {up:?}");
    }

    let good = || pair("proj", &[2, 5], &[6, 2]);
    let with = |key: &str, raw: Raw| {
        let mut tensors = good();
        tensors.insert(key.to_owned(), raw);
        mismatch(&tensors, &modules)
    };
    let one = || Raw::floats(&[1], |_| 1.0);
    assert!(load(&good(), &modules).is_ok());
    for key in ["lora_te3_proj.alpha", "unet.proj.lora_B.bias", "model.diffusion_model.proj", "", "."] {
        assert_eq!(with(key, one()).unknown, [key]);
    }
    for (key, kind) in [
        ("unet.proj.dora_scale", "DoRA"),
        ("unet.proj.lora_magnitude_vector.weight", "DoRA"),
        ("lora_unet_proj.hada_w1_a", "LoHa"),
        ("lora_unet_proj.lokr_w2", "LoKr"),
        ("lora_unet_proj.lora_mid.weight", "LoRA with a core, lora_mid"),
        ("lora_unet_proj.diff", "full weights"),
        ("bundle_emb.fox.string_to_param.*", "textual inversions within a LoRA"),
    ] {
        let mismatch = with(key, one());
        assert_eq!(mismatch.unsupported, [(key.to_owned(), kind)]);
        assert!(mismatch.to_string().contains(&format!("{key} ({kind})")), "{mismatch}");
    }
    for key in ["unet.other.lora_A.weight", "lora_unet_other.alpha", "text_encoder.proj.alpha", ".alpha"] {
        assert_eq!(with(key, one()).elsewhere, [key]);
    }
    assert_eq!(with("lora_unet_proj.lora_up.weight", one()).repeated, ["unet.proj.lora_B.weight"]);
    assert_eq!(
        with("unet.point.lora_A.weight", one()).halved,
        [("unet.point".into(), "a down matrix and no up matrix")]
    );
    assert_eq!(
        with("unet.point.lora_B.weight", one()).halved,
        [("unet.point".into(), "an up matrix and no down matrix")]
    );
    assert_eq!(with("unet.point.alpha", one()).halved[0].0, "unet.point");
    let flag = Raw { dtype: safetensors::Dtype::BOOL, shape: vec![], bytes: vec![1] };
    assert_eq!(with("unet.proj.alpha", flag).not_float, [("unet.proj.alpha".into(), "BOOL".into())]);
    let integers = Raw { dtype: safetensors::Dtype::I64, shape: vec![6, 2], bytes: vec![0; 96] };
    let key = "unet.proj.lora_B.weight";
    assert_eq!(with(key, integers).not_float, [(key.into(), "I64".into())]);
    for alpha in [f32::NAN, f32::INFINITY] {
        assert_eq!(with("unet.proj.alpha", Raw::floats(&[], |_| alpha)).unfit.len(), 1);
    }
    assert_eq!(with("unet.proj.alpha", Raw::floats(&[2], |_| 1.0)).unfit.len(), 1);

    let many = (0..100).map(|i| (format!("unknown {i:02}"), one())).collect();
    let text = mismatch(&many, &modules).to_string();
    assert!(text.contains("unknown 07 and 92 more") && !text.contains("unknown 08"), "{text}");
}

/// Trainers store α with the type of their option. For example, an integer of Python becomes an int64.
#[test]
fn alpha_has_the_same_value_in_every_type() {
    use safetensors::Dtype;
    let types: [(Dtype, Vec<u8>); 11] = [
        (Dtype::F16, half::f16::from_f32(6.0).to_le_bytes().into()),
        (Dtype::BF16, half::bf16::from_f32(6.0).to_le_bytes().into()),
        (Dtype::F32, 6f32.to_le_bytes().into()),
        (Dtype::F64, 6f64.to_le_bytes().into()),
        (Dtype::I8, vec![6]),
        (Dtype::U8, vec![6]),
        (Dtype::I16, 6i16.to_le_bytes().into()),
        (Dtype::U16, 6u16.to_le_bytes().into()),
        (Dtype::I32, 6i32.to_le_bytes().into()),
        (Dtype::I64, 6i64.to_le_bytes().into()),
        (Dtype::U64, 6u64.to_le_bytes().into()),
    ];
    for (dtype, bytes) in types {
        for shape in [vec![], vec![1], vec![1, 1]] {
            let mut tensors = pair("proj", &[2, 5], &[6, 2]);
            tensors.insert("unet.proj.alpha".to_owned(), Raw { dtype, shape, bytes: bytes.clone() });
            assert_eq!(load(&tensors, &small()).unwrap().sites["unet.proj"].scale, 3.0, "{dtype:?}");
        }
    }
}

#[test]
fn weights_of_float64_are_rounded_to_float32() {
    let narrow = pair("proj", &[2, 5], &[6, 2]);
    let widen = |raw: &Raw| {
        let numbers = raw.bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        let bytes = numbers.flat_map(f64::to_le_bytes).collect();
        Raw { dtype: safetensors::Dtype::F64, shape: raw.shape.clone(), bytes }
    };
    let wide = narrow.iter().map(|(key, raw)| (key.clone(), widen(raw))).collect();
    assert_eq!(load(&wide, &small()).unwrap(), load(&narrow, &small()).unwrap());
}

/// `check` reads only the header of a file, not the numbers.
#[test]
fn a_header_is_enough_to_check_a_file() {
    let header_alone = |tensors: &Tensors| {
        let mut file = write(tensors);
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        file[8 + length..].fill(0xff);
        Lora::check("adapter.safetensors", &FileContent::Held(file.into()), &small()).map_err(|error| error.to_string())
    };
    assert_eq!(header_alone(&pair("proj", &[2, 5], &[6, 2])), Ok(()));
    let error = header_alone(&pair("proj", &[2, 7], &[8, 2])).unwrap_err();
    assert!(error.contains("unet.proj: down [2, 7] and up [8, 2] do not fit the model's weight [6, 5]"), "{error}");
    let Some(foreign) = adapter("sd1_peft.safetensors") else { return };
    let check = |pipeline| Lora::check("sd1_peft", &FileContent::Held(write(&foreign).into()), &modules(pipeline));
    assert!(check("sd1").is_ok());
    assert!(check("sd2").unwrap_err().to_string().contains("do not fit the model's weight"));
}

/// Such a file would change nothing, so it must be a mistake.
#[test]
fn a_file_without_tensors_is_refused() {
    let empty = write(&Tensors::new());
    for error in [
        Lora::read("empty", &empty, &small()).unwrap_err(),
        Lora::check("empty", &FileContent::Held(empty.clone().into()), &small()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("the file: has no tensors"), "{error}");
    }
}

/// Otherwise such numbers would only be noticed in the output of the network.
#[test]
fn numbers_that_are_not_finite_or_too_large_are_refused() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf"), (3e38, "3e38")] {
        let mut tensors = pair("proj", &[2, 5], &[6, 2]);
        let bytes = &mut tensors.values_mut().next().unwrap().bytes;
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
        let found = mismatch(&tensors, &small()).unfit;
        let [(site, what)] = &found[..] else { panic!("{found:?}") };
        assert!(site == "unet.proj" && what.contains(&format!("has the number {shown}")), "{what}");
    }
}

/// Reads a LoRA file with this `lora_adapter_metadata` of diffusers in its header.
fn noted(note: &str) -> Result<Lora, LoadError> {
    let tensors = pair("proj", &[4, 5], &[6, 4]);
    let views = tensors.iter().map(|(name, raw)| (name, raw.view()));
    let metadata = [("lora_adapter_metadata".to_owned(), note.to_owned())].into();
    Lora::read("noted", &safetensors::serialize(views, Some(metadata)).unwrap(), &small())
}

#[test]
fn the_metadata_of_diffusers_sets_the_scale() {
    for (note, scale) in [
        (r#"{"unet.lora_alpha": 8, "unet.r": 4, "unet.target_modules": ["proj"]}"#, 2.0),
        (r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#, 4.0),
        (r#"{"unet.lora_alpha": 8, "unet.r": 16, "unet.rank_pattern": {"proj": 4}}"#, 2.0),
        (r#"{"unet.lora_alpha": 8, "text_encoder.r": 16, "unet.layer_replication": null}"#, 2.0),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"proj": 2}}"#, 0.5),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"roj": 2}}"#, 2.0),
        (r#"{"text_encoder.lora_alpha": 8}"#, 1.0),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"p.oj|other": 2}}"#, 0.5),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"^proj": 2}}"#, 0.5),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"pro.": 2, "proj": 4}}"#, 0.5),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"zzz|proj": 2, "proj": 4}}"#, 0.5),
        (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": null, "unet.init": NaN}"#, 2.0),
    ] {
        assert_eq!(noted(note).unwrap().sites["unet.proj"].scale, scale, "{note}");
    }
    for (note, why) in [
        ("", "EOF"),
        ("[]", "expected a map"),
        (r#"{"unet.lora_alpha": "8"}"#, "unet.lora_alpha: invalid type"),
        (r#"{"unet.lora_alpha": Infinity}"#, "unet.lora_alpha: invalid type"),
        (r#"{"unet.use_dora": true}"#, "unet.use_dora is not supported"),
        (r#"{"unet.lora_alpha": 1e300}"#, "alpha / rank = 2.5e299 is not between -65536 and 65536"),
        (
            r#"{"unet.lora_alpha": 8, "unet.r": 8}"#,
            "the matrices are of rank 4, but the metadata entry lora_adapter_metadata says 8",
        ),
        (r#"{"unet.r": 0}"#, "says 0"),
        (r#"{"unet.r": 4, "unet.rank_pattern": {"proj": 2}}"#, "says 2"),
        (r#"{"unet.rank_pattern": {"(": 2}}"#, "unet.rank_pattern: regex parse error"),
        (r#"{"unet.layer_replication": [[0, 2]]}"#, "unet.layer_replication is not supported"),
        (r#"{"unet.alpha_pattern": {"(?!a)proj": 2}}"#, "unet.alpha_pattern: regex parse error"),
    ] {
        let error = noted(note).unwrap_err().to_string();
        assert!(error.contains(why), "{note}: {error}");
    }
}
