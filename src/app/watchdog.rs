//! The watchdog: ends the process if a device hangs, because a thread that waits for a driver cannot be stopped.

use std::time::Duration;

use crate::engine::CallClock;

/// Time between two checks of the clocks.
const TICK: Duration = Duration::from_secs(1);

/// Ends the process if a network call of an engine makes no progress for `limit_s` seconds.
pub(super) struct Watchdog {
    pub limit_s: u32,
    /// The devices by name, with the clocks of their engines.
    pub clocks: Vec<(String, CallClock)>,
}

impl Watchdog {
    /// Watches until the process ends or the future is dropped.
    pub async fn run(self) {
        let mut watches = vec![Watch::default(); self.clocks.len()];
        loop {
            tokio::time::sleep(TICK).await;
            for ((device, clock), watch) in self.clocks.iter().zip(&mut watches) {
                let now = clock.now();
                let seconds = watch.tick(now);
                if seconds >= self.limit_s {
                    let network = now.map_or("", |(_, network)| network);
                    tracing::error!(
                        device,
                        network,
                        seconds,
                        "a network call makes no progress for longer than engine.watchdog_s: the device hangs, so the \
                         process aborts, and its generations are queued again"
                    );
                    // Aborts instead of exiting, because destructors and the driver's own exit handlers would wait for
                    // the device. This thread computes no generation, so the next start blames no generation for the
                    // abort (`crash::blame`) and gives none up at once: the abort counts as an ordinary crash.
                    std::process::abort();
                }
            }
        }
    }
}

/// Counts how long one engine computes the same layer.
#[derive(Clone, Debug, Default)]
struct Watch {
    seen: Option<(u64, &'static str)>,
    ticks: u32,
}

impl Watch {
    /// For how many seconds, at least, the engine has computed the layer `now`. Counts ticks instead of reading a
    /// clock, so that a process that was stopped for a while, such as with `docker pause`, does not end when it
    /// continues.
    fn tick(&mut self, now: Option<(u64, &'static str)>) -> u32 {
        self.ticks = if now.is_some() && now == self.seen { self.ticks + 1 } else { 0 };
        self.seen = now;
        self.ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_without_progress_counts_only_within_one_layer() {
        let mut watch = Watch::default();
        let layers = [None, None, None, Some(1), Some(2), Some(2), Some(2), None, Some(3), Some(3)];
        let ticks = layers.map(|layer| watch.tick(layer.map(|number| (number, "unet"))));
        assert_eq!(ticks, [0, 0, 0, 0, 0, 1, 2, 0, 0, 1], "an idle engine does not hang");
    }
}
