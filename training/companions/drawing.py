"""Draws with the add-ons and diffusers' pipelines, for check.py, figures.py and sheets.py."""

import numpy as np
import torch
from companions.base import COMPANIONS, MODEL
from diffusers import AutoencoderTiny, ControlNetModel, LCMScheduler, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from PIL import Image

STEPS, GUIDANCE = 20, 3.0  # the base's defaults


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def base_pipeline():
    return quiet(StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32, local_files_only=True))


def lora_pipeline(name):
    pipeline = base_pipeline()
    pipeline.load_lora_weights(COMPANIONS / name)
    return pipeline


def lcm_pipeline():
    pipeline = lora_pipeline("lcm-lora")
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def tiny_pipeline():
    pipeline = base_pipeline()
    pipeline.vae = AutoencoderTiny.from_pretrained(COMPANIONS / "vae_tiny", dtype=torch.float32)
    return pipeline


def teal_pipeline():
    pipeline = base_pipeline()
    pipeline.load_textual_inversion(COMPANIONS / "teal-embedding", weight_name="learned_embeds.safetensors")
    return pipeline


def control_pipeline():
    controlnet = ControlNetModel.from_pretrained(COMPANIONS / "controlnet-canny", dtype=torch.float32)
    return quiet(StableDiffusionControlNetPipeline.from_pretrained(MODEL, controlnet=controlnet, dtype=torch.float32, local_files_only=True))


def draw(pipeline, prompts, seed=1, steps=STEPS, guidance=GUIDANCE, edges=None, batch=10, **more):
    """One picture of each prompt, (N, 128, 128, 3) bytes, all with the same seed; `edges` is (N, 128, 128) bytes."""
    pictures = []
    for start in range(0, len(prompts), batch):
        asked = prompts[start : start + batch]
        if edges is not None:
            more["image"] = [Image.fromarray(picture).convert("RGB") for picture in edges[start : start + batch]]
        generators = [torch.Generator().manual_seed(seed) for _ in asked]
        result = pipeline(asked, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np", **more)
        pictures.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)
