//! Triggers: words in prompts that are replaced by ids of their own.

use std::collections::HashMap;

use crate::models::word_tags::{WordTag, folded};

/// Triggers of the form `<name>`, each with the ids that replace it.
#[derive(Debug, Default)]
pub struct Triggers<'a> {
    all: Vec<(&'a str, Vec<u32>)>,
    /// Maps each trigger, in the form that [`folded`] returns, to its index in `all`.
    folded: HashMap<String, usize>,
}

impl<'a> Triggers<'a> {
    /// If triggers differ only in letter case, the first one counts.
    pub fn new(all: Vec<(&'a str, Vec<u32>)>) -> Self {
        let folded = all.iter().enumerate().rev().map(|(i, (trigger, _))| (folded(trigger), i)).collect();
        Triggers { all, folded }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The ids for a tag, regardless of letter case: transformers finds added tokens in the same way.
    pub fn ids(&self, tag: &WordTag<'_>) -> Option<&[u32]> {
        let found = self.folded.get(&tag.folded)?;
        Some(&self.all[*found].1)
    }

    /// For each trigger, its ids after the first id.
    pub fn further(&self) -> impl Iterator<Item = u32> {
        self.all.iter().flat_map(|(_, ids)| ids.iter().skip(1).copied())
    }
}
