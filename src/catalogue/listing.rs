//! What a folder of models or ControlNets holds: folders in diffusers' layout, files that stand for folders, repositories
//! of a Hugging Face cache, and what cannot be used, each with a name.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{embedded, hub};
use crate::{families::PICKLED_CHECKPOINT, weights::imprint};

/// The longest name, in characters.
const LONGEST_NAME: usize = 128;

/// Levels of folders below the one that is listed in which models are looked for: `NAME` and `GROUP/NAME`.
const LEVELS: usize = 2;

/// The most things that are listed of one folder.
const MOST: usize = 10_000;

/// Where something is, or why it is nothing that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::catalogue) enum Source {
    Folder(PathBuf),
    SingleFile(PathBuf),
    Unusable(String),
}

/// What is found, by name. Of two things of one name a folder goes before a file, which is listed as NAME.safetensors then, and
/// either before what cannot be used.
pub(in crate::catalogue) type Found = BTreeMap<String, Source>;

/// Lists `dir`, which is empty for nothing; `marker` is the file by which a folder is known. With it what people should know
/// of `dir` itself.
///
/// # Errors
/// The folder cannot be read.
pub(in crate::catalogue) fn list(dir: &Path, marker: &'static str) -> io::Result<(Found, Option<String>)> {
    let mut listing = Listing { marker, found: Found::new() };
    let mut note = None;
    if dir.as_os_str().is_empty() {
        return Ok((listing.found, note));
    }
    if dir.join(marker).is_file() {
        // The folder above was meant.
        let dir = fs::canonicalize(dir)?;
        let name = hub::name_of_snapshot(&dir).unwrap_or_else(|| shown(&dir));
        note = Some(format!(
            "{} has {marker}: it is no folder of models but one itself, and is listed as {name:?}; the folder above it would list \
             all that are there",
            dir.display()
        ));
        listing.add(name, Source::Folder(dir));
    } else if let Some(name) = hub::repository(dir) {
        listing.add_repository(&name, dir);
    } else {
        listing.walk(dir, "", LEVELS)?;
    }
    Ok((listing.found, note))
}

/// How the files are now: another word where one of them has changed.
pub(in crate::catalogue) fn stamp(source: &Source) -> String {
    match source {
        Source::Folder(path) => imprint::stamp_of_folder(path),
        Source::SingleFile(path) => {
            imprint::stamp_of_file(path) + &imprint::stamp_of_file(&path.with_extension("json"))
        }
        Source::Unusable(reason) => reason.clone(),
    }
}

struct Listing {
    marker: &'static str,
    found: Found,
}

impl Listing {
    fn walk(&mut self, dir: &Path, group: &str, levels: usize) -> io::Result<()> {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            if self.found.len() >= MOST {
                tracing::warn!(path = %dir.display(), "more than {MOST} entries: the others are not listed");
                break;
            }
            if !shown(&path).starts_with('.') {
                self.look_at(&path, group, levels);
            }
        }
        Ok(())
    }

    fn look_at(&mut self, path: &Path, group: &str, levels: usize) {
        let name = |path: &Path| format!("{group}{}", shown(path));
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if path.is_symlink() => {
                return self.add_unusable(name(path), format!("a link that leads nowhere: {error}"));
            }
            Err(error) => return self.add_unusable(name(path), error.to_string()),
        };
        let is_safetensors = || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"));
        if !metadata.is_dir() && !metadata.is_file() && is_safetensors() {
            self.add_unusable(name(&path.with_extension("")), "a pipe or a device, and no file".to_owned());
        } else if metadata.is_file() {
            self.look_at_file(path, &name(&path.with_extension("")));
        } else if metadata.is_dir() {
            match hub::repository(path) {
                Some(repository) => self.add_repository(&repository, path),
                None if hub::is_other(path) => {}
                None => self.look_at_folder(path, name(path), levels),
            }
        }
    }

    fn look_at_file(&mut self, path: &Path, name: &str) {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "safetensors" => self.add(name.to_owned(), Source::SingleFile(path.to_owned())),
            "ckpt" | "pt" | "pth" | "bin" => self.add_unusable(name.to_owned(), PICKLED_CHECKPOINT.to_owned()),
            "gguf" | "onnx" => self.add_unusable(name.to_owned(), format!("a .{ending} file; {SAFETENSORS}")),
            _ => {} // Configurations, pictures and texts stand beside models.
        }
    }

    fn look_at_folder(&mut self, path: &Path, name: String, levels: usize) {
        if path.join(self.marker).is_file() {
            return self.add(name, Source::Folder(path.to_owned()));
        }
        let before = self.found.len();
        if levels > 1
            && !is_part(path)
            && let Err(error) = self.walk(path, &format!("{name}/"), levels - 1)
        {
            return self.add_unusable(name, error.to_string());
        }
        if self.found.len() == before {
            self.add_unusable(name, self.lacking(path));
        }
    }

    fn add_repository(&mut self, name: &str, path: &Path) {
        match hub::snapshot(path) {
            Ok(snapshot) if snapshot.join(self.marker).is_file() => {
                self.add(name.to_owned(), Source::Folder(snapshot));
            }
            Ok(snapshot) => self.add_unusable(name.to_owned(), self.lacking(&snapshot)),
            Err(reason) => self.add_unusable(name.to_owned(), reason),
        }
    }

    /// What a folder that is none of those looked for is instead.
    fn lacking(&self, path: &Path) -> String {
        let has = |file: &str| path.join(file).exists();
        let hint = match self.marker {
            // The first models had the files of their network and scheduler beside it.
            MODEL if has("unet") || has("scheduler_config.json") => "; the file was not downloaded or copied",
            MODEL if has("config.json") && (has(WEIGHTS) || has(HALF_WEIGHTS)) => {
                "; a network alone: a ControlNet belongs into the folder of controlnets.dir"
            }
            _ if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) => "; the folder is empty",
            MODEL => "; a folder that DiffusionPipeline.save_pretrained or `hf download` made has one",
            _ => "",
        };
        format!("it has no {}{hint}", self.marker)
    }

    fn add(&mut self, name: String, source: Source) {
        if !is_name(&name) {
            let reason = format!(
                "a name is 1 to {LONGEST_NAME} characters without control characters, and its parts between slashes are not empty \
                 and have no blanks around them; rename it"
            );
            return self.add_unusable(name.escape_default().take(LONGEST_NAME).collect(), reason);
        }
        match (self.found.get(&name), &source) {
            (None | Some(Source::Unusable(_)), _) => drop(self.found.insert(name, source)),
            (Some(Source::SingleFile(_)), Source::Folder(_)) => {
                self.add_hidden(&name);
                self.found.insert(name, source);
            }
            (Some(_), Source::SingleFile(_)) => self.add_hidden(&name),
            _ => {}
        }
    }

    /// Lists a file beside something else of its name, which is used.
    fn add_hidden(&mut self, name: &str) {
        let reason = format!("{name:?} beside it has the same name and is used; rename one of the two");
        self.add_unusable(format!("{name}.safetensors"), reason);
    }

    fn add_unusable(&mut self, name: String, reason: String) {
        // Something like emoji.ckpt does not keep the embedded model from being served.
        let name = if name == embedded::NAME { format!("{name} (in the folder)") } else { name };
        self.found.entry(name).or_insert(Source::Unusable(reason));
    }
}

/// The file by which diffusers' pipelines are known.
pub(in crate::catalogue) const MODEL: &str = "model_index.json";

/// The file by which diffusers' networks are known.
pub(in crate::catalogue) const NETWORK: &str = "config.json";

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const HALF_WEIGHTS: &str = "diffusion_pytorch_model.fp16.safetensors";

const SAFETENSORS: &str = "only safetensors files are read";

/// Whether a folder is a part of a pipeline, in which no models are looked for.
fn is_part(path: &Path) -> bool {
    let has = |file: &str| path.join(file).exists();
    has(NETWORK) || has("unet") || has("vae") || has("tokenizer_config.json")
}

/// The last part of a path, for people.
fn shown(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Whether requests can name it. The replacement character stands for what is not UTF-8.
fn is_name(name: &str) -> bool {
    let is_fine = |c: char| !c.is_control() && c != '\u{fffd}';
    let is_part = |part: &str| !part.trim().is_empty() && part.trim() == part && part != "." && part != "..";
    name.chars().count() <= LONGEST_NAME && name.chars().all(is_fine) && name.split('/').all(is_part)
}
