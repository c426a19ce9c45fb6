//! A cache of network answers that recur often: the embeddings of prompts.

use std::{any::Any, collections::HashMap, sync::Arc};

use super::batch_key::BatchKey;
use crate::{metrics::Metrics, pipelines::call::Memo};

/// Maximum bytes of all answers together: half of the 512 MiB that the memory plan counts for everything besides
/// weights and generations (`PROCESS` in `src/app/memory.rs`).
const MOST_BYTES: usize = 256 << 20;

/// A least-recently-used cache of at most `capacity` answers and [`MOST_BYTES`].
pub(super) struct Cache {
    capacity: usize,
    /// Counts the uses of the cache.
    clock: u64,
    /// Bytes of all answers.
    bytes: usize,
    entries: HashMap<(BatchKey, Memo), Cached>,
    metrics: Metrics,
}

struct Cached {
    /// The time of the last use.
    used: u64,
    bytes: usize,
    /// The answer of a call, in the type of the call's answers.
    answer: Arc<dyn Any>,
}

impl Cache {
    pub fn new(capacity: usize, metrics: Metrics) -> Cache {
        Cache { capacity, clock: 0, bytes: 0, entries: HashMap::new(), metrics }
    }

    /// A copy of the cached answer. `A` must be the answer type of the key's call.
    pub fn get<A: Clone + 'static>(&mut self, key: &BatchKey, memo: &Memo) -> Option<A> {
        self.clock += 1;
        let cached = self.entries.get_mut(&(key.clone(), memo.clone()))?;
        cached.used = self.clock;
        cached.answer.downcast_ref::<A>().cloned()
    }

    /// Stores an answer of `bytes` that was just computed, and counts a cache miss.
    pub fn put<A: 'static>(&mut self, key: &BatchKey, memo: Memo, answer: A, bytes: usize) {
        self.metrics.text_cache.with_label_values(&["miss"]).inc();
        if self.capacity == 0 {
            return;
        }
        self.clock += 1;
        let entry = Cached { used: self.clock, bytes, answer: Arc::new(answer) };
        if let Some(replaced) = self.entries.insert((key.clone(), memo), entry) {
            self.bytes -= replaced.bytes;
        }
        self.bytes += bytes;
        while self.entries.len() > self.capacity || self.bytes > MOST_BYTES {
            // A scan over a few hundred entries for each new prompt costs little compared to the encoding of the
            // prompt.
            let oldest = self.entries.iter().min_by_key(|(_, cached)| cached.used).map(|(prompt, _)| prompt.clone());
            let Some(removed) = oldest.and_then(|oldest| self.entries.remove(&oldest)) else { break };
            self.bytes -= removed.bytes;
        }
    }
}
