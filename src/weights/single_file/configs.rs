//! The configurations of the folder, from the tensors' shapes and from what all published models of a kind share.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Checkpoint, Kind, Marks, Parts, Purpose, TextEncoder, outline::Outline, parts::CONTROLNET};

type Configs = BTreeMap<&'static str, Map<String, Value>>;

/// The folder's JSON files by path; the error says what is missing in the file.
pub(super) fn of(kind: Kind, parts: &Parts, marks: &Marks) -> Result<Configs, String> {
    let part = |name: &str| parts.of(name).map(Outline).ok_or_else(|| format!("it has no {name}"));
    let mut configs = BTreeMap::new();
    let mut add = |path, config: Value| {
        if let Value::Object(keys) = config {
            configs.insert(path, keys);
        }
    };
    let Some(checkpoint) = kind.checkpoint() else {
        add("config.json", controlnet(&part(CONTROLNET)?)?);
        return Ok(configs);
    };
    let unet_part = part("unet")?;
    let inputs = unet_part.axis("conv_in.weight", 1)?;
    let outputs = unet_part.axis("conv_out.weight", 0)?;
    let purpose = Purpose::of(inputs, outputs, unet_part.has(SCALE));
    let sample_size = (checkpoint.sample_size)(purpose);
    let mut pooled = None;
    if let Ok(first) = part("text_encoder") {
        add("text_encoder/config.json", clip(&first, encoder(checkpoint, "text_encoder")?)?);
    }
    if let Ok(second) = part("text_encoder_2") {
        add("text_encoder_2/config.json", clip(&second, encoder(checkpoint, "text_encoder_2")?)?);
        pooled = Some(second.axis("text_projection.weight", 0)?);
    }
    let mut unet = unet(&unet_part)?;
    unet["in_channels"] = inputs.into();
    unet["out_channels"] = outputs.into();
    unet["sample_size"] = sample_size.into();
    if let Some(time_dim) = size_embedding_width(checkpoint, &unet_part, pooled)? {
        unet["addition_time_embed_dim"] = time_dim.into();
    }
    add("unet/config.json", unet);
    add("vae/config.json", vae(checkpoint, 8 * sample_size, &part("vae")?)?);
    let scheduler = (checkpoint.scheduler)(purpose, marks);
    add("model_index.json", model_index(checkpoint, purpose, &scheduler));
    add("scheduler/scheduler_config.json", scheduler);
    Ok(configs)
}

fn encoder(checkpoint: &Checkpoint, component: &str) -> Result<&'static TextEncoder, String> {
    let found = checkpoint.text_encoders.iter().find(|encoder| encoder.component == component);
    found.ok_or_else(|| format!("its kind has no {component}"))
}

/// The layer through which a U-Net takes the guidance scale.
const SCALE: &str = "time_embedding.cond_proj.weight";

fn model_index(checkpoint: &Checkpoint, purpose: Purpose, scheduler: &Value) -> Value {
    let mut index = json!({
        "_class_name": (checkpoint.class)(purpose),
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": [null, null],
        "tokenizer": [null, null],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    for TextEncoder { component, tokenizer, class, .. } in checkpoint.text_encoders {
        index[*component] = json!(["transformers", class]);
        index[*tokenizer] = json!(["transformers", "CLIPTokenizer"]);
    }
    for (key, value) in checkpoint.settings {
        index[*key] = (*value).into();
    }
    index
}

/// The width of the embedding of one micro-conditioning number (diffusers' `addition_time_embed_dim`). The input of the
/// U-Net's added embedding consists of the pooled text of width `pooled` and of the embeddings of all numbers, which
/// share the rest of the input's width equally. `None` if the U-Net has no such input.
fn size_embedding_width(
    checkpoint: &Checkpoint,
    unet: &Outline,
    pooled: Option<usize>,
) -> Result<Option<usize>, String> {
    if !unet.has("add_embedding.linear_1.weight") {
        return Ok(None);
    }
    let inputs = unet.axis("add_embedding.linear_1.weight", 1)?;
    let numbers = checkpoint.time_id_count;
    let rest =
        pooled.and_then(|pooled| inputs.checked_sub(pooled)).filter(|rest| numbers > 0 && rest.is_multiple_of(numbers));
    let rest = rest.ok_or_else(|| format!("its added embedding of {inputs} does not fit its pooled text"))?;
    Ok(Some(rest / numbers))
}

/// The keys that U-Nets and ControlNets have in common.
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
        // In diffusers, the last entry is also the number of transformers of the middle block.
        *last = middle;
    }
    if middle > 0 && text_width.is_none() {
        let attention = "mid_block.attentions.0";
        text_width = Some(unet.axis(&format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?);
        is_linear = unet.axis(&format!("{attention}.proj_in.weight"), 2).is_err();
    }
    // Shapes do not show the number of heads. The first models have eight heads; in later models, whose `proj_in` is a
    // linear layer, a head is 64 wide.
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
    // The convolutions alternate: one keeps the number of channels, and the next changes it.
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

fn vae(checkpoint: &Checkpoint, picture_size: usize, vae: &Outline) -> Result<Value, String> {
    let blocks = vae.count("encoder.down_blocks.");
    let channels = (0..blocks).map(|block| vae.axis(&format!("encoder.down_blocks.{block}.resnets.0.conv1.weight"), 0));
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
        "scaling_factor": checkpoint.scaling_factor,
        "sample_size": picture_size,
    }))
}

fn clip(text: &Outline, encoder: &TextEncoder) -> Result<Value, String> {
    let width = text.axis("text_model.embeddings.token_embedding.weight", 1)?;
    let mut config = json!({
        "architectures": [encoder.class],
        "model_type": "clip_text_model",
        "vocab_size": text.axis("text_model.embeddings.token_embedding.weight", 0)?,
        "hidden_size": width,
        "max_position_embeddings": text.axis("text_model.embeddings.position_embedding.weight", 0)?,
        "num_hidden_layers": text.count("text_model.encoder.layers."),
        "intermediate_size": text.axis("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_attention_heads": (width / 64).max(1), // true of all CLIP and OpenCLIP encoders
        "hidden_act": if encoder.is_open { "gelu" } else { "quick_gelu" },
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    });
    if text.has("text_projection.weight") {
        config["projection_dim"] = text.axis("text_projection.weight", 0)?.into();
    }
    Ok(config)
}
