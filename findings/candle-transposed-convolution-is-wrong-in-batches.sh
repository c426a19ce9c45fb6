#!/bin/sh
# What one expects: the row of a batch has the result that it has alone. A vocoder (HiFi-GAN) or audio codec makes several sounds in one call
# by `conv_transpose1d`, with contiguous tensors.
# What happens with candle-core 0.11.1 on the CPU: without padding, the first row is right and all others are wrong, without an error. With a
# padding of 1, all rows are right. Making the input contiguous does not help, because it is. A test with one sound, or with the usual padding, does
# not see it. One row at a time is right.
# Source: without padding, dilation and output padding, `conv_transpose1d` in candle-core/src/cpu_backend/mod.rs takes another way: it transposes the layout
# of its input itself, repeats the kernel over the batch with a stride of 0, and multiplies both as matrices. `MatMul` in the same file then
# folds the batch into the rows as if they followed each other in memory.
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
TOML
cat > "$folder/src/main.rs" <<'RS'
use candle_core::{Device, Result, Tensor};

/// The largest difference of each row between the batch and the row alone.
fn differences(batch: usize, padding: usize) -> Result<Vec<f32>> {
    let values = |n: usize| (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect::<Vec<f32>>();
    let (inputs, outputs, length, kernel, stride) = (6, 4, 10, 4, 2);
    let x = Tensor::from_vec(values(batch * inputs * length), (batch, inputs, length), &Device::Cpu)?;
    let weight = Tensor::from_vec(values(inputs * outputs * kernel), (inputs, outputs, kernel), &Device::Cpu)?;
    let made = |x: &Tensor| x.conv_transpose1d(&weight, padding, 0, stride, 1, 1);
    let together = made(&x)?;
    let row = |i: usize| {
        let alone = made(&x.narrow(0, i, 1)?.force_contiguous()?)?;
        (together.narrow(0, i, 1)? - alone)?.abs()?.max_all()?.to_scalar::<f32>()
    };
    (0..batch).map(row).collect()
}

fn main() -> Result<()> {
    for batch in [1, 2, 3] {
        let (without, with) = (differences(batch, 0)?, differences(batch, 1)?);
        println!("batch of {batch}: differences by row without padding {without:.4?}, with a padding of 1 {with:.4?}");
        assert!(without[0] < 1e-5 && without[1..].iter().all(|row| *row > 0.1));
        assert!(with.iter().all(|row| *row < 1e-5));
    }
    println!("as described");
    Ok(())
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
