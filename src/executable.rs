//! A digest of the running program, which differs between builds.

use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader},
    sync::LazyLock,
};

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// The SHA-256 of the executable, in hexadecimal digits, or the version if the executable cannot be read. Two builds of
/// one version have different digests. The first call reads the file, which takes about a tenth of a second; a server
/// calls this function when it starts.
pub fn digest() -> &'static str {
    static DIGEST: LazyLock<String> = LazyLock::new(|| {
        of_file().unwrap_or_else(|error| {
            tracing::warn!(%error, "the executable cannot be read, so all builds of one version count as one build");
            env!("CARGO_PKG_VERSION").to_owned()
        })
    });
    &DIGEST
}

fn of_file() -> io::Result<String> {
    // On Linux, this opens the running program also if its file was replaced or deleted.
    let file = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { env::current_exe()? };
    let (mut digest, mut file) = (Sha256::new(), BufReader::new(File::open(file)?));
    while let part @ [_, ..] = file.fill_buf()? {
        digest.update(part);
        let read = part.len();
        file.consume(read);
    }
    Ok(hex(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_file() {
        let file = std::fs::read(env::current_exe().unwrap()).unwrap();
        let expected = hex(Sha256::digest(file));
        assert_eq!(digest(), expected);
    }
}
