//! What the engine does with a batch that does not fit the memory of the device.
//!
//! The batch is tried again with half of its rows, down to single rows. A single row is tried once more, after all
//! paused batches have released their memory. If the row does not fit even then, the run of this row fails. No other
//! run fails. A picture whose decoding does not fit is not decoded in smaller tiles, because tiles change the picture,
//! and a picture must not depend on the memory that is free.

use super::{ActiveRuns, Pick, RunningBatch};
use crate::{device::Fault, pipelines::NetworkError};

impl ActiveRuns {
    /// Handles a batch that did not fit. Its rows are *open* again, and later batches with the same key get fewer rows.
    /// If the batch had a single row, the row is tried once more. If the row does not fit at this last try either, its
    /// run fails.
    pub(super) fn make_fit(&mut self, batch: RunningBatch, error: &NetworkError) {
        let (key, rows, bytes, is_last_try) = (batch.key.clone(), batch.rows(), batch.bytes, batch.is_last_try);
        let run = batch.shares.first().map(|share| share.run);
        self.open_again(batch, error);
        if rows > 1 {
            self.row_limits.shrink(&key, rows);
            self.metrics.out_of_memory_splits.with_label_values(&[self.device.name()]).inc();
            self.device.release_memory();
            return;
        }
        let Some(index) = self.runs.iter().position(|active| Some(active.arrival) == run) else { return };
        if is_last_try {
            let device = self.device.name();
            let detail = format!(
                "one row, with a plan of {bytes} bytes of activations, does not fit the memory of the device {device}: \
                 {}",
                error.detail
            );
            self.runs[index].fail(NetworkError { network: error.network, fault: Fault::OutOfMemory, detail }.into());
            return;
        }
        // The paused batches end without answers, and their rows are computed again later.
        for paused in std::mem::take(&mut self.paused) {
            self.open_again(paused, error);
        }
        self.device.release_memory();
        let mut again = self.begin(&[Pick { waiting: index, rows: 1 }]);
        again.is_last_try = true;
        // A batch that is not long does not pause. During a pause, other batches would begin and take memory.
        again.long = false;
        self.advance(again, None);
    }

    /// Ends a batch without answers. Its rows are open again.
    fn open_again(&self, batch: RunningBatch, error: &NetworkError) {
        let (shares, mut rows) = batch.give_back();
        for share in shares {
            match (self.runs.iter().find(|run| run.arrival == share.run), &mut rows) {
                (Some(run), Some(rows)) => run.let_go(rows.as_mut()),
                (None, Some(rows)) => rows.skip(share.rows),
                (Some(run), None) => run.fail(error.clone().into()),
                (None, None) => {}
            }
        }
    }
}
