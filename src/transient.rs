//! Tells transient errors of file operations, such as a lack of file descriptors, from errors of the file itself.

use std::io;

use rustix::io::Errno;

/// Whether a system call failed for lack of file descriptors or memory, or because a disk or a network file system did
/// not answer. The same call may succeed later.
pub fn is_transient(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::IO,
        Errno::STALE,
        Errno::TIMEDOUT,
        Errno::AGAIN,
        Errno::INTR,
    ]
    .contains(&errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_file_are_not_transient() {
        let is_transient = |errno: Errno| is_transient(&errno.into());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::IO] {
            assert!(is_transient(errno), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::ISDIR, Errno::NOSPC, Errno::ROFS, Errno::NAMETOOLONG] {
            assert!(!is_transient(errno), "{errno}");
        }
        assert!(!super::is_transient(&io::Error::other("no number")));
    }
}
