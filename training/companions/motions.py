"""The motions of the motion adapter: poses over one loop, the words that ask for them, and clips of scenes whose things move so.

A clip is one loop, whatever the number of its frames, so a film can be repeated without a jump. Frame i of F has the phase i/F.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scenes import BACKGROUNDS, SIZE

THINNEST = 0.15  # the least width of a thing that flips; at zero it would vanish
SHARE_WITHOUT_WORDS = 0.15  # the share of captions that ask for no motion; then it is DEFAULT
DEFAULT = "dance"


@dataclass(frozen=True)
class Pose:
    """A thing within its box: its center in sides of the box from the middle (down is positive), its size, and its clockwise turn."""

    x: float = 0.0
    y: float = 0.0
    width: float = 1.0
    height: float = 1.0
    degrees: float = 0.0


def wave(phase):
    return math.sin(2 * math.pi * phase)


def jump(phase):
    """Up and down, flat on the ground."""
    up = 4 * phase * (1 - phase)
    flat = 0.12 * max(0.0, 1 - 3 * up)
    height = 0.7 * (1 - flat)
    return Pose(y=0.5 - height / 2 - 0.3 * up, width=0.7 * (1 + flat), height=height)


def flip(phase):
    width = 0.95 * math.cos(2 * math.pi * phase)
    return Pose(width=math.copysign(max(abs(width), THINNEST), width), height=0.95)


def dance(phase):
    return Pose(y=0.03 - 0.06 * abs(wave(phase)), width=0.85, height=0.85, degrees=20 * wave(phase))


def breathe(phase):
    side = 0.78 + 0.2 * math.cos(2 * math.pi * phase)
    return Pose(width=side, height=side)


MOTIONS = {"jump": jump, "dance": dance, "breathe": breathe, "flip": flip}
# Words that the frozen U-Net's features tell apart (readable.py); they hardly do for "spinning" or "shaking".
WORDS = {"jump": ["jumping"], "dance": ["dancing"], "breathe": ["breathing", "growing and shrinking"], "flip": ["flipping"]}


def draw_motion(random):
    """(motion, word): the word is None for the captions that ask for no motion."""
    if random.random() < SHARE_WITHOUT_WORDS:
        return DEFAULT, None
    motion = random.choice(list(MOTIONS))
    return motion, random.choice(WORDS[motion])


def in_motion(caption, word, random):
    if word is None:
        return caption
    return random.choices([f"{caption}, {word}", f"{caption} {word}", f"{word}, {caption}"], [6, 2, 1])[0]


def clip(scenes, scene, motion, frames):
    """The scene as (frames, 3, 128, 128) in [-1, 1], in which every thing moves in its own box."""
    things = scene.things * (len(scene.layout.boxes) // len(scene.things))
    canvas = torch.tensor(BACKGROUNDS.get(scene.background, (255, 255, 255))).float().view(1, 3, 1, 1).expand(frames, 3, SIZE, SIZE)
    for thing, (left, top, side) in zip(things, scene.layout.boxes):
        picture = torch.from_numpy(scenes.pictures[scene.style, thing.concept, thing.colour].astype(np.float32)).permute(2, 0, 1)[None]
        if side < SIZE:
            picture = F.avg_pool2d(picture, SIZE // side)
        middle = (2 * left + side) / SIZE - 1, (2 * top + side) / SIZE - 1
        maps = torch.tensor([canvas_to_thing(MOTIONS[motion](frame / frames), middle, side / SIZE) for frame in range(frames)])
        grid = F.affine_grid(maps, (frames, 4, SIZE, SIZE), align_corners=False)
        moved = F.grid_sample(picture.expand(frames, -1, -1, -1), grid, align_corners=False)
        canvas = canvas * (1 - moved[:, 3:] / 255) + moved[:, :3]
    return canvas / 127.5 - 1


def canvas_to_thing(pose, middle, share):
    """The affine map (2, 3) from the canvas to the thing's own picture, both in [-1, 1]; a box has `share` of the canvas's side."""
    x, y = middle[0] + 2 * share * pose.x, middle[1] + 2 * share * pose.y
    angle = math.radians(pose.degrees)
    rows = []
    for scale, across, down in ((pose.width, math.cos(angle), math.sin(angle)), (pose.height, -math.sin(angle), math.cos(angle))):
        across, down = across / (scale * share), down / (scale * share)
        rows.append([across, down, -across * x - down * y])
    return rows
