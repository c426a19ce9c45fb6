//! The check of the limit of open files.

use latentd::{app, config::Config};

use super::finding::Finding;

/// The limit that docs/operate.md recommends.
const RECOMMENDED: u64 = 1024;

pub fn look(config: &Config) -> Vec<Finding> {
    let mend = "raise the hard limit: ulimit -Hn, LimitNOFILE of systemd, or --ulimit of the container";
    vec![match app::open_files(config) {
        Ok(None) => Finding::ok("no limit"),
        Ok(Some(limit)) if limit < RECOMMENDED => {
            Finding::warning(format!("the limit is {limit}; at least {RECOMMENDED} are recommended"), mend)
        }
        Ok(Some(limit)) => Finding::ok(format!("the limit is {limit}")),
        Err(error) => Finding::error(error.to_string(), mend),
    }]
}
