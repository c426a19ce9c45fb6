#!/bin/sh
# What one expects: a linear layer of candle-nn gives the same result for a transposed view of a tensor as for a contiguous copy of it, or
# refuses the view. Image models write it so: the pixels of a map (B, C, H, W) become tokens by `flatten_from(2)?.transpose(1, 2)?`, and a layer follows.
# What happens with candle-nn 0.11.1 on the CPU: with a batch of one the result is right. From a batch of two on, the first row is right and
# all others are wrong, without an error. A test with one picture does not see it. `broadcast_matmul` is right; so is the layer after
# `.contiguous()?` or with the batch folded into the tokens.
# Source: `Linear::forward` in candle-nn/src/linear.rs broadcasts the weight over the batch, and `MatMul` in candle-core/src/cpu_backend/mod.rs then folds the
# batch into the rows as if they followed each other in memory.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "check"
version = "0.0.0"
edition = "2024"

[dependencies]
candle-core = "=0.11.1"
candle-nn = "=0.11.1"
TOML
cat > "$folder/src/main.rs" <<'RS'
use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module};

/// The largest difference of each row between the view and its contiguous copy.
fn differences(batch: usize) -> Result<Vec<f32>> {
    let values = |n: usize| (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect::<Vec<f32>>();
    let (channels, height, width) = (8, 4, 6);
    let map = Tensor::from_vec(values(batch * channels * height * width), (batch, channels, height, width), &Device::Cpu)?;
    let layer = Linear::new(Tensor::from_vec(values(16 * channels), (16, channels), &Device::Cpu)?, None);
    let tokens = map.flatten_from(2)?.transpose(1, 2)?;
    let (view, copy) = (layer.forward(&tokens)?, layer.forward(&tokens.contiguous()?)?);
    let row = |i: usize| (view.get(i)? - copy.get(i)?)?.abs()?.max_all()?.to_scalar::<f32>();
    (0..batch).map(row).collect()
}

fn main() -> Result<()> {
    for batch in [1, 2, 3] {
        let rows = differences(batch)?;
        println!("batch of {batch}: differences by row {rows:.4?}");
        assert!(rows[0] < 1e-5 && rows[1..].iter().all(|row| *row > 0.1));
    }
    println!("as described");
    Ok(())
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
