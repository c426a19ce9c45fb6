//! Text embeddings in frequent use.

use std::{collections::HashMap, sync::Arc};

use crate::pipelines::TextEmbedding;

/// What an embedding is a function of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Prompt {
    pub model: Arc<str>,
    pub clip_skip: u32,
    /// For each encoder.
    pub ids: Vec<Vec<u32>>,
}

/// Keeps at most `capacity` embeddings, dropping the least recently used.
pub(super) struct TextCache {
    capacity: usize,
    clock: u64,
    entries: HashMap<Prompt, (u64, TextEmbedding)>,
}

impl TextCache {
    pub fn new(capacity: usize) -> TextCache {
        TextCache { capacity, clock: 0, entries: HashMap::new() }
    }

    pub fn get(&mut self, prompt: &Prompt) -> Option<TextEmbedding> {
        self.clock += 1;
        let (used, embedding) = self.entries.get_mut(prompt)?;
        *used = self.clock;
        Some(embedding.clone())
    }

    pub fn put(&mut self, prompt: Prompt, embedding: TextEmbedding) {
        if self.capacity == 0 {
            return;
        }
        self.clock += 1;
        self.entries.insert(prompt, (self.clock, embedding));
        if self.entries.len() > self.capacity {
            // A scan over a few hundred entries, once for each new prompt, is nothing beside encoding it.
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(prompt, _)| prompt.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
    }
}
