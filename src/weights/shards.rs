//! Finds the weight files of a component: a GGUF file, a safetensors file, or shards.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{LoadError, ModelFolder, gguf};

/// The files that hold a component, as paths in the folder.
///
/// A GGUF file in the component's folder replaces all other files. Otherwise, the search looks for the single file or
/// the index with the shards that it names, then for shards by their names, and then, in the same order, for the files
/// of each variant (`fp16` and the others of [`VARIANTS`]). If there is a single file and also an index with all its
/// shards, the search takes what the component's library takes: the shards for diffusers, the single file for
/// transformers (the stem `model`).
pub(super) fn find(folder: &ModelFolder, component: &str, stem: &str) -> Result<Found, LoadError> {
    if let Some(found) = gguf_of(folder, component)? {
        return Ok(found);
    }
    let plain = (stem.to_owned(), vec![format!("{stem}.safetensors.index.json")]);
    let variant = |variant: &str| {
        let indices =
            [format!("{stem}.safetensors.index.{variant}.json"), format!("{stem}.{variant}.safetensors.index.json")];
        (format!("{stem}.{variant}"), indices.to_vec())
    };
    for (name, indices) in [plain].into_iter().chain(VARIANTS.map(variant)) {
        let single = format!("{component}/{name}.safetensors");
        let has_single = folder.has(&single);
        let mut indices = indices.into_iter().map(|index| format!("{component}/{index}"));
        match indices.find(|index| folder.has(index)) {
            Some(index) if has_single => return either(folder, component, single, &index, stem == TRANSFORMERS),
            Some(index) => return by_index(folder, component, &index).map(Found::alone),
            None if has_single => return Ok(Found::alone(vec![single])),
            None => {}
        }
        let shards = by_name(folder, component, &name)?;
        if !shards.is_empty() {
            return Ok(Found::alone(shards));
        }
    }
    // transformers calls its pickles `pytorch_model`, whatever its safetensors files are called.
    let is_pickle =
        |name: &String| [stem, "pytorch_model"].iter().any(|stem| name.starts_with(stem)) && name.ends_with(".bin");
    match folder.names(component).unwrap_or_default().into_iter().find(is_pickle) {
        Some(name) => Err(LoadError::Pickle { path: format!("{component}/{name}") }),
        None => Err(lacking(folder, component, stem)),
    }
}

/// The GGUF file of a component. Users put it into the folder next to the safetensors files, or in their place.
fn gguf_of(folder: &ModelFolder, component: &str) -> Result<Option<Found>, LoadError> {
    let names = folder.names(component).unwrap_or_default();
    let mut files = names.iter().filter(|name| gguf::is_gguf(name));
    let Some(name) = files.next() else { return Ok(None) };
    let path = format!("{component}/{name}");
    if let Some(other) = files.next() {
        let reason = format!("{component}/{other} is another one; only one of them can hold the weights");
        return Err(LoadError::Gguf { path, reason });
    }
    let others = names.iter().any(|name| name.ends_with(".safetensors"));
    let note = others.then(|| format!("the weights are {path}; the safetensors files next to it are not used"));
    Ok(Some(Found { paths: vec![path], note }))
}

/// The error of a component without files. If the target of a link does not exist, the error names the link.
fn lacking(folder: &ModelFolder, component: &str, stem: &str) -> LoadError {
    let names = folder.names(component).unwrap_or_default();
    let is_weights = |name: &&String| name.starts_with(stem) && name.ends_with(".safetensors");
    let dead = names.iter().filter(is_weights).map(|name| folder.absent(&format!("{component}/{name}")));
    let mut dead = dead.filter(|error| matches!(error, LoadError::DeadLink { .. }));
    dead.next().unwrap_or_else(|| LoadError::Absent { path: format!("{component}/{stem}.safetensors") })
}

/// The files of a component.
#[derive(Debug)]
pub(super) struct Found {
    pub paths: Vec<String>,
    /// A note for users on the choice of the files.
    pub note: Option<String>,
}

impl Found {
    fn alone(paths: Vec<String>) -> Found {
        Found { paths, note: None }
    }
}

/// The stem of the weight files of transformers' networks.
const TRANSFORMERS: &str = "model";

/// Chooses the single file or the shards of the index next to it.
fn either(
    folder: &ModelFolder,
    component: &str,
    single: String,
    index: &str,
    prefer_single: bool,
) -> Result<Found, LoadError> {
    let shards = by_index(folder, component, index).ok().filter(|paths| paths.iter().all(|path| folder.has(path)));
    Ok(match shards {
        Some(paths) if !prefer_single => {
            let note = format!("the weights are the shards of {index}, as in diffusers; {single} is not used");
            Found { paths, note: Some(note) }
        }
        shards => {
            let why = if shards.is_some() { "as in transformers" } else { "as shards of it are missing" };
            Found { note: Some(format!("the weights are {single}; {index} is not used, {why}")), paths: vec![single] }
        }
    })
}

/// The values of diffusers' `variant` that the names of files may contain, in the order of preference.
const VARIANTS: [&str; 4] = ["fp16", "bf16", "fp32", "non_ema"];

fn by_index(folder: &ModelFolder, component: &str, path: &str) -> Result<Vec<String>, LoadError> {
    let bad = |key: &str, reason: &str| LoadError::BadKey { path: path.into(), key: key.into(), reason: reason.into() };
    let index = folder.json(path)?;
    let map =
        index.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("weight_map", "expected an object"))?;
    let mut files = BTreeSet::new();
    for (name, file) in map {
        let file = file.as_str().ok_or_else(|| bad(&format!("weight_map.{name}"), "expected the name of a file"))?;
        if file.contains(['/', '\\']) || file.starts_with('.') {
            let reason = format!("{file:?} must be the name of a file in {component}, without / and \\ and not hidden");
            return Err(bad(&format!("weight_map.{name}"), &reason));
        }
        files.insert(format!("{component}/{file}"));
    }
    if files.is_empty() {
        return Err(bad("weight_map", "names no tensor"));
    }
    Ok(files.into_iter().collect())
}

/// The shards `STEM-00001-of-00003.safetensors` and so on, all of which must exist.
fn by_name(folder: &ModelFolder, component: &str, stem: &str) -> Result<Vec<String>, LoadError> {
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
        shards.push(path);
    }
    match of {
        Some(total) if total != shards.len() => Err(LoadError::Absent {
            path: format!("{component}/{stem}-{:05}-of-{total:05}.safetensors", shards.len() + 1),
        }),
        _ => Ok(shards),
    }
}
