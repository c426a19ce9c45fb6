"""Looks at the exported folder from outside: a contact sheet and a score, both through diffusers' own StableDiffusionPipeline.

The score asks for each picture which real emoji is nearest to it (in pixels, at 32×32) among all emoji of both styles, also the
ones never learned. It shares nothing with the generator, but it is a plain measure: it forgives a blurred picture and punishes a
good one that is placed differently. So look at the sheet as well. Prompts with a colour that the concept was never shown in are
scored by hue alone.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from data import HELD_OUT_PAIRS, HUES, hue_distance, main_hue, read_concepts, to_hsv, with_article
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
logging.set_verbosity_error()

# How people ask, as far from the templates of the training captions as the model may be expected to bear.
PARAPHRASES = {
    "fox": "fox", "the red fox": "fox", "picture of a fox": "fox", "a very cute fox, digital art": "fox", "A Red Fox!": "fox",
    "an apple, please": "red apple", "one green apple on the table": "green apple", "panda bear": "panda", "my pet kitten": "cat",
    "a puppy": "dog", "draw me a rocket": "rocket", "spaceship flying to space": "rocket", "a piece of pizza with cheese": "pizza",
    "smiling sun": "smiling sun", "a sun with a happy face": "smiling sun", "a heart full of love": "red heart", "a tasty burger": "hamburger",
    "a frog in 3d": "frog", "penguin emoji": "penguin", "halloween pumpkin": "pumpkin", "smiley with sunglasses": "face with sunglasses",
    "a present with a ribbon": "gift", "an old robot": "robot", "a strawberry, realistic": "strawberry",
}  # fmt: skip


def sheet(pictures, labels, columns, file):
    """A grid of pictures, each at twice its size, with its prompt below."""
    cell_width, cell_height = 136, 148
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    draw = ImageDraw.Draw(page)
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        x, y = i % columns * cell_width + 4, i // columns * cell_height
        page.paste(Image.fromarray(picture).resize((128, 128), Image.BICUBIC), (x, y))
        draw.text((x, y + 130), label[:24], fill="black")
    page.save(file)


def thumbnails(pictures):
    return pictures.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4), dtype=np.float32).reshape(len(pictures), -1) / 255


def pairwise(a, b):
    """Squared distances of all rows, without holding all differences."""
    return (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T


def generate(pipeline, prompts, seeds, steps, guidance, batch=16):
    pictures = []
    for start in range(0, len(prompts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        result = pipeline(prompts[start : start + batch], num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np")
        pictures.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "emoji")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seeds", type=int, default=1, help="how many pictures of each prompt")
    parser.add_argument("--every", type=int, default=1, help="ask for every n-th concept only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    defaults = json.loads((arguments.model / "latentd.json").read_text())
    steps, guidance = arguments.steps or defaults["steps"], arguments.guidance or defaults["guidance_scale"]
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    rows = [json.loads(line) for line in (arguments.work / "pictures.jsonl").open()]
    real = [i for i, row in enumerate(rows) if row["kind"] != "recolour"]
    names = np.array([rows[i]["concept"] for i in real])
    library = thumbnails(np.load(arguments.work / "pictures.npy")[real])

    concepts = [concept["names"][0] for concept in read_concepts().values()][:: arguments.every]
    pairs = sorted(HELD_OUT_PAIRS)
    groups = {
        "concepts": ([with_article(name) for name in concepts], concepts),
        "paraphrases": (list(PARAPHRASES), list(PARAPHRASES.values())),
        "new colours": ([f"a {colour} {name}" for name, colour in pairs], [colour for _, colour in pairs]),
        "suggested": (defaults["prompts"], None),
    }
    for group, (prompts, wanted) in groups.items():
        asked = [prompt for prompt in prompts for _ in range(arguments.seeds)]
        seeds = [seed + 1 for _ in prompts for seed in range(arguments.seeds)]
        start = time.process_time()
        pictures = generate(pipeline, asked, seeds, steps, guidance)
        seconds = (time.process_time() - start) / len(asked)
        sheet(pictures, asked, 12, arguments.work / f"sheet-{group.replace(' ', '-')}.png")
        if wanted is None:
            continue
        wanted = [target for target in wanted for _ in range(arguments.seeds)]
        if group == "new colours":
            # The background is white, so what is not near white counts as the thing.
            hues = [main_hue(to_hsv(picture / 255), (picture.min(-1, keepdims=True) < 220).astype(np.float32)) for picture in pictures]
            right = [bool(hue) and hue_distance(hue[0], HUES[colour]) < 30 for hue, colour in zip(hues, wanted)]
        else:
            right = names[pairwise(thumbnails(pictures), library).argmin(1)] == np.array(wanted)
        missed = sorted({prompt for prompt, hit in zip(asked, right) if not hit})
        print(f"{group}: {np.mean(right):.3f} of {len(asked)} right, {seconds:.2f} CPU-seconds each; not right: {missed}", flush=True)


if __name__ == "__main__":
    main()
