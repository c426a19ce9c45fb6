//! Shortcuts around the blocks of Wan 2.2: averages of a block's input, or copies of it.

use candle_core::{Result, Tensor};

/// The sizes of a shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortcut {
    pub inputs: usize,
    pub outputs: usize,
    /// Whether the block changes the number of frames by a factor of two.
    pub in_time: bool,
    /// Whether the block changes both sides of the map by a factor of two.
    pub in_space: bool,
}

impl Shortcut {
    /// The places of the larger map for each place of the smaller one.
    pub fn factor(self) -> usize {
        let [time, side] = self.factors();
        time * side * side
    }

    fn factors(self) -> [usize; 2] {
        [self.in_time, self.in_space].map(|halves| if halves { 2 } else { 1 })
    }

    /// diffusers' `AvgDown3D`: x (F, h, w, in) → averages of equally many values, (⌈F/2⌉, h/2, w/2, out). An odd number
    /// of frames is filled up by zeros in front.
    pub fn averages(self, x: &Tensor) -> Result<Tensor> {
        let [time, side] = self.factors();
        let missing = x.dim(0)?.next_multiple_of(time) - x.dim(0)?;
        let x = if missing > 0 { x.pad_with_zeros(0, missing, 0)? } else { x.clone() };
        let (frames, h, w, c) = x.dims4()?;
        let (frames, h, w) = (frames / time, h / side, w / side);
        let x = x.reshape(&[frames, time, h, side, w, side, c][..])?.permute(&[0, 2, 4, 6, 1, 3, 5][..])?;
        let group = (c * self.factor()) / self.outputs.max(1);
        x.contiguous()?.reshape((frames, h, w, self.outputs, group))?.mean(4)
    }

    /// diffusers' `DupUp3D`: x (F, h, w, in) → copies (2F, 2h, 2w, out). The first frame of a film is not doubled.
    pub fn copies(self, x: &Tensor, is_first: bool) -> Result<Tensor> {
        let [time, side] = self.factors();
        let (frames, h, w, c) = x.dims4()?;
        let (outputs, repeats) = (self.outputs, self.outputs * self.factor() / c.max(1));
        // Where each value (time, y, x, out) of a larger place comes from.
        let sources = (0..self.factor()).flat_map(|place| {
            (0..outputs).map(move |channel| ((channel * self.factor() + place) / repeats.max(1)) as u32)
        });
        let sources = Tensor::from_iter(sources, x.device())?;
        let copies = x.index_select(&sources, 3)?.reshape(&[frames, h, w, time, side, side, outputs][..])?;
        let copies = copies.permute(&[0, 3, 1, 4, 2, 5, 6][..])?.contiguous()?;
        let copies = copies.reshape((time * frames, side * h, side * w, outputs))?;
        if is_first { copies.narrow(0, time - 1, time * frames - (time - 1)) } else { Ok(copies) }
    }
}
