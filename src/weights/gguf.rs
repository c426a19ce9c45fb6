//! The header of a GGUF file, checked so that no file causes a panic, a large allocation or a wrong byte range.
//!
//! A GGUF file has a magic number, a version, the number of tensors and the number of metadata entries. Then follow the
//! metadata (keys with typed values), the names, shapes, types and places of the tensors, and the numbers, all
//! little-endian. The reader reads only the alignment of the metadata.

pub(super) mod names;
mod reader;

use std::collections::BTreeMap;

use safetensors::Dtype;

use self::reader::Reader;
use super::{
    FileContent, LoadError,
    header::{Header, Info, LONGEST_NAME, is_pointer},
    number_type::NumberType,
};
use crate::kernels::format::Format;

/// The first bytes of a file.
const MAGIC: &[u8] = b"GGUF";

/// The versions that are read. Version 1 had shorter lengths; no published file has this version.
const VERSIONS: [u32; 2] = [2, 3];

/// The largest numbers of tensors and of metadata entries: ten times the numbers of the largest model known.
const MOST: u64 = 100_000;

/// The largest number of axes of a tensor in ggml.
const MOST_AXES: u32 = 4;

/// The alignment of tensors in bytes if the metadata has no alignment, and the largest alignment that is accepted.
const ALIGNMENT: u64 = 32;
const LARGEST_ALIGNMENT: u64 = 1 << 16;

/// Whether a path names a GGUF file.
pub(super) fn is_gguf(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("gguf"))
}

/// Reads the header of `file`, and nothing after it. `path` names the file in errors. The shapes are in the order of
/// safetensors, which is the reverse of GGUF's.
///
/// # Errors
/// The file is not a GGUF file, is cut off, does not match its header, or has numbers of a type that is not read.
pub(super) fn read(path: &str, file: &FileContent) -> Result<Header, LoadError> {
    let mut reader = Reader::new(file);
    let header = parse(&mut reader, file.len());
    // A failure of the disk also ends the header early, so such a failure is reported first.
    if let Some(source) = reader.failed {
        return Err(LoadError::Read { path: path.into(), source });
    }
    header.map_err(|fault| match fault {
        Fault::Pointer => LoadError::LfsPointer { path: path.into() },
        Fault::Broken(reason) => LoadError::Gguf { path: path.into(), reason },
    })
}

enum Fault {
    /// A Git LFS pointer.
    Pointer,
    Broken(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

fn parse(reader: &mut Reader<'_>, length: usize) -> Result<Header, Fault> {
    if is_pointer(reader.first()) {
        return Err(Fault::Pointer);
    }
    let magic: [u8; 4] = reader.bytes("its first four bytes")?;
    if magic != MAGIC {
        return Err(Fault::Broken("it does not begin with GGUF".into()));
    }
    let version = u32::from_le_bytes(reader.bytes("its version")?);
    if !VERSIONS.contains(&version) {
        let order = if version.swap_bytes() < 16 { " in the order of big-endian processors" } else { "" };
        return Err(Fault::Broken(format!("its version is {version}{order}; 2 and 3 are read")));
    }
    let (tensors, entries) =
        (reader.length("the number of tensors")?, reader.length("the number of metadata entries")?);
    if let Some(many) = [tensors, entries].into_iter().find(|count| *count > MOST) {
        return Err(Fault::Broken(format!("{many} tensors or metadata entries are more than {MOST}")));
    }
    let mut alignment = ALIGNMENT;
    for _ in 0..entries {
        let key = reader.text("a key of the metadata")?;
        let kind = u32::from_le_bytes(reader.bytes("the type of a metadata entry")?);
        match (key.as_str(), kind) {
            ("general.alignment", reader::U32) => {
                alignment = u32::from_le_bytes(reader.bytes("the alignment")?).into();
            }
            _ => reader.skip(kind, &key)?,
        }
    }
    if !(1..=LARGEST_ALIGNMENT).contains(&alignment) {
        return Err(Fault::Broken(format!(
            "an alignment of {alignment} bytes is not between 1 and {LARGEST_ALIGNMENT}"
        )));
    }
    let mut read = BTreeMap::new();
    for _ in 0..tensors {
        let name = reader.text("the name of a tensor")?;
        let (info, offset) = tensor(reader).map_err(|reason| format!("{name}: {reason}"))?;
        if name.len() > LONGEST_NAME {
            return Err(Fault::Broken(format!("a name of {} bytes is longer than {LONGEST_NAME}", name.len())));
        }
        if read.insert(name.clone(), (info, offset)).is_some() {
            return Err(Fault::Broken(format!("{name} occurs twice")));
        }
    }
    let start = (reader.at() as u64).next_multiple_of(alignment);
    let tensors = placed(read, start, length as u64, alignment)?;
    Ok(Header { tensors, metadata: BTreeMap::new() })
}

/// Reads the shape, the type and the place of a tensor. For now, the range of bytes begins at 0 and has the right
/// length; [`placed`] moves it to its place.
fn tensor(reader: &mut Reader<'_>) -> Result<(Info, u64), String> {
    let axes = u32::from_le_bytes(reader.bytes("the number of axes")?);
    if axes > MOST_AXES {
        return Err(format!("{axes} axes are more than {MOST_AXES}"));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let axis = u64::from_le_bytes(reader.bytes("an axis")?);
        shape.push(usize::try_from(axis).map_err(|_| format!("an axis of {axis} is too long"))?);
    }
    shape.reverse();
    let dtype = number_type(u32::from_le_bytes(reader.bytes("the type of a tensor")?))?;
    let offset = u64::from_le_bytes(reader.bytes("the place of a tensor")?);
    // Axes of length 0 count as 1 in this product. So if this product does not overflow, no later product of some of
    // the axes overflows.
    let numbers = shape.iter().try_fold(1usize, |numbers, axis| numbers.checked_mul((*axis).max(1)));
    let numbers = numbers.ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    let (width, is_empty) = (shape.last().copied().unwrap_or(1), shape.contains(&0));
    let bytes = match dtype {
        NumberType::Plain(dtype) => numbers.checked_mul(dtype.bitsize() / 8),
        NumberType::Quantized(format) if !width.is_multiple_of(format.block().0) => {
            return Err(format!("rows of {width} numbers are no whole blocks of {}", format.block().0));
        }
        NumberType::Quantized(format) => format.bytes(numbers),
    };
    let bytes = if is_empty { Some(0) } else { bytes };
    let bytes = bytes.ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    Ok((Info { dtype, shape, bytes: 0..bytes, scale: None }, offset))
}

/// The types by ggml's numbers.
fn number_type(number: u32) -> Result<NumberType, String> {
    Ok(match number {
        0 => NumberType::Plain(Dtype::F32),
        1 => NumberType::Plain(Dtype::F16),
        2 => NumberType::Quantized(Format::Q4_0),
        3 => NumberType::Quantized(Format::Q4_1),
        6 => NumberType::Quantized(Format::Q5_0),
        7 => NumberType::Quantized(Format::Q5_1),
        8 => NumberType::Quantized(Format::Q8_0),
        10 => NumberType::Quantized(Format::Q2K),
        11 => NumberType::Quantized(Format::Q3K),
        12 => NumberType::Quantized(Format::Q4K),
        13 => NumberType::Quantized(Format::Q5K),
        14 => NumberType::Quantized(Format::Q6K),
        24 => NumberType::Plain(Dtype::I8),
        25 => NumberType::Plain(Dtype::I16),
        26 => NumberType::Plain(Dtype::I32),
        27 => NumberType::Plain(Dtype::I64),
        28 => NumberType::Plain(Dtype::F64),
        30 => NumberType::Plain(Dtype::BF16),
        _ => {
            let read = "F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, Q3_K and Q2_K";
            return Err(format!("numbers of ggml's type {number} are not read; these are: {read}"));
        }
    })
}

/// Moves the tensors to their places in the file, and checks that they follow each other, with nothing but alignment
/// between them, and fill the file. If two tensors share a byte, or if bytes belong to no tensor, the file may have
/// been put together wrongly, or made so that two programs read it differently.
fn placed(
    tensors: BTreeMap<String, (Info, u64)>,
    start: u64,
    length: u64,
    alignment: u64,
) -> Result<BTreeMap<String, Info>, String> {
    let mut by_place: Vec<(String, (Info, u64))> = tensors.into_iter().collect();
    by_place.sort_by_key(|(_, (info, offset))| (*offset, info.bytes.len()));
    let mut end = start;
    let mut placed = BTreeMap::new();
    for (name, (info, offset)) in by_place {
        let bytes = info.bytes.len() as u64;
        let first = start.checked_add(offset).filter(|first| first.checked_add(bytes).is_some_and(|end| end <= length));
        let first = first
            .ok_or_else(|| format!("{name}: {bytes} bytes from {offset} on are not in the file: it is incomplete"))?;
        if first < end {
            return Err(format!("{name}: its bytes overlap another tensor or the header"));
        }
        if first - end >= alignment {
            return Err(format!("{name}: its bytes leave a gap before them"));
        }
        end = first + bytes;
        let range = usize::try_from(first).and_then(|first| Ok(first..usize::try_from(end)?));
        let bytes = range.map_err(|_| format!("{name}: the file is too long"))?;
        placed.insert(name, Info { bytes, ..info });
    }
    match length.saturating_sub(end) {
        rest if rest >= alignment => Err(format!("{rest} bytes at the end belong to no tensor")),
        _ => Ok(placed),
    }
}
