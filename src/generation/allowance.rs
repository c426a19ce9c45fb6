//! The arithmetic of rate limits and daily quotas: pure functions of counts and times.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, Time};

/// At most `requests` generations are accepted in a window of `window_s` seconds, which begins when its first
/// generation is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// At least 1.
    pub requests: u32,
    /// At least 1.
    pub window_s: u32,
}

/// The latest window of a rate limit, which may be over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// `None` before the first generation.
    pub began: Option<OffsetDateTime>,
    /// Number of generations that were accepted in this window.
    pub used: u32,
}

/// What a key has used of its limits until the time `now`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    pub now: OffsetDateTime,
    pub window: Window,
    /// The work of the day so far, in 10⁹ multiplications.
    pub cost: f64,
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// [`Allowance::RATE`] or [`Allowance::DAY`].
    pub policy: &'static str,
    pub quota: u64,
    pub window_s: u64,
    pub left: u64,
    /// Seconds until the whole quota is available again, rounded up.
    pub reset_s: u64,
}

/// A limit that a generation would exceed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Exceeded {
    #[error(
        "this key may create {} generations in {} s; the next window begins in {reset_s} s",
        .limit.requests, .limit.window_s
    )]
    Rate { limit: RateLimit, reset_s: u64 },
    #[error(
        "the generation costs {cost:.1}, and this key has used {spent:.1} of {quota} today, in 10⁹ multiplications; \
         the next day (UTC) begins in {reset_s} s"
    )]
    Quota { cost: f64, spent: f64, quota: u64, reset_s: u64 },
}

impl Allowance {
    /// The name of the policy of a [`RateLimit`].
    pub const RATE: &'static str = "rate";
    /// The name of the policy of a quota per day.
    pub const DAY: &'static str = "day";
}

impl Exceeded {
    /// The name of the limit.
    pub fn policy(&self) -> &'static str {
        match self {
            Exceeded::Rate { .. } => Allowance::RATE,
            Exceeded::Quota { .. } => Allowance::DAY,
        }
    }

    /// Seconds until the limit has its whole quota again.
    pub fn reset_s(&self) -> u64 {
        let (Exceeded::Rate { reset_s, .. } | Exceeded::Quota { reset_s, .. }) = self;
        *reset_s
    }
}

impl Spent {
    /// Seconds until the next day (UTC) begins, 1 to 86400.
    pub fn until_next_day_s(&self) -> u64 {
        let midnight = self.now.to_offset(time::UtcOffset::UTC).time() - Time::MIDNIGHT;
        86_400 - u64::try_from(midnight.whole_seconds()).unwrap_or(0).min(86_399)
    }
}

/// The day (UTC) of a time, such as `2026-11-29`.
pub fn day_of(time: OffsetDateTime) -> String {
    let date = time.to_offset(time::UtcOffset::UTC).date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

impl RateLimit {
    /// Returns `window` if it is still open at `now`, otherwise a new window.
    fn current(self, window: Window, now: OffsetDateTime) -> Window {
        let is_open = |began: OffsetDateTime| now - began < time::Duration::seconds(self.window_s.into());
        if window.began.is_some_and(is_open) { window } else { Window::default() }
    }

    /// Counts a generation at `now`.
    ///
    /// # Errors
    /// The window already has its maximum number of generations. The error value is the number of seconds until the
    /// window is over.
    pub fn take(self, window: Window, now: OffsetDateTime) -> Result<Window, u64> {
        let window = self.current(window, now);
        if window.used >= self.requests {
            return Err(self.reset_s(window, now));
        }
        Ok(Window { began: Some(window.began.unwrap_or(now)), used: window.used + 1 })
    }

    /// What is left at `now`.
    pub fn allowance(self, window: Window, now: OffsetDateTime) -> Allowance {
        let window = self.current(window, now);
        Allowance {
            policy: Allowance::RATE,
            quota: self.requests.into(),
            window_s: self.window_s.into(),
            left: self.requests.saturating_sub(window.used).into(),
            reset_s: self.reset_s(window, now),
        }
    }

    /// Seconds until the window is over, 1 to `window_s`; `window_s` if the window has not begun. `now` may be earlier
    /// than the beginning of the window, because another process may have begun the window after `now` was read.
    fn reset_s(self, window: Window, now: OffsetDateTime) -> u64 {
        let since = window.began.map_or(time::Duration::ZERO, |began| (now - began).max(time::Duration::ZERO));
        let left = time::Duration::seconds(self.window_s.into()) - since;
        (left.as_seconds_f64().ceil() as u64).clamp(1, self.window_s.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, macros::datetime};

    use super::*;

    const BEGIN: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    #[test]
    fn a_window_begins_with_its_first_generation_and_has_its_quota_once() {
        let limit = RateLimit { requests: 2, window_s: 10 };
        let at = |ms| BEGIN + Duration::milliseconds(ms);
        let first = limit.take(Window::default(), at(0)).unwrap();
        assert_eq!((first.began, first.used), (Some(BEGIN), 1));
        let allowance = limit.allowance(first, at(3500));
        assert_eq!((allowance.left, allowance.reset_s, allowance.quota, allowance.window_s), (1, 7, 2, 10));
        let second = limit.take(first, at(9000)).unwrap();
        assert_eq!(limit.take(second, at(9999)), Err(1));
        let third = limit.take(second, at(10_000)).unwrap();
        assert_eq!((third.began, third.used), (Some(at(10_000)), 1));
        assert_eq!(limit.allowance(third, at(20_000)).left, 2, "a window that is over has used nothing");
    }

    #[test]
    fn days_are_those_of_utc() {
        let spent = |now| Spent { now, window: Window::default(), cost: 0.0 };
        for (now, day, left) in [
            (datetime!(2026-11-29 00:00 UTC), "2026-11-29", 86_400),
            (datetime!(2026-11-29 23:59:59.999 UTC), "2026-11-29", 1),
            (datetime!(2026-11-29 23:30 -2), "2026-11-30", 81_000),
            (datetime!(0999-01-02 12:00 UTC), "0999-01-02", 43_200),
        ] {
            assert_eq!((day_of(now).as_str(), spent(now).until_next_day_s()), (day, left), "{now}");
        }
    }

    proptest! {
        /// Whatever clients do, a window accepts at most its quota, and a client that waits `reset_s` seconds is
        /// accepted.
        #[test]
        fn no_window_has_more_than_its_quota(
            requests in 1u32..6, window_s in 1u32..20, pauses in prop::collection::vec(0i64..9000, 1..80)
        ) {
            let limit = RateLimit { requests, window_s };
            let (mut window, mut now, mut windows) = (Window::default(), BEGIN, std::collections::BTreeMap::new());
            for pause in pauses {
                now += Duration::milliseconds(pause);
                let before = limit.allowance(window, now);
                prop_assert!(before.reset_s >= 1 && before.reset_s <= window_s.into());
                match limit.take(window, now) {
                    Ok(taken) => {
                        prop_assert!(before.left >= 1);
                        prop_assert_eq!(limit.allowance(taken, now).left, before.left - 1);
                        let began = taken.began.unwrap();
                        prop_assert!(now - began < Duration::seconds(window_s.into()));
                        *windows.entry(began).or_insert(0) += 1;
                        window = taken;
                    }
                    Err(reset_s) => {
                        prop_assert_eq!((before.left, before.reset_s), (0, reset_s));
                        let later = now + Duration::seconds(i64::try_from(reset_s).unwrap());
                        prop_assert!(limit.take(window, later).is_ok());
                    }
                }
            }
            prop_assert!(windows.values().all(|taken| *taken <= requests));
            let begins: Vec<_> = windows.keys().collect();
            prop_assert!(begins.windows(2).all(|pair| *pair[1] - *pair[0] >= Duration::seconds(window_s.into())));
        }

        /// If `now` was read before another process began the window, nothing panics, and no new window opens.
        #[test]
        fn an_earlier_clock_opens_no_window(behind_ms in 0i64..100_000, used in 1u32..5) {
            let limit = RateLimit { requests: 5, window_s: 10 };
            let window = Window { began: Some(BEGIN), used };
            let now = BEGIN - Duration::milliseconds(behind_ms);
            prop_assert_eq!(limit.allowance(window, now).reset_s, 10);
            prop_assert_eq!(limit.take(window, now), Ok(Window { used: used + 1, ..window }));
        }
    }
}
