"""Scenes of one or a few things on a background, and their pictures, composed of the pictures of `data.py`.

Things have their full or half their size. Their positions are multiples of the latents' blocks, so that a thing has almost the same
latents at every position.
"""

import json
from dataclasses import dataclass

import numpy as np
from data import SIZE, read_concepts

HALF, QUARTER = SIZE // 2, SIZE // 4
BACKGROUNDS = {
    "red": (229, 72, 77), "orange": (247, 150, 60), "yellow": (255, 214, 64), "green": (105, 195, 105), "blue": (90, 155, 245),
    "purple": (155, 105, 220), "pink": (250, 160, 205), "black": (22, 22, 26), "gray": (160, 160, 165),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    caption: str  # the method of Captions that describes scenes with this layout
    boxes: tuple  # (left, top, side) of each thing
    share: float  # the share of all scenes that have this layout
    place: str = ""


LAYOUTS = {
    "whole": Layout("whole", ((0, 0, SIZE),), 0.80),
    "small": Layout("small", ((QUARTER, QUARTER, HALF),), 0.02),
    "left": Layout("small", ((0, QUARTER, HALF),), 0.007, "left"),
    "right": Layout("small", ((HALF, QUARTER, HALF),), 0.007, "right"),
    "top": Layout("small", ((QUARTER, 0, HALF),), 0.007, "top"),
    "bottom": Layout("small", ((QUARTER, HALF, HALF),), 0.007, "bottom"),
    "pair": Layout("pair", ((0, QUARTER, HALF), (HALF, QUARTER, HALF)), 0.07),
    "stack": Layout("stack", ((QUARTER, 0, HALF), (QUARTER, HALF, HALF)), 0.015),
    "two": Layout("several", ((0, QUARTER, HALF), (HALF, QUARTER, HALF)), 0.03),
    "three": Layout("several", ((QUARTER, 0, HALF), (0, HALF, HALF), (HALF, HALF, HALF)), 0.025),
    "four": Layout("several", ((0, 0, HALF), (HALF, 0, HALF), (0, HALF, HALF), (HALF, HALF, HALF)), 0.012),
}
STYLE_SHARES = {"noto": 0.33, "fluent": 0.67}
SHARE_ON_BACKGROUND = 0.1
SHARE_RECOLOURED = 0.13  # of the things that have recoloured pictures


@dataclass(frozen=True)
class Thing:
    concept: str
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    things: tuple
    style: str
    layout: Layout
    background: str | None = None


class Scenes:
    """All pictures of the concepts, in memory; draws random scenes and their pictures."""

    def __init__(self, work):
        rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
        pictures = np.load(work / "pictures.npy", mmap_mode="r")
        known = [i for i, row in enumerate(rows) if row["kind"] != "other"]
        self.pictures = {(rows[i]["style"], rows[i]["concept"], rows[i]["colour"]): np.array(pictures[i]) for i in known}
        self.weights = {concept["names"][0]: concept["weight"] for concept in read_concepts().values()}
        styles = dict.fromkeys(key[0] for key in self.pictures)
        self.concepts = {style: [key[1] for key in self.pictures if key[0] == style and key[2] is None] for style in styles}
        self.colours = {}
        for style, concept, colour in self.pictures:
            if colour:
                self.colours.setdefault((style, concept), []).append(colour)

    def draw(self, random, style=None):
        style = style or random.choices(list(STYLE_SHARES), STYLE_SHARES.values())[0]
        layout = random.choices(list(LAYOUTS.values()), [layout.share for layout in LAYOUTS.values()])[0]
        things = [self.draw_thing(style, random)]
        if layout.caption in ("pair", "stack"):
            while (other := self.draw_thing(style, random)).concept == things[0].concept:
                pass
            things.append(other)
        background = random.choice(list(BACKGROUNDS)) if random.random() < SHARE_ON_BACKGROUND else None
        return Scene(tuple(things), style, layout, background)

    def draw_thing(self, style, random):
        concepts = self.concepts[style]
        concept = random.choices(concepts, [self.weights[concept] for concept in concepts])[0]
        colours = self.colours.get((style, concept))
        return Thing(concept, random.choice(colours) if colours and random.random() < SHARE_RECOLOURED else None)

    def picture(self, scene):
        """(128, 128, 3) bytes."""
        things = scene.things * (len(scene.layout.boxes) // len(scene.things))
        return compose([self.pictures[scene.style, thing.concept, thing.colour] for thing in things], scene.layout.boxes, scene.background)


def compose(pictures, boxes, background=None):
    """Puts premultiplied pictures into their boxes on a background of the named color; without a name it is white."""
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = BACKGROUNDS.get(background, (255, 255, 255))
    for picture, (left, top, side) in zip(pictures, boxes):
        picture = picture.astype(np.float32)
        if side == HALF:
            picture = picture.reshape(HALF, 2, HALF, 2, 4).mean((1, 3))
        place = canvas[top : top + side, left : left + side]
        place *= 1 - picture[..., 3:] / 255
        place += picture[..., :3]
    return canvas.round().clip(0, 255).astype(np.uint8)
