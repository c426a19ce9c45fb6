//! The process that runs candle-transformers' networks for `benches/compare/compare.py`.
//!
//! Its requests and answers are those of `benches/compare/contender.rs`, without `peak`.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use candle_transformers::models::stable_diffusion::{
    unet_2d::{BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig},
    vae::{AutoEncoderKL, AutoEncoderKLConfig},
};
use serde_json::{Value, json};

fn main() -> Result<()> {
    // candle computes in rayon's global pool, whose size is RAYON_NUM_THREADS.
    let mut loaded = None;
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(|request| answer(&request, &mut loaded));
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

enum Network {
    Unet(Box<UNet2DConditionModel>),
    Vae(Box<AutoEncoderKL>),
}

struct Inputs {
    sample: Tensor,
    t: f64,
    text: Option<Tensor>,
}

fn answer(request: &Value, loaded: &mut Option<(Network, Inputs)>) -> Result<Value> {
    let word = |key: &str| request[key].as_str().with_context(|| format!("no {key}"));
    match word("do")? {
        "load" => {
            let start = Instant::now();
            *loaded = Some((
                Network::load(word("kind")?, Path::new(word("folder")?))?,
                Inputs::load(Path::new(word("inputs")?))?,
            ));
            Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
        }
        "run" => {
            let (network, inputs) = loaded.as_ref().context("nothing is loaded")?;
            let (mut seconds, mut made) = (Vec::new(), None);
            for _ in 0..request["calls"].as_u64().context("no calls")? {
                drop(made.take());
                let start = Instant::now();
                made = Some(network.run(inputs)?);
                seconds.push(start.elapsed().as_secs_f64());
            }
            if let (Some(path), Some(made)) = (request["output"].as_str(), made) {
                safetensors::save(&HashMap::from([("output", made.contiguous()?)]), path)?;
            }
            Ok(json!({ "seconds": seconds }))
        }
        other => bail!("{other} is not known"),
    }
}

impl Network {
    fn load(kind: &str, folder: &Path) -> Result<Self> {
        let folder = folder.join(kind);
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        let tensors = safetensors::load(folder.join("diffusion_pytorch_model.safetensors"), &Device::Cpu)?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let number =
            |key: &str| config[key].as_u64().map(|n| n as usize).with_context(|| format!("{key} is no number"));
        let flag = |key: &str| config[key].as_bool().unwrap_or(false);
        let channels = config["block_out_channels"].as_array().context("no block_out_channels")?;
        let channels: Vec<usize> = channels.iter().filter_map(Value::as_u64).map(|n| n as usize).collect();
        let (inputs, outputs) = (number("in_channels")?, number("out_channels")?);
        if kind == "vae" {
            let config = AutoEncoderKLConfig {
                block_out_channels: channels,
                layers_per_block: number("layers_per_block")?,
                latent_channels: number("latent_channels")?,
                norm_num_groups: number("norm_num_groups")?,
                use_quant_conv: flag("use_quant_conv"),
                use_post_quant_conv: flag("use_post_quant_conv"),
            };
            return Ok(Self::Vae(Box::new(AutoEncoderKL::new(weights, inputs, outputs, config)?)));
        }
        let blocks = channels.iter().enumerate().map(|(i, &out_channels)| BlockConfig {
            out_channels,
            use_cross_attn: (config["down_block_types"][i] == "CrossAttnDownBlock2D").then_some(1),
            // One number for all blocks, or a list with one number per block.
            attention_head_dim: [&config["attention_head_dim"], &config["attention_head_dim"][i]]
                .into_iter()
                .find_map(Value::as_u64)
                .unwrap_or(8) as usize,
        });
        let config = UNet2DConditionModelConfig {
            flip_sin_to_cos: flag("flip_sin_to_cos"),
            freq_shift: config["freq_shift"].as_f64().unwrap_or(0.0),
            blocks: blocks.collect(),
            layers_per_block: number("layers_per_block")?,
            norm_num_groups: number("norm_num_groups")?,
            norm_eps: config["norm_eps"].as_f64().unwrap_or(1e-5),
            cross_attention_dim: number("cross_attention_dim")?,
            use_linear_projection: flag("use_linear_projection"),
            ..Default::default()
        };
        Ok(Self::Unet(Box::new(UNet2DConditionModel::new(weights, inputs, outputs, false, config)?)))
    }

    fn run(&self, inputs: &Inputs) -> Result<Tensor> {
        match self {
            Self::Unet(unet) => {
                let text = inputs.text.as_ref().context("no text")?;
                Ok(unet.forward(&inputs.sample, inputs.t, text)?)
            }
            Self::Vae(vae) => Ok(vae.decode(&inputs.sample)?),
        }
    }
}

impl Inputs {
    fn load(path: &Path) -> Result<Self> {
        let mut tensors = safetensors::load(path, &Device::Cpu)?;
        let times = tensors.remove("t").map(|t| t.to_vec1::<f32>()).transpose()?.unwrap_or_default();
        let t = f64::from(times.first().copied().unwrap_or_default());
        if times.iter().any(|other| f64::from(*other) != t) {
            bail!("this network takes one time for all rows");
        }
        Ok(Self { sample: tensors.remove("sample").context("no sample")?, t, text: tensors.remove("text") })
    }
}
