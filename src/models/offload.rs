//! Networks whose weights stay in the memory of the host and are copied to the device for the calls that need them.

use std::{fmt, ops::Deref, sync::Arc};

use candle_core::{Error, Result};
use parking_lot::Mutex;

use crate::weights::{LoadError, Weights};

/// A network in the memory of the host.
pub(super) struct Lent<N> {
    weights: Weights,
    build: Box<dyn Fn(&Weights) -> N + Send + Sync>,
    /// The copy on the device; `None` if there is none.
    copy: Mutex<Option<Arc<N>>>,
}

/// A network on the device: the network itself, or a copy of a network in the host's memory. The copy stays on the
/// device as long as this value exists.
pub(super) enum OnDevice<'a, N> {
    Own(&'a N),
    Copy(Arc<N>),
}

impl<N> Lent<N> {
    /// Reads all tensors that `build` requests into the memory of the host. `noted` gets the weights after the first
    /// build.
    ///
    /// # Errors
    /// Those of [`Weights::finish`].
    pub fn load(
        weights: Weights,
        build: impl Fn(&Weights) -> N + Send + Sync + 'static,
        noted: impl FnOnce(&Weights),
    ) -> std::result::Result<Lent<N>, LoadError> {
        let weights = weights.kept();
        drop(build(&weights));
        noted(&weights);
        Ok(Lent { weights: weights.finish_kept()?, build: Box::new(build), copy: Mutex::default() })
    }

    /// The network on the device, copied there if it is not there. Blocks during the copy.
    ///
    /// # Errors
    /// The device has too little memory, or is lost.
    pub fn get(&self) -> Result<OnDevice<'_, N>> {
        let mut copy = self.copy.lock();
        let there = match &*copy {
            Some(there) => there.clone(),
            None => {
                let built = self.weights.again(&self.build).map_err(|error| Error::Msg(error.to_string()))?;
                copy.insert(Arc::new(built)).clone()
            }
        };
        Ok(OnDevice::Copy(there))
    }

    /// Removes the copy from the device as soon as no call uses it.
    pub fn send_back(&self) {
        drop(self.copy.lock().take());
    }
}

impl<N> Deref for OnDevice<'_, N> {
    type Target = N;

    fn deref(&self) -> &N {
        match self {
            OnDevice::Own(network) => network,
            OnDevice::Copy(copy) => copy,
        }
    }
}

impl<N> fmt::Debug for Lent<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.weights).finish()
    }
}
