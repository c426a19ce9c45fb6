//! Answers in frequent use: the embeddings of prompts.

use std::{any::Any, collections::HashMap, sync::Arc};

use super::key::Key;
use crate::{metrics::Metrics, pipelines::call::Memo};

/// Keeps at most `capacity` answers, dropping the least recently used.
pub(super) struct Cache {
    capacity: usize,
    clock: u64,
    /// The type of each answer is that of its key's call.
    entries: HashMap<(Key, Memo), (u64, Arc<dyn Any>)>,
    metrics: Metrics,
}

impl Cache {
    pub fn new(capacity: usize, metrics: Metrics) -> Cache {
        Cache { capacity, clock: 0, entries: HashMap::new(), metrics }
    }

    pub fn get<A: Clone + 'static>(&mut self, key: &Key, memo: &Memo) -> Option<A> {
        self.clock += 1;
        let (used, answer) = self.entries.get_mut(&(key.clone(), memo.clone()))?;
        *used = self.clock;
        answer.downcast_ref::<A>().cloned()
    }

    /// Keeps an answer that was just computed.
    pub fn put<A: 'static>(&mut self, key: &Key, memo: Memo, answer: A) {
        self.metrics.text_cache.with_label_values(&["miss"]).inc();
        if self.capacity == 0 {
            return;
        }
        self.clock += 1;
        self.entries.insert((key.clone(), memo), (self.clock, Arc::new(answer)));
        if self.entries.len() > self.capacity {
            // A scan over a few hundred entries, once for each new prompt, is nothing beside encoding it.
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(prompt, _)| prompt.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
    }
}
