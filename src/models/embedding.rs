//! Embeddings: a table with a vector for each id.

use candle_core::{DType, Result, Tensor};

use crate::{
    device::HOST,
    weights::{StoredMatrix, Weights},
};

/// A vector for each id, such as the ids of a text encoder's tokens.
#[derive(Debug)]
pub(super) struct Embedding {
    table: Table,
    /// The number of ids, and the length of a vector.
    shape: (usize, usize),
}

#[derive(Debug)]
enum Table {
    /// (ids, D)
    Plain(Tensor),
    /// The rows are widened when they are looked up.
    Stored(StoredMatrix),
}

impl Embedding {
    /// `name` is the tensor (ids, D).
    pub fn new(weights: &Weights, name: &str, ids: usize, width: usize) -> Self {
        let table = match weights.stored_matrix(name, ids, width) {
            Some(stored) => Table::Stored(stored),
            None => Table::Plain(weights.tensor(name, &[ids, width])),
        };
        Self { table, shape: (ids, width) }
    }

    /// The number of ids, and D.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// The vectors (ids, D) in float32.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let (known, width) = self.shape;
        if let Some(id) = ids.iter().find(|id| **id as usize >= known) {
            candle_core::bail!("id {id} is beyond the {known} of the embedding");
        }
        match &self.table {
            Table::Plain(table) => {
                let ids = Tensor::from_slice(ids, ids.len(), table.device())?;
                table.index_select(&ids, 0)?.to_dtype(DType::F32)
            }
            Table::Stored(StoredMatrix { format, scale, bytes }) => {
                let length = format.bytes(width).unwrap_or(0);
                let mut values = vec![0.0; ids.len() * width];
                for (id, values) in ids.iter().zip(values.chunks_exact_mut(width)) {
                    format.widen(&bytes[*id as usize * length..][..length], values);
                    values.iter_mut().for_each(|value| *value *= scale);
                }
                Tensor::from_vec(values, (ids.len(), width), &HOST)
            }
        }
    }
}
