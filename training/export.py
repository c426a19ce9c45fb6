"""Writes the model folder in the diffusers layout: half precision, Stable Diffusion 1.5's names, the server's defaults.

With `--untrained`, parts that are missing in the work folder are exported without training, so that the code that loads the model
can be written before the training ends.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from autoencoder import build as build_autoencoder
from diffusers import AutoencoderKL, UNet2DConditionModel
from latents import CHANNELS, FACTOR, to_tensor
from safetensors.torch import load_file, save_file
from scenes import Scenes
from text_encoder import text_config
from transformers import CLIPTextModel, CLIPTokenizer
from unet import build as build_unet
from unet import build_scheduler

HERE = Path(__file__).parent

PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def load_or_build(model_class, folder, build, untrained):
    """The trained model of the work folder in full precision. If the folder has none and it is allowed, an untrained model."""
    if untrained and not (folder / "config.json").exists():
        return build()
    return model_class.from_pretrained(folder, dtype=torch.float32)


def rename_text_tensors(file):
    """Adds `text_model.` to the names of the text encoder's tensors, as in Stable Diffusion 1.5; newer libraries leave it out."""
    tensors = load_file(file)
    renamed = {name if name.startswith("text_model.") else f"text_model.{name}": tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in renamed.items() if not name.endswith("position_ids")}, file, metadata={"format": "pt"})


def tidy_config(file):
    """Removes the path from which the library loaded a model, and defaults such as -Infinity, which JSON does not have."""
    settings = json.loads(file.read_text(), parse_constant=lambda name: None)
    settings.pop("_name_or_path", None)
    settings.pop("lambda_min_clipped", None)
    file.write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n")


def fit_preview(autoencoder, pictures):
    """The linear map from latents to colors with the least squared error. It draws previews without the decoder."""
    with torch.no_grad():
        latents = torch.cat([autoencoder.encode(batch).latent_dist.mode() for batch in pictures.split(64)])
    colours = torch.nn.functional.avg_pool2d(pictures, FACTOR).permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    solution = torch.linalg.lstsq(torch.cat([inputs, torch.ones(len(inputs), 1)], 1), colours).solution
    error = (torch.cat([inputs, torch.ones(len(inputs), 1)], 1) @ solution - colours).square().mean().sqrt()
    print(f"preview: root mean square error {error:.3f} of a range of 2")
    rounded = [[round(value, 5) for value in row] for row in solution.tolist()]
    return {"weight": rounded[:CHANNELS], "bias": rounded[CHANNELS]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--output", type=Path, default=HERE.parent / "models" / "emoji")
    parser.add_argument("--untrained", action="store_true", help="fill in what has not been trained yet with random weights")
    arguments = parser.parse_args()
    work, output = arguments.work, arguments.output
    torch.manual_seed(0)

    # The text encoder with the further words of words.py, if there is one.
    more = "-more" if (work / "text_encoder-more").exists() else ""
    tokenizer = CLIPTokenizer.from_pretrained(work / f"tokenizer{more}")
    autoencoder = load_or_build(AutoencoderKL, work / "vae", build_autoencoder, arguments.untrained).eval()
    text = load_or_build(
        CLIPTextModel, work / f"text_encoder{more}", lambda: CLIPTextModel(text_config(len(tokenizer), tokenizer.model_max_length)), arguments.untrained
    )
    unet = load_or_build(UNet2DConditionModel, work / "unet", build_unet, arguments.untrained)

    scenes, rng = Scenes(work), random.Random(0)
    preview = fit_preview(autoencoder, to_tensor(np.stack([scenes.picture(scenes.draw(rng)) for _ in range(1000)])))
    defaults = json.loads((HERE / "defaults.json").read_text())

    shutil.copytree(work / f"tokenizer{more}", output / "tokenizer", dirs_exist_ok=True)
    unet.half().save_pretrained(output / "unet")
    autoencoder.half().save_pretrained(output / "vae")
    text.half().save_pretrained(output / "text_encoder")
    rename_text_tensors(output / "text_encoder" / "model.safetensors")
    build_scheduler().save_pretrained(output / "scheduler")
    for config in ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"):
        tidy_config(output / config)
    for weights in output.glob("*/*.safetensors"):
        weights.chmod(0o644)
    (output / "model_index.json").write_text(json.dumps(PIPELINE, indent=2, ensure_ascii=False) + "\n")
    (output / "latentd.json").write_text(json.dumps({**defaults, "preview": preview}, indent=2, ensure_ascii=False) + "\n")
    # These files do not belong to the model folder, but a training that continues from it needs them (see warm.py).
    shutil.copy(work / "latents.safetensors", HERE)
    student = torch.load(work / f"student{more}.pt")
    save_file({name: tensor.half().contiguous() for name, tensor in student.items() if not name.startswith("model.")}, HERE / "heads.safetensors")
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
