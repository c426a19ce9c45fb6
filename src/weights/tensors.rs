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

use super::{
    FileContent, LoadError, ModelFolder,
    build_report::BuildReport,
    gguf,
    header::Info,
    lay_out::LayOut,
    ldm::Part,
    number_type::NumberType,
    numbers::{check_numbers, check_range, turned_back, widened},
    original::{Original, TensorPart},
    shards, weight_file,
};
use crate::{
    device::{Device, HOST, Precision},
    kernels::Kernels,
};

mod stored_matrix;

pub use stored_matrix::StoredMatrix;
pub(super) use stored_matrix::{LARGE, stays};

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
    /// Matrices of at least this many numbers may stay as they are stored.
    stored_from: usize,
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
    /// The tensors in the memory of the host that were requested so far; `None` if they are not kept.
    kept: Option<Mutex<HashMap<KeptTensor, Tensor>>>,
}

/// The name of a tensor that is kept, with its form in memory.
type KeptTensor = (String, LayOut, Precision);

/// A tensor of a file, or a part of such a tensor.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    file: usize,
    pub dtype: NumberType,
    /// The shape that the network uses.
    pub shape: Vec<usize>,
    bytes: Range<usize>,
    /// The bytes of the float32 by which the numbers are multiplied.
    scale: Option<Range<usize>>,
    /// Whether the file has the matrix transposed.
    transposed: bool,
    /// Whether the file has the two halves of the numbers in the opposite order.
    is_swapped: bool,
}

impl Entry {
    /// A whole tensor of the first file.
    pub fn whole(info: &Info) -> Self {
        let Info { dtype, shape, bytes, scale } = info.clone();
        Self { file: 0, dtype, shape, bytes, scale, transposed: false, is_swapped: false }
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
    /// Opens `component/stem.safetensors`, in one file or in shards, or a GGUF file (see the module `shards` for the
    /// order of search). If the folder stands for a single-file checkpoint, `stem` is ignored.
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
            let broken = |reason: String| match gguf::is_gguf(&path) {
                true => LoadError::Gguf { path: path.clone(), reason },
                false => LoadError::Safetensors { path: path.clone(), reason },
            };
            let file = folder.file(&path)?;
            let mut tensors = weight_file::header(&path, &file)?.tensors;
            let (names, is_t5) = (Original::of(tensors.keys()), gguf::names::are_of_t5(tensors.keys()));
            if let Some(other) = names.and_then(|names| names.retain(component, &mut tensors)) {
                let renamed = other.renamed(&tensors).map_err(|name| broken(format!("{name} is not known")))?;
                for ((known_as, shape), (name, info)) in renamed.into_iter().zip(&tensors) {
                    let (known_as, shape) = rename(&known_as, &shape);
                    let entry = Entry { file: files.len(), shape, ..Entry::whole(info) };
                    if entries.insert(known_as, entry).is_some() {
                        return Err(broken(format!("{name} occurs twice")));
                    }
                }
                files.push((path, file));
                continue;
            }
            for (name, info) in tensors {
                let parts = names.and_then(|names| names.parts(&name, &info));
                let parts = parts.unwrap_or_else(|| {
                    let current = if is_t5 { gguf::names::t5_name(&name) } else { None };
                    let (name, shape) = rename(current.as_deref().unwrap_or(&name), &info.shape);
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

    /// Checks that names, shapes and types fit the network that `build` makes. No numbers are read.
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
        let (device, reads, kept) = (device.clone(), true, None);
        let source = Arc::new(Source { component, device, zero, files, entries, report, reads, kept });
        Ok(Self { source, prefix: String::new(), note: None, precision: Precision::F32, stored_from: LARGE })
    }

    /// The same weights, which keep each tensor that is requested in the memory of the host.
    pub fn kept(self) -> Self {
        // If another clone of these weights exists, nothing is kept, and `again` fails.
        let keeping = |source| Arc::new(Source { kept: Some(Mutex::default()), ..source });
        Self { source: Arc::try_unwrap(self.source).map_or_else(|shared| shared, keeping), ..self }
    }

    /// As [`Weights::finish`]; returns the tensors that were kept, without the files.
    ///
    /// # Errors
    /// Those of [`Weights::finish`].
    pub fn finish_kept(self) -> Result<Self, LoadError> {
        self.check_finished()?;
        let closed = |source| Arc::new(Source { files: Vec::new(), ..source });
        Ok(Self { source: Arc::try_unwrap(self.source).map_or_else(|shared| shared, closed), ..self })
    }

    /// Builds a network again from the tensors that were kept.
    ///
    /// # Errors
    /// A tensor was not requested before, or cannot be copied to the device.
    pub fn again<N>(&self, build: impl FnOnce(&Self) -> N) -> Result<N, LoadError> {
        *self.report() = BuildReport::default();
        let network = build(self);
        self.report().failed.take().map_or(Ok(network), Err)
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
        Self { prefix: self.name(part), note: None, ..self.clone() }
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

    /// Whether this scope has a tensor of exactly this name. An outline has every tensor.
    pub fn has(&self, name: &str) -> bool {
        self.source.entries.as_ref().is_none_or(|entries| entries.contains_key(&self.name(name)))
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
        self.check_finished()
    }

    fn check_finished(&self) -> Result<(), LoadError> {
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

    pub(super) fn get(&self, name: &str, expected: &[usize], laid_out: &[usize], how: LayOut) -> Tensor {
        let tensor = self.on_host(self.name(name), expected, laid_out, how).and_then(|made| {
            let made = made.to_device(self.source.device.candle());
            made.map_err(|error| self.fail(error.into())).ok()
        });
        tensor.unwrap_or_else(|| self.zeros(laid_out))
    }

    /// The tensor in the memory of the host: kept, or read from a file.
    fn on_host(&self, name: String, expected: &[usize], laid_out: &[usize], how: LayOut) -> Option<Tensor> {
        let key = (name, how, self.precision);
        let Some(kept) = &self.source.kept else { return self.read_tensor(key.0, expected, laid_out, how) };
        let known = kept.lock().get(&key).cloned();
        let made = known.or_else(|| {
            let made = self.read_tensor(key.0.clone(), expected, laid_out, how)?;
            kept.lock().insert(key, made.clone());
            Some(made)
        })?;
        self.source.device.note_copied((made.elem_count() * made.dtype().size_in_bytes()) as u64);
        Some(made)
    }

    fn read_tensor(&self, name: String, expected: &[usize], laid_out: &[usize], how: LayOut) -> Option<Tensor> {
        let values = self.values(name, expected, how)?;
        // Converted on the host, so that a GPU needs no memory for float32.
        let made = Tensor::from_vec(values, laid_out, &HOST).and_then(|made| made.to_dtype(self.precision.dtype()));
        made.map_err(|error| self.fail(error.into())).ok()
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
        let Some(format) = entry.dtype.format() else {
            self.report().mismatch.not_float.push((name, entry.dtype.to_string()));
            return None;
        };
        if !self.source.reads {
            return None;
        }
        let (bytes, scale) = self.read(entry)?;
        let mut values = match entry.transposed {
            false => widened(&bytes, format, how),
            true => turned_back(&bytes, format, &entry.shape, how)?,
        };
        if scale != 1.0 {
            values.par_iter_mut().for_each(|value| *value *= scale);
        }
        if let Err(reason) = check_numbers(&values).and_then(|()| check_range(&values, self.precision)) {
            self.fail_at(entry, name, reason);
        }
        Some(values)
    }

    /// The bytes of a tensor, and the factor of its numbers. The report is not locked meanwhile, so that several
    /// threads can read tensors at the same time.
    fn read(&self, entry: &Entry) -> Option<(Cow<'_, [u8]>, f32)> {
        let Some((path, file)) = self.source.files.get(entry.file) else {
            let (path, reason) = (self.source.component.clone(), "was not kept in memory".to_owned());
            self.fail(LoadError::BadKey { path, key: self.prefix.clone(), reason });
            return None;
        };
        let scale = entry.scale.clone().map_or(Ok(1.0), |bytes| {
            Ok(file.read(bytes)?.first_chunk().map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes)))
        });
        let read = scale.and_then(|scale| Ok((file.read(entry.bytes.clone())?, scale)));
        let read = read.map_err(|source| self.fail(LoadError::Read { path: path.clone(), source }));
        read.ok().map(|(bytes, scale)| match entry.is_swapped {
            true => (Cow::Owned([&bytes[bytes.len() / 2..], &bytes[..bytes.len() / 2]].concat()), scale),
            false => (bytes, scale),
        })
    }

    fn fail_at(&self, entry: &Entry, name: String, reason: String) {
        let (path, _) = &self.source.files[entry.file];
        self.fail(LoadError::BadKey { path: path.clone(), key: name, reason });
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
