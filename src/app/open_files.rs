//! Distributes the open files that the system allows between the parts of the server.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{config::Config, ledger::Blobs};

/// Files that every process has: standard streams, listeners, signals, log and lock, and the connections to SQLite.
const BASE: u64 = 32;
/// The least number of files that the parts of [`FileShares`] need together.
const LEAST: u64 = 32;
/// Open files of a webhook message: its connection, and the look-up of the receiver's name.
const FILES_OF_MESSAGE: usize = 2;

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

/// The limit of open files that a server would have here; `None` if there is none.
///
/// # Errors
/// The limit is too low for a server with these settings.
pub fn open_files(config: &Config) -> Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile).maximum;
    FileShares::of(limit, config).map(|_| limit)
}

/// How many files each part of the server may open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileShares {
    /// Connections of the public listener.
    pub public: usize,
    /// Connections of the operator listener, so that probes are always answered.
    pub operator: usize,
    /// Operations of the blob store.
    pub blobs: usize,
    /// Webhook messages in flight.
    pub webhooks: usize,
}

impl FileShares {
    /// Divides `limit` files; `None` means no limit. Each part gets as many files as the settings want; if the limit is
    /// too low for that, each part gets fewer files.
    ///
    /// # Errors
    /// The limit is too low for a server.
    pub fn of(limit: Option<u64>, config: &Config) -> Result<FileShares> {
        let is_postgres = !config.database.url.is_empty();
        let base = BASE + if is_postgres { u64::from(config.database.max_connections) } else { 0 };
        let wanted = FileShares {
            public: config.http.max_connections,
            operator: 64,
            blobs: 64,
            webhooks: config.webhooks.max_in_flight.get(),
        };
        let Some(limit) = limit else { return Ok(wanted) };
        let least = base + LEAST;
        if limit < least {
            let database = if is_postgres { " (this includes database.max_connections)" } else { "" };
            bail!(
                "the limit of open files is {limit}, but the server needs at least {least}{database}; \
                 raise the limit (ulimit -n)"
            );
        }
        let shares = wanted.within(usize::try_from(limit - base).unwrap_or(usize::MAX));
        if shares.public < wanted.public {
            let FileShares { public, operator, webhooks, .. } = shares;
            tracing::warn!(
                limit,
                "http.max_connections = {} is more than the limit of open files allows; the public listener takes {public} \
                 connections, the operator listener {operator}, and at most {webhooks} webhook messages are in flight",
                wanted.public
            );
        }
        Ok(shares)
    }

    /// Reduces the shares so that they need at most `files` files, with some left over for models.
    fn within(self, files: usize) -> FileShares {
        let operator = self.operator.min(files / 4);
        let blobs = self.blobs.min(files / 8 / Blobs::FILES);
        let webhooks = self.webhooks.min(files / 8 / FILES_OF_MESSAGE);
        let models = 64.min(files / 8);
        let reserved = operator + blobs * Blobs::FILES + webhooks * FILES_OF_MESSAGE + models;
        FileShares { public: self.public.min(files - reserved), operator, blobs, webhooks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    const WANTED: FileShares = FileShares { public: 10_000, operator: 64, blobs: 64, webhooks: 16 };

    #[test]
    fn the_shares_add_up_to_the_files_and_none_is_empty() {
        for files in (32..5000).chain([1 << 20]) {
            let FileShares { public, operator, blobs, webhooks } = WANTED.within(files);
            assert!(public + operator + 2 * blobs + 2 * webhooks < files, "{files}");
            assert!([public, operator, blobs, webhooks].into_iter().all(|share| share > 0), "{files}");
        }
        assert_eq!(WANTED.within(32), FileShares { public: 12, operator: 8, blobs: 2, webhooks: 2 });
        assert_eq!(WANTED.within(1 << 20), WANTED);
    }

    #[test]
    fn a_limit_that_is_too_low_is_refused() {
        let config = Config::load(&Sources::default()).unwrap();
        assert_eq!(FileShares::of(None, &config).unwrap(), WANTED);
        assert_eq!(FileShares::of(Some(64), &config).unwrap(), WANTED.within(32));
        let refused = FileShares::of(Some(63), &config).unwrap_err().to_string();
        assert!(refused.contains("is 63") && refused.contains("at least 64"), "{refused}");
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
