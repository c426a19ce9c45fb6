//! Secrets in files of the data folder, which the first start makes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{config::Secret, hex::hex};

/// As [`read_or_make_with`], with a random secret.
pub(super) fn read_or_make(path: &Path) -> io::Result<Secret> {
    read_or_make_with(path, random)
}

/// Reads the secret. If its file does not exist, makes the file with the secret of `make`, and the folder of the file.
/// The file gets its name only when it is complete. If several processes make the file at the same time, one of them
/// succeeds, and the others read its secret.
pub(super) fn read_or_make_with(path: &Path, make: impl FnOnce() -> io::Result<Secret>) -> io::Result<Secret> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        secret => return secret,
    }
    let secret = make()?;
    let draft = path.with_extension(format!("draft.{}", uuid::Uuid::new_v4().simple()));
    let linked = write(&draft, &secret).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return read(path),
        linked => linked.and(removed)?,
    }
    tracing::info!(path = %path.display(), "a secret is made");
    Ok(secret)
}

/// Writes a new file with its final mode, so that other users cannot read it even for a moment.
fn write(path: &Path, secret: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret.expose().as_bytes())?;
    file.sync_all()
}

/// A secret of 32 random bytes.
pub(super) fn random() -> io::Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret::new(hex(bytes)))
}

pub(super) fn read(path: &Path) -> io::Result<Secret> {
    fs::read_to_string(path).map(|text| Secret::new(text.trim()))
}
