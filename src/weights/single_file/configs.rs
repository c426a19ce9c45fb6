//! The configurations of the folder: what the tensors' shapes tell, and what all published models of a kind share.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Kind, Marks, Parts, outline::Outline, parts::CONTROLNET};

type Configs = BTreeMap<&'static str, Map<String, Value>>;

/// The folder's JSON files by path, or what is missing in the file.
pub(super) fn of(kind: Kind, parts: &Parts, marks: &Marks) -> Result<Configs, String> {
    let part = |name: &str| parts.of(name).map(Outline).ok_or_else(|| format!("it has no {name}"));
    let mut configs = BTreeMap::new();
    let mut add = |path, config: Value| {
        if let Value::Object(keys) = config {
            configs.insert(path, keys);
        }
    };
    if matches!(kind, Kind::ControlNet { .. } | Kind::DiffusersControlNet) {
        add("config.json", controlnet(&part(CONTROLNET)?)?);
        return Ok(configs);
    }
    let unet_part = part("unet")?;
    let inputs = unet_part.axis("conv_in.weight", 1)?;
    let outputs = unet_part.axis("conv_out.weight", 0)?;
    let task = Task::of(inputs, outputs, unet_part.has(SCALE));
    let mut pooled = None;
    if let Ok(first) = part("text_encoder") {
        let act = if kind == Kind::V2 { "gelu" } else { "quick_gelu" };
        add("text_encoder/config.json", clip(&first, "CLIPTextModel", act)?);
    }
    if let Ok(second) = part("text_encoder_2") {
        add("text_encoder_2/config.json", clip(&second, "CLIPTextModelWithProjection", "gelu")?);
        pooled = Some(second.axis("text_projection.weight", 0)?);
    }
    let mut unet = unet(&unet_part)?;
    unet["in_channels"] = inputs.into();
    unet["out_channels"] = outputs.into();
    unet["sample_size"] = sample_size(kind, task).into();
    if let Some(time_dim) = time_ids(kind, &unet_part, pooled)? {
        unet["addition_time_embed_dim"] = time_dim.into();
    }
    add("unet/config.json", unet);
    add("vae/config.json", vae(kind, 8 * sample_size(kind, task), &part("vae")?)?);
    let scheduler = scheduler(kind, task, marks);
    add("model_index.json", model_index(kind, task, &scheduler));
    add("scheduler/scheduler_config.json", scheduler);
    Ok(configs)
}

/// The layer through which a U-Net is told the guidance scale.
const SCALE: &str = "time_embedding.cond_proj.weight";

/// What the U-Net's inputs say that it is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Text,
    Inpaint,
    Edit,
    /// A latent consistency model (Luo et al. 2023, arXiv:2310.04378), which is told the guidance scale.
    FewSteps,
}

impl Task {
    fn of(inputs: usize, outputs: usize, is_told_the_scale: bool) -> Self {
        match inputs {
            _ if inputs == 2 * outputs + 1 => Self::Inpaint,
            _ if inputs == 2 * outputs => Self::Edit,
            _ if is_told_the_scale => Self::FewSteps,
            _ => Self::Text,
        }
    }
}

fn model_index(kind: Kind, task: Task, scheduler: &Value) -> Value {
    let class = match (kind, task) {
        (Kind::XlRefiner, _) => "StableDiffusionXLImg2ImgPipeline",
        (Kind::Xl, Task::Text | Task::FewSteps) => "StableDiffusionXLPipeline",
        (Kind::Xl, Task::Inpaint) => "StableDiffusionXLInpaintPipeline",
        (Kind::Xl, Task::Edit) => "StableDiffusionXLInstructPix2PixPipeline",
        (_, Task::FewSteps) => "LatentConsistencyModelPipeline",
        (_, Task::Text) => "StableDiffusionPipeline",
        (_, Task::Inpaint) => "StableDiffusionInpaintPipeline",
        (_, Task::Edit) => "StableDiffusionInstructPix2PixPipeline",
    };
    let mut index = json!({
        "_class_name": class,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    if matches!(kind, Kind::Xl | Kind::XlRefiner) {
        index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
        index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"]);
        index["force_zeros_for_empty_prompt"] = (kind == Kind::Xl).into();
    }
    if kind == Kind::XlRefiner {
        index["text_encoder"] = json!([null, null]);
        index["tokenizer"] = json!([null, null]);
        index["requires_aesthetics_score"] = true.into();
    }
    index
}

/// The schedulers of the published folders. A Stable Diffusion 2 is taken for one that predicts velocity, as the last
/// version for 768 × 768 pixels does, and as diffusers takes it.
fn scheduler(kind: Kind, task: Task, marks: &Marks) -> Value {
    if let Some((sigma_min, sigma_max)) = marks.edm {
        return json!({
            "_class_name": "EDMEulerScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "sigma_data": 1.0,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "sigma_schedule": "exponential",
        });
    }
    let class = match (kind, task) {
        (_, Task::FewSteps) => "LCMScheduler",
        // PNDM has no last noise level without signal.
        (Kind::V1, _) if marks.zero_snr => "DDIMScheduler",
        (Kind::Xl | Kind::XlRefiner, _) => "EulerDiscreteScheduler",
        (_, Task::Edit) => "EulerAncestralDiscreteScheduler",
        (Kind::V2, _) => "DDIMScheduler",
        _ => "PNDMScheduler",
    };
    let mut scheduler = json!({
        "_class_name": class,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
    });
    let of_kind = if kind == Kind::V2 && task == Task::Text { "v_prediction" } else { "epsilon" };
    scheduler["prediction_type"] = marks.prediction.map_or(of_kind, |(prediction, _)| prediction).into();
    let is_xl = matches!(kind, Kind::Xl | Kind::XlRefiner);
    if marks.zero_snr {
        scheduler["rescale_betas_zero_snr"] = true.into();
        scheduler["timestep_spacing"] = "trailing".into();
    } else if is_xl {
        scheduler["timestep_spacing"] = "leading".into();
    }
    if is_xl {
        scheduler["interpolation_type"] = "linear".into();
        scheduler["use_karras_sigmas"] = false.into();
    }
    scheduler
}

/// Side of the latents that the U-Net was trained on.
fn sample_size(kind: Kind, task: Task) -> usize {
    match (kind, task) {
        (Kind::Xl | Kind::XlRefiner, _) => 128,
        (Kind::V2, Task::Text) => 96,
        _ => 64,
    }
}

/// The width of the embedding of each number that says how a picture was cropped: what the pooled text leaves of the added
/// embedding, divided among six numbers, or five in the refiner. None where there is no such embedding.
fn time_ids(kind: Kind, unet: &Outline, pooled: Option<usize>) -> Result<Option<usize>, String> {
    if !unet.has("add_embedding.linear_1.weight") {
        return Ok(None);
    }
    let inputs = unet.axis("add_embedding.linear_1.weight", 1)?;
    let numbers = if kind == Kind::XlRefiner { 5 } else { 6 };
    let rest = pooled.and_then(|pooled| inputs.checked_sub(pooled)).filter(|rest| rest.is_multiple_of(numbers));
    let rest = rest.ok_or_else(|| format!("its added embedding of {inputs} does not fit its pooled text"))?;
    Ok(Some(rest / numbers))
}

/// What U-Nets and ControlNets have in common.
fn down(unet: &Outline) -> Result<Value, String> {
    let blocks = unet.count("down_blocks.");
    let mut channels = Vec::new();
    let mut types = Vec::new();
    let mut layers = Vec::new();
    let mut text_width = None;
    let mut is_linear = false;
    for block in 0..blocks {
        channels.push(unet.axis(&format!("down_blocks.{block}.resnets.0.conv1.weight"), 0)?);
        let attention = format!("down_blocks.{block}.attentions.0");
        let depth = unet.count(&format!("{attention}.transformer_blocks."));
        types.push(if depth > 0 { "CrossAttnDownBlock2D" } else { "DownBlock2D" });
        layers.push(depth.max(1));
        if depth > 0 {
            text_width = Some(unet.axis(&format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?);
            is_linear = unet.axis(&format!("{attention}.proj_in.weight"), 2).is_err();
        }
    }
    let middle = unet.count("mid_block.attentions.0.transformer_blocks.");
    if let Some(last) = layers.last_mut().filter(|_| types.last() == Some(&"DownBlock2D") && middle > 0) {
        *last = middle; // The middle follows the last block's number.
    }
    if middle > 0 && text_width.is_none() {
        let attention = "mid_block.attentions.0";
        text_width = Some(unet.axis(&format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?);
        is_linear = unet.axis(&format!("{attention}.proj_in.weight"), 2).is_err();
    }
    // Heads cannot be seen in shapes: there are eight of them in Stable Diffusion 1, and later they are 64 wide.
    let heads = match is_linear {
        true => json!(channels.iter().map(|channels| (channels / 64).max(1)).collect::<Vec<_>>()),
        false => json!(8),
    };
    let mut config = json!({
        "in_channels": unet.axis("conv_in.weight", 1)?,
        "block_out_channels": channels,
        "down_block_types": types,
        "layers_per_block": unet.count("down_blocks.0.resnets."),
        "cross_attention_dim": text_width.ok_or("its U-Net never looks at a text")?,
        "transformer_layers_per_block": layers,
        "attention_head_dim": heads,
        "use_linear_projection": is_linear,
    });
    if unet.has("add_embedding.linear_1.weight") {
        config["addition_embed_type"] = "text_time".into();
        config["addition_time_embed_dim"] = 256.into();
        config["projection_class_embeddings_input_dim"] = unet.axis("add_embedding.linear_1.weight", 1)?.into();
    }
    Ok(config)
}

fn unet(unet: &Outline) -> Result<Value, String> {
    let mut config = down(unet)?;
    let up = |block| {
        let has_attention = unet.count(&format!("up_blocks.{block}.attentions.")) > 0;
        if has_attention { "CrossAttnUpBlock2D" } else { "UpBlock2D" }
    };
    config["up_block_types"] = (0..unet.count("up_blocks.")).map(up).collect();
    config["_class_name"] = "UNet2DConditionModel".into();
    if unet.has(SCALE) {
        config["time_cond_proj_dim"] = unet.axis(SCALE, 1)?.into();
    }
    Ok(config)
}

fn controlnet(net: &Outline) -> Result<Value, String> {
    let mut config = down(net)?;
    config["_class_name"] = "ControlNetModel".into();
    config["conditioning_channels"] = net.axis("controlnet_cond_embedding.conv_in.weight", 1)?.into();
    // Each number of channels is kept by one convolution and left by the next.
    let mut channels = vec![net.axis("controlnet_cond_embedding.conv_in.weight", 0)?];
    for block in (1..net.count("controlnet_cond_embedding.blocks.")).step_by(2) {
        channels.push(net.axis(&format!("controlnet_cond_embedding.blocks.{block}.weight"), 0)?);
    }
    config["conditioning_embedding_out_channels"] = channels.into();
    if net.count("mid_block.attentions.") == 0 {
        config["mid_block_type"] = "UNetMidBlock2D".into();
    }
    Ok(config)
}

fn vae(kind: Kind, picture_size: usize, vae: &Outline) -> Result<Value, String> {
    let blocks = vae.count("encoder.down_blocks.");
    let channels = (0..blocks).map(|block| vae.axis(&format!("encoder.down_blocks.{block}.resnets.0.conv1.weight"), 0));
    let is_xl = matches!(kind, Kind::Xl | Kind::XlRefiner);
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "in_channels": vae.axis("encoder.conv_in.weight", 1)?,
        "out_channels": vae.axis("decoder.conv_out.weight", 0)?,
        "latent_channels": vae.axis("decoder.conv_in.weight", 1)?,
        "block_out_channels": channels.collect::<Result<Vec<_>, _>>()?,
        "down_block_types": vec!["DownEncoderBlock2D"; blocks],
        "up_block_types": vec!["UpDecoderBlock2D"; blocks],
        "layers_per_block": vae.count("encoder.down_blocks.0.resnets."),
        "use_quant_conv": vae.has("quant_conv.weight"),
        "use_post_quant_conv": vae.has("post_quant_conv.weight"),
        "scaling_factor": if is_xl { 0.13025 } else { 0.18215 },
        "sample_size": picture_size,
    }))
}

fn clip(text: &Outline, class: &str, act: &str) -> Result<Value, String> {
    let width = text.axis("text_model.embeddings.token_embedding.weight", 1)?;
    let mut config = json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": text.axis("text_model.embeddings.token_embedding.weight", 0)?,
        "hidden_size": width,
        "max_position_embeddings": text.axis("text_model.embeddings.position_embedding.weight", 0)?,
        "num_hidden_layers": text.count("text_model.encoder.layers."),
        "intermediate_size": text.axis("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_attention_heads": (width / 64).max(1), // in all of CLIP's and OpenCLIP's
        "hidden_act": act,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    });
    if text.has("text_projection.weight") {
        config["projection_dim"] = text.axis("text_projection.weight", 0)?.into();
    }
    Ok(config)
}
