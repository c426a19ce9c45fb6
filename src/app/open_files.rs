//! Distributes the open files that the system allows between the listeners.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that are reserved for the operator listener, so that probes are always answered.
pub(super) const OPERATOR_CONNECTIONS: usize = 64;
/// Files that the public listener cannot use: for pictures, models, the database, object stores, webhook receivers, and
/// operator connections.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard limit and returns it; `None` if there is no limit. The soft limit is
/// often 1024, for old programs that cannot use more files.
pub(super) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            current
        }
    }
}

/// The number of connections of the public listener: `wanted`, if the limit of open files allows it.
pub(super) fn public_connections(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let rest = usize::try_from(limit - RESERVE.min(limit / 2)).unwrap_or(usize::MAX).max(1);
    if wanted > rest {
        tracing::warn!(
            limit,
            "http.max_connections = {wanted} is more than the limit of open files allows; the public listener takes {rest}"
        );
    }
    wanted.min(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_listener_leaves_files_to_the_others() {
        for (wanted, limit, expected) in [
            (10_000, None, 10_000),
            (10_000, Some(1 << 20), 10_000),
            (10_000, Some(4096), 3840),
            (100, Some(4096), 100),
            (10_000, Some(100), 50),
            (10_000, Some(0), 1),
        ] {
            assert_eq!(public_connections(wanted, limit), expected, "{wanted} of {limit:?}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
