#!/usr/bin/env python3
"""Compares the memory and the speed of programs that draw with weights in float16. Standard library only; Linux.

    python3 benches/half_precision.py BEFORE AFTER --folder /tmp/weights
    python3 benches/half_precision.py target/debug/latentd --folder /tmp/weights --model sdxl --side 1024 --steps 2

Makes a model with the shapes of Stable Diffusion 1.5 (2.1 GB of disk) or Stable Diffusion XL (6.9 GB) and random
numbers. Then starts a server for each program, one after the other, which draws one picture, and reads the peak memory
from /proc. With two programs, starts both servers again and lets them draw in turn. Prints the peaks, the seconds of each
pair and their ratio, and whether the files of the pictures are equal. Fails if they are not, or if a picture fails.
"""

import argparse
import pathlib
import statistics
import sys
import time

import memory
from builds import Server

SD15_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 1, 1, 1],
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("programs", nargs="+", help="one program, or the old and the new one")
    options.add_argument("--folder", required=True, type=pathlib.Path, help="of the weights; what is there is used again")
    options.add_argument("--model", choices=["sd15", "sdxl"], default="sd15")
    options.add_argument("--side", type=int, default=512, help="pixels of the pictures")
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--pairs", type=int, default=3, help="of pictures, drawn in turn by two programs")
    options = options.parse_args()
    make(options.folder, options.model)
    settings = {"LATENTD_MODELS__DIR": str(options.folder), "LATENTD_PROVENANCE__CREDENTIALS": "false"}
    settings |= {"LATENTD_MODELS__DEFAULT": options.model}
    request = {"model": options.model, "prompt": "a red fox", "steps": options.steps, "seed": 1}
    request |= {"size": f"{options.side}x{options.side}"}

    peaks, files = [], []
    for program in options.programs:
        with Server(program, settings) as server:
            seconds, file = draw(server, request)
            peaks.append(server.peak())
            files.append(file)
            print(f"{program}: peak {peaks[-1]:,} MiB, first picture {seconds:.2f} s, SHA-256 {file[:16]}…", flush=True)
    if len(options.programs) == 2:
        print(f"Peak memory, new / old: {peaks[1] / peaks[0]:.3f}", flush=True)
        with Server(options.programs[0], settings) as old, Server(options.programs[1], settings) as new:
            for server in (old, new):
                draw(server, request)
            ratios = []
            for pair in range(options.pairs):
                order = [(0, old), (1, new)]
                took = {at: draw(server, request)[0] for at, server in (order if pair % 2 == 0 else order[::-1])}
                ratios.append(took[0] / took[1])
                print(f"pair {pair + 1}: old {took[0]:.2f} s, new {took[1]:.2f} s, speed {ratios[-1]:.3f}", flush=True)
        if ratios:
            print(f"Speed of the new program: {statistics.median(ratios):.3f} times that of the old one (median)")
    if len(set(files)) > 1:
        sys.exit("the pictures differ")


def draw(server, request):
    """(the seconds of a picture, the SHA-256 of its file)"""
    start = time.monotonic()
    answer = server.ask("POST", "/v1/images", request)
    while answer.get("status") in ("queued", "running"):
        time.sleep(0.02)
        answer = server.ask("GET", f"/v1/images/{answer['id']}")
    if answer.get("status") != "succeeded":
        sys.exit(f"not drawn: {answer}")
    return time.monotonic() - start, answer["images"][0]["sha256"]


def make(folder, model):
    folder = folder / model
    if (folder / "model_index.json").exists():
        return
    unet, vae = memory.unet_config(1) if model == "sdxl" else SD15_UNET, memory.vae_config(1)
    if model == "sd15":
        vae |= {"scaling_factor": 0.18215, "sample_size": 512, "force_upcast": False}
    parts = {"unet": (unet, memory.unet_tensors), "vae": (vae, memory.vae_tensors)}
    texts = {"text_encoder": memory.text_config(768, 12, 12, None)}
    if model == "sdxl":
        texts["text_encoder_2"] = memory.text_config(1280, 32, 20, 1280)
    kind = "StableDiffusionXLPipeline" if model == "sdxl" else "StableDiffusionPipeline"
    index = {"_class_name": kind, "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    for part, (config, tensors) in parts.items():
        index[part] = ["diffusers", config["_class_name"]]
        memory.write_json(folder / part / "config.json", config)
        memory.write_tensors(folder / part / "diffusion_pytorch_model.safetensors", tensors(config))
    for part, config in texts.items():
        tokenizer = part.replace("text_encoder", "tokenizer")
        index |= {part: ["transformers", config["architectures"][0]], tokenizer: ["transformers", "CLIPTokenizer"]}
        memory.write_json(folder / part / "config.json", config)
        memory.write_tensors(folder / part / "model.safetensors", memory.text_tensors(config))
        memory.write_tokenizer(folder / tokenizer)
    memory.write_json(folder / "scheduler/scheduler_config.json", memory.SCHEDULER)
    memory.write_json(folder / "model_index.json", index)


if __name__ == "__main__":
    main()
