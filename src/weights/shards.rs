use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{LoadError, ModelFolder};

/// The safetensors files that hold a component, as paths in the folder.
///
/// In this order: the single file, the index with the shards that it names, shards found by their names, and the variants of
/// these (`fp16` and the others of [`VARIANTS`]), which count only where nothing else is there.
pub(super) fn find(folder: &ModelFolder, component: &str, stem: &str) -> Result<Vec<Shard>, LoadError> {
    let plain = (stem.to_owned(), vec![format!("{stem}.safetensors.index.json")]);
    let variant = |variant: &str| {
        let indices =
            [format!("{stem}.safetensors.index.{variant}.json"), format!("{stem}.{variant}.safetensors.index.json")];
        (format!("{stem}.{variant}"), indices.to_vec())
    };
    for (stem, indices) in [plain].into_iter().chain(VARIANTS.map(variant)) {
        let single = format!("{component}/{stem}.safetensors");
        if folder.has(&single) {
            return Ok(vec![Shard { path: single, names: None }]);
        }
        let mut indices = indices.into_iter().map(|index| format!("{component}/{index}"));
        if let Some(index) = indices.find(|index| folder.has(index)) {
            return by_index(folder, component, &index);
        }
        let shards = by_name(folder, component, &stem)?;
        if !shards.is_empty() {
            return Ok(shards);
        }
    }
    let pickles = [format!("{component}/{stem}.bin"), format!("{component}/{stem}.fp16.bin")];
    match pickles.into_iter().find(|pickle| folder.has(pickle)) {
        Some(path) => Err(LoadError::Pickle { path }),
        None => Err(LoadError::Absent { path: format!("{component}/{stem}.safetensors") }),
    }
}

/// What diffusers' `variant` puts into the names of files, in the order of preference.
const VARIANTS: [&str; 4] = ["fp16", "bf16", "fp32", "non_ema"];

/// One file, and the tensors that the index says it holds.
#[derive(Debug)]
pub(super) struct Shard {
    pub path: String,
    pub names: Option<BTreeSet<String>>,
}

fn by_index(folder: &ModelFolder, component: &str, path: &str) -> Result<Vec<Shard>, LoadError> {
    let bad = |key: &str, reason: &str| LoadError::BadKey { path: path.into(), key: key.into(), reason: reason.into() };
    let index = folder.json(path)?;
    let map =
        index.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("weight_map", "expected an object"))?;
    let mut files: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().ok_or_else(|| bad(&format!("weight_map.{name}"), "expected the name of a file"))?;
        if file.contains(['/', '\\']) || file.starts_with('.') {
            return Err(LoadError::Escapes { path: format!("{component}/{file}") });
        }
        files.entry(file).or_default().insert(name.clone());
    }
    if files.is_empty() {
        return Err(bad("weight_map", "names no tensor"));
    }
    Ok(files
        .into_iter()
        .map(|(file, names)| Shard { path: format!("{component}/{file}"), names: Some(names) })
        .collect())
}

/// `STEM-00001-of-00003.safetensors` and so on; all of them must be there.
fn by_name(folder: &ModelFolder, component: &str, stem: &str) -> Result<Vec<Shard>, LoadError> {
    let mut shards = Vec::new();
    let mut of = None;
    for name in folder.names(component)? {
        let numbers =
            name.strip_prefix(stem).and_then(|n| n.strip_prefix('-')).and_then(|n| n.strip_suffix(".safetensors"));
        let Some((number, total)) = numbers.and_then(|n| n.split_once("-of-")) else {
            continue;
        };
        let (Ok(number), Ok(total)) = (number.parse::<usize>(), total.parse::<usize>()) else {
            continue;
        };
        let path = format!("{component}/{name}");
        if number != shards.len() + 1 || *of.get_or_insert(total) != total {
            return Err(LoadError::Safetensors { path, reason: format!("shard {number} of {total} out of order") });
        }
        shards.push(Shard { path, names: None });
    }
    match of {
        Some(total) if total != shards.len() => Err(LoadError::Absent {
            path: format!("{component}/{stem}-{:05}-of-{total:05}.safetensors", shards.len() + 1),
        }),
        _ => Ok(shards),
    }
}
