//! The header of a safetensors file, checked so that no file causes a panic, a large allocation or a wrong byte range.

use std::{collections::BTreeMap, fmt, ops::Range};

use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{FileContent, LoadError, number_type::NumberType};

/// The longest header in bytes: fifty times the length of the header of the largest diffusion model, but still little
/// memory.
const LONGEST: usize = 16 << 20;

/// The largest number of axes of a tensor.
const MOST_AXES: usize = 8;

/// The longest name of a tensor, in bytes.
pub(super) const LONGEST_NAME: usize = 1024;

/// The tensors that a file declares. Every range lies inside the file, after the header, and is as long as type and
/// shape say. The ranges do not overlap and leave no gaps.
#[derive(Debug)]
pub(super) struct Header {
    pub tensors: BTreeMap<String, Info>,
    /// Notes of the program that wrote the file (`__metadata__`).
    pub metadata: BTreeMap<String, String>,
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct Info {
    pub dtype: NumberType,
    pub shape: Vec<usize>,
    /// The range of the file that contains the tensor's numbers, which are little-endian.
    pub bytes: Range<usize>,
    /// The range of the file with the float32 by which the numbers are multiplied (see the module `scales`).
    pub scale: Option<Range<usize>>,
}

impl Header {
    /// Reads the header of `file`, and nothing after it. `path` names the file in errors.
    ///
    /// # Errors
    /// The file is not a safetensors file, is cut off, or does not match its header.
    pub fn read(path: &str, file: &FileContent) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Read { path: path.into(), source };
        let broken = |reason: String| LoadError::Safetensors { path: path.into(), reason };
        let first = file.read(0..file.len().min(FIRST)).map_err(unreadable)?;
        if is_pointer(&first) {
            return Err(LoadError::LfsPointer { path: path.into() });
        }
        let length = json_length(&first).map_err(broken)?;
        if length > file.len() - 8 {
            return Err(broken(format!("the file ends within its header of {length} bytes: it is incomplete")));
        }
        let json = file.read(8..8 + length).map_err(unreadable)?;
        parse(&json, 8 + length..file.len()).map_err(broken)
    }

    /// As [`Header::read`], for a file in memory.
    ///
    /// # Errors
    /// Those of [`Header::read`], except the error that the file cannot be read.
    pub fn of_bytes(path: &str, file: &[u8]) -> Result<Self, LoadError> {
        let broken = |reason: String| LoadError::Safetensors { path: path.into(), reason };
        if is_pointer(file) {
            return Err(LoadError::LfsPointer { path: path.into() });
        }
        let length = json_length(file).map_err(broken)?;
        let json = file.get(8..8 + length);
        let json =
            json.ok_or_else(|| broken(format!("the file ends within its header of {length} bytes: it is incomplete")))?;
        parse(json, 8 + length..file.len()).map_err(broken)
    }
}

/// Checks that a file is a safetensors file and matches its header. Nothing after the header is read. `path` names the
/// file in errors.
///
/// # Errors
/// The file is not a safetensors file, is cut off, or does not match its header.
pub fn check(path: &str, file: &FileContent) -> Result<(), LoadError> {
    Header::read(path, file).map(drop)
}

/// The number of bytes at the start of a file that tell what kind of file it is.
const FIRST: usize = 64;

/// The beginnings of Git LFS pointers: small texts in place of files whose content was not fetched. The last two
/// beginnings come from earlier versions of Git LFS, which had other names.
const POINTERS: [&[u8]; 3] = [
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
    b"version http://git-media.io/v/",
];

/// The mark that some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether a file that starts with these bytes is a Git LFS pointer.
pub(super) fn is_pointer(first: &[u8]) -> bool {
    let text = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(first);
    POINTERS.iter().any(|pointer| text.starts_with(pointer))
}

/// The length of the JSON text, which the first eight bytes of the file contain as a number.
fn json_length(first: &[u8]) -> Result<usize, String> {
    let length = first.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    match length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= LONGEST) {
        Some(length) => Ok(length),
        None => Err(foreign(first).map_or_else(
            || match length {
                None => format!("{} bytes are too few", first.len()),
                Some(length) => format!("a header of {length} bytes is longer than {LONGEST}"),
            },
            |kind| format!("it is {kind}"),
        )),
    }
}

/// The kind of a file that is no safetensors file, judged by its first bytes, and advice for the user.
fn foreign(first: &[u8]) -> Option<&'static str> {
    let text = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(first).trim_ascii_start();
    let starts = |with: &[u8]| first.starts_with(with);
    Some(match () {
        () if text.starts_with(b"<") => {
            "a web page, such as a login or error page that was saved in place of the file; download the file itself"
        }
        () if text.starts_with(b"{") || text.starts_with(b"[") => {
            "a JSON text, such as an error message that was saved in place of the file; download the file itself"
        }
        () if starts(b"GGUF") => "a GGUF file with another name; a name that ends with .gguf is right for it",
        () if starts(b"PK\x03\x04") => {
            "a zip archive, such as a pickle that torch.save wrote, with another name; unpack it, or convert the pickle"
        }
        () if starts(b"\x80") && matches!(first.get(1), Some(2..=5)) => {
            "a pickle with another name, which can run code when it is read; convert it to safetensors"
        }
        () if starts(b"\x1f\x8b") || starts(b"7z\xbc\xaf") || starts(b"Rar!") => "a packed file; unpack it",
        () if starts(b"\x89HDF") => "an HDF5 file with another name; only safetensors files are read",
        () => return None,
    })
}

/// Parses the header of a file whose numbers are in the range `data`.
fn parse(json: &[u8], data: Range<usize>) -> Result<Header, String> {
    let json = std::str::from_utf8(json).map_err(|e| format!("the header is not UTF-8: {e}"))?;
    let Json { tensors, metadata } = serde_json::from_str(json).map_err(|e| format!("the header: {e}"))?;
    let start = data.start;
    let mut read = BTreeMap::new();
    for (name, JsonInfo { dtype, shape, data_offsets: (from, to) }) in tensors {
        let broken = |reason: &str| format!("{name}: {reason}");
        if shape.len() > MOST_AXES {
            return Err(broken(&format!("{} axes are more than {MOST_AXES}", shape.len())));
        }
        // Axes of length 0 count as 1 in this product. So if this product does not overflow, no later product of some
        // of the axes overflows.
        let bits = shape.iter().try_fold(dtype.bitsize(), |bits, axis| bits.checked_mul((*axis).max(1)));
        let bits = bits.ok_or_else(|| broken(&format!("the shape {shape:?} is too large")))?;
        let bits = if shape.contains(&0) { 0 } else { bits };
        if to > data.len() || from > to {
            let length = data.len();
            let reason =
                format!("the bytes {from} to {to} are not within its {length} bytes of numbers: it is incomplete");
            return Err(broken(&reason));
        }
        if !bits.is_multiple_of(8) || bits / 8 != to - from {
            return Err(broken(&format!("{dtype:?} of shape {shape:?} are not {} bytes", to - from)));
        }
        let (dtype, bytes) = (NumberType::Plain(dtype), start + from..start + to);
        read.insert(name, Info { dtype, shape, bytes, scale: None });
    }
    without_gaps(&read, data)?;
    Ok(Header { tensors: read, metadata })
}

/// Checks that the tensors follow each other and fill the file. If two tensors share a byte, or if a byte belongs to no
/// tensor, the file may have been put together wrongly, or made so that two programs read it differently.
fn without_gaps(tensors: &BTreeMap<String, Info>, data: Range<usize>) -> Result<(), String> {
    let mut by_place: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(name, info)| (name, &info.bytes)).collect();
    by_place.sort_by_key(|(_, bytes)| (bytes.start, bytes.end));
    let mut end = data.start;
    for (name, bytes) in by_place {
        if bytes.start != end {
            let what = if bytes.start < end { "overlap another tensor" } else { "leave a gap before them" };
            return Err(format!("{name}: its bytes {what}"));
        }
        end = bytes.end;
    }
    if end == data.end { Ok(()) } else { Err(format!("{} bytes at the end belong to no tensor", data.end - end)) }
}

struct Json {
    tensors: BTreeMap<String, JsonInfo>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct JsonInfo {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    /// Reads member by member: a JSON map would keep only the last of two tensors with the same name.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut json = Json { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
        while let Some(name) = members.next_key::<String>()? {
            if name == "__metadata__" {
                json.metadata = members.next_value::<Option<_>>()?.unwrap_or_default();
                continue;
            }
            if name.len() > LONGEST_NAME {
                return Err(A::Error::custom(format_args!(
                    "a name of {} bytes is longer than {LONGEST_NAME}",
                    name.len()
                )));
            }
            let info = members.next_value().map_err(|e| A::Error::custom(format_args!("{name}: {e}")))?;
            if json.tensors.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{name} occurs twice")));
            }
            json.tensors.insert(name, info);
        }
        Ok(json)
    }
}
