//! The tensors of a component, as floats on a device.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    sync::Arc,
};

use candle_core::{DType, Tensor};
use parking_lot::{Mutex, MutexGuard};
use rayon::prelude::*;
use safetensors::Dtype;

use super::{
    FileContent, LoadError, ModelFolder,
    build_report::BuildReport,
    header::{Header, Info},
    ldm::Part,
    original::{self, Original, TensorPart},
    shards,
};
use crate::{
    device::{Device, HOST, Precision},
    kernels::Kernels,
};

/// The tensors of one component by diffusers name, as float32 on a device unless [`Weights::in_precision`] says
/// otherwise, and the kernels of the layers that are built from them. Cheap to clone; [`Weights::pp`] enters a scope.
///
/// No request fails on its own: a tensor that is missing or of another shape is noted and replaced by zeros that take
/// no memory, and [`Weights::finish`] reports all faults together.
#[derive(Clone)]
pub struct Weights {
    source: Arc<Source>,
    prefix: String,
    note: Option<String>,
    precision: Precision,
}

struct Source {
    component: String,
    device: Device,
    zero: Tensor,
    /// The files, with their names in errors.
    files: Vec<(String, FileContent)>,
    /// The tensors of the files, by name. `None` for [`Weights::outline`], which has every tensor that is requested.
    entries: Option<HashMap<String, Entry>>,
    report: Mutex<BuildReport>,
    /// Whether numbers are read; otherwise, only names, shapes and types are compared.
    reads: bool,
}

/// A tensor of a file, or a part of such a tensor.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    file: usize,
    dtype: Dtype,
    /// The shape that the network uses.
    pub shape: Vec<usize>,
    bytes: Range<usize>,
    /// Whether the file has the matrix transposed.
    transposed: bool,
    /// Whether the file has the two halves of the numbers in the opposite order.
    is_swapped: bool,
}

impl Entry {
    /// A whole tensor of the first file.
    pub fn whole(info: &Info) -> Self {
        let (shape, bytes) = (info.shape.clone(), info.bytes.clone());
        Self { file: 0, dtype: info.dtype, shape, bytes, transposed: false, is_swapped: false }
    }

    /// A part of a tensor of the first file; `None` if its shape cannot be divided in this way.
    pub fn part(info: &Info, part: &Part) -> Option<Self> {
        let whole = Self::whole(info);
        if part.transposed {
            let [inputs, outputs] = info.shape[..] else { return None };
            return Some(Self { shape: vec![outputs, inputs], transposed: true, ..whole });
        }
        let (i, of) = part.of;
        let first = *info.shape.first()?;
        if !first.is_multiple_of(of) || !info.bytes.len().is_multiple_of(of) {
            return None;
        }
        let mut shape = info.shape.clone();
        shape[0] = first / of;
        let length = info.bytes.len() / of;
        let start = info.bytes.start + i * length;
        Some(Self { shape, bytes: start..start + length, ..whole })
    }
}

impl Weights {
    /// Opens `component/stem.safetensors`, in one file or in shards (see the module `shards` for the order of search).
    /// If the folder stands for a single-file checkpoint, `stem` is ignored.
    ///
    /// `rename` maps the name and shape of a tensor in the file to the name and shape that the network uses.
    ///
    /// # Errors
    /// A file is missing or broken, or two tensors have the same name.
    pub fn open(
        folder: &ModelFolder,
        component: &str,
        stem: &str,
        device: &Device,
        rename: impl Fn(&str, &[usize]) -> (String, Vec<usize>),
    ) -> Result<Self, LoadError> {
        if let Some(single) = folder.single_file() {
            let renamed = single.tensors(component)?.iter().map(|(name, entry)| {
                let (name, shape) = rename(name, &entry.shape);
                (name, Entry { shape, ..entry.clone() })
            });
            let files = vec![(single.path().to_owned(), single.content()?)];
            return Self::new(component, device, files, Some(renamed.collect()));
        }
        let mut files = Vec::new();
        let mut entries = HashMap::new();
        let shards::Found { paths, note } = shards::find(folder, component, stem)?;
        for path in paths {
            let broken = |reason: String| LoadError::Safetensors { path: path.clone(), reason };
            let file = folder.file(&path)?;
            let tensors = Header::read(&path, &file)?.tensors;
            let names = Original::of(tensors.keys());
            for (name, info) in tensors {
                let parts = names.and_then(|names| original::tensor_parts(names, &name, &info));
                let parts = parts.unwrap_or_else(|| {
                    let (name, shape) = rename(&name, &info.shape);
                    vec![TensorPart { name, shape, bytes: info.bytes.clone(), is_swapped: false }]
                });
                for TensorPart { name: known_as, shape, bytes, is_swapped } in parts {
                    let entry = Entry { file: files.len(), shape, bytes, is_swapped, ..Entry::whole(&info) };
                    if entries.insert(known_as, entry).is_some() {
                        return Err(broken(format!("{name} occurs twice")));
                    }
                }
            }
            files.push((path, file));
        }
        Ok(Self { note, ..Self::new(component, device, files, Some(entries))? })
    }

    /// Weights without files, in which every tensor exists and is zero without taking memory. [`Weights::requested`]
    /// then lists the tensors of a network that was built on them.
    pub fn outline(component: &str) -> Self {
        Self::new(component, &Device::host(), Vec::new(), None).expect("a single zero fits into memory")
    }

    /// Checks that names, shapes and types are those of the network that `build` makes. No numbers are read.
    ///
    /// # Errors
    /// Those of [`Weights::finish`].
    pub fn check(self, build: impl FnOnce(&Self)) -> Result<(), LoadError> {
        let weights = self.without_numbers();
        build(&weights);
        weights.finish()
    }

    /// The same weights, but the numbers of the files are not read: every tensor is zeros that take no memory.
    fn without_numbers(self) -> Self {
        // If another clone of these weights exists, the numbers are read after all, which has the same result but is
        // slower.
        let source = Arc::try_unwrap(self.source).map(|source| Arc::new(Source { reads: false, ..source }));
        Self { source: source.unwrap_or_else(|shared| shared), ..self }
    }

    fn new(
        component: &str,
        device: &Device,
        files: Vec<(String, FileContent)>,
        entries: Option<HashMap<String, Entry>>,
    ) -> Result<Self, LoadError> {
        let zero = Tensor::zeros((), DType::F32, device.candle())?;
        let component = component.to_owned();
        let report = Mutex::default();
        let source = Arc::new(Source { component, device: device.clone(), zero, files, entries, report, reads: true });
        Ok(Self { source, prefix: String::new(), note: None, precision: Precision::F32 })
    }

    /// The same weights, in which tensors have this precision.
    pub fn in_precision(&self, precision: Precision) -> Self {
        Self { precision, ..self.clone() }
    }

    /// The precision of the tensors.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A note for users on the choice of the files.
    pub fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// The kernels that layers are built with.
    pub fn kernels(&self) -> Kernels {
        self.source.device.kernels()
    }

    /// The weights in the scope `prefix.part`.
    pub fn pp(&self, part: impl fmt::Display) -> Self {
        Self { source: self.source.clone(), prefix: self.name(part), note: None, precision: self.precision }
    }

    /// The path of a layer in its model, which adapters use as the layer's name: the component and the scope, without
    /// transformers' `text_model`, which only some files have.
    pub fn path(&self) -> Arc<str> {
        let scope = self.prefix.strip_prefix("text_model.").unwrap_or(&self.prefix);
        format!("{}.{scope}", self.source.component).into()
    }

    /// Whether any tensor of this scope has a name that starts with `start`. An outline has every tensor.
    pub fn has_any(&self, start: &str) -> bool {
        let start = self.name(start);
        self.source.entries.as_ref().is_none_or(|entries| entries.keys().any(|name| name.starts_with(&start)))
    }

    /// Allows the tensors of this scope whose names start with `start` to be unused.
    pub fn leave(&self, start: &str) {
        let start = self.name(start);
        self.report().left.push(start);
    }

    /// A tensor in the layout of the file.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Tensor {
        self.get(name, shape, shape, LayOut::AsStored)
    }

    /// Zeros that take no memory, in place of a tensor that the network does not have, such as a bias.
    pub fn zeros(&self, shape: &[usize]) -> Tensor {
        let zero = self.source.zero.to_dtype(self.precision.dtype());
        zero.and_then(|zero| zero.broadcast_as(shape)).expect("a scalar converts, and broadcasts to every shape")
    }

    /// A matrix that is stored as (out, in), returned as (in, out) so that `x · matrix` reads it row by row.
    pub fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Tensor {
        self.get(name, &[outputs, inputs], &[inputs, outputs], LayOut::Transposed { outputs, inputs, places: 1 })
    }

    /// A convolution's weight that is stored as (out, in, kh, kw), returned as (kh·kw·in, out) for channels-last
    /// patches.
    pub fn conv2d(&self, name: &str, outputs: usize, inputs: usize, kernel: (usize, usize)) -> Tensor {
        let (kh, kw) = kernel;
        let transposed = LayOut::Transposed { outputs, inputs, places: kh * kw };
        self.get(name, &[outputs, inputs, kh, kw], &[kh * kw * inputs, outputs], transposed)
    }

    /// The names and shapes of all tensors of the files; empty for an outline.
    pub fn stored(&self) -> BTreeMap<String, Vec<usize>> {
        let entries = self.source.entries.iter().flatten();
        entries.map(|(name, entry)| (name.clone(), entry.shape.clone())).collect()
    }

    /// The names requested so far, with the expected shapes.
    pub fn requested(&self) -> BTreeMap<String, Vec<usize>> {
        self.report().requested.clone()
    }

    /// Ends the load. CLIP's `position_ids`, integers in old files that are not needed, do not count as unused.
    ///
    /// # Errors
    /// Lists every tensor that is missing, unused, of the wrong shape or not a float; or a file cannot be read or has
    /// changed.
    pub fn finish(self) -> Result<(), LoadError> {
        let mut report = std::mem::take(&mut *self.report());
        if let Some(error) = report.failed {
            return Err(error);
        }
        for (path, file) in &self.source.files {
            file.check_unchanged().map_err(|source| LoadError::Read { path: path.clone(), source })?;
        }
        for (name, entry) in self.source.entries.iter().flatten() {
            let left =
                name.ends_with("embeddings.position_ids") || report.left.iter().any(|start| name.starts_with(start));
            if !left && !report.requested.contains_key(name) {
                report.mismatch.unused.push((name.clone(), entry.shape.clone()));
            }
        }
        report.mismatch.sort();
        report.mismatch.component = self.source.component.clone();
        if report.mismatch.is_empty() { Ok(()) } else { Err(Box::new(report.mismatch).into()) }
    }

    fn get(&self, name: &str, expected: &[usize], laid_out: &[usize], how: LayOut) -> Tensor {
        let tensor = self.values(self.name(name), expected, how).and_then(|values| {
            // Converted on the host, so that a GPU needs no memory for float32.
            let made = Tensor::from_vec(values, laid_out, &HOST).and_then(|made| made.to_dtype(self.precision.dtype()));
            let made = made.and_then(|made| made.to_device(self.source.device.candle()));
            made.map_err(|error| self.fail(error.into())).ok()
        });
        tensor.unwrap_or_else(|| self.zeros(laid_out))
    }

    fn values(&self, name: String, expected: &[usize], how: LayOut) -> Option<Vec<f32>> {
        self.report().requested.insert(name.clone(), expected.to_vec());
        let Some(entry) = self.source.entries.as_ref()?.get(&name) else {
            self.report().mismatch.missing.push((name, expected.to_vec()));
            return None;
        };
        if entry.shape != expected {
            self.report().mismatch.misshapen.push((name, expected.to_vec(), entry.shape.clone()));
            return None;
        }
        if !is_float(entry.dtype) {
            self.report().mismatch.not_float.push((name, format!("{:?}", entry.dtype)));
            return None;
        }
        if !self.source.reads {
            return None;
        }
        // The report is not locked here, so that several threads can read tensors at the same time.
        let (path, file) = &self.source.files[entry.file];
        let bytes = match file.read(entry.bytes.clone()) {
            Ok(bytes) if entry.is_swapped => {
                let mut bytes = bytes.into_owned();
                let half = bytes.len() / 2;
                bytes.rotate_left(half);
                Cow::Owned(bytes)
            }
            Ok(bytes) => bytes,
            Err(source) => {
                self.fail(LoadError::Read { path: path.clone(), source });
                return None;
            }
        };
        let values = match entry.transposed {
            false => widened(&bytes, entry.dtype, how),
            true => turned_back(&bytes, entry, how),
        }?;
        if let Err(reason) = check_numbers(&values).and_then(|()| check_range(&values, self.precision)) {
            self.fail(LoadError::BadKey { path: path.clone(), key: name, reason });
        }
        Some(values)
    }

    /// Notes why the load fails. The first reason is kept.
    fn fail(&self, error: LoadError) {
        self.report().failed.get_or_insert(error);
    }

    fn name(&self, part: impl fmt::Display) -> String {
        if self.prefix.is_empty() { part.to_string() } else { format!("{}.{part}", self.prefix) }
    }

    fn report(&self) -> MutexGuard<'_, BuildReport> {
        self.source.report.lock()
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({}: {})", self.source.component, self.prefix)
    }
}

/// The order of a tensor's numbers in memory.
#[derive(Clone, Copy)]
enum LayOut {
    AsStored,
    /// Stored as (outputs, inputs, places), laid out as (places, inputs, outputs).
    Transposed {
        outputs: usize,
        inputs: usize,
        places: usize,
    },
}

/// Refuses numbers that are not finite or whose absolute value is above [`LARGEST_NUMBER`], because the output of a
/// network with such numbers would be of no use.
pub(super) fn check_numbers(values: &[f32]) -> Result<(), String> {
    const GRAIN: usize = 1 << 14;
    // The loop over a chunk has no early exit, so that the compiler can use vector instructions. NaN fails the
    // comparison.
    let is_sound = |chunk: &[f32]| chunk.iter().fold(true, |sound, value| sound & (value.abs() <= LARGEST_NUMBER));
    if values.par_chunks(GRAIN).all(is_sound) {
        return Ok(());
    }
    let found = values.iter().find(|value| value.is_nan() || value.abs() > LARGEST_NUMBER).expect("a chunk has one");
    Err(format!("has the number {found:e}; weights are finite and at most {LARGEST_NUMBER:e}"))
}

/// Refuses numbers that the precision does not have.
fn check_range(values: &[f32], precision: Precision) -> Result<(), String> {
    if precision.largest() >= LARGEST_NUMBER {
        return Ok(());
    }
    match values.iter().find(|value| value.abs() > precision.largest()) {
        Some(found) => Err(format!("has the number {found:e}, too large for models.precision {}", precision.name())),
        None => Ok(()),
    }
}

/// Far more than any weight of a trained network: weights are published as float16, whose largest number is 65504.
const LARGEST_NUMBER: f32 = 1e6;

/// The numbers of a tensor in the order of the file; `None` if they are not floats.
pub(super) fn floats(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    widened(bytes, dtype, LayOut::AsStored)
}

/// Whether [`floats`] reads the type.
pub(super) fn is_float(dtype: Dtype) -> bool {
    use Dtype::{BF16, F8_E4M3, F8_E5M2, F16, F32, F64};
    matches!(dtype, F64 | F32 | F16 | BF16 | F8_E4M3 | F8_E5M2)
}

/// Converts little-endian floats to float32, exactly except for float64, which is rounded; `None` for other types. The
/// bytes need not be aligned.
fn widened(bytes: &[u8], dtype: Dtype, how: LayOut) -> Option<Vec<f32>> {
    let ((halves, _), (words, _)) = (bytes.as_chunks::<2>(), bytes.as_chunks::<4>());
    match dtype {
        Dtype::F64 => {
            let (doubles, _) = bytes.as_chunks::<8>();
            Some(how.lay_out(doubles.len(), |i| f64::from_le_bytes(doubles[i]) as f32))
        }
        Dtype::F8_E4M3 => Some(how.lay_out(bytes.len(), |i| e4m3(bytes[i]))),
        // Such a number is the upper byte of a float16: the same sign and exponent, and two bits of the mantissa.
        Dtype::F8_E5M2 => Some(how.lay_out(bytes.len(), |i| half::f16::from_le_bytes([0, bytes[i]]).to_f32())),
        Dtype::F16 => Some(how.lay_out(halves.len(), |i| half::f16::from_le_bytes(halves[i]).to_f32())),
        Dtype::BF16 => Some(how.lay_out(halves.len(), |i| half::bf16::from_le_bytes(halves[i]).to_f32())),
        Dtype::F32 => Some(how.lay_out(words.len(), |i| f32::from_le_bytes(words[i]))),
        _ => None,
    }
}

/// A float with 4 bits of exponent and 3 of mantissa, without infinities (Micikevicius et al. 2022, arXiv:2209.05433).
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte < 128 { size } else { -size }
}

/// As [`widened`], for a matrix (out, in) that is stored as (in, out).
fn turned_back(bytes: &[u8], entry: &Entry, how: LayOut) -> Option<Vec<f32>> {
    let [outputs, inputs] = entry.shape[..] else { return None };
    let as_shaped = LayOut::Transposed { outputs: inputs, inputs: outputs, places: 1 };
    let values = widened(bytes, entry.dtype, as_shaped)?;
    Some(how.lay_out(values.len(), |i| values[i]))
}

impl LayOut {
    /// Reads each number once and writes it directly to its place.
    fn lay_out(self, count: usize, number: impl Fn(usize) -> f32 + Sync) -> Vec<f32> {
        const GRAIN: usize = 1 << 14;
        const BLOCK: usize = 16; // A cache line of floats.
        match self {
            Self::Transposed { .. } if count == 0 => Vec::new(), // A long axis would make many empty blocks.
            Self::AsStored => (0..count).into_par_iter().with_min_len(GRAIN).map(&number).collect(),
            Self::Transposed { outputs, inputs, places } => {
                let mut laid_out = vec![0.0; count];
                // A block has the lines of a few neighboring inputs at all places, because the numbers of these lines
                // are close together in the file. Each line comes with the position of its first number in the file.
                let mut blocks: Vec<Vec<(usize, &mut [f32])>> = Vec::new();
                blocks.resize_with(inputs.div_ceil(BLOCK), Vec::new);
                for (row, line) in laid_out.chunks_exact_mut(outputs.max(1)).enumerate() {
                    let (place, input) = (row / inputs, row % inputs);
                    blocks[input / BLOCK].push((input * places + place, line));
                }
                blocks.into_par_iter().for_each(|mut lines| {
                    for first in (0..outputs).step_by(BLOCK) {
                        for (from, line) in &mut lines {
                            for output in first..outputs.min(first + BLOCK) {
                                line[output] = number(output * inputs * places + *from);
                            }
                        }
                    }
                });
                laid_out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats_are_widened_exactly() {
        // Zero, the smallest, the smallest normal number, 1, -1, and the largest.
        let known = [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x08, 1.0 / 64.0), (0x38, 1.0), (0xb8, -1.0), (0x7e, 448.0)];
        for (byte, value) in known {
            assert_eq!(floats(&[byte], Dtype::F8_E4M3), Some(vec![value]), "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert_eq!((0..=255u8).filter(|byte| !e4m3(*byte).is_finite()).count(), 2);
        let known = [(0x00, 0.0), (0x01, 1.0 / 65536.0), (0x3c, 1.0), (0xbd, -1.25), (0x7b, 57344.0)];
        for (byte, value) in known {
            assert_eq!(floats(&[byte], Dtype::F8_E5M2), Some(vec![value]), "{byte:#x}");
        }
        assert_eq!(floats(&0.1f64.to_le_bytes(), Dtype::F64), Some(vec![0.1]));
        assert_eq!(floats(&[0; 8], Dtype::I64), None);
    }
}
