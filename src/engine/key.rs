//! Which rows can run together.

use std::{any::TypeId, sync::Arc};

use crate::pipelines::call::{Call, Shape};

/// Rows with equal keys can run as one batch: the same network of the same model, at the same shapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub model: Arc<str>,
    pub network: &'static str,
    kind: TypeId,
    shape: Shape,
}

impl Key {
    /// Of a call on the networks of the model with this key.
    pub fn of<C: Call>(model: Arc<str>, call: &C) -> Key {
        Key { model, network: call.network(), kind: TypeId::of::<C>(), shape: call.shape() }
    }
}
