//! Which LoRAs and textual inversions there are: the embedded ones, and the files of `loras.dir` and `embeddings.dir`.

mod kept;
mod words;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use kept::Kept;
use words::WordIndex;

use super::{Model, embedded};
use crate::{
    generation::{Generation, LoraUse},
    models::{
        adapters::{Adapter, AdapterSet},
        text_encoders::{LearnedToken, LearnedTokens},
    },
    weights::{
        FileBytes, imprint,
        lora::{Lora, Modules},
    },
};

/// What models can be changed and words added by, as safetensors files by name: the file's name without its ending.
/// The files are read at first use, for each model anew.
#[derive(Debug, Default)]
pub struct Adapters {
    loras: BTreeMap<String, File>,
    embeddings: BTreeMap<String, File>,
    word_index: WordIndex,
    read_loras: Kept<Arc<Adapter>>,
    read_embeddings: Kept<LearnedToken>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its size.
    pub bytes: u64,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    OnDisk(PathBuf),
    /// Of a companion of the embedded model.
    Embedded(Cow<'static, [u8]>),
}

impl File {
    fn embedded(content: Cow<'static, [u8]>) -> File {
        File { bytes: content.len() as u64, content: Content::Embedded(content) }
    }

    fn read(&self) -> io::Result<Cow<'static, [u8]>> {
        match &self.content {
            Content::OnDisk(path) => std::fs::read(path).map(Cow::Owned),
            Content::Embedded(content) => Ok(content.clone()),
        }
    }

    /// The content, of which no more is read than is looked at.
    fn map(&self) -> io::Result<FileBytes> {
        match &self.content {
            Content::OnDisk(path) => FileBytes::map(path),
            Content::Embedded(content) => Ok(FileBytes::Held(content.clone())),
        }
    }

    fn imprint(&self) -> String {
        match &self.content {
            Content::OnDisk(path) => imprint::of_file(path),
            Content::Embedded(content) => imprint::of_bytes("", content),
        }
    }

    /// Whether it belongs to the embedded model, and says nothing to any other.
    fn is_embedded(&self) -> bool {
        matches!(self.content, Content::Embedded(_))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of {setting} cannot be read: {source}")]
pub struct AdaptersError {
    setting: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Adapters {
    /// The embedded files, and those directly inside the folders, which go before embedded ones of their names; an empty path
    /// is a folder without any.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn open(loras: &Path, embeddings: &Path) -> Result<Adapters, AdaptersError> {
        let list =
            |setting, dir: &Path| files(dir).map_err(|source| AdaptersError { setting, path: dir.to_owned(), source });
        let named = |(name, content): (&str, _)| (name.to_owned(), File::embedded(content));
        let loras = embedded::loras().map(named).chain(list("loras.dir", loras)?).collect();
        let embeddings: BTreeMap<String, File> =
            embedded::embeddings().map(named).chain(list("embeddings.dir", embeddings)?).collect();
        let word_index = WordIndex::of(embeddings.keys());
        Ok(Adapters { loras, embeddings, word_index, ..Adapters::default() })
    }

    /// The same files, of which so many LoRAs and so many textual inversions are kept in memory once they were read.
    pub fn keeping(self, most: NonZeroUsize) -> Adapters {
        Adapters { read_loras: Kept::new(most), read_embeddings: Kept::new(most), ..self }
    }

    /// The LoRAs that the generation names, for its model. Blocks while files are read.
    ///
    /// # Errors
    /// A name is unknown, or its file is broken or not for this model; each call tries anew.
    pub fn changes(&self, generation: &Generation, model: &Model) -> Result<AdapterSet, String> {
        let load = |LoraUse { name, scale }: &LoraUse| {
            let file = self.loras.get(name).ok_or_else(|| format!("the LoRA {name:?} is not in the catalogue"))?;
            let read = || {
                let bytes = file.read().map_err(|error| error.to_string())?;
                model.networks.adapter(name, &bytes).map(Arc::new).map_err(|error| error.to_string())
            };
            let adapter = self.read_loras.get(&model.name, name, read);
            let adapter = adapter.map_err(|error| format!("the LoRA {name:?} cannot be used: {error}"))?;
            Ok((adapter, *scale as f32))
        };
        generation.loras.iter().map(load).collect::<Result<_, String>>().map(AdapterSet::new)
    }

    /// The learned words that the generation's prompts have, for its model: the word of `NAME.safetensors` is `<NAME>`, in
    /// any letter case. Blocks while files are read, of which no more is read than their words take.
    ///
    /// # Errors
    /// A file is broken or not for this model; each call tries anew.
    pub fn learned(&self, generation: &Generation, model: &Model) -> Result<LearnedTokens, String> {
        let load = |(name, file): (&str, &File)| {
            let read = || {
                let bytes = file.map().map_err(|error| error.to_string())?;
                model.networks.learned(name, &bytes).map_err(|error| error.to_string())
            };
            let token = self.read_embeddings.get(&model.name, name, read);
            token.map_err(|error| format!("the textual inversion {name:?} cannot be used: {error}"))
        };
        let words = self.words_of(&model.name, generation).into_iter();
        words.map(load).collect::<Result<_, String>>().map(LearnedTokens::new)
    }

    /// By what the files are known again that the generation may use.
    pub(super) fn imprints(&self, generation: &Generation) -> impl Iterator<Item = String> {
        let loras = generation.loras.iter().filter_map(|used| self.loras.get(&used.name));
        let words = self.words_of(&generation.model, generation).into_values();
        loras.chain(words).map(File::imprint)
    }

    /// All LoRAs, by name.
    pub fn loras(&self) -> impl Iterator<Item = (&str, &File)> {
        self.loras.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// All textual inversions, by name, which is also the word that they stand for where their file tells none.
    pub fn embeddings(&self) -> impl Iterator<Item = (&str, &File)> {
        self.embeddings.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// Whether the LoRA can stand beside a model of these modules; the error is a code and what is wrong.
    pub fn check(&self, name: &str, modules: &Modules) -> Result<(), (&'static str, String)> {
        let Some(file) = self.loras.get(name) else {
            return Err(("unknown_lora", format!("{name:?} is not in the catalogue; GET /v1/loras lists it")));
        };
        let unfit = |error: String| ("unsupported_for_model", format!("cannot be used with this model: {error}"));
        let content = file.map().map_err(|error| unfit(error.to_string()))?;
        Lora::check(name, &content, modules).map_err(|error| unfit(error.to_string()))
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
        found.insert(name, File { bytes, content: Content::OnDisk(path) });
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
        let file = File { bytes: 5, content: Content::OnDisk(dir.path().join("pixel art v1.5.safetensors")) };
        assert_eq!(adapters.loras().filter(|(name, _)| !name.starts_with("emoji-")).count(), 1);
        assert_eq!(adapters.loras["pixel art v1.5"], file);
        let code = |name: &str| adapters.check(name, &Modules::default()).unwrap_err().0;
        assert_eq!(["pixel art v1.5", "old"].map(code), ["unsupported_for_model", "unknown_lora"]);
        assert!(!adapters.embeddings.contains_key("pixel art v1.5"));
        let embeddings = Adapters::open(Path::new(""), dir.path()).unwrap();
        assert_eq!(embeddings.embeddings["pixel art v1.5"], file);
        let missing = Adapters::open(Path::new(""), &dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("embeddings.dir") && missing.contains("none"), "{missing}");
    }
}
