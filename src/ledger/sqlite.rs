//! The store of one process: a SQLite file.

/// The store of one process.
#[derive(Clone, Debug)]
pub struct SqliteStore {}
