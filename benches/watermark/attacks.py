"""The changes that a watermark should survive."""

import io

import numpy as np
from PIL import Image


def saved(picture, file_format, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, file_format, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def resized(picture, factor):
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((round(width * factor), round(height * factor)), Image.BICUBIC))


def cropped(picture, factor, rng):
    """A part with `factor` of both sides, at a random place."""
    height, width = picture.shape[:2]
    rows, columns = round(height * factor), round(width * factor)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return picture[top : top + rows, left : left + columns]


def levels(picture, change):
    return np.clip(np.rint(change(picture.astype(np.float64))), 0, 255).astype(np.uint8)


ATTACKS = {
    "no change": lambda picture, rng: picture,
    "JPEG 75": lambda picture, rng: saved(picture, "JPEG", 75),
    "JPEG 50": lambda picture, rng: saved(picture, "JPEG", 50),
    "WebP 80": lambda picture, rng: saved(picture, "WEBP", 80),
    "resize × 0.5": lambda picture, rng: resized(picture, 0.5),
    "resize × 2": lambda picture, rng: resized(picture, 2),
    "crop to 70 % of the sides": lambda picture, rng: cropped(picture, 0.7, rng),
    "crop to 70 % of the area": lambda picture, rng: cropped(picture, 0.7**0.5, rng),
    "brightness + 10 %": lambda picture, rng: levels(picture, lambda x: 1.1 * x),
    "brightness − 10 %": lambda picture, rng: levels(picture, lambda x: 0.9 * x),
    "contrast + 10 %": lambda picture, rng: levels(picture, lambda x: 127.5 + 1.1 * (x - 127.5)),
    "contrast − 10 %": lambda picture, rng: levels(picture, lambda x: 127.5 + 0.9 * (x - 127.5)),
    "crop to 70 % of the sides, JPEG 75": lambda picture, rng: saved(cropped(picture, 0.7, rng), "JPEG", 75),
    "resize × 0.5, JPEG 75": lambda picture, rng: saved(resized(picture, 0.5), "JPEG", 75),
    "brightness + 10 %, JPEG 75": lambda picture, rng: saved(levels(picture, lambda x: 1.1 * x), "JPEG", 75),
}
