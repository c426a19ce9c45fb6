//! Archives of numbered PNG files, which are exact.

use std::io::{Cursor, Write};

use ::zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::{ClipError, Note};
use crate::{Metadata, RgbImage, encode_png};

pub(super) fn encode(frames: &[RgbImage], note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    // Without a time of its own, a file would have the current time if another crate turns on this feature of zip.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: String, bytes: &[u8]| {
        archive.start_file(name, options)?;
        archive.write_all(bytes).map_err(::zip::result::ZipError::from)
    };
    for (index, frame) in frames.iter().enumerate() {
        add(format!("{index:04}.png"), &encode_png(frame, &Metadata::None)?)?;
    }
    if let Some(note) = note {
        add(format!("{}.json", note.property()), note.json().as_bytes())?;
    }
    Ok(archive.finish()?.into_inner())
}
