//! Which LoRAs and textual inversions there are: the files of `loras.dir` and `embeddings.dir`.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use crate::generation::LoraUse;

/// What models can be changed and words added by, as safetensors files by name: the file's name without its ending.
/// Nothing of the files is read.
#[derive(Clone, Debug, Default)]
pub struct Adapters {
    loras: BTreeMap<String, File>,
    embeddings: BTreeMap<String, File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of {setting} cannot be read: {source}")]
pub struct AdaptersError {
    setting: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Adapters {
    /// The files directly inside the folders; an empty path is a folder without any.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn open(loras: &Path, embeddings: &Path) -> Result<Adapters, AdaptersError> {
        let list =
            |setting, dir: &Path| files(dir).map_err(|source| AdaptersError { setting, path: dir.to_owned(), source });
        Ok(Adapters { loras: list("loras.dir", loras)?, embeddings: list("embeddings.dir", embeddings)? })
    }

    /// All LoRAs, by name.
    pub fn loras(&self) -> impl Iterator<Item = (&str, &File)> {
        self.loras.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// All textual inversions, by name, which is also the word that they stand for where their file tells none.
    pub fn embeddings(&self) -> impl Iterator<Item = (&str, &File)> {
        self.embeddings.iter().map(|(name, file)| (name.as_str(), file))
    }

    pub fn has_lora(&self, name: &str) -> bool {
        self.loras.contains_key(name)
    }

    /// The file of a LoRA.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        self.loras.get(name).map(|file| file.path.as_path())
    }

    /// The file of a textual inversion.
    pub fn path_of_embedding(&self, name: &str) -> Option<&Path> {
        self.embeddings.get(name).map(|file| file.path.as_path())
    }
}

/// The safetensors files inside `dir`. A name that cannot stand in a prompt is passed over with a warning.
fn files(dir: &Path) -> io::Result<BTreeMap<String, File>> {
    let mut found = BTreeMap::new();
    if dir.as_os_str().is_empty() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "safetensors") || !path.is_file() {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).filter(|name| is_name(name)) else {
            tracing::warn!(path = %path.display(), "passed over: a name is 1 to 128 characters without '<', '>', ':' and line breaks");
            continue;
        };
        let (name, bytes) = (name.to_owned(), path.metadata()?.len());
        found.insert(name, File { path, bytes });
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| !c.is_control() && !matches!(c, '<' | '>' | ':');
    (1..=LoraUse::MAX_NAME_CHARS).contains(&name.chars().count()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_stems() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pixel art v1.5.safetensors", "a<b.safetensors", "notes.txt", "old.pt"] {
            std::fs::write(dir.path().join(name), "12345").unwrap();
        }
        std::fs::create_dir(dir.path().join("folder.safetensors")).unwrap();
        let adapters = Adapters::open(dir.path(), Path::new("")).unwrap();
        let file = File { path: dir.path().join("pixel art v1.5.safetensors"), bytes: 5 };
        assert_eq!(adapters.loras().collect::<Vec<_>>(), [("pixel art v1.5", &file)]);
        assert_eq!(adapters.path_of("pixel art v1.5"), Some(file.path.as_path()));
        assert!(adapters.has_lora("pixel art v1.5") && !adapters.has_lora("old"));
        assert_eq!(adapters.embeddings().count(), 0);
        assert_eq!(adapters.path_of_embedding("pixel art v1.5"), None);
        let embeddings = Adapters::open(Path::new(""), dir.path()).unwrap();
        assert_eq!(embeddings.path_of_embedding("pixel art v1.5"), Some(file.path.as_path()));
        let missing = Adapters::open(Path::new(""), &dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("embeddings.dir") && missing.contains("none"), "{missing}");
    }
}
