//! Records which generation has made a process abort, so that the next process does not run the generation again.
//!
//! A stack overflow or a failed allocation aborts the process with SIGABRT, on the thread that was computing. Threads
//! declare with [`blame`] for which attempt they work. The SIGABRT handler appends this attempt to a file, which the
//! next process reads with [`CrashFile::attempts`]. Other ends, such as SIGKILL, write nothing, because they tell
//! nothing about the generation. The handler needs a code of Linux (SI_TKILL) that tells a signal of abort(3) from a
//! signal of another process. On other systems, no handler is installed, and an abort counts like any other crash.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::generation::GenerationId;

/// One attempt to run a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub id: GenerationId,
    /// The fence of the attempt's lease; each new attempt has a larger one.
    pub fence: i64,
}

thread_local! {
    /// The attempt for which this thread works. It has no destructor, so the signal handler may read it at any time.
    static BLAMED: Cell<Option<Attempt>> = const { Cell::new(None) };
}

/// Runs `work`. If this thread aborts the process meanwhile, `attempt` is blamed. Calls may be nested.
pub fn blame<T>(attempt: Option<Attempt>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Attempt>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BLAMED.set(self.0);
        }
    }
    let _restore = Restore(BLAMED.replace(attempt));
    work()
}

/// The file of blamed attempts in the data folder. Several processes may share it.
#[derive(Debug)]
pub struct CrashFile {
    path: PathBuf,
    file: File,
}

/// An attempt in the file: the 16 bytes of the id, then the fence, little-endian.
type Entry = [u8; 24];

impl CrashFile {
    /// Opens the file in `folder`, which must exist, and creates the file if it does not exist.
    ///
    /// # Errors
    /// The file cannot be created or opened.
    pub fn open(folder: &Path) -> io::Result<CrashFile> {
        let path = folder.join("latentd.aborted");
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        Ok(CrashFile { path, file })
    }

    /// The attempts blamed for aborts since the last [`CrashFile::clear`]. An incomplete entry at the end is skipped.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn attempts(&self) -> io::Result<Vec<Attempt>> {
        let bytes = std::fs::read(&self.path)?;
        Ok(bytes.as_chunks().0.iter().map(Attempt::of).collect())
    }

    /// Removes all entries.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Installs the SIGABRT handler. From now on, an abort of this process appends the blamed attempt to the file.
    ///
    /// # Errors
    /// The system rejects the handler.
    #[cfg(target_os = "linux")]
    pub fn arm(self) -> io::Result<()> {
        use std::io::Write;

        let file = self.file;
        let note = move |signal: &libc::siginfo_t| {
            // abort(3) raises SIGABRT with the code SI_TKILL, and ends the process after this handler. A SIGABRT of
            // another process has another code and reaches any thread, so the attempt of this thread is not to blame.
            // After such a signal, the process would continue, so the handler ends the process.
            if signal.si_code != libc::SI_TKILL {
                BLAMED.set(None);
                std::process::abort();
            }
            if let Some(attempt) = BLAMED.get() {
                // The handler cannot report an error, such as a full disk.
                let _ = (&file).write_all(&attempt.entry());
            }
        };
        // SAFETY: The closure does only what a signal handler may do: it uses a thread-local value that needs neither
        // initialization nor a destructor, and calls write(2) and abort(3). It takes no lock, allocates nothing and
        // does not panic.
        #[allow(unsafe_code, reason = "a handler of signals")]
        unsafe { signal_hook_registry::register_sigaction(libc::SIGABRT, note) }.map(drop)
    }

    /// Does nothing, because this system lacks SI_TKILL.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(target_os = "linux"))]
    pub fn arm(self) -> io::Result<()> {
        Ok(())
    }
}

impl Attempt {
    #[cfg(any(target_os = "linux", test))]
    fn entry(self) -> Entry {
        let mut entry = Entry::default();
        entry[..16].copy_from_slice(self.id.as_bytes());
        entry[16..].copy_from_slice(&self.fence.to_le_bytes());
        entry
    }

    fn of(entry: &Entry) -> Attempt {
        let id = std::array::from_fn(|i| entry[i]);
        let fence = std::array::from_fn(|i| entry[16 + i]);
        Attempt { id: GenerationId::from_bytes(id), fence: i64::from_le_bytes(fence) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_blamed_attempt_is_restored_also_after_a_panic() {
        let attempt = |fence| Some(Attempt { id: GenerationId::new(), fence });
        let (outer, inner) = (attempt(1), attempt(2));
        blame(outer, || {
            let panicked = std::panic::catch_unwind(|| blame(inner, || panic!("{:?}", BLAMED.get())));
            assert!(panicked.unwrap_err().downcast_ref::<String>().unwrap().contains("fence: 2"));
            assert_eq!(BLAMED.get(), outer);
        });
        assert_eq!(BLAMED.get(), None);
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = CrashFile::open(folder.path()).unwrap();
        assert_eq!(file.attempts().unwrap(), []);
        let attempts = [1, i64::MAX, 3].map(|fence| Attempt { id: GenerationId::new(), fence });
        for attempt in &attempts[..2] {
            (&file.file).write_all(&attempt.entry()).unwrap();
        }
        (&file.file).write_all(&attempts[2].entry()[..23]).unwrap();
        assert_eq!(CrashFile::open(folder.path()).unwrap().attempts().unwrap(), attempts[..2]);
        file.clear().unwrap();
        (&file.file).write_all(&attempts[2].entry()).unwrap();
        assert_eq!(file.attempts().unwrap(), attempts[2..]);
    }
}
