#!/usr/bin/env python3
"""Writes animate_diff/: films of the pipeline `sd1` of the fixtures with a motion adapter of random weights.

    python animate_diff.py          # Writes into the folder of this script.

Needs diffusers 0.42.1, torch, transformers, numpy and safetensors.

The weights of the adapter are those of `put_adapter` in tests/support/motion_adapters.rs: they follow from the names and
shapes of the tensors, so no file has them. config.json is the adapter's configuration. cases.json has the request of
each film: `params` with the names of diffusers, `scheduler` with the keys that replace those of the folder. For each
case NAME, NAME.safetensors has `frames`, (F, H, W, 3), bytes, and the first call of the denoiser: `sample` and
`prediction`, (B, C, F, h, w), and `timestep`.
"""
import json
import os
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ["DIFFUSERS_VERBOSITY"] = "error"
import diffusers
import numpy as np
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
OUT = HERE / "animate_diff"
PIPELINE = HERE.parent / "fixtures" / "parity" / "pipelines" / "sd1"
CONFIG = dict(
    block_out_channels=[8, 16, 16, 16], motion_layers_per_block=2, motion_num_attention_heads=2,
    motion_norm_num_groups=4, motion_max_seq_length=6, use_motion_mid_block=True,
    motion_transformer_layers_per_block=[1, 2, 1, 1],
)
CASES = {
    "ddim": dict(
        scheduler=dict(_class_name="DDIMScheduler", beta_schedule="linear", clip_sample=False, steps_offset=1),
        params=dict(prompt="a red fox", negative_prompt="blurry", num_frames=5, width=32, height=24,
                    num_inference_steps=4, guidance_scale=7.5, seed=7),
    ),
    "euler_a": dict(
        scheduler=dict(_class_name="EulerAncestralDiscreteScheduler"),
        params=dict(prompt="two cats", num_frames=6, width=16, height=16, num_inference_steps=5, guidance_scale=4.0,
                    seed=11),
    ),
    "unguided": dict(
        scheduler=dict(_class_name="DPMSolverMultistepScheduler"),
        params=dict(prompt="two cats", num_frames=1, width=24, height=16, num_inference_steps=3, guidance_scale=1.0,
                    seed=2),
    ),
}
MASK = (1 << 64) - 1


def seed_of(name):
    """FNV-1a of the name."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def mixed(value):
    """The output function of SplitMix64, of an array of states."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def random_tensor(name, shape):
    """The values of a tensor, which `weights` of tests/support/transformers.rs also makes."""
    count = int(np.prod(shape))
    gamma = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        first = int(mixed(np.array([0], np.uint64) + gamma)[0])
        state = np.uint64(seed_of(name) ^ (((first << 32) | (first >> 32)) & MASK))
        steps = np.arange(1, 3 * count + 1, dtype=np.uint64)
        numbers = mixed(state + steps * gamma) % np.uint64((1 << 20) + 1)
    normal = (numbers.astype(np.float64) / (1 << 19) - 1.0).reshape(count, 3).sum(1)
    if len(shape) == 1:
        mean, deviation = (1.0, 0.1) if name.endswith("weight") else (0.0, 0.05)
    else:
        mean, deviation = 0.0, 1.0 / np.sqrt(np.prod(shape[1:]))
    values = (mean + deviation * normal).astype(np.float32)
    # bfloat16 by truncation
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).reshape(shape)


def adapter():
    made = diffusers.MotionAdapter(**CONFIG)
    state = {name: torch.from_numpy(random_tensor(name, tuple(value.shape))) for name, value in made.state_dict().items()}
    made.load_state_dict(state)
    return made


def film(motion, scheduler, params):
    pipe = diffusers.AnimateDiffPipeline.from_pretrained(
        PIPELINE, motion_adapter=motion, feature_extractor=None, image_encoder=None)
    pipe.set_progress_bar_config(disable=True)
    keys = dict(scheduler)
    pipe.scheduler = getattr(diffusers, keys.pop("_class_name")).from_config(pipe.scheduler.config, **keys)
    calls = []
    pipe.unet.register_forward_hook(lambda _, args, kwargs, out: calls.append((args, out.sample)), with_kwargs=True)
    params = dict(params)
    generator = torch.Generator().manual_seed(params.pop("seed"))
    frames = pipe(**params, generator=generator, output_type="pil").frames[0]
    (sample, timestep), prediction = calls[0]
    return {
        "frames": np.stack([np.asarray(frame) for frame in frames]),
        "sample": np.ascontiguousarray(sample.numpy()), "prediction": np.ascontiguousarray(prediction.numpy()),
        "timestep": np.array([float(timestep)], np.float32),
    }


def main():
    OUT.mkdir(exist_ok=True)
    motion = adapter()
    (OUT / "config.json").write_text(json.dumps({"_class_name": "MotionAdapter", **CONFIG}, indent=1) + "\n")
    (OUT / "cases.json").write_text(json.dumps(CASES, indent=1) + "\n")
    for name, case in CASES.items():
        with torch.no_grad():
            save_file(film(motion, **case), OUT / f"{name}.safetensors")


if __name__ == "__main__":
    main()
