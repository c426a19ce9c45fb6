//! Merges `NAME.json` next to `NAME.safetensors` into the configurations that are made for the checkpoint. The file is
//! a JSON object that contains an object for each configuration. The keys of these objects replace keys of the
//! configurations, for instance
//!
//! ```json
//! {"scheduler": {"prediction_type": "epsilon"}, "unet": {"sample_size": 64}}
//! ```
//!
//! for a checkpoint of Stable Diffusion 2 that predicts noise and draws at 512 × 512. `scheduler`, `unet`, `vae`,
//! `text_encoder`, `text_encoder_2`, `model_index` and `controlnet` are the configurations of diffusers' folders,
//! `latentd` is the folder's `latentd.json`.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use crate::weights::{LoadError, header::is_pointer, json as python};

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The names of the configurations, and their paths in the folder.
const FILES: [(&str, &str); 8] = [
    ("model_index", "model_index.json"),
    ("scheduler", "scheduler/scheduler_config.json"),
    ("unet", "unet/config.json"),
    ("vae", "vae/config.json"),
    ("text_encoder", "text_encoder/config.json"),
    ("text_encoder_2", "text_encoder_2/config.json"),
    ("controlnet", "config.json"),
    ("latentd", "latentd.json"),
];

/// Keys that AUTOMATIC1111's web interface writes into a file of the same name. They are ignored.
const OF_OTHER_PROGRAMS: [&str; 6] =
    ["description", "sd version", "activation text", "preferred weight", "negative text", "notes"];

/// If an error begins with the path of a configuration, returns the name of this configuration, and the error without
/// the path.
pub(super) fn key_of(error: &str) -> Option<(&'static str, &str)> {
    FILES.into_iter().find_map(|(key, file)| Some((key, error.strip_prefix(file)?)))
}

/// Merges the file at `path` into the configurations, if the file exists.
pub(super) fn merge(path: &Path, configs: &mut BTreeMap<&'static str, Map<String, Value>>) -> Result<(), LoadError> {
    let shown = path.display().to_string();
    let read = |source| LoadError::Read { path: shown.clone(), source };
    let length = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(read)?.len(),
    };
    if length > LONGEST {
        return Err(read(std::io::ErrorKind::FileTooLarge.into()));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    if is_pointer(text.as_bytes()) {
        return Err(LoadError::LfsPointer { path: shown });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let object = python::object(text).map_err(|source| LoadError::Json { path: shown.clone(), source })?;
    let class = object.get("scheduler").and_then(|keys| keys.get("_class_name")).cloned();
    let of_index = object.get("model_index").and_then(|keys| keys.get("scheduler")).cloned();
    for (key, value) in object.into_iter().filter(|(key, _)| !OF_OTHER_PROGRAMS.contains(&key.as_str())) {
        let file = FILES.iter().find(|(name, file)| *name == key && (configs.contains_key(file) || *name == "latentd"));
        let Some((_, file)) = file else {
            return Err(LoadError::UnknownKey { path: shown, key, value: Box::new(value) });
        };
        let Value::Object(keys) = value else {
            return Err(LoadError::BadKey { path: shown, key, reason: "expected an object".into() });
        };
        configs.entry(file).or_default().extend(keys);
    }
    // The index was made for the scheduler before the merge. It must name the new class, as the scheduler's
    // configuration does.
    if let (Some(class), None, Some(index)) = (class, of_index, configs.get_mut("model_index.json")) {
        index.insert("scheduler".into(), json!(["diffusers", class]));
    }
    Ok(())
}
