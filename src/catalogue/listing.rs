//! Lists a folder of models or ControlNets. Each entry has a name and is a folder in diffusers' layout, a single file,
//! a repository of a Hugging Face cache, or a file or folder that cannot be used.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{embedded, entries::entries, fault::Fault, hub};
use crate::{
    families::PICKLED_CHECKPOINT,
    transient::is_transient,
    weights::{base_folder, fingerprint, unreadable},
};

/// Maximum length of a name, in characters.
const LONGEST_NAME: usize = 128;

/// How many levels of folders are searched below the listed one: `NAME` and `GROUP/NAME`.
const LEVELS: usize = 2;

/// Maximum number of entries of one listing, including the entries in groups (`GROUP/NAME`).
const MOST: usize = 10_000;

/// Where a model or ControlNet is, or why it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::catalogue) enum Source {
    Folder(PathBuf),
    SingleFile(PathBuf),
    Unusable(Fault),
}

/// The entries by name. If a folder and a file have the same name, the folder is listed under this name, and the file
/// is listed as unusable under `NAME.safetensors`. A usable folder or file takes precedence over an unusable file of
/// the same name, such as `NAME.ckpt`.
pub(in crate::catalogue) type Found = BTreeMap<String, Source>;

/// Lists `dir`; an empty path lists nothing. A folder that contains the file `marker` is an entry. Also returns a note
/// for operators about `dir` itself, if there is one.
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
        // The operator probably meant the parent folder.
        let dir = fs::canonicalize(dir)?;
        let name = hub::name_of_snapshot(&dir).unwrap_or_else(|| shown(&dir));
        let (what, setting) = if marker == MODEL { ("model", "models.dir") } else { ("ControlNet", "controlnets.dir") };
        note = Some(format!(
            "the folder {} contains {marker}, so the folder is itself a {what}, and not a folder of {what}s; the \
             {what} is listed as {name:?}; to list the other {what}s of the parent folder too, set {setting} to the \
             parent folder",
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

/// The state of the files as a text. The text changes if a file changes.
pub(in crate::catalogue) fn stamp(source: &Source) -> String {
    match source {
        Source::Folder(path) => fingerprint::stamp_of_folder(path),
        Source::SingleFile(path) => {
            let base = base_folder(path).map(|base| fingerprint::stamp_of_folder(&base)).unwrap_or_default();
            fingerprint::stamp_of_file(path) + &fingerprint::stamp_of_file(&path.with_extension("json")) + &base
        }
        Source::Unusable(fault) => fault.reason.clone(),
    }
}

struct Listing {
    marker: &'static str,
    found: Found,
}

impl Listing {
    fn walk(&mut self, dir: &Path, group: &str, levels: usize) -> io::Result<()> {
        let mut paths: Vec<PathBuf> = entries(dir)?;
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
            Err(error) => return self.add_unread(name(path), unreadable(path, &error), &error),
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
            "safetensors" | "gguf" => self.add(name.to_owned(), Source::SingleFile(path.to_owned())),
            "ckpt" | "pt" | "pth" | "bin" => self.add_unusable(name.to_owned(), PICKLED_CHECKPOINT.to_owned()),
            "onnx" => self.add_unusable(name.to_owned(), format!("a .{ending} file; {SAFETENSORS}")),
            _ => {} // Other files, such as configurations and pictures, may lie next to models.
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
            return self.add_unread(name, error.to_string(), &error);
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
            Err(fault) => self.add_faulty(name.to_owned(), fault),
        }
    }

    /// Why a folder is not usable: which file it lacks, with a hint about what the folder may be.
    fn lacking(&self, path: &Path) -> String {
        let has = |file: &str| path.join(file).exists();
        let hint = match self.marker {
            // Early diffusers models had the files of network and scheduler in one folder, without subfolders.
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
            (Some(Source::SingleFile(hidden)), Source::Folder(_)) => {
                self.add_hidden(&name, &hidden.clone());
                self.found.insert(name, source);
            }
            (Some(_), Source::SingleFile(hidden)) => self.add_hidden(&name, hidden),
            _ => {}
        }
    }

    /// Lists a file as unusable, under its file name, because a folder or another file has its name.
    fn add_hidden(&mut self, name: &str, path: &Path) {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        let reason = format!("{name:?} beside it has the same name and is used; rename one of the two");
        self.add_unusable(format!("{name}.{ending}"), reason);
    }

    fn add_unread(&mut self, name: String, reason: String, error: &io::Error) {
        self.add_faulty(name, Fault { reason, is_unread: is_transient(error) });
    }

    fn add_unusable(&mut self, name: String, reason: String) {
        self.add_faulty(name, reason.into());
    }

    fn add_faulty(&mut self, name: String, fault: Fault) {
        // A file such as `emoji.ckpt` must not hide the embedded model.
        let name = if name == embedded::NAME { format!("{name} (in the folder)") } else { name };
        self.found.entry(name).or_insert(Source::Unusable(fault));
    }
}

/// The file that identifies a folder of a diffusers pipeline.
pub(in crate::catalogue) const MODEL: &str = "model_index.json";

/// The file that identifies a folder of a diffusers network.
pub(in crate::catalogue) const NETWORK: &str = "config.json";

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const HALF_WEIGHTS: &str = "diffusion_pytorch_model.fp16.safetensors";

const SAFETENSORS: &str = "only safetensors and GGUF files are read";

/// Whether a folder belongs to a pipeline: it is one of its components, or contains them. Such a folder is not searched
/// for models.
fn is_part(path: &Path) -> bool {
    let has = |file: &str| path.join(file).exists();
    has(NETWORK) || has("unet") || has("vae") || has("tokenizer_config.json")
}

/// The last component of a path, for display.
fn shown(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Whether requests can use the name. A name with bytes that are not UTF-8 contains the replacement character, and
/// requests cannot use it.
fn is_name(name: &str) -> bool {
    let is_fine = |c: char| !c.is_control() && c != '\u{fffd}';
    let is_part = |part: &str| !part.trim().is_empty() && part.trim() == part && part != "." && part != "..";
    name.chars().count() <= LONGEST_NAME && name.chars().all(is_fine) && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_transformers_file_changes_with_its_base_folder() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("mine.safetensors");
        fs::write(&file, "").unwrap();
        let source = Source::SingleFile(file.clone());
        let mut states = vec![stamp(&source)];
        let mut state_after = |path: &str, text: &str| {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            states.push(stamp(&source));
        };
        state_after("mine.json", r#"{"base": "base"}"#);
        state_after("base/model_index.json", "{}");
        state_after("base/vae/config.json", "{}");
        state_after("base/vae/config.json", "{ }");
        assert!(states.windows(2).all(|pair| pair[0] != pair[1]), "{states:?}");
        let before = states.len();
        fs::create_dir(place.path().join("other")).unwrap();
        fs::write(place.path().join("other/config.json"), "{}").unwrap();
        assert_eq!(stamp(&source), states[before - 1], "another folder");
    }
}
