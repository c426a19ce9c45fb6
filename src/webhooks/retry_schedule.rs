//! Decides when a message is tried again.

use std::time::Duration;

use crate::ledger::Next;

/// One wait for each attempt. The first wait is not used, because the first attempt is made at once.
#[derive(Clone, Debug)]
pub struct RetrySchedule {
    waits: Vec<Duration>,
}

/// The longest wait that a receiver can ask for. A longer one is reduced to this wait.
const LONGEST_ASKED: Duration = Duration::from_secs(86_400);

impl RetrySchedule {
    pub fn new(waits: Vec<Duration>) -> RetrySchedule {
        RetrySchedule { waits }
    }

    /// Decides what happens to a message after attempt number `attempts`. `status` is the status of the receiver's
    /// answer, or `None` without an answer. The next try comes after the wait of the schedule, or after `asked` if the
    /// receiver asks for a longer wait. `random` in 0..=1 varies the wait of the schedule by up to a tenth in either
    /// direction, so that messages that failed together are not retried together.
    pub fn next(&self, status: Option<u16>, attempts: u32, asked: Option<Duration>, random: f64) -> Next {
        match status {
            Some(200..=299) => return Next::Delivered,
            Some(410) => return Next::Gone,
            _ => {}
        }
        let Some(wait) = self.waits.get(attempts as usize) else { return Next::Dead };
        let jittered = wait.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0));
        Next::Retry { after: jittered.max(asked.unwrap_or_default().min(LONGEST_ASKED)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standard() -> RetrySchedule {
        let config = crate::config::Config::load(&Default::default()).unwrap();
        RetrySchedule::new(config.webhooks.waits())
    }

    #[test]
    fn the_default_is_that_of_standard_webhooks() {
        let waits: Vec<Next> = (1..=10).map(|attempts| standard().next(Some(500), attempts, None, 0.5)).collect();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let after = [
            Duration::from_secs(5),
            Duration::from_secs(300),
            Duration::from_secs(1800),
            hours(2),
            hours(5),
            hours(10),
            hours(14),
            hours(20),
            hours(24),
        ];
        let expected = after.into_iter().map(|after| Next::Retry { after }).chain([Next::Dead]);
        assert!(waits.into_iter().eq(expected));
    }

    #[test]
    fn the_status_decides() {
        let next = |status| standard().next(status, 1, None, 0.5);
        for status in [200, 201, 204, 299] {
            assert_eq!(next(Some(status)), Next::Delivered, "{status}");
        }
        for status in [100, 199, 300, 301, 302, 307, 308, 400, 404, 409, 411, 429, 500, 503, 599] {
            assert!(matches!(next(Some(status)), Next::Retry { .. }), "{status}");
        }
        assert!(matches!(next(None), Next::Retry { .. }));
        assert_eq!(next(Some(410)), Next::Gone);
    }

    #[test]
    fn a_receiver_may_ask_for_more_patience_but_for_no_more_than_a_day() {
        let asked = |seconds| standard().next(Some(429), 1, Some(Duration::from_secs(seconds)), 0.5);
        assert_eq!(asked(1), Next::Retry { after: Duration::from_secs(5) });
        assert_eq!(asked(60), Next::Retry { after: Duration::from_secs(60) });
        assert_eq!(asked(1_000_000), Next::Retry { after: Duration::from_secs(86_400) });
    }

    proptest! {
        #[test]
        fn every_message_comes_to_an_end(
            status in prop::option::of(100u16..600), asked in prop::option::of(0u64..u64::MAX), random in 0.0f64..1.0,
        ) {
            let retry_schedule = standard();
            for attempts in 1..40 {
                match retry_schedule.next(status, attempts, asked.map(Duration::from_secs), random) {
                    Next::Retry { after } => {
                        prop_assert!(attempts < 10);
                        let wait = retry_schedule.waits[attempts as usize].as_secs_f64();
                        prop_assert!(after.as_secs_f64() >= 0.9 * wait - 1e-6);
                        prop_assert!(after.as_secs_f64() <= (1.1 * wait).max(86_400.0) + 1e-6);
                    }
                    Next::Delivered => prop_assert!((200..300).contains(&status.unwrap())),
                    Next::Gone => prop_assert_eq!(status, Some(410)),
                    Next::Dead => prop_assert!(attempts >= 10),
                }
            }
        }
    }
}
