//! A least-recently-used cache of what was read from files for a model.

use std::{collections::HashMap, num::NonZeroUsize};

use parking_lot::Mutex;
/// A cache of at most `most` values that were read from files; the least recently used one is dropped first.
#[derive(Debug)]
pub(super) struct Lru<T> {
    most: NonZeroUsize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    clock: u64,
    /// The values by model and name, each with the value of `clock` at its last use.
    values: HashMap<(String, String), (u64, T)>,
}

impl<T: Clone> Lru<T> {
    pub fn new(most: NonZeroUsize) -> Lru<T> {
        Lru { most, state: Mutex::new(State { clock: 0, values: HashMap::new() }) }
    }

    /// The cached value of `name` for this model; otherwise the result of `read`. Two concurrent calls may both read
    /// the value.
    pub fn get(&self, model: &str, name: &str, read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let key = (model.to_owned(), name.to_owned());
        if let Some(value) = self.used(&key) {
            return Ok(value);
        }
        let value = read()?;
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        state.values.insert(key, (now, value.clone()));
        if state.values.len() > self.most.get() {
            let oldest = state.values.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.into_iter().for_each(|key| drop(state.values.remove(&key)));
        }
        Ok(value)
    }

    /// The cached value, marked as used now.
    fn used(&self, key: &(String, String)) -> Option<T> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let (used, value) = state.values.get_mut(key)?;
        *used = now;
        Some(value.clone())
    }
}

impl<T: Clone> Default for Lru<T> {
    fn default() -> Lru<T> {
        Lru::new(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_is_dropped_first_and_errors_are_not_kept() {
        let kept = Lru::new(NonZeroUsize::new(2).unwrap());
        let read = |model: &str, name: &str| {
            let mut fresh = false;
            let value = kept.get(model, name, || {
                fresh = true;
                Ok(format!("{model} {name}"))
            });
            assert_eq!(value, Ok(format!("{model} {name}")));
            fresh
        };
        assert_eq!(kept.get("m", "broken", || Err("no".to_owned())), Err("no".to_owned()));
        assert!(read("m", "a") && read("m", "b") && !read("m", "a"));
        assert!(read("n", "a"), "another model");
        assert!(!read("m", "a") && read("m", "b"));
    }
}
