//! The LoRAs and textual inversions: the embedded ones, and the files of `loras.dir` and `embeddings.dir`.

mod files;
mod words;

use std::{
    collections::BTreeMap,
    io,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use files::File;
use words::WordIndex;

use super::{NameKeys, embedded, entry::on_device, lru::Lru};
use crate::{
    generation::{LoraUse, Work},
    models::{
        adapters::{Adapter, AdapterSet},
        text_encoders::{LearnedToken, LearnedTokens},
    },
    pipelines::Model,
    weights::{
        LoadError,
        lora::{Lora, Modules},
        textual_inversion::EmbeddingOutline,
    },
};

/// LoRAs and textual inversions as safetensors files. The name of a file is its path below the folder, without the
/// extension. Headers are read when files are listed; the numbers (the values of the tensors) are read at first use,
/// separately for each model.
#[derive(Debug, Default)]
pub struct Adapters {
    loras: Folder,
    embeddings: Folder,
    word_index: WordIndex,
    /// Maximum bytes of a file; `None` means no limit.
    max_bytes: Option<NonZeroU64>,
    read_loras: Arc<Lru<Arc<Adapter>>>,
    read_embeddings: Arc<Lru<LearnedToken>>,
}

/// The files of a folder, and the embedded ones.
#[derive(Clone, Debug, Default)]
struct Folder {
    setting: &'static str,
    dir: PathBuf,
    files: BTreeMap<String, File>,
}

impl Folder {
    fn open(
        setting: &'static str,
        dir: &Path,
        embedded: impl IntoIterator<Item = (String, File)>,
        known: &BTreeMap<String, File>,
    ) -> Result<Folder, AdaptersError> {
        let found =
            files::list(dir, known).map_err(|source| AdaptersError { setting, path: dir.to_owned(), source })?;
        Ok(Folder { setting, dir: dir.to_owned(), files: embedded.into_iter().chain(found).collect() })
    }

    fn keys(&self) -> NameKeys {
        self.files.iter().map(|(name, file)| (name.clone(), file.key())).collect()
    }

    fn keys_now(&self, embedded: impl IntoIterator<Item = (String, File)>) -> Result<NameKeys, AdaptersError> {
        let unreadable = |source| AdaptersError { setting: self.setting, path: self.dir.clone(), source };
        let found = files::look(&self.dir).map_err(unreadable)?;
        let embedded = embedded.into_iter().map(|(name, file)| (name, file.key()));
        Ok(embedded.chain(found.into_iter().map(|(name, seen)| (name, seen.key()))).collect())
    }

    fn warn(&self, before: Option<&Folder>) {
        for (name, file) in &self.files {
            let is_new = before.and_then(|before| before.files.get(name)) != Some(file);
            if let Some(fault) = file.fault().filter(|_| is_new) {
                tracing::warn!(name, "{}: cannot be used: {fault}", self.setting);
            }
        }
    }
}

fn embedded_loras() -> impl Iterator<Item = (String, File)> {
    embedded::loras().map(|(name, content)| (name.to_owned(), File::embedded(content)))
}

fn embedded_words() -> impl Iterator<Item = (String, File)> {
    embedded::embeddings().map(|(name, content)| (name.to_owned(), File::embedded(content)))
}

/// A folder of LoRAs or textual inversions cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of {setting} cannot be read: {source}")]
pub struct AdaptersError {
    setting: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Adapters {
    /// Lists the embedded files and the files below the folders. A file in a folder replaces an embedded one of the
    /// same name. An empty path means no folder.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn open(loras: &Path, embeddings: &Path) -> Result<Adapters, AdaptersError> {
        let none = BTreeMap::new();
        let loras = Folder::open("loras.dir", loras, embedded_loras(), &none)?;
        let embeddings = Folder::open("embeddings.dir", embeddings, embedded_words(), &none)?;
        let word_index = WordIndex::of(&embeddings.files);
        Ok(Adapters { loras, embeddings, word_index, ..Adapters::default() })
    }

    /// Lists the files again. Files that have not changed are not read again.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(super) fn read_again(&self) -> Result<Adapters, AdaptersError> {
        let Folder { setting, dir, files } = &self.loras;
        let loras = Folder::open(setting, dir, embedded_loras(), files)?;
        let Folder { setting, dir, files } = &self.embeddings;
        let embeddings = Folder::open(setting, dir, embedded_words(), files)?;
        let word_index = WordIndex::of(&embeddings.files);
        let (read_loras, read_embeddings) = (self.read_loras.clone(), self.read_embeddings.clone());
        Ok(Adapters { loras, embeddings, word_index, max_bytes: self.max_bytes, read_loras, read_embeddings })
    }

    /// All files except two kinds: LoRAs whose numbers cannot be used, and files that could not be read. The next
    /// listing reads the omitted files again.
    pub(super) fn without_failed_loads(&self) -> Adapters {
        let sound = |folder: &Folder| {
            let mut sound = folder.clone();
            sound.files.retain(|_, file| !file.has_bad_numbers() && !file.is_unread());
            sound
        };
        Adapters {
            loras: sound(&self.loras),
            embeddings: sound(&self.embeddings),
            word_index: WordIndex::default(),
            max_bytes: self.max_bytes,
            read_loras: self.read_loras.clone(),
            read_embeddings: self.read_embeddings.clone(),
        }
    }

    /// The names of the files that could not be read for a transient reason, with the reason.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        let unread = self.loras.files.iter().chain(&self.embeddings.files).filter(|(_, file)| file.is_unread());
        unread.filter_map(|(name, file)| Some((name.as_str(), file.fault()?)))
    }

    /// The keys of the files of LoRAs and of textual inversions, by name.
    pub(super) fn keys(&self) -> (NameKeys, NameKeys) {
        (self.loras.keys(), self.embeddings.keys())
    }

    /// The value that [`Adapters::keys`] would have if the folders were listed now.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(super) fn keys_now(&self) -> Result<(NameKeys, NameKeys), AdaptersError> {
        Ok((self.loras.keys_now(embedded_loras())?, self.embeddings.keys_now(embedded_words())?))
    }

    /// Logs the files that cannot be used, except those that are also in `before`.
    pub(super) fn warn(&self, before: Option<&Adapters>) {
        self.loras.warn(before.map(|before| &before.loras));
        self.embeddings.warn(before.map(|before| &before.embeddings));
        self.word_index.warn(before.map(|before| &before.word_index));
    }

    /// Keeps at most `most` LoRAs and `most` textual inversions in memory after they are read.
    pub fn keeping(self, most: NonZeroUsize) -> Adapters {
        Adapters { read_loras: Arc::new(Lru::new(most)), read_embeddings: Arc::new(Lru::new(most)), ..self }
    }

    /// Refuses files of more than `max_bytes` bytes, except embedded ones; 0 means no limit.
    pub fn within(self, max_bytes: u64) -> Adapters {
        Adapters { max_bytes: NonZeroU64::new(max_bytes), ..self }
    }

    /// Checks that a file is within the limit of [`Adapters::within`].
    fn bounded(&self, file: &File) -> Result<(), String> {
        match self.max_bytes.filter(|most| file.bytes > most.get() && !file.is_embedded()) {
            Some(most) => Err(format!("{} bytes are more than loras.max_bytes, {most}", file.bytes)),
            None => Ok(()),
        }
    }

    /// Loads the LoRAs that the generation names, each fitted to the layers of `model`. Blocks while files are read.
    ///
    /// # Errors
    /// A name is unknown, or its file is damaged or does not fit the model. A later call tries again.
    pub fn changes(&self, loras: &[LoraUse], model: &Model) -> Result<AdapterSet, String> {
        let load = |LoraUse { name, scale }: &LoraUse| {
            let file =
                self.loras.files.get(name).ok_or_else(|| format!("the LoRA {name:?} is not in the catalogue"))?;
            let read = || {
                self.bounded(file)?;
                let bytes = file.read(name).map_err(|error| error.to_string())?;
                model.networks.adapter(name, &bytes).map(Arc::new).map_err(|error| {
                    // If the numbers are at fault, this check makes the file remember the fault, so that later requests
                    // for it are refused.
                    file.check_numbers(name).err().unwrap_or(error).to_string()
                })
            };
            let memory = on_device(&model.key, model.device.memory());
            let adapter = self.read_loras.get(&memory, &of_content(name, file), read);
            let adapter = adapter.map_err(|error| format!("the LoRA {name:?} cannot be used: {error}"))?;
            Ok((adapter, *scale as f32))
        };
        loras.iter().map(load).collect::<Result<_, String>>().map(AdapterSet::new)
    }

    /// Loads, for `model`, the textual inversions whose words are in the generation's prompts. `<NAME>` in any letter
    /// case is the word of `NAME.safetensors`. Blocks while files are read; a file is read completely only if it is a
    /// textual inversion.
    ///
    /// # Errors
    /// A file is damaged or does not fit the model. A later call tries again.
    pub fn learned(&self, work: &Work, model: &Model) -> Result<LearnedTokens, String> {
        let load = |(name, file): (&str, &File)| {
            let read = || {
                self.bounded(file)?;
                // The header is checked first, because a file of another kind may be large.
                let content = file.open(name).map_err(|error| error.to_string())?;
                EmbeddingOutline::read(name, &content).map_err(|error| error.to_string())?;
                let bytes = file.read(name).map_err(|error| error.to_string())?;
                model.networks.learned(name, &bytes).map_err(|error| error.to_string())
            };
            let token = self.read_embeddings.get(&model.key, &of_content(name, file), read);
            token.map_err(|error| format!("the textual inversion {name:?} cannot be used: {error}"))
        };
        let words = self.words_of(&model.name, work).into_iter();
        words.map(load).collect::<Result<_, String>>().map(LearnedTokens::new)
    }

    /// The fingerprints of all files that the generation may use with this model.
    pub(super) fn fingerprints(&self, model: &str, work: &Work) -> impl Iterator<Item = String> {
        let loras = work.loras().iter().filter_map(|used| self.loras.files.get(&used.name));
        let words = self.words_of(model, work).into_values();
        loras.chain(words).map(File::fingerprint)
    }

    /// All LoRAs, by name.
    pub fn loras(&self) -> impl Iterator<Item = (&str, &File)> {
        self.loras.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// All textual inversions by name. The word of the file `NAME.safetensors` is `<NAME>`.
    pub fn embeddings(&self) -> impl Iterator<Item = (&str, &File)> {
        self.embeddings.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// The file of a LoRA.
    pub fn lora(&self, name: &str) -> Option<&File> {
        self.loras.files.get(name)
    }

    /// The file of a textual inversion.
    pub fn embedding(&self, name: &str) -> Option<&File> {
        self.embeddings.files.get(name)
    }

    /// The file of a LoRA, unless no model can use it. The error is a code and a reason.
    pub(super) fn find_lora(&self, name: &str) -> Result<&File, (&'static str, String)> {
        let Some(file) = self.loras.files.get(name) else {
            return Err(("unknown_lora", format!("{name:?} is not in the catalogue; GET /v1/loras lists the LoRAs")));
        };
        match file.fault() {
            Some(fault) => Err(("unsupported_for_model", format!("cannot be used: {fault}"))),
            None => Ok(file),
        }
    }

    /// Checks whether a LoRA with a sound header fits a model with these modules. The numbers of a small file are also
    /// checked, at the first call. The error is a code and a reason.
    pub(super) fn check_lora(&self, name: &str, file: &File, modules: &Modules) -> Result<(), Unfit> {
        self.bounded(file).map_err(|reason| ("unsupported_for_model", reason))?;
        let checked = file.open(name).and_then(|content| Lora::check(name, &content, modules));
        let checked = checked.and_then(|()| match file.bytes <= SMALL_BYTES {
            true => file.check_numbers(name),
            false => Ok(()),
        });
        checked.map_err(unfit)?;
        // If an earlier call, for another model, has checked the numbers, the check above finds nothing, and the result
        // of the earlier call is in the file's fault.
        file.fault().map_or(Ok(()), |fault| Err(("unsupported_for_model", fault.to_owned())))
    }

    /// Whether [`Adapters::check_numbers`] would read nothing: the numbers of the LoRA were checked before, or the name
    /// is unknown.
    pub fn has_known_numbers(&self, name: &str) -> bool {
        self.lora(name).is_none_or(File::has_known_numbers)
    }

    /// Checks the numbers of a LoRA of any size, unless they were already checked. Blocks while the file is read.
    ///
    /// # Errors
    /// A code, and why no model can use the file.
    pub fn check_numbers(&self, name: &str) -> Result<(), (&'static str, String)> {
        let Some(file) = self.lora(name) else { return Ok(()) };
        file.check_numbers(name).map_err(unfit)?;
        // If another request has already checked the numbers, the check above finds nothing, and the result of the
        // other request is in the file's fault.
        file.fault().map_or(Ok(()), |fault| Err(("unsupported_for_model", fault.to_owned())))
    }
}

/// Why a model cannot use a file: a code and a reason.
pub(super) type Unfit = (&'static str, String);

/// [`Adapters::check_lora`] checks the numbers of files of at most this many bytes, which takes some ten milliseconds.
/// The numbers of a larger file are checked when a request names the file ([`Adapters::check_numbers`]).
const SMALL_BYTES: u64 = 16 << 20;

/// The error code for a file that has changed since it was listed.
const CHANGED: &str = "file_changed";

fn unfit(error: LoadError) -> Unfit {
    (if error.is_change() { CHANGED } else { "unsupported_for_model" }, error.to_string())
}

/// The cache key of a file: its name and the key of its content.
fn of_content(name: &str, file: &File) -> String {
    format!("{name}\n{}", file.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_paths_and_what_cannot_be_used_says_why() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("chars")).unwrap();
        let sound = [&2u64.to_le_bytes()[..], b"{}"].concat();
        for name in ["pixel art v1.5.safetensors", "chars/alice.safetensors", "notes.txt", ".hidden.safetensors"] {
            std::fs::write(dir.path().join(name), &sound).unwrap();
        }
        for name in ["a<b.safetensors", "old.pt", "cut.safetensors", "pixel art v1.5.ckpt"] {
            std::fs::write(dir.path().join(name), "12345").unwrap();
        }
        std::fs::create_dir(dir.path().join("folder.safetensors")).unwrap();
        std::fs::write(dir.path().join("loud.SAFETENSORS"), &sound).unwrap();
        std::os::unix::fs::symlink("../gone/x.bin", dir.path().join("lost.safetensors")).unwrap();
        let adapters = Adapters::open(dir.path(), Path::new("")).unwrap();
        let listed = |adapters: &Adapters| -> Vec<(String, Option<String>)> {
            let own = adapters.loras().filter(|(_, file)| !file.is_embedded());
            own.map(|(name, file)| (name.to_owned(), file.fault().map(str::to_owned))).collect()
        };
        let found = listed(&adapters);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a<b", "chars/alice", "cut", "lost", "loud", "old", "pixel art v1.5"]);
        let fault = |at: usize| found[at].1.as_deref().unwrap_or_default();
        assert!(
            fault(0).contains("rename") && fault(2).contains("too few") && fault(5).contains("pickle"),
            "{found:?}"
        );
        assert_eq!(fault(3), "a link to ../gone/x.bin, which does not exist");
        assert!([1, 4, 6].iter().all(|at| found[*at].1.is_none()), "{found:?}");
        let code = |name: &str| adapters.find_lora(name).map(drop).map_err(|(code, _)| code);
        assert_eq!(code("cut"), Err("unsupported_for_model"));
        assert_eq!(code("none"), Err("unknown_lora"));
        assert_eq!(code("chars/alice"), Ok(()));
        assert!(!adapters.embeddings.files.contains_key("chars/alice"));
        // After a rename, the new file is listed and the old one is not.
        std::fs::rename(dir.path().join("chars/alice.safetensors"), dir.path().join("chars/bob.safetensors")).unwrap();
        assert_ne!(adapters.keys_now().unwrap(), adapters.keys());
        let again = adapters.read_again().unwrap();
        assert_eq!(adapters.keys_now().unwrap(), again.keys());
        let names: Vec<String> = listed(&again).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a<b", "chars/bob", "cut", "lost", "loud", "old", "pixel art v1.5"]);
        let missing = Adapters::open(Path::new(""), &dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("embeddings.dir") && missing.contains("none"), "{missing}");
    }
}
