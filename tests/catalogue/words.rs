//! What the list of models says of folders and files: what is taken, and why the rest is not.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use latentd::catalogue::Catalogue;
use serde_json::{Value, json};

use super::{copy, fixtures};

/// A folder with the model `sd1`, one of whose configurations has this key changed.
fn with(models: &Path, name: &str, file: &str, key: &str, value: Value) {
    copy(&fixtures().join("sd1"), &models.join(name));
    let path = models.join(name).join(file);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn values_of_configurations_are_refused_in_words_of_the_file() {
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
    for (i, (file, key, value, said)) in cases.iter().enumerate() {
        let fault = catalogue.fault(&format!("m{i:02}")).unwrap_or_default();
        assert!(fault.is_empty() == said.is_empty() && fault.contains(said), "{key} = {value}: {fault}");
        assert!(said.is_empty() || fault.starts_with(file), "{fault}");
    }
}

#[test]
fn the_encoding_of_a_configuration_is_named_or_taken() {
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
fn links_that_lead_nowhere_are_named_with_where_they_lead() {
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
        assert!(fault.starts_with(&format!("{file}: a link that leads nowhere, to ../../../blobs/0123abc")), "{fault}");
    }
}

#[test]
fn what_is_beside_a_model_of_its_name_or_no_file_at_all_is_listed() {
    let models = tempfile::tempdir().unwrap();
    copy(&fixtures().join("sd1"), &models.path().join("mine"));
    std::fs::write(models.path().join("mine.safetensors"), b"12345678").unwrap();
    symlink("/dev/zero", models.path().join("zero.safetensors")).unwrap();
    let made = Command::new("mkfifo").arg(models.path().join("pipe.safetensors")).status().unwrap();
    assert!(made.success());
    let catalogue = Catalogue::open(models.path(), "emoji").unwrap();
    assert_eq!(catalogue.names(), ["emoji", "mine", "mine.safetensors", "pipe", "zero"]);
    assert_eq!(catalogue.fault("mine"), None);
    let said = "\"mine\" beside it has the same name and is used; rename one of the two";
    assert_eq!(catalogue.fault("mine.safetensors").as_deref(), Some(said));
    for name in ["pipe", "zero"] {
        assert_eq!(catalogue.fault(name).as_deref(), Some("a pipe or a device, and no file"));
    }
}
