//! Expands the home folder in paths of the settings.

use std::path::{Path, PathBuf};

/// Replaces a leading `~` with the home folder, if there is one, because no shell does so in a settings file.
pub(super) fn expanded(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_tilde_is_the_home_folder() {
        let home = Path::new("/home/ada");
        for (path, expected) in [
            ("~/.cache/huggingface/hub", "/home/ada/.cache/huggingface/hub"),
            ("~", "/home/ada"),
            ("~ada/models", "~ada/models"),
            ("models/~", "models/~"),
            ("/models", "/models"),
            ("", ""),
        ] {
            assert_eq!(expanded(Path::new(path), Some(home)), Path::new(expected).components().collect::<PathBuf>());
        }
        assert_eq!(expanded(Path::new("~/models"), None), Path::new("~/models"));
    }
}
