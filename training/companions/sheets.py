"""Contact sheets for the documentation, which show the effect of each add-on: one row without it, one row with it."""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from companions.base import TRAINING
from companions.drawing import base_pipeline, control_pipeline, draw, lcm_pipeline, lora_pipeline, teal_pipeline, tiny_pipeline
from companions.edges import canny
from companions.placed import Placed
from companions.styles import STYLES
from PIL import Image, ImageDraw
from scenes import SIZE

LABEL = 76
PROMPTS = ["a red fox", "a panda", "a hamburger", "a rocket", "a smiling sun", "an automobile", "a green frog", "a cupcake"]
TEAL = ["a {} cat", "a {} car", "a {} heart", "a {} frog", "a {} balloon", "a {} apple", "a {} star", "a {} octopus"]


def write_sheet(file, rows, columns=()):
    """`rows` is [(label, pictures)]; `columns` are words below the last row. At most 256 colours, so that the files are small."""
    width, height = LABEL + len(rows[0][1]) * SIZE, len(rows) * SIZE + (16 if columns else 0)
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for y, (label, pictures) in enumerate(rows):
        pen.multiline_text((4, y * SIZE + SIZE // 2 - 12), label, fill="black")
        for x, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture).convert("RGB"), (LABEL + x * SIZE, y * SIZE))
    for x, word in enumerate(columns):
        pen.text((LABEL + x * SIZE + 4, len(rows) * SIZE + 2), word[:21], fill="black")
    page.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


def lcm_sheet(folder):
    base, lcm = base_pipeline(), lcm_pipeline()
    rows = [("base\n4 steps\nguidance 3", draw(base, PROMPTS, steps=4)), ("base\n20 steps\nguidance 3", draw(base, PROMPTS))]
    rows += [(f"LCM-LoRA\n{steps} step{'s' * (steps > 1)}", draw(lcm, PROMPTS, steps=steps, guidance=1)) for steps in (1, 2, 4, 8)]
    write_sheet(folder / "lcm-lora.png", rows, PROMPTS)


def style_sheet(folder):
    rows = [("base", draw(base_pipeline(), PROMPTS))]
    rows += [(f"{style}-lora", draw(lora_pipeline(f"{style}-lora"), PROMPTS)) for style in STYLES]
    write_sheet(folder / "style-loras.png", rows, PROMPTS)


def tiny_sheet(folder):
    rows = [("vae", draw(base_pipeline(), PROMPTS)), ("vae_tiny", draw(tiny_pipeline(), PROMPTS))]
    write_sheet(folder / "vae-tiny.png", rows, PROMPTS)


def control_sheet(folder, work):
    """Edges of things in poses that the ControlNet never saw, and prompts with other colors or another thing."""
    placed, rng = Placed(work), random.Random(10**6)
    wanted = ["fox", "car", "red heart", "house", "frog", "red apple", "rocket", "mushroom"]
    prompts = ["a red fox", "a purple car", "a yellow heart", "a house on a green background", "a blue frog", "a green apple", "a red rocket", "a blue mushroom"]
    edges = np.stack([canny(placed.draw(rng, concept)[0]) for concept in wanted])
    rows = [("edges", edges), ("with them", draw(control_pipeline(), prompts, edges=edges)), ("without", draw(base_pipeline(), prompts))]
    write_sheet(folder / "controlnet-canny.png", rows, prompts)


def teal_sheet(folder):
    pipeline = teal_pipeline()
    rows = [(word, draw(pipeline, [prompt.format(word) for prompt in TEAL])) for word in ("green", "<teal>", "blue")]
    write_sheet(folder / "teal-embedding.png", rows, [prompt.format("…") for prompt in TEAL])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    parser.add_argument("--output", type=Path, default=TRAINING.parent / "docs" / "companions")
    parser.add_argument("--only", choices=("lcm", "styles", "tiny", "control", "teal"), action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {"lcm": lcm_sheet, "styles": style_sheet, "tiny": tiny_sheet, "control": lambda to: control_sheet(to, arguments.work), "teal": teal_sheet}
    for name in arguments.only or sheets:
        sheets[name](folder)


if __name__ == "__main__":
    main()
