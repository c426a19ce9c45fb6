"""The two further styles: their pictures of the concepts, also in other colors as in `data.py`, and their captions.

- flat: Microsoft's Fluent Emoji without the third dimension, under the MIT license;
- pixel: the pictures of the base model in the style `fluent`, as mosaics of 32×32 squares with hard edges.

Both styles show the things almost as the base model draws them, so a small LoRA has to learn only the style.
"""

import argparse
import json

import numpy as np
from captions import Captions
from companions.base import TRAINING
from data import SIZE, iconify_svgs, read_concepts, read_labels, render_svgs, shrink, write_pictures

STYLES = {"flat": ("flat style", "flat", "in flat style"), "pixel": ("pixel art", "pixel style", "in pixel style")}
SHARE_WITHOUT_WORDS = 0.6  # the share of captions without a style word: the LoRA alone is enough to get the style
SQUARE = 4


class StyleCaptions(Captions):
    def in_style(self, text, style, random):
        if random.random() < SHARE_WITHOUT_WORDS:
            return text
        word = random.choice(STYLES[style])
        return f"{text} {word}" if word.startswith("in ") else f"{text}, {word}"


def folder_of(work, style):
    """Where the pictures of a style are, in the format that Scenes reads."""
    return work / "styles" / style


def flat_pictures(work, concepts):
    """{code points: (128, 128, 4) premultiplied, 0–1}."""
    svgs = iconify_svgs(TRAINING / "node_modules", "fluent-emoji-flat")
    svgs = {code: svg for code, svg in svgs.items() if code in concepts}
    rendered = render_svgs(list(svgs.values()), folder_of(work, "flat"))
    return {code: shrink(pixels) for code, pixels in zip(svgs, rendered) if pixels is not None and pixels[..., 3].any()}


def pixel_pictures(work, concepts):
    """As `flat_pictures`."""
    codes = {concept["names"][0]: code for code, concept in concepts.items()}
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    found = {}
    for i, row in enumerate(map(json.loads, (work / "pictures.jsonl").open())):
        if row["kind"] == "base" and row["style"] == "fluent":
            found[codes[row["concept"]]] = mosaic(pictures[i].astype(np.float32) / 255)
    return found


def mosaic(picture):
    squares = picture.reshape(SIZE // SQUARE, SQUARE, SIZE // SQUARE, SQUARE, 4).mean((1, 3))
    alpha = squares[..., 3:]
    squares = np.where(alpha > 0.5, squares / np.maximum(alpha, 1e-6), 0)
    return squares.repeat(SQUARE, 0).repeat(SQUARE, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=type(TRAINING), default=TRAINING / "work")
    work = parser.parse_args().work
    concepts, labels = read_concepts(), read_labels(TRAINING / "node_modules")
    for style, pictures_of in (("flat", flat_pictures), ("pixel", pixel_pictures)):
        folder_of(work, style).mkdir(parents=True, exist_ok=True)
        write_pictures(folder_of(work, style), {style: pictures_of(work, concepts)}, concepts, labels)


if __name__ == "__main__":
    main()
