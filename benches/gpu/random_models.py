"""Models of the sizes of Stable Diffusion 1.5 (`sd15`) and Stable Diffusion XL (`xl`) with random weights in float16,
in diffusers' layout. Standard library only."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import memory

CROSS = "CrossAttnDownBlock2D"


def configs(name, scale):
    """The configurations of a model by component. `scale` divides the widths; 1 is the real size."""
    groups = 32 if scale <= 5 else 4
    unet = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": groups,
    }
    if name == "sd15":
        unet |= {
            "sample_size": 64,
            "block_out_channels": [width // scale for width in (320, 640, 1280, 1280)],
            "down_block_types": [CROSS, CROSS, CROSS, "DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            "transformer_layers_per_block": [1] * 4,
            "attention_head_dim": 8 if scale == 1 else 4,
            "cross_attention_dim": 768 // scale,
        }
        texts = {"text_encoder": memory.text_config(768 // scale, 12 if scale == 1 else 2, 12, None)}
    else:
        widths = [768 // scale, 1280 // scale]
        unet |= {
            "sample_size": 128,
            "block_out_channels": [width // scale for width in (320, 640, 1280)],
            "down_block_types": ["DownBlock2D", CROSS, CROSS],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": sum(widths),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": widths[1] + 6 * 256,
        }
        texts = {
            "text_encoder": memory.text_config(widths[0], 12 if scale == 1 else 2, 12, None),
            "text_encoder_2": memory.text_config(widths[1], 32 if scale == 1 else 2, 20, widths[1]),
        }
    vae = {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [width // scale for width in (128, 256, 512, 512)],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "sample_size": 8 * unet["sample_size"],
        "scaling_factor": 0.18215 if name == "sd15" else 0.13025,
        "force_upcast": name == "xl",
    }
    return {"unet": unet, "vae": vae, **texts}


def make(folder, name, scale):
    """Writes the model into `folder` / `name` unless it is there, and returns the folder."""
    model = folder / name
    index_file = model / "model_index.json"
    if index_file.exists():
        return model
    parts = configs(name, scale)
    pipeline = "StableDiffusionPipeline" if name == "sd15" else "StableDiffusionXLPipeline"
    index = {"_class_name": pipeline, "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    memory.write_json(model / "scheduler/scheduler_config.json", memory.SCHEDULER)
    for part, config in parts.items():
        memory.write_json(model / part / "config.json", config)
        if part.startswith("text"):
            tokenizer = part.replace("text_encoder", "tokenizer")
            memory.write_tokenizer(model / tokenizer)
            memory.write_tensors(model / part / "model.safetensors", memory.text_tensors(config))
            index[part] = ["transformers", config["architectures"][0]]
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
        else:
            tensors = memory.unet_tensors(config) if part == "unet" else memory.vae_tensors(config)
            memory.write_tensors(model / part / "diffusion_pytorch_model.safetensors", tensors)
            index[part] = ["diffusers", config["_class_name"]]
    # The last file: its presence says that the model is complete.
    memory.write_json(index_file, index)
    return model
