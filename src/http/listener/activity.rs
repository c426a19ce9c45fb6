//! Tracks the activity of a connection: its open requests, and how long answers have waited for the client to read.
//! hyper does not track this for HTTP/2, where a client that answers pings could otherwise hold a connection forever.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::config::Http;

/// How long a connection may be inactive.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Before the first request arrives.
    pub first: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// While an answer waits for the client to read.
    pub unread: Duration,
}

impl Patience {
    pub fn of(http: &Http) -> Patience {
        Patience {
            first: http.header_timeout_s.into(),
            idle: http.idle_timeout_s.into(),
            unread: http.write_timeout_s.into(),
        }
    }
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection goes on. Ask again at this time.
    Until(Instant),
    /// The connection takes no more requests. Its open requests are still answered, within [`Patience::unread`].
    End,
    /// The connection is closed at once, because no request has arrived.
    Close,
}

/// The activity of a connection, shared by the connection, its requests and their answers. A cheap handle.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    requests: u64,
    open: usize,
    /// When the connection was opened, or its last request ended.
    rests_since: Instant,
    /// The numbers of the requests whose answers wait for the client, each with the time since which the answer waits.
    unread: HashMap<u64, Instant>,
}

/// An open request. Dropping it ends the request.
#[derive(Debug)]
pub struct Open {
    activity: Activity,
    number: u64,
}

impl Activity {
    pub fn new(now: Instant) -> Activity {
        Activity(Arc::new(Mutex::new(State { requests: 0, open: 0, rests_since: now, unread: HashMap::new() })))
    }

    /// Begins a request.
    pub fn begin(&self) -> Open {
        let mut state = self.0.lock();
        state.requests += 1;
        state.open += 1;
        Open { activity: self.clone(), number: state.requests }
    }

    /// Decides at time `now` what happens to the connection.
    pub fn verdict(&self, now: Instant, patience: Patience) -> Verdict {
        let state = self.0.lock();
        let (since, bound, late) = match state.unread.values().min() {
            _ if state.requests == 0 => (state.rests_since, patience.first, Verdict::Close),
            _ if state.open == 0 => (state.rests_since, patience.idle, Verdict::End),
            Some(oldest) => (*oldest, patience.unread, Verdict::End),
            None => return Verdict::Until(now + patience.unread.min(patience.idle)),
        };
        let at = since + bound;
        if at <= now {
            return late;
        }
        // An answer may begin to wait for its client in the meantime. Such an answer is noticed after at most twice
        // `patience.unread`.
        Verdict::Until(at.min(now + patience.unread.min(patience.idle)))
    }
}

impl Open {
    /// Notes that a part of the answer is ready for the client to read.
    pub fn waits_for_client(&self) {
        self.activity.0.lock().unread.insert(self.number, Instant::now());
    }

    /// Notes that the client has read everything that was ready.
    pub fn is_read(&self) {
        self.activity.0.lock().unread.remove(&self.number);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.activity.0.lock();
        state.unread.remove(&self.number);
        state.open -= 1;
        if state.open == 0 {
            state.rests_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { first: Duration::from_secs(10), idle: Duration::from_secs(60), unread: Duration::from_secs(30) };

    #[test]
    fn a_connection_without_a_request_is_closed_and_an_idle_one_ends() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let activity = Activity::new(began);
        assert_eq!(activity.verdict(at(9), PATIENCE), Verdict::Until(at(10)));
        assert_eq!(activity.verdict(at(10), PATIENCE), Verdict::Close);
        drop(activity.begin());
        assert!(matches!(activity.verdict(at(59), PATIENCE), Verdict::Until(_)));
        assert_eq!(activity.verdict(at(62), PATIENCE), Verdict::End);
        let open = activity.begin();
        assert!(matches!(activity.verdict(at(900), PATIENCE), Verdict::Until(_)), "a request may take its time");
        drop(open);
    }

    #[test]
    fn an_answer_that_nobody_reads_ends_the_connection() {
        let activity = Activity::new(Instant::now());
        let (slow, quick) = (activity.begin(), activity.begin());
        slow.waits_for_client();
        quick.waits_for_client();
        quick.is_read();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(matches!(activity.verdict(later(29), PATIENCE), Verdict::Until(_)));
        assert_eq!(activity.verdict(later(31), PATIENCE), Verdict::End);
        slow.is_read();
        assert!(matches!(activity.verdict(later(31), PATIENCE), Verdict::Until(_)));
        slow.waits_for_client();
        drop(slow);
        assert!(matches!(activity.verdict(later(31), PATIENCE), Verdict::Until(_)), "an ended request does not wait");
        drop(quick);
    }
}
