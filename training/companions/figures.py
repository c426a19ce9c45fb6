"""Measures the add-ons, except the LCM-LoRA, which `evaluate.py` measures with `--lora` and `--lcm`.

- styles: for how many pictures of prompts without a style word the nearest real picture of the thing has the style, and for how many
  the nearest of all things in the style is the requested thing;
- ControlNet: the share of the requested edges that have an edge of the picture within two pixels, and the share of the picture's
  edges that have a requested edge within two pixels;
- embedding: the distance of the main hue from teal in degrees, and the share of pictures in which it is at most 25.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from companions.base import TRAINING
from companions.drawing import base_pipeline, control_pipeline, draw, lora_pipeline, teal_pipeline
from companions.edges import canny
from companions.inversion import HUE, TOKEN
from companions.placed import Placed
from companions.styles import STYLES, folder_of
from data import hue_distance, main_hue, to_hsv
from evaluate import pairwise, read_prompts, shrink
from scenes import LAYOUTS, Scenes, compose

COUNT = 40


def thumbnails(work):
    """{style: {concept: (32, 32, 3)}} of all four styles."""
    found = {}
    for folder in (work, *(folder_of(work, style) for style in STYLES)):
        for (style, concept, colour), picture in Scenes(folder).pictures.items():
            if colour is None:
                found.setdefault(style, {})[concept] = shrink(compose([picture], LAYOUTS["whole"].boxes)[None])[0]
    return found


def nearest(picture, candidates):
    """The key of the candidate that is nearest to (128, 128, 3)."""
    distances = pairwise(shrink(picture[None]), np.stack(list(candidates.values())))
    return list(candidates)[distances.argmin()]


def measure_styles(work):
    real = thumbnails(work)
    for style in STYLES:
        asked = [(prompt, wanted) for kind, prompt, wanted in read_prompts() if kind == "captions" and wanted in real[style]][:COUNT]
        for name, pipeline in (("base", base_pipeline()), (f"{style}-lora", lora_pipeline(f"{style}-lora"))):
            pictures = draw(pipeline, [prompt for prompt, _ in asked])
            in_style = [nearest(picture, {s: real[s][wanted] for s in real if wanted in real[s]}) == style for picture, (_, wanted) in zip(pictures, asked)]
            right = [nearest(picture, real[style]) == wanted for picture, (_, wanted) in zip(pictures, asked)]
            print(f"{name}: nearest in style {style} {np.mean(in_style):.2f}, right thing in that style {np.mean(right):.2f}, of {len(asked)}", flush=True)


def agreement(asked, found):
    """The share of the requested edges that were drawn, and the share of the drawn edges that were requested, within two pixels."""
    asked, found = asked > 0, found > 0
    return [(widen(widen(a)) & b).sum() / max(1, b.sum()) for a, b in ((found, asked), (asked, found))]


def widen(mask):
    padded = np.pad(mask, 1)
    return np.any([padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)], 0)


def measure_control(work):
    placed, rng = Placed(work), random.Random(10**6)
    drawn = [placed.draw(rng) for _ in range(COUNT)]
    edges, captions = np.stack([canny(picture) for picture, _ in drawn]), [caption for _, caption in drawn]
    for name, pipeline, more in (("base", base_pipeline(), {}), ("controlnet-canny", control_pipeline(), {"edges": edges})):
        pictures = draw(pipeline, captions, **more)
        shares = np.mean([agreement(asked, canny(picture)) for asked, picture in zip(edges, pictures)], 0)
        print(f"{name}: {shares[0]:.2f} of the edges asked for are there, {shares[1]:.2f} of those there were asked for, of {COUNT}", flush=True)


def measure_teal(work):
    words = ["cat", "car", "heart", "frog", "balloon", "apple", "star", "octopus", "fox", "house", "rocket", "butterfly", "elephant", "pig", "rose", "hat", "bear", "bird", "fish", "mushroom"]
    pipeline = teal_pipeline()
    for colour in (TOKEN, "teal", "green", "blue"):
        distances = []
        for picture in draw(pipeline, [f"a {colour} {word}" for word in words]):
            alpha = (picture.min(-1, keepdims=True) < 220).astype(np.float32)
            hue = main_hue(to_hsv(picture / np.float32(255)), alpha)
            distances.append(hue_distance(hue[0], HUE) if hue else 180)
        print(f"a {colour} …: median {np.median(distances):.0f} degrees from teal, {np.mean(np.array(distances) < 25):.2f} within 25, of {len(words)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    parser.add_argument("--only", choices=("styles", "control", "teal"), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measures = {"styles": measure_styles, "control": measure_control, "teal": measure_teal}
    for name in arguments.only or measures:
        measures[name](arguments.work)


if __name__ == "__main__":
    main()
