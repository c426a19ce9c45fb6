//! Words in prompts that stand for ids of their own.

use std::collections::HashMap;

use crate::models::word_tags::{WordTag, folded};

/// Triggers, each a `<name>`, and the ids that stand for them.
#[derive(Debug, Default)]
pub struct Triggers<'a> {
    all: Vec<(&'a str, Vec<u32>)>,
    /// By their folded names, indices into `all`.
    folded: HashMap<String, usize>,
}

impl<'a> Triggers<'a> {
    /// Of triggers that differ in letter case alone the first counts.
    pub fn new(all: Vec<(&'a str, Vec<u32>)>) -> Self {
        let folded = all.iter().enumerate().rev().map(|(i, (trigger, _))| (folded(trigger), i)).collect();
        Triggers { all, folded }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The ids that stand for a tag: in any letter case, as transformers finds added tokens.
    pub fn ids(&self, tag: &WordTag<'_>) -> Option<&[u32]> {
        let found = self.folded.get(&tag.folded)?;
        Some(&self.all[*found].1)
    }

    /// The ids behind the first of each trigger.
    pub fn further(&self) -> impl Iterator<Item = u32> {
        self.all.iter().flat_map(|(_, ids)| ids.iter().skip(1).copied())
    }
}
