//! Pictures as objects.

/// The store of pictures.
#[derive(Clone, Debug)]
pub struct Blobs {}
