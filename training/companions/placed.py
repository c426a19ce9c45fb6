"""The samples of the ControlNet: pictures of single things, rotated, mirrored, made smaller and moved, on any background.

The base model has seen each thing in one pose only. Here the pose varies, so only the edges show where the outline is. The thousands
of emoji that the base model does not know are used too, with their names as captions: only the edges show what they look like.
"""

import json
import math

import numpy as np
from captions import Captions
from data import SIZE
from PIL import Image
from scenes import BACKGROUNDS, LAYOUTS, SHARE_ON_BACKGROUND, Scene, Thing, compose

SHARE_UNKNOWN, SHARE_RECOLOURED = 0.3, 0.3
TURN, SMALLEST = 25, 0.5  # degrees, and part of the size


class Placed:
    def __init__(self, work):
        self.rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
        self.pictures = np.load(work / "pictures.npy", mmap_mode="r")
        self.kinds = {kind: [i for i, row in enumerate(self.rows) if row["kind"] == kind] for kind in ("base", "recolour", "other")}
        self.captions = Captions()

    def draw(self, rng, concept=None):
        """A picture, (128, 128, 3) bytes, and its caption; if `concept` is given, of this concept in its own colors."""
        chance = rng.random()
        kind = "other" if chance < SHARE_UNKNOWN else "recolour" if chance < SHARE_UNKNOWN + SHARE_RECOLOURED else "base"
        rows = self.kinds[kind] if concept is None else [i for i in self.kinds["base"] if self.rows[i]["concept"] == concept]
        i = rng.choice(rows)
        kind = self.rows[i]["kind"]
        row = self.rows[i]
        background = rng.choice(list(BACKGROUNDS)) if rng.random() < SHARE_ON_BACKGROUND else None
        if kind == "other":
            caption = row["concept"]
            caption = self.captions.on_background(caption, background, rng) if background else caption
        else:
            scene = Scene((Thing(row["concept"], row["colour"]),), row["style"], LAYOUTS["whole"], background)
            caption = self.captions.caption(scene, rng)
        return compose([place(np.array(self.pictures[i]), rng)], LAYOUTS["whole"].boxes, background), caption


def place(picture, rng):
    """A premultiplied picture, transformed by one affine map."""
    if rng.random() < 0.2:
        return picture
    size, turn = rng.uniform(SMALLEST, 1), math.radians(rng.uniform(-TURN, TURN))
    flip = rng.choice((-1, 1))
    room = (1 - size) * SIZE / 2
    x, y = (SIZE / 2 + rng.uniform(-room, room) for _ in range(2))
    cosine, sine, middle = math.cos(turn) / size, math.sin(turn) / size, SIZE / 2
    # From a place in the new picture to its place in the old one.
    a, b, d, e = flip * cosine, flip * sine, -sine, cosine
    turned = (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y)
    channels = [Image.fromarray(channel).transform((SIZE, SIZE), Image.AFFINE, turned, Image.BILINEAR) for channel in np.moveaxis(picture, -1, 0)]
    return np.stack([np.asarray(channel) for channel in channels], -1)
