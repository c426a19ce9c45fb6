"""Evaluates a model folder with diffusers' StableDiffusionPipeline and the prompts of `prompts.tsv`.

The judge compares the pixels of a picture, at 32×32, with all emoji of both styles, also with the thousands that were never learned,
composed as the prompt asks. It shares nothing with the model. A picture is correct under these conditions:

- one thing: the nearest of all emoji is the wanted one (or one of those that the prompt may mean);
- a color: the same, compared with all emoji in this color, and the hue of the picture is that of the color;
- a background: the corners are nearest to the named color, and the wanted thing is the nearest of all emoji on this background;
- a number or a place: the nearest of all emoji in all layouts is the wanted one in the wanted layout;
- two things: at each place, the wanted thing is the nearest of all emoji at this size.

This shows which thing was drawn, not how sharp the picture is. Two more figures are computed from the pictures of the captions. The
sharpness is the mean absolute Laplacian of the pictures, divided by that of the real emoji of the same concepts. The Fréchet distance
to these emoji is that of FID (Heusel et al., arXiv:1706.08500), but with plain features instead of Inception's: colors and gradients
at three scales on a 4×4 grid. Look at the contact sheets too.
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from data import HUES, SIZE, hue_distance, main_hue, recolour, to_hsv
from diffusers import LCMScheduler, StableDiffusionPipeline
from diffusers.utils import logging
from PIL import Image, ImageDraw
from scenes import BACKGROUNDS, LAYOUTS

HERE = Path(__file__).parent
THUMBNAIL = 32
GROUPS = ("captions", "paraphrases", "compositions")
logging.set_verbosity_error()


def read_prompts():
    lines = [line for line in (HERE / "prompts.tsv").read_text().splitlines() if line and not line.startswith("#")]
    return [line.split("\t") for line in lines]


def shrink(pictures, size=THUMBNAIL):
    """(N, S, S, C) → (N, size, size, C) in 0–255."""
    n, side, _, channels = pictures.shape
    k = side // size
    return pictures.reshape(n, size, k, size, k, channels).mean((2, 4), dtype=np.float32)


def pairwise(a, b):
    """Squared distances of all pairs of rows, without an array of all differences."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T


class Judge:
    def __init__(self, work):
        rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
        real = [i for i, row in enumerate(rows) if row["kind"] != "recolour"]
        pictures = np.load(work / "pictures.npy", mmap_mode="r")
        self.names = np.array([rows[i]["concept"] for i in real])
        self.thumbnails = np.concatenate([shrink(np.array(pictures[real[i : i + 256]])) for i in range(0, len(real), 256)])
        self.cache = {}

    def references(self, layout="whole", background=None, colour=None):
        """All emoji, composed."""
        key = layout, background, colour
        if key not in self.cache:
            things = self.thumbnails if colour is None else self.coloured(colour)
            canvas = np.empty((len(things), THUMBNAIL, THUMBNAIL, 3), np.float32)
            canvas[:] = BACKGROUNDS.get(background, (255, 255, 255))
            for box in LAYOUTS[layout].boxes:
                left, top, side = (value * THUMBNAIL // SIZE for value in box)
                small = shrink(things, side)
                place = canvas[:, top : top + side, left : left + side]
                place *= 1 - small[..., 3:] / 255
                place += small[..., :3]
            self.cache[key] = canvas
        return self.cache[key]

    def coloured(self, colour):
        result = []
        for picture in self.thumbnails / 255:
            alpha = picture[..., 3:]
            hue = main_hue(to_hsv(picture[..., :3] / np.maximum(alpha, 1e-6)), alpha)
            result.append(recolour(picture, hue[0], colour) if hue else picture)
        return np.stack(result) * 255

    def nearest(self, pictures, **scene):
        distances = pairwise(pictures, self.references(**scene))
        best = distances.argmin(1)
        return self.names[best], distances[np.arange(len(best)), best]

    def right(self, picture, wanted):
        """Whether the picture (S, S, 3) shows what the last column of prompts.tsv asks for."""
        thumbnail = shrink(picture[None])
        things, *conditions = [part.strip() for part in wanted.split(";")]
        if "+" in things or "/" in things:
            return self.shows_pair(thumbnail, things)
        names = things.split("|")
        if not conditions:
            return self.nearest(thumbnail)[0][0] in names
        kind, *value = conditions[0].split()
        if kind == "colour":
            return self.nearest(thumbnail, colour=value[0])[0][0] in names and has_colour(thumbnail[0], value[0])
        if kind == "background":
            return ground(thumbnail[0]) == value[0] and self.nearest(thumbnail, background=value[0])[0][0] in names
        found = {layout: self.nearest(thumbnail, layout=layout) for layout in LAYOUTS if layout not in ("pair", "stack")}
        layout = min(found, key=lambda layout: found[layout][1][0])
        return layout == kind and found[layout][0][0] in names

    def shows_pair(self, thumbnail, things):
        beside = "+" in things
        names = [name.strip() for name in re.split(r"[+/]", things)]
        layout = LAYOUTS["pair" if beside else "stack"]
        shown = []
        for box in layout.boxes:
            left, top, side = (value * THUMBNAIL // SIZE for value in box)
            cell = thumbnail[:, top : top + side, left : left + side]
            shown.append(self.names[pairwise(cell, shrink(self.references(), side)).argmin()])
        return shown == names or beside and shown == names[::-1]


def has_colour(picture, colour):
    """Is what is not near white of this colour?"""
    alpha = (picture.min(-1, keepdims=True) < 220).astype(np.float32)
    hsv = to_hsv(picture / 255)
    if colour in HUES:
        hue = main_hue(hsv, alpha)
        return bool(hue) and hue_distance(hue[0], HUES[colour]) < 30
    if colour == "black":
        return float((hsv[..., 2:] * alpha).sum() / max(alpha.sum(), 1)) < 0.5
    raise ValueError(f"no measure for {colour}")


def ground(picture):
    corners = np.stack([picture[y, x] for y in (0, -1) for x in (0, -1)])
    colours = {**BACKGROUNDS, "white": (255, 255, 255)}
    return min(colours, key=lambda name: np.abs(np.median(corners, 0) - colours[name]).sum())


def laplacian(pictures):
    grey = pictures.mean(-1, dtype=np.float32)
    return np.abs(4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]).mean()


def features(pictures):
    """Mean colours, and mean absolute gradients at three scales, of the 16 cells of a grid."""
    found = [shrink(pictures, 4).reshape(len(pictures), -1) / 255]
    for side in (SIZE, SIZE // 2, SIZE // 4):
        grey = shrink(pictures, side).mean(-1)
        steps = np.abs(np.diff(grey, axis=1, append=grey[:, -1:])) + np.abs(np.diff(grey, axis=2, append=grey[:, :, -1:]))
        found.append(shrink(steps[..., None], 4).reshape(len(pictures), -1) / 64)
    return np.concatenate(found, 1).astype(np.float64)


def frechet(a, b):
    """The distance of two normal distributions (Fréchet, 1957); the root of the product by its eigenvalues."""
    means, covariances = (a.mean(0), b.mean(0)), (np.cov(a.T), np.cov(b.T))
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def generate(pipeline, prompts, seeds, steps, guidance, batch=10):
    pictures = []
    for start in range(0, len(prompts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        result = pipeline(prompts[start : start + batch], num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np")
        pictures.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def enlarge(pictures):
    """Enlarges the pictures of smaller models to 128×128."""
    if pictures.shape[1] == SIZE:
        return pictures
    return np.stack([np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.BICUBIC)) for picture in pictures])


def sheet(pictures, labels, right, file, columns=10):
    """A grid of pictures with their prompts below, in red where the judge says that it is not what was asked for."""
    cell_width, cell_height = SIZE + 8, SIZE + 18
    page = Image.new("RGB", (columns * cell_width, -(-len(pictures) // columns) * cell_height), "white")
    draw = ImageDraw.Draw(page)
    for i, (picture, label, hit) in enumerate(zip(pictures, labels, right)):
        x, y = i % columns * cell_width + 4, i // columns * cell_height
        page.paste(Image.fromarray(picture), (x, y))
        draw.text((x, y + SIZE + 2), label[:24], fill="black" if hit else "red")
    page.save(file)


def real_pictures(work, concepts):
    rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    chosen = [i for i, row in enumerate(rows) if row["kind"] == "base" and row["concept"] in concepts]
    pictures = np.array(pictures[chosen]).astype(np.int16)
    return (pictures[..., :3] + 255 - pictures[..., 3:]).clip(0, 255).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "emoji")
    parser.add_argument("--output", type=Path, help="folder of the contact sheets (default: the work folder)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seeds", type=int, default=3, help="how many pictures of each prompt")
    parser.add_argument("--lora", type=Path, help="draw with this adapter")
    parser.add_argument("--lcm", action="store_true", help="draw with the sampler of latent consistency models")
    parser.add_argument("--group", choices=GROUPS, action="append", help="only these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    output = arguments.output or arguments.work
    output.mkdir(parents=True, exist_ok=True)

    defaults = json.loads((arguments.model / "latentd.json").read_text())
    steps, guidance = arguments.steps or defaults["steps"], arguments.guidance or defaults["guidance_scale"]
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if arguments.lora:
        pipeline.load_lora_weights(arguments.lora)
    if arguments.lcm:
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    judge = Judge(arguments.work)
    print(f"{arguments.model}, {steps} steps, guidance {guidance}, {arguments.seeds} pictures of each prompt")

    scores, total = [], []
    for group in arguments.group or GROUPS:
        prompts = [(prompt, wanted) for kind, prompt, wanted in read_prompts() if kind == group]
        asked = [prompt for prompt, _ in prompts for _ in range(arguments.seeds)]
        seeds = [seed + 1 for _ in prompts for seed in range(arguments.seeds)]
        start = time.process_time()
        pictures = generate(pipeline, asked, seeds, steps, guidance)
        seconds = (time.process_time() - start) / len(asked)
        pictures = enlarge(pictures)
        right = np.array([judge.right(picture, wanted) for picture, wanted in zip(pictures, (wanted for _, wanted in prompts for _ in range(arguments.seeds)))])
        total += right.tolist()
        shares = right.reshape(len(prompts), -1).mean(1)
        scores += [(share, prompt) for share, (prompt, _) in zip(shares, prompts)]
        first = slice(0, None, arguments.seeds)
        sheet(pictures[first], asked[first], right[first], output / f"sheet-{group}.png")
        print(f"{group}: {right.mean():.3f} of {len(asked)} right, {seconds:.2f} CPU-seconds each", flush=True)
        if group == "captions":
            real = real_pictures(arguments.work, {wanted for _, wanted in prompts})
            sharpness, distance = laplacian(pictures) / laplacian(real), frechet(features(pictures), features(real))
            print(f"  sharpness {sharpness:.2f} of the real ones, Fréchet distance {distance:.3f}", flush=True)
    print(f"all: {np.mean(total):.3f} of {len(total)} right")
    print("weakest:", "; ".join(f"{prompt} ({share:.2f})" for share, prompt in sorted(scores)[:20]))


if __name__ == "__main__":
    main()
