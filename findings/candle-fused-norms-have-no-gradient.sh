#!/bin/sh
# What one expects: the layers of candle-nn can be trained. LayerNorm, RmsNorm and softmax_last_dim are differentiable functions, and candle's
# documentation lists no exception; a function without a gradient would be an error of `backward`.
# What happens with candle-nn 0.11.1 on the CPU: the fused forms, which contiguous inputs take, have no gradient, and `backward` succeeds without one.
# The input, the weight and the bias get none at all. Within a residual connection (x + norm(x)), as in every transformer, the input's gradient is there
# but lacks the share that goes through the norm: it is exactly that of x alone, whatever the norm's weight. A loss still falls, so training looks
# healthy. `rms_norm_slow`, `layer_norm_slow`, `softmax` and `LayerNorm` without a bias have the right gradients; so does LayerNorm on a view that is
# not contiguous, which takes the other path.
# Source: LayerNorm::forward in candle-nn/src/layer_norm.rs; `apply_op*_no_bwd` in candle-nn/src/ops.rs.
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
use candle_core::{Device, Result, Tensor, Var};
use candle_nn::{LayerNorm, Module, RmsNorm, ops};

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0).collect()
}

/// The gradient of Σ c·f(x) with respect to x, if there is one.
fn gradient(f: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Option<Vec<f32>>> {
    let x = Var::from_vec(values(24, 5), (3, 8), &Device::Cpu)?;
    let c = Tensor::from_vec(values(24, 17), (3, 8), &Device::Cpu)?;
    let gradients = (f(x.as_tensor())? * c)?.sum_all()?.backward()?;
    gradients.get(x.as_tensor()).map(|gradient| gradient.flatten_all()?.to_vec1()).transpose()
}

fn main() -> Result<()> {
    let device = &Device::Cpu;
    let weight = Tensor::from_vec(values(8, 3), 8, device)?;
    let bias = Tensor::from_vec(values(8, 9), 8, device)?;
    let layer_norm = LayerNorm::new(weight.clone(), bias.clone(), 1e-5);
    let without_bias = LayerNorm::new_no_bias(weight.clone(), 1e-5);
    let rms_norm = RmsNorm::new(weight.clone(), 1e-5);
    type Function<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;
    let fused: [(&str, Function<'_>); 3] = [
        ("LayerNorm", &|x| layer_norm.forward(x)),
        ("RmsNorm", &|x| rms_norm.forward(x)),
        ("softmax_last_dim", &|x| ops::softmax_last_dim(x)),
    ];
    let alone = gradient(&|x| x * 1.0)?;
    for (name, function) in fused {
        let direct = gradient(function)?;
        let residual = gradient(&|x| x + function(x)?)?;
        println!("{name}: a gradient: {}; x + {name}(x): that of x alone: {}", direct.is_some(), residual == alone);
        assert!(direct.is_none() && residual == alone);
    }
    let right: [(&str, Function<'_>); 4] = [
        ("LayerNorm without a bias", &|x| without_bias.forward(x)),
        ("layer_norm_slow", &|x| ops::layer_norm_slow(x, &weight, &bias, 1e-5)),
        ("rms_norm_slow", &|x| ops::rms_norm_slow(x, &weight, 1e-5)),
        ("softmax", &|x| ops::softmax(x, 1)),
    ];
    for (name, function) in right {
        println!("{name}: a gradient: {}", gradient(function)?.is_some());
        assert!(gradient(function)?.is_some() && gradient(&|x| x + function(x)?)? != alone);
    }
    // The weights of the fused norms have no gradient either.
    let weight = Var::from_tensor(&weight)?;
    let trained = RmsNorm::new(weight.as_tensor().clone(), 1e-5);
    let x = Tensor::from_vec(values(24, 5), (3, 8), device)?;
    assert!(trained.forward(&x)?.sum_all()?.backward()?.get(weight.as_tensor()).is_none());
    println!("as described");
    Ok(())
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
