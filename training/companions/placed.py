"""Pictures of single things turned, mirrored, made smaller and moved, on any ground: the examples of the ControlNet.

The base has seen each thing in one pose only. Here the outline is anywhere, so that it is the edges that must be followed. The
thousands of emoji that the base does not know take part under their names: of those only the edges tell.
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
        """(picture (128, 128, 3) bytes, caption), of one concept in its own colours if that is asked for."""
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
    """A premultiplied picture somewhere else, by one affine map."""
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
