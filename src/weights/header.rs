//! The header of a safetensors file, read so that no file can make it panic, allocate much or lie about its bytes.

use std::{collections::BTreeMap, fmt, ops::Range};

use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::LoadError;

/// The longest header: fifty times that of the largest diffusion model, and little memory once it is read.
const LONGEST: usize = 16 << 20;

/// The most axes that a tensor has.
const MOST_AXES: usize = 8;

/// The longest name of a tensor, in bytes.
const LONGEST_NAME: usize = 1024;

/// What a file says that it holds. Every range lies inside the file, behind the header, and is as long as type and shape
/// say; no two of them overlap and no byte belongs to none.
#[derive(Debug)]
pub(super) struct Header {
    pub tensors: BTreeMap<String, Info>,
    /// Notes of the program that wrote the file.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Info {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Where its numbers lie in the file, little-endian.
    pub bytes: Range<usize>,
}

impl Header {
    /// Reads the header of `file`, of which nothing behind the header is looked at.
    ///
    /// # Errors
    /// The file is no safetensors file, is cut off, or does not hold what its header says; `path` names it.
    pub fn read(path: &str, file: &[u8]) -> Result<Self, LoadError> {
        read(file).map_err(|reason| LoadError::Safetensors { path: path.into(), reason })
    }
}

fn read(file: &[u8]) -> Result<Header, String> {
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(|| format!("{} bytes are too few", file.len()))?;
    let length = u64::from_le_bytes(*length);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| format!("a header of {length} bytes is longer than {LONGEST}"))?;
    let (json, data) =
        rest.split_at_checked(length).ok_or_else(|| format!("the file ends within its header of {length} bytes"))?;
    let json = std::str::from_utf8(json).map_err(|e| format!("the header is not UTF-8: {e}"))?;
    let Json { tensors, metadata } = serde_json::from_str(json).map_err(|e| format!("the header: {e}"))?;

    let start = file.len() - data.len();
    let mut read = BTreeMap::new();
    for (name, JsonInfo { dtype, shape, data_offsets: (from, to) }) in tensors {
        let broken = |reason: &str| format!("{name}: {reason}");
        if shape.len() > MOST_AXES {
            return Err(broken(&format!("{} axes are more than {MOST_AXES}", shape.len())));
        }
        // An axis of none makes no number of the others small: who multiplies some of them must not overflow.
        let bits = shape.iter().try_fold(dtype.bitsize(), |bits, axis| bits.checked_mul((*axis).max(1)));
        let bits = bits.ok_or_else(|| broken(&format!("the shape {shape:?} is too large")))?;
        let bits = if shape.contains(&0) { 0 } else { bits };
        if to > data.len() || from > to {
            let length = data.len();
            return Err(broken(&format!("the bytes {from} to {to} are not among the {length} of the file")));
        }
        if !bits.is_multiple_of(8) || bits / 8 != to - from {
            return Err(broken(&format!("{dtype:?} of shape {shape:?} are not {} bytes", to - from)));
        }
        read.insert(name, Info { dtype, shape, bytes: start + from..start + to });
    }
    without_gaps(&read, start..file.len())?;
    Ok(Header { tensors: read, metadata })
}

/// The tensors must lie one behind the other and fill the file: a byte that is used twice or never is a sign of a file that
/// was put together wrongly or is meant to be two things at once.
fn without_gaps(tensors: &BTreeMap<String, Info>, data: Range<usize>) -> Result<(), String> {
    let mut by_place: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(name, info)| (name, &info.bytes)).collect();
    by_place.sort_by_key(|(_, bytes)| (bytes.start, bytes.end));
    let mut end = data.start;
    for (name, bytes) in by_place {
        if bytes.start != end {
            let what = if bytes.start < end { "overlap those of another tensor" } else { "leave a gap before them" };
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

    /// Member by member, as a map of JSON would keep only the last of two tensors of one name.
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
