//! The shared parts of this room's tests.

use std::path::Path;

use crate::config::{Config, Sources};

/// The settings of a server with this data folder and more settings.
pub(super) fn config(data_dir: &Path, more: &[(&str, &str)]) -> Config {
    let data_dir = data_dir.display().to_string();
    let folder = [("data_dir", &*data_dir)];
    let flags = more.iter().chain(&folder).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap()
}
