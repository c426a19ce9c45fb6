//! Reads the parts of a GGUF header one after the other, in pieces of bounded length.

use std::io;

use crate::weights::FileContent;

/// The longest header in bytes. The longest part of published headers are the words of a tokenizer, of at most 8 MiB.
const LONGEST: usize = 64 << 20;

/// The longest text that is read, in bytes.
const LONGEST_TEXT: u64 = 1 << 16;

/// Bytes that are read from the file at a time.
const WINDOW: usize = 1 << 16;

/// The numbers of the types of metadata.
pub(super) const U32: u32 = 4;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// A place in the header.
pub(super) struct Reader<'a> {
    file: &'a FileContent,
    at: usize,
    /// Bytes of the file from `window_at` on.
    window: Vec<u8>,
    window_at: usize,
    /// Why the file could not be read.
    pub failed: Option<io::Error>,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a FileContent) -> Self {
        let mut reader = Self { file, at: 0, window: Vec::new(), window_at: 0, failed: None };
        reader.fill();
        reader
    }

    /// The first bytes of the file, before anything else is read.
    pub fn first(&self) -> &[u8] {
        &self.window
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next `N` bytes. `what` names them in errors.
    pub fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            if self.at - self.window_at >= self.window.len() {
                self.fill();
            }
            *byte = *self.window.get(self.at - self.window_at).ok_or_else(|| self.ended(what))?;
            self.at += 1;
        }
        Ok(bytes)
    }

    /// The next length or count.
    pub fn length(&mut self, what: &str) -> Result<u64, String> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// The next text.
    pub fn text(&mut self, what: &str) -> Result<String, String> {
        let length = self.length(what)?;
        if length > LONGEST_TEXT {
            return Err(format!("{what} of {length} bytes is longer than {LONGEST_TEXT}"));
        }
        let mut bytes = Vec::new();
        for _ in 0..length {
            let [byte] = self.bytes(what)?;
            bytes.push(byte);
        }
        String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
    }

    /// Skips the value of a metadata entry of this type.
    pub fn skip(&mut self, kind: u32, key: &str) -> Result<(), String> {
        if kind != LIST {
            return self.skip_values(kind, 1, key);
        }
        let kind = u32::from_le_bytes(self.bytes(key)?);
        let count = self.length(key)?;
        if kind == LIST {
            return Err(format!("the metadata entry {key:?} has lists of lists, which are not read"));
        }
        self.skip_values(kind, count, key)
    }

    fn skip_values(&mut self, kind: u32, count: u64, key: &str) -> Result<(), String> {
        let size: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            TEXT => {
                // The end of the header ends the loop, because every text has a length of eight bytes.
                for _ in 0..count {
                    let length = self.length(key)?;
                    self.advance(length, key)?;
                }
                return Ok(());
            }
            _ => return Err(format!("the metadata entry {key:?} has the unknown type {kind}")),
        };
        self.advance(count.saturating_mul(size), key)
    }

    fn advance(&mut self, bytes: u64, what: &str) -> Result<(), String> {
        let to = usize::try_from(bytes).ok().and_then(|bytes| self.at.checked_add(bytes));
        self.at = to.filter(|to| *to <= self.end()).ok_or_else(|| self.ended(what))?;
        Ok(())
    }

    fn end(&self) -> usize {
        self.file.len().min(LONGEST)
    }

    fn ended(&self, what: &str) -> String {
        match self.file.len() > LONGEST {
            true => format!("the header is longer than {LONGEST} bytes, or {what} is"),
            false => format!("the file ends within its header, at {what}: it is incomplete"),
        }
    }

    /// Reads the window that begins at the next byte.
    fn fill(&mut self) {
        self.window_at = self.at;
        match self.file.read(self.at..self.end().min(self.at + WINDOW)) {
            Ok(bytes) => self.window = bytes.into_owned(),
            Err(error) => {
                self.window.clear();
                self.failed.get_or_insert(error);
            }
        }
    }
}
