//! The order in which a tensor's numbers are written to memory.

use rayon::prelude::*;

/// The order of a tensor's numbers in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LayOut {
    AsStored,
    /// Stored as (outputs, inputs, places), laid out as (places, inputs, outputs).
    Transposed {
        outputs: usize,
        inputs: usize,
        places: usize,
    },
}

impl LayOut {
    /// Reads each number once and writes it directly to its place.
    pub fn lay_out(self, count: usize, number: impl Fn(usize) -> f32 + Sync) -> Vec<f32> {
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
