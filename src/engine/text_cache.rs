//! A cache of network answers that recur often: the embeddings of prompts.

use std::{any::Any, collections::HashMap, sync::Arc};

use super::batch_key::BatchKey;
use crate::{metrics::Metrics, pipelines::call::Memo};

/// A least-recently-used cache of at most `capacity` answers.
pub(super) struct Cache {
    capacity: usize,
    /// Counts the uses of the cache.
    clock: u64,
    /// For each call and memo: the time of the last use, and the answer of the type that belongs to the call.
    entries: HashMap<(BatchKey, Memo), (u64, Arc<dyn Any>)>,
    metrics: Metrics,
}

impl Cache {
    pub fn new(capacity: usize, metrics: Metrics) -> Cache {
        Cache { capacity, clock: 0, entries: HashMap::new(), metrics }
    }

    /// A copy of the cached answer. `A` must be the answer type of the key's call.
    pub fn get<A: Clone + 'static>(&mut self, key: &BatchKey, memo: &Memo) -> Option<A> {
        self.clock += 1;
        let (used, answer) = self.entries.get_mut(&(key.clone(), memo.clone()))?;
        *used = self.clock;
        answer.downcast_ref::<A>().cloned()
    }

    /// Stores an answer that was just computed, and counts a cache miss.
    pub fn put<A: 'static>(&mut self, key: &BatchKey, memo: Memo, answer: A) {
        self.metrics.text_cache.with_label_values(&["miss"]).inc();
        if self.capacity == 0 {
            return;
        }
        self.clock += 1;
        self.entries.insert((key.clone(), memo), (self.clock, Arc::new(answer)));
        if self.entries.len() > self.capacity {
            // A scan over a few hundred entries for each new prompt costs little compared to the encoding of the
            // prompt.
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(prompt, _)| prompt.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
    }
}
