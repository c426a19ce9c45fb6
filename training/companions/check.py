"""Loads every add-on with diffusers and checks its effect. Takes a minute. It tests the files, not how good the pictures look."""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from companions.base import COMPANIONS, TRAINING
from companions.drawing import base_pipeline, control_pipeline, draw, lcm_pipeline, lora_pipeline, teal_pipeline, tiny_pipeline
from companions.edges import canny
from companions.figures import agreement
from companions.inversion import HUE, TOKEN
from companions.placed import Placed
from companions.styles import STYLES
from data import hue_distance, main_hue, to_hsv
from evaluate import Judge

MOST = 20e6  # bytes of all companions
NEAREST = {"flat": 20, "pixel": 25}  # PSNR in dB compared with the base; a mosaic is near to its picture anyway
THINGS = {"a red apple": "red apple", "a panda": "panda", "a green frog": "frog", "a hamburger": "hamburger", "a rocket": "rocket"}


def decibels(a, b):
    return 10 * np.log10(255**2 / np.square(a.astype(np.float32) - b).mean())


def check_lcm(work):
    pictures = draw(lcm_pipeline(), list(THINGS), steps=4, guidance=1)
    judge = Judge(work)
    right = sum(judge.right(picture, thing) for picture, thing in zip(pictures, THINGS.values()))
    assert right >= 4, f"{right} of {len(THINGS)} are right in four steps"


def check_styles(work):
    plain = draw(base_pipeline(), list(THINGS))
    for style in STYLES:
        pipeline = lora_pipeline(f"{style}-lora")
        near = decibels(draw(pipeline, list(THINGS)), plain)
        assert near < NEAREST[style], f"{style} changes next to nothing: {near:.1f} dB"
        pipeline.unload_lora_weights()
        assert decibels(draw(pipeline, list(THINGS)), plain) > 40, f"{style} stays"


def check_tiny(work):
    near = decibels(draw(tiny_pipeline(), list(THINGS)), draw(base_pipeline(), list(THINGS)))
    assert near > 24, f"{near:.1f} dB to the full decoder"


def check_control(work):
    placed, rng = Placed(work), random.Random(10**6)
    edges = np.stack([canny(placed.draw(rng, "fox")[0]) for _ in range(3)])
    prompts = ["a red fox"] * 3
    kept = [agreement(a, canny(p))[0] for a, p in zip(edges, draw(control_pipeline(), prompts, edges=edges))]
    plain = [agreement(a, canny(p))[0] for a, p in zip(edges, draw(base_pipeline(), prompts))]
    assert np.mean(kept) > np.mean(plain) + 0.15, f"{np.mean(kept):.2f} of the edges, {np.mean(plain):.2f} without"


def check_teal(work):
    for picture in draw(teal_pipeline(), [f"a {TOKEN} heart", f"a {TOKEN} octopus"]):
        alpha = (picture.min(-1, keepdims=True) < 220).astype(np.float32)
        hue = main_hue(to_hsv(picture / np.float32(255)), alpha)[0]
        assert hue_distance(hue, HUE) < 30, f"hue {hue:.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    work = parser.parse_args().work
    torch.set_num_threads(1)
    size = sum(file.stat().st_size for file in COMPANIONS.rglob("*.safetensors"))
    assert size < MOST, f"{size / 1e6:.1f} MB"
    for check in (check_lcm, check_styles, check_tiny, check_control, check_teal):
        check(work)
        print(f"{check.__name__.removeprefix('check_')}: as it should", flush=True)
    print(f"{size / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main()
