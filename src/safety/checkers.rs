//! The safety checkers in memory.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    catalogue::Catalogue,
    config,
    device::Device,
    kernels::arena,
    models::SafetyChecker,
    weights::{LoadError, ModelFolder},
};

/// The checkers that were used last. The published checker takes 1.2 GB.
#[derive(Debug, Default)]
pub(super) struct Checkers {
    /// In the order of their last use.
    loaded: Mutex<Vec<(Arc<str>, Arc<SafetyChecker>)>>,
}

/// Maximum number of checkers in memory. More are needed only if models with different checkers take turns.
const MOST: usize = 2;

/// Maximum bytes that safety checkers take in the memory of the host: the bytes of the checker of the settings,
/// otherwise the bytes of the two largest checkers of models. The checkers count even if the policy of the settings is
/// `off`, because a key can have another policy. A checker of the settings that cannot be read counts as nothing;
/// [`Safety::open`] reports it.
///
/// [`Safety::open`]: super::Safety::open
pub fn most_bytes(settings: &config::Safety, catalogue: &Catalogue) -> u64 {
    if !settings.checker.as_os_str().is_empty() {
        return ModelFolder::open(&settings.checker).and_then(|folder| SafetyChecker::bytes(&folder)).unwrap_or(0);
    }
    let mut of_models = catalogue.safety_checker_bytes();
    of_models.sort_unstable();
    of_models.into_iter().rev().take(MOST).fold(0, u64::saturating_add)
}

impl Checkers {
    /// The checker of this key, loaded from `folder` if it is not in memory. Another load waits meanwhile, so that the
    /// same checker is not loaded twice. A checker computes on the CPU, on the threads of `device` if that is a CPU.
    ///
    /// # Errors
    /// Those of [`SafetyChecker::load`].
    pub fn get(&self, key: Arc<str>, folder: &ModelFolder, device: &Device) -> Result<Arc<SafetyChecker>, LoadError> {
        let mut loaded = self.loaded.lock();
        let known = loaded.iter().position(|(known, _)| *known == key).map(|at| loaded.remove(at).1);
        let checker = match known {
            Some(checker) => checker,
            None => {
                // Makes room first.
                let excess = (loaded.len() + 1).saturating_sub(MOST);
                loaded.drain(..excess);
                let device = if device.has_own_memory() { Device::host() } else { device.clone() };
                let checker = Arc::new(SafetyChecker::load(folder, &device)?);
                arena::trim();
                checker
            }
        };
        loaded.push((key, checker.clone()));
        Ok(checker)
    }
}
