//! The part that sees: a vision transformer for the patches of a picture (transformers' `Qwen3VLVisionModel`).

use candle_core::{DType, Device, Result, Tensor};

use super::{
    Picture, VisionConfig,
    merger::{Merger, Norms},
    picture::order,
    vision_block::VisionBlock,
};
use crate::{kernels::matrix::Matrix, models::pause::pause, weights::Weights};

/// What the network sees in a picture of N tokens.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The features that replace the embeddings of the picture's tokens, (1, N, D).
    pub features: Tensor,
    /// The features that are added after each of the first layers of the language model, (1, N, D) each.
    pub deep: Vec<Tensor>,
    /// Rows and columns of tokens.
    pub size: [usize; 2],
}

/// Turns patches into tokens.
#[derive(Debug)]
pub(super) struct VisionModel {
    patch_embed: Matrix,
    /// (positions, C)
    pos_embed: Tensor,
    blocks: Vec<VisionBlock>,
    merger: Merger,
    deepstack_merger_list: Vec<Merger>,
    config: VisionConfig,
}

impl VisionModel {
    pub fn new(config: &VisionConfig, weights: &Weights) -> Self {
        let (blocks, mergers) = (weights.pp("blocks"), weights.pp("deepstack_merger_list"));
        Self {
            patch_embed: patch_embed(config, &weights.pp("patch_embed.proj")),
            pos_embed: weights.tensor("pos_embed.weight", &[config.num_position_embeddings, config.hidden_size]),
            blocks: (0..config.depth).map(|i| VisionBlock::new(&blocks.pp(i), config)).collect(),
            merger: Merger::new(&weights.pp("merger"), config, Norms::Patches),
            deepstack_merger_list: (0..config.deepstack_visual_indexes.len())
                .map(|i| Merger::new(&mergers.pp(i), config, Norms::Tokens))
                .collect(),
            config: config.clone(),
        }
    }

    pub fn device(&self) -> &Device {
        self.pos_embed.device()
    }

    pub async fn forward(&self, picture: &Picture) -> Result<Seen> {
        let Some((patches, grid)) = picture.patches(&self.config) else {
            candle_core::bail!("sides of {:?} pixels, for tokens of {}", picture.size(), self.config.token_side())
        };
        let count = grid.iter().product::<usize>();
        let patches = Tensor::from_vec(patches, (1, count, self.patch_embed.shape().0), self.device())?;
        let embedded = self.patch_embed.times(&patches)?.to_dtype(DType::F32)?;
        let mut x = (embedded + self.positions(grid)?)?;
        let (cos, sin) = self.angles(grid)?;
        let mut mergers = self.config.deepstack_visual_indexes.iter().zip(&self.deepstack_merger_list).peekable();
        let mut deep = Vec::with_capacity(self.deepstack_merger_list.len());
        for (i, block) in self.blocks.iter().enumerate() {
            pause().await;
            x = block.forward(&x, (&cos, &sin))?;
            if let Some((_, merger)) = mergers.next_if(|(index, _)| **index == i) {
                deep.push(merger.forward(&x)?);
            }
        }
        Ok(Seen {
            features: self.merger.forward(&x)?,
            deep,
            size: grid.map(|patches| patches / self.config.spatial_merge_size),
        })
    }

    /// The position embeddings of the patches, (1, N, C): the embeddings of a square grid, stretched to the picture.
    fn positions(&self, [rows, columns]: [usize; 2]) -> Result<Tensor> {
        let side = self.config.grid_side();
        let (rows, columns) = (between(side, rows), between(side, columns));
        let count = rows.len() * columns.len();
        let mut corners = [(); 4].map(|()| (Vec::with_capacity(count), Vec::with_capacity(count)));
        for [row, column] in order([rows.len(), columns.len()], self.config.spatial_merge_size) {
            for (corner, (ids, weights)) in corners.iter_mut().enumerate() {
                let ((row, of_row), (column, of_column)) = (rows[row][corner / 2], columns[column][corner % 2]);
                ids.push((row * side + column) as u32);
                weights.push(of_row * of_column);
            }
        }
        let table = self.pos_embed.to_dtype(DType::F32)?;
        let mut sum = Tensor::zeros((1, count, self.config.hidden_size), DType::F32, self.device())?;
        for (ids, weights) in corners {
            let vectors = table.index_select(&Tensor::from_vec(ids, count, self.device())?, 0)?.unsqueeze(0)?;
            sum = (sum + vectors.broadcast_mul(&Tensor::from_vec(weights, (1, count, 1), self.device())?)?)?;
        }
        Ok(sum)
    }

    /// Cosines and sines of the rotary angles of the patches, (1, N, d/2) each: one half for rows, one for columns.
    fn angles(&self, grid: [usize; 2]) -> Result<(Tensor, Tensor)> {
        let quarter = self.config.hidden_size / self.config.num_heads / 4;
        let frequencies: Vec<f32> =
            (0..quarter).map(|i| (1.0 / libm::pow(THETA, i as f64 / quarter as f64)) as f32).collect();
        let axes = order(grid, self.config.spatial_merge_size).flatten();
        let angles: Vec<f32> =
            axes.flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency)).collect();
        let shape = (1, grid.iter().product::<usize>(), 2 * quarter);
        let table = |of: fn(f32) -> f32| {
            Tensor::from_vec(angles.iter().map(|angle| of(*angle)).collect(), shape, self.device())
        };
        Ok((table(libm::cosf)?, table(libm::sinf)?))
    }
}

/// The base of the rotary angles.
const THETA: f64 = 10_000.0;

/// A convolution of patches that do not overlap, stored as (C, 3, T, P, P): a matrix (3 · T · P · P, C) and a bias.
fn patch_embed(config: &VisionConfig, weights: &Weights) -> Matrix {
    let (p, outputs) = (config.patch_size, config.hidden_size);
    let shape = [outputs, 3, config.temporal_patch_size, p, p];
    let (weight, bias) = (weights.tensor("weight", &shape), weights.tensor("bias", &[outputs]));
    let inputs = shape[1..].iter().product::<usize>();
    // A weight that is not contiguous is a placeholder that needs no memory.
    let matrix = match weight.is_contiguous() {
        true => weight.reshape((outputs, inputs)).and_then(|weight| weight.t()?.contiguous()),
        false => Ok(weights.zeros(&[inputs, outputs])),
    };
    let matrix = matrix.and_then(|matrix| Matrix::new(&matrix, Some(&bias), weights.kernels()));
    matrix.expect("the weights have the requested shapes")
}

/// For each of `count` places, spread evenly over `side` positions, the nearest two positions and their weights.
fn between(side: usize, count: usize) -> Vec<[(usize, f32); 2]> {
    let last = side - 1;
    let step = if count > 1 { last as f32 / (count - 1) as f32 } else { 0.0 };
    // torch's `linspace` counts from both ends to the middle.
    let place = |i: usize| match i < count / 2 || count == 1 {
        true => step * i as f32,
        false => last as f32 - step * (count - 1 - i) as f32,
    };
    let nearest = |place: f32| {
        let (below, part) = (place as usize, place.fract());
        [(below, 1.0 - part), ((below + 1).min(last), part)]
    };
    (0..count).map(place).map(nearest).collect()
}
