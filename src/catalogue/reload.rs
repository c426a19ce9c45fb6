//! Lists the folders again while the server runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use super::{Catalogue, CatalogueError, Entry, Listed, keys_now, models};

/// The differences between two listings of the folders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    pub models: Changes,
    pub loras: Changes,
    pub embeddings: Changes,
    pub controlnets: Changes,
}

/// Differences between two lists of names, in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    pub added: Vec<String>,
    /// Names that are in both listings, but whose files have changed.
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Compares two listings.
    fn between(before: &NameKeys, now: &NameKeys) -> Changes {
        let names = |is: &dyn Fn(&String, &String) -> bool, of: &NameKeys| {
            of.iter().filter(|(name, files)| is(name, files)).map(|(name, _)| name.clone()).collect()
        };
        Changes {
            added: names(&|name, _| !before.contains_key(name), now),
            changed: names(&|name, files| before.get(name).is_some_and(|before| before != files), now),
            removed: names(&|name, _| !now.contains_key(name), before),
        }
    }
}

impl Reloaded {
    pub fn is_empty(&self) -> bool {
        let Self { models, loras, embeddings, controlnets } = self;
        [models, loras, embeddings, controlnets].into_iter().all(Changes::is_empty)
    }
}

/// The keys of all listed files, by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    models: NameKeys,
    loras: NameKeys,
    embeddings: NameKeys,
    control_nets: NameKeys,
}

/// The keys of files by name. A key changes when the files do.
pub(in crate::catalogue) type NameKeys = BTreeMap<String, String>;

impl Keys {
    fn of(listed: &Listed) -> Keys {
        let (loras, embeddings) = listed.adapters.keys();
        let models = listed.models.iter().map(|(name, entry)| (name.clone(), entry.key.to_string())).collect();
        Keys { models, loras, embeddings, control_nets: listed.control_nets.keys() }
    }

    fn changes(&self, now: &Keys) -> Reloaded {
        Reloaded {
            models: Changes::between(&self.models, &now.models),
            loras: Changes::between(&self.loras, &now.loras),
            embeddings: Changes::between(&self.embeddings, &now.embeddings),
            controlnets: Changes::between(&self.control_nets, &now.control_nets),
        }
    }
}

/// The lists of models, LoRAs, textual inversions and ControlNets at one point in time.
#[derive(Debug)]
pub struct Edition(Arc<Listed>);

impl Catalogue {
    /// The current lists.
    pub fn edition(&self) -> Edition {
        Edition(self.listed())
    }

    /// Whether the lists have not changed since `edition`.
    pub fn is_at(&self, Edition(listed): &Edition) -> bool {
        Arc::ptr_eq(listed, &self.listed())
    }

    /// Lists the folders of models, LoRAs, textual inversions and ControlNets again, and forgets which weights could
    /// not be loaded. Running generations keep what they use; later ones use the new files. Blocks while configurations
    /// and file headers are read.
    ///
    /// # Errors
    /// A folder cannot be read; or a file cannot be read for a transient reason, such as a lack of file descriptors,
    /// and the current lists do not contain this fault already. Then nothing changes.
    pub fn reload(&self) -> Result<Reloaded, CatalogueError> {
        let reloaded = self.list_again(Listed::without_failed_loads)?;
        self.shelf.forget_failures();
        self.fits.lock().clear();
        Ok(reloaded)
    }

    /// Like [`Catalogue::reload`], but unchanged files whose weights could not be loaded stay unusable.
    ///
    /// # Errors
    /// Those of [`Catalogue::reload`].
    pub fn list_changes(&self) -> Result<Reloaded, CatalogueError> {
        self.list_again(Listed::clone)
    }

    /// Lists the folders again. `known` returns the part of the current lists that may be reused: an entry of this part
    /// is read again only if its files have changed.
    fn list_again(&self, known: fn(&Listed) -> Listed) -> Result<Reloaded, CatalogueError> {
        // Only one reload runs at a time, so that no reload restores what another one has replaced.
        let mut seen = self.seen.lock();
        let before = self.listed();
        let known = known(&before);
        let (models, note) = models(&self.dir, &known.models)?;
        self.refuse_too_large(&models);
        let adapters = Arc::new(known.adapters.read_again().map_err(|error| other(&error))?);
        let control_nets = Arc::new(known.control_nets.read_again().map_err(|error| other(&error))?);
        let once = before.gone.iter().chain(before.models.keys());
        let gone = once.filter(|name| !models.contains_key(*name)).cloned().collect();
        let now = Listed { models, gone, note, control_nets, adapters };
        let unread_before: BTreeSet<&str> = before.unread().map(|(name, _)| name).collect();
        if let Some((name, reason)) = now.unread().find(|(name, _)| !unread_before.contains(name)) {
            return Err(other(&format!("{name:?} cannot be read, so nothing changes: {reason}")));
        }
        self.shelf.keep(now.models.values().map(|entry| entry.key.clone()).collect());
        now.warn(Some(&before));
        let (old, new) = (Keys::of(&before), Keys::of(&now));
        *self.listed.write() = Arc::new(now);
        *seen = None;
        Ok(old.changes(&new))
    }

    /// Lists the folders again if files have changed since they were listed but not since the last poll. So a file that
    /// is being copied is not read halfway.
    ///
    /// # Errors
    /// Those of [`Catalogue::list_changes`].
    pub fn poll(&self) -> Result<Option<Reloaded>, CatalogueError> {
        let listed = self.listed();
        let (loras, embeddings) = listed.adapters.keys_now().map_err(|error| other(&error))?;
        let control_nets = listed.control_nets.keys_now().map_err(|error| other(&error))?;
        let now = Keys { models: keys_now(&self.dir)?, loras, embeddings, control_nets };
        let before = self.seen.lock().replace(now.clone());
        if now == Keys::of(&listed) || before != Some(now) {
            return Ok(None);
        }
        self.list_changes().map(Some)
    }

    /// Logs everything that cannot be used.
    pub fn warn(&self) {
        self.listed().warn(None);
    }
}

fn other(error: &impl ToString) -> CatalogueError {
    CatalogueError::Other(error.to_string())
}

impl Listed {
    /// The names of models, ControlNets, LoRAs and textual inversions that could not be read for a transient reason,
    /// with the reasons.
    fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        let models = self.models.iter().filter(|(_, entry)| entry.is_unread());
        let models = models.filter_map(|(name, entry)| Some((name.as_str(), entry.usable().err()?)));
        models.chain(self.control_nets.unread()).chain(self.adapters.unread())
    }

    /// The lists without the files that could not be read or whose weights could not be loaded.
    fn without_failed_loads(&self) -> Listed {
        let models = self.models.iter().filter(|(_, entry)| !entry.is_unloadable() && !entry.is_unread());
        Listed {
            models: models.map(|(name, entry)| (name.clone(), entry.clone())).collect(),
            adapters: Arc::new(self.adapters.without_failed_loads()),
            control_nets: Arc::new(self.control_nets.without_failed_loads()),
            ..self.clone()
        }
    }

    /// Logs what cannot be used, and notes on what can; entries that were in `before` are skipped.
    fn warn(&self, before: Option<&Listed>) {
        let same = |name: &str, entry: &Arc<Entry>| {
            before.and_then(|before| before.models.get(name)).is_some_and(|known| Arc::ptr_eq(known, entry))
        };
        if let Some(note) = self.note.as_ref().filter(|_| before.is_none()) {
            tracing::warn!("{note}");
        }
        for (name, entry) in self.models.iter().filter(|(name, entry)| !same(name, entry)) {
            match entry.usable() {
                Ok(usable) => usable.notes.iter().for_each(|note| tracing::info!(model = name, "{note}")),
                Err(reason) => tracing::warn!(model = name, "cannot be used: {reason}"),
            }
        }
        self.adapters.warn(before.map(|before| &*before.adapters));
        self.control_nets.warn(before.map(|before| &*before.control_nets));
    }
}
