//! The destination of a result (a picture, a sound or a film): a file or standard output.

use std::{
    fmt, fs,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

#[derive(Debug)]
pub(super) enum Output {
    File(PathBuf),
    Stdout,
}

impl Output {
    /// Standard output for `-` and for files that are standard output, such as `/dev/stdout`; otherwise a file.
    pub fn of(path: &Path) -> Output {
        let is_stdout = || {
            let stdout = io::stdout().as_fd().try_clone_to_owned().ok()?;
            let (stdout, file) = (fs::File::from(stdout).metadata().ok()?, fs::metadata(path).ok()?);
            Some((stdout.dev(), stdout.ino()) == (file.dev(), file.ino()))
        };
        match path.as_os_str() == "-" || is_stdout() == Some(true) {
            true => Output::Stdout,
            false => Output::File(path.to_owned()),
        }
    }

    /// Checks that the file can be opened for writing. Changes no file, and removes a file that it has made. Does not
    /// open files such as pipes, because opening a pipe waits for its reader.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn check(&self) -> Result<()> {
        let Output::File(path) = self else { return Ok(()) };
        let is_new = fs::metadata(path).is_err();
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
            return Ok(());
        }
        let opened = fs::File::options().write(true).create(true).truncate(false).open(path);
        opened.with_context(|| format!("cannot write {self}"))?;
        if is_new {
            // If the path is a link, the target of the link is the new file.
            let removed = fs::canonicalize(path).and_then(fs::remove_file);
            removed.with_context(|| format!("cannot remove the file that was made to check {self}"))?;
        }
        Ok(())
    }

    /// Writes the bytes of a result to the output.
    ///
    /// # Errors
    /// The file cannot be written, or nobody reads standard output.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let written = match self {
            Output::File(path) => fs::write(path, bytes),
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
        };
        written.with_context(|| format!("cannot write {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::File(path) => path.display().fmt(f),
            Output::Stdout => f.write_str("standard output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_check_leaves_links_and_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let [new, target, link] = ["new.png", "target.png", "link.png"].map(|name| folder.path().join(name));
        symlink("target.png", &link).unwrap();
        for path in [&new, &link] {
            Output::of(path).check().unwrap();
        }
        assert!(!new.exists() && !target.exists(), "a check made a file");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("target.png"));

        Output::of(&link).write(b"picture").unwrap();
        Output::of(&link).check().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"picture");
    }
}
