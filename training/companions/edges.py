"""Edges after Canny ("A computational approach to edge detection", 1986), as OpenCV finds them with thresholds 100 and 200.

The edges are local maxima of Sobel gradients across the edge: all strong ones, and the weak ones that are connected to a strong one.
"""

import numpy as np

WEAK, STRONG = 100, 200


def canny(picture):
    """(H, W, 3) bytes → (H, W) bytes, 255 on edges and 0 elsewhere."""
    grey = (picture @ np.array([0.299, 0.587, 0.114])).round()
    padded = np.pad(grey, 1, mode="edge")
    smooth_rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across = smooth_rows[:, 2:] - smooth_rows[:, :-2]
    down = smooth_columns[2:] - smooth_columns[:-2]
    strength = np.abs(across) + np.abs(down)
    edges = strength * is_crest(strength, across, down)
    return (grow(edges > STRONG, edges > WEAK) * 255).astype(np.uint8)


def is_crest(strength, across, down):
    """Whether a gradient is the largest of three along its direction, rounded to an eighth of the circle."""
    height, width = strength.shape
    padded = np.pad(strength, 1)
    angle = np.arctan2(down, across)
    direction = (angle / (np.pi / 4)).round().astype(int) % 4  # right, right and down, down, left and down
    crest = np.zeros(strength.shape, bool)
    for way, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        before = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        after = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        crest |= (direction == way) & (strength > before) & (strength >= after)
    return crest


def grow(seeds, allowed):
    """The connected parts of `allowed` that touch `seeds`, also at corners."""
    height, width = seeds.shape
    while True:
        padded = np.pad(seeds, 1)
        spread = np.zeros_like(seeds)
        for y in range(3):
            for x in range(3):
                spread |= padded[y : y + height, x : x + width]
        spread &= allowed
        if (spread == seeds).all():
            return seeds
        seeds = spread
