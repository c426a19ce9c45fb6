//! Tests of the faults in the list of models: wrong values, encodings, links, and duplicate names.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use latentd::catalogue::Catalogue;
use serde_json::{Value, json};

use super::{copy, fixtures};

/// Makes a copy of the model `sd1` with one key of a configuration changed.
fn with(models: &Path, name: &str, file: &str, key: &str, value: Value) {
    copy(&fixtures().join("sd1"), &models.join(name));
    let path = models.join(name).join(file);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn invalid_values_are_refused_with_file_and_key() {
    let models = tempfile::tempdir().unwrap();
    let unet = "unet/config.json";
    let cases = [
        (unet, "sample_size", json!(8.0), ""),
        (unet, "in_channels", json!(4.0), ""),
        ("scheduler/scheduler_config.json", "num_train_timesteps", json!(1000.0), ""),
        (unet, "sample_size", json!(8.5), "`sample_size`: must be a whole number or a list of two, height and width"),
        (unet, "layers_per_block", json!("two"), "must be a whole number or a list of whole numbers"),
        (unet, "in_channels", json!(null), "`in_channels`: invalid type: null, expected a whole number"),
        (unet, "mid_block_type", json!(null), "`mid_block_type`: invalid type: null, expected a text"),
        (unet, "norm_eps", json!("small"), "expected a number"),
        (unet, "conv_in_kernel", json!(4), "`conv_in_kernel`: must be odd, not 4"),
        (unet, "block_out_channels", json!([]), "`block_out_channels`: must have 1 to 16 entries, not 0"),
        ("text_encoder/config.json", "eos_token_id", json!(null), "invalid type: null, expected a whole number"),
    ];
    for (i, (file, key, value, _)) in cases.iter().enumerate() {
        with(models.path(), &format!("m{i:02}"), file, key, value.clone());
    }
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    for (i, (file, key, value, expected)) in cases.iter().enumerate() {
        let fault = catalogue.fault(&format!("m{i:02}")).unwrap_or_default();
        assert!(fault.is_empty() == expected.is_empty() && fault.contains(expected), "{key} = {value}: {fault}");
        assert!(expected.is_empty() || fault.starts_with(file), "{fault}");
    }
}

#[test]
fn utf8_with_a_byte_order_mark_is_read_and_utf16_is_refused() {
    let models = tempfile::tempdir().unwrap();
    for name in ["mark", "wide"] {
        copy(&fixtures().join("sd1"), &models.path().join(name));
        let path = models.path().join(name).join("scheduler/scheduler_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let wide = text.encode_utf16().flat_map(u16::to_le_bytes);
        let bytes = if name == "mark" {
            format!("\u{feff}{text}").into_bytes()
        } else {
            [0xff, 0xfe].into_iter().chain(wide).collect()
        };
        std::fs::write(path, bytes).unwrap();
    }
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    assert_eq!(catalogue.fault("mark"), None);
    let fault = catalogue.fault("wide").unwrap();
    assert_eq!(fault, "scheduler/scheduler_config.json: is not UTF-8; save it in that encoding");
}

#[test]
fn dangling_links_are_named_with_their_targets() {
    let models = tempfile::tempdir().unwrap();
    for (name, file) in [
        ("weights", "unet/diffusion_pytorch_model.safetensors"),
        ("config", "vae/config.json"),
        ("half", "unet/diffusion_pytorch_model.fp16.safetensors"),
    ] {
        copy(&fixtures().join("sd1"), &models.path().join(name));
        let folder = models.path().join(name);
        let plain = folder.join("unet/diffusion_pytorch_model.safetensors");
        if name == "half" {
            std::fs::remove_file(plain).unwrap();
        } else {
            std::fs::remove_file(folder.join(file)).unwrap();
        }
        symlink("../../../blobs/0123abc", folder.join(file)).unwrap();
    }
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    for (name, file) in [
        ("weights", "unet/diffusion_pytorch_model.safetensors"),
        ("config", "vae/config.json"),
        ("half", "unet/diffusion_pytorch_model.fp16.safetensors"),
    ] {
        let fault = catalogue.fault(name).unwrap();
        assert!(fault.starts_with(&format!("{file}: a link to ../../../blobs/0123abc")), "{fault}");
    }
}

#[test]
fn duplicate_names_and_special_files_are_listed_with_a_fault() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("mine"));
    std::fs::write(models.path().join("mine.safetensors"), b"12345678").unwrap();
    symlink("/dev/zero", models.path().join("zero.safetensors")).unwrap();
    let made = Command::new("mkfifo").arg(models.path().join("pipe.safetensors")).status().unwrap();
    assert!(made.success());
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    assert_eq!(catalogue.names(), ["emoji", "mine", "mine.safetensors", "pipe", "zero"]);
    assert_eq!(catalogue.fault("mine"), None);
    let expected = "\"mine\" beside it has the same name and is used; rename one of the two";
    assert_eq!(catalogue.fault("mine.safetensors").as_deref(), Some(expected));
    for name in ["pipe", "zero"] {
        assert_eq!(catalogue.fault(name).as_deref(), Some("a pipe or a device, and no file"));
    }
}
