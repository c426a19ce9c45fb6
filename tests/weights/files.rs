//! Functions that find, read and write safetensors files for the tests.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use latentd::weights::{LoadError, ModelFolder};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// The folder of the parity fixtures.
pub fn parity() -> PathBuf {
    std::env::var_os("LATENTD_PARITY_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity"))
}

/// Opens a pipeline of the fixtures. Its files may be links to files of other pipelines in the same folder.
pub fn pipeline_folder(root: &Path) -> Result<ModelFolder, LoadError> {
    ModelFolder::open_within(root, root.parent().as_slice())
}

/// A tensor of a file: type, shape, bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Raw {
    /// A float32 tensor. `number` returns the element at a flat index.
    pub fn floats(shape: &[usize], number: impl Fn(usize) -> f32) -> Self {
        let bytes = (0..shape.iter().product()).flat_map(|i| number(i).to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    pub fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes).unwrap()
    }
}

pub type Tensors = BTreeMap<String, Raw>;

pub fn read(file: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(file).unwrap();
    let raw = |view: TensorView| Raw { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
    file.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect()
}

pub fn read_at(path: impl AsRef<Path>) -> Tensors {
    read(&fs::read(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display())))
}

pub fn write(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, raw)| (name, raw.view()));
    safetensors::serialize(views, None).unwrap()
}

pub fn shapes(tensors: &Tensors) -> BTreeMap<String, Vec<usize>> {
    tensors.iter().map(|(name, raw)| (name.clone(), raw.shape.clone())).collect()
}
