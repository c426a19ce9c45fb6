//! Parts of a model's folder besides its networks: the safety checker and the model card.

use std::sync::Arc;

use super::Catalogue;
use crate::{models::SafetyChecker, weights::ModelFolder};

/// Maximum bytes of a model card that are read. Published cards have some tens of kilobytes.
const LONGEST_CARD: usize = 256 << 10;

impl Catalogue {
    /// The folder of a model that has a safety checker, with a key that changes with the files.
    pub fn safety_checker(&self, name: &str) -> Option<(Arc<str>, ModelFolder)> {
        let entry = self.entry(name)?;
        let usable = entry.usable().ok()?;
        entry.has_safety_checker().then(|| (entry.key.clone(), usable.folder.clone()))
    }

    /// The bytes in memory of each model's safety checker. Checkers whose files cannot be read are left out.
    pub fn safety_checker_bytes(&self) -> Vec<u64> {
        let with_checker = self.names().into_iter().filter_map(|name| Some(self.safety_checker(&name)?.1));
        with_checker.filter_map(|folder| SafetyChecker::bytes(&folder).ok()).collect()
    }

    /// Whether the model is the one inside the program.
    pub fn is_embedded(&self, name: &str) -> bool {
        self.entry(name).is_some_and(|entry| entry.is_embedded())
    }

    /// The model card: the text of `README.md` in the model's folder, cut after 256 KiB. Bytes that are not UTF-8 are
    /// replaced. `None` if the model cannot be used, or its folder has no such file. Blocks while the file is read.
    pub fn model_card(&self, name: &str) -> Option<String> {
        let entry = self.entry(name)?;
        let file = entry.usable().ok()?.folder.file("README.md").ok()?;
        let bytes = file.read(0..file.len().min(LONGEST_CARD)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let is_cut = file.len() > LONGEST_CARD;
        // A cut can divide a character.
        let text = if is_cut { text.trim_end_matches('\u{fffd}') } else { &text };
        Some(format!("{text}{}", if is_cut { "\n\n(The rest of this card is not shown.)\n" } else { "" }))
    }
}
