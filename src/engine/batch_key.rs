//! The key that decides which rows can share a batch.

use std::{any::TypeId, sync::Arc};

use crate::{
    generation::Precision,
    pipelines::call::{Call, Shape},
};

/// Identifies rows that can share a batch: the same call type and network of the same model, with the same shapes and
/// precision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// The [`Model::key`](crate::pipelines::Model::key) of the model.
    pub model: Arc<str>,
    pub network: &'static str,
    kind: TypeId,
    shape: Shape,
    pub precision: Precision,
}

impl BatchKey {
    /// The key of `call` on the model with the key `model`.
    pub fn of<C: Call>(model: Arc<str>, call: &C, precision: Precision) -> BatchKey {
        BatchKey { model, network: call.network(), kind: TypeId::of::<C>(), shape: call.shape(), precision }
    }
}
