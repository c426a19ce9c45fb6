//! The state of a film between two layers.

use candle_core::{Device, Result, Tensor};

/// The state of one network for a film: the map of the current piece, and the last frames of earlier pieces. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct FilmState {
    /// (F, h, w, C); `None` before the first piece.
    map: Option<Tensor>,
    /// The input of the block that is running, if the block has a shortcut.
    pub(super) kept: Option<Tensor>,
    /// For each layer, the last frames that its convolutions over frames have seen.
    pasts: Vec<Pasts>,
    /// The pieces that have begun.
    pieces: usize,
}

/// The last frames that each of up to two convolutions has seen, oldest first; `None`: no frames.
pub(super) type Pasts = [Option<Tensor>; 2];

impl FilmState {
    /// The same film with its next piece (F, h, w, C).
    pub fn next(&self, piece: Tensor) -> Self {
        Self { map: Some(piece), kept: None, pasts: self.pasts.clone(), pieces: self.pieces + 1 }
    }

    /// The map that the last layer made.
    ///
    /// # Errors
    /// No piece has begun.
    pub fn map(&self) -> Result<&Tensor> {
        match &self.map {
            Some(map) => Ok(map),
            None => candle_core::bail!("a film without a piece"),
        }
    }

    /// Whether the current piece is the first one.
    pub fn is_first(&self) -> bool {
        self.pieces <= 1
    }

    /// The same state with its current map on `device`.
    ///
    /// # Errors
    /// The map cannot be copied.
    pub fn on(self, device: &Device) -> Result<Self> {
        let map = self.map.map(|map| map.to_device(device)).transpose()?;
        Ok(Self { map, ..self })
    }

    pub(super) fn set(&mut self, map: Tensor) {
        self.map = Some(map);
    }

    /// The pasts of layer `i`.
    pub(super) fn pasts(&mut self, i: usize) -> &mut Pasts {
        if self.pasts.len() <= i {
            self.pasts.resize(i + 1, [None, None]);
        }
        &mut self.pasts[i]
    }
}
