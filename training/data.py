"""Makes the pictures: emoji at 128×128 with their transparency, and copies in other colors.

The emoji come from two npm packages (`package.json` has their versions, README.md their licenses). `pictures.jsonl` describes the
pictures in the order of `pictures.npy`. There are three kinds:

- `base`: a concept of `concepts.tsv` in one style.
- `recolour`: a picture of the kind `base` in a named color. Scenes (`scenes.py`) are composed of these two kinds, which the model
  learns to draw.
- `other`: every other emoji of the two styles. These pictures have no captions. The autoencoder learns from them too, and the
  evaluation uses them as wrong answers.

The content determines everything random, so the data set is the same on every machine.
"""

import argparse
import hashlib
import json
import random
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
SIZE = 128
OVERSAMPLING = 2  # pictures are rendered larger and averaged down with premultiplied alpha, for clean edges

HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 125, "blue": 215, "purple": 275, "pink": 325}
# Colours without a hue of their own: (hue or None to keep it, factor of the saturation, factor and offset of the value).
SHADES = {"black": (None, 0.15, 0.38, 0), "white": (None, 0.08, 0.3, 0.7), "gray": (None, 0.06, 0.7, 0.05), "brown": (24, 0.8, 0.62, 0)}
COLOUR_WORDS = set(HUES) | set(SHADES) | {"grey", "golden"}
HUES_PER_CONCEPT, SHADES_PER_CONCEPT = 4, 2
# Never shown in the training, so that the evaluation can ask for a known thing in a known color that it never had.
HELD_OUT_PAIRS = {
    ("banana", "blue"), ("frog", "red"), ("fox", "green"), ("car", "purple"), ("cat", "blue"), ("strawberry", "purple"),
    ("elephant", "pink"), ("octopus", "green"), ("house", "pink"), ("star", "green"), ("balloon", "green"), ("smiling face", "blue"),
}  # fmt: skip


def keyed_random(*key):
    digest = hashlib.sha256("|".join(map(str, key)).encode()).hexdigest()
    return random.Random(int(digest[:16], 16))


def canonical(code_points):
    """The code points by which an emoji is named, without the invisible variation selector FE0F, which is sometimes left out."""
    return "-".join(part for part in code_points.lower().split("-") if part != "fe0f")


def code_points(emoji):
    return canonical("-".join(f"{ord(c):x}" for c in emoji))


def read_concepts():
    concepts = {}
    for line in (HERE / "concepts.tsv").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        emoji, names, descriptions = line.split("\t")
        weight = 2.0 if names.startswith("*") else 1.0
        names = [name.strip() for name in names.lstrip("*").split(",")]
        descriptions = [text.strip() for text in descriptions.split(",")]
        concepts[code_points(emoji)] = {"names": names, "descriptions": descriptions, "weight": weight}
    return concepts


def read_labels(modules):
    """Code points → English label, for every emoji but flags and skin tones."""
    labels = {}
    for row in json.loads((modules / "emojibase-data/en/data.json").read_text()):
        if row.get("group") is not None and row["group"] != 9:
            labels[canonical(row["hexcode"])] = row["label"].lower()
    return labels


def iconify_svgs(modules, name):
    """Code points → SVG document, of a package of iconify's."""
    package = modules / "@iconify-json" / name
    collection = json.loads((package / "icons.json").read_text())
    icons, aliases = collection["icons"], collection.get("aliases", {})
    svgs = {}
    for code, name in json.loads((package / "chars.json").read_text()).items():
        icon = icons.get(name) or icons.get(aliases.get(name, {}).get("parent"))
        if icon is None:
            continue
        width = icon.get("width", collection.get("width", 16))
        height = icon.get("height", collection.get("height", 16))
        side = max(width, height)
        left = icon.get("left", 0) - (side - width) / 2
        top = icon.get("top", 0) - (side - height) / 2
        svgs[canonical(code)] = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{side}" height="{side}" viewBox="{left} {top} {side} {side}">{icon["body"]}</svg>'
        )
    return svgs


def render_svgs(svgs, work):
    """SVG documents → (N, S, S, 4) straight-alpha pixels; None for a document that the renderer cannot draw.

    A few degenerate documents make the renderer abort its process. It is then started again with the next document.
    """
    side = SIZE * OVERSAMPLING
    raw = work / "svg.raw"
    raw.unlink(missing_ok=True)
    raw.touch()
    bad = set()
    picture_bytes = side * side * 4
    while (done := raw.stat().st_size // picture_bytes) < len(svgs):
        lines = "".join(json.dumps(svg) + "\n" for svg in svgs[done:])
        subprocess.run(["node", str(HERE / "render.js"), str(side), str(raw)], input=lines, text=True, capture_output=True)
        stopped_at = raw.stat().st_size // picture_bytes
        if stopped_at < len(svgs):
            bad.add(stopped_at)
            with raw.open("ab") as file:
                file.write(bytes(picture_bytes))
    pixels = np.fromfile(raw, np.uint8).reshape(len(svgs), side, side, 4)
    raw.unlink()
    return [None if i in bad else picture for i, picture in enumerate(pixels)]


def shrink(pixels):
    """(k·128, k·128, 4) straight alpha → (128, 128, 4) premultiplied alpha, averaged, 0–1."""
    pixels = pixels.astype(np.float32) / 255
    k = pixels.shape[0] // SIZE
    pixels[..., :3] *= pixels[..., 3:]
    return pixels.reshape(SIZE, k, SIZE, k, 4).mean((1, 3))


def to_bytes(picture):
    return (picture * 255).round().clip(0, 255).astype(np.uint8)


def load_pictures(modules, work, labels):
    """{style: {code points: picture}} for every emoji that has a label."""
    fluent = {}
    for file in sorted((modules / "@lobehub/fluent-emoji-3d/assets").glob("*.webp")):
        code = canonical(file.stem)
        if code in labels:
            picture = Image.open(file).convert("RGBA")
            if picture.size != (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING):
                picture = ImageOps.pad(picture, (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), Image.LANCZOS)
            fluent[code] = shrink(np.asarray(picture))
    svgs = {code: svg for code, svg in iconify_svgs(modules, "noto").items() if code in labels}
    rendered = render_svgs(list(svgs.values()), work)
    noto = {code: shrink(pixels) for code, pixels in zip(svgs, rendered) if pixels is not None and pixels[..., 3].any()}
    return {"noto": noto, "fluent": fluent}


def to_hsv(colour):
    """(..., 3) red, green, blue → hue, saturation, value, all 0–1 (Smith, "Color gamut transform pairs", 1978)."""
    value, least = colour.max(-1), colour.min(-1)
    chroma = value - least
    safe = np.maximum(chroma, 1e-9)
    red, green, blue = np.moveaxis(colour, -1, 0)
    sixth = np.where(value == red, (green - blue) / safe % 6, np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4))
    return np.stack([np.where(chroma > 0, sixth / 6, 0), chroma / np.maximum(value, 1e-9), value], -1).astype(np.float32)


def from_hsv(hsv):
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    # Each channel is the value minus a trapezoid of the hue. From one channel to the next the trapezoid is shifted by a third.
    channels = []
    for shift in (5, 3, 1):
        k = (shift + hue * 6) % 6
        channels.append(value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.stack(channels, -1).astype(np.float32)


def main_hue(hsv, alpha):
    """The main hue in degrees and the share of the saturated area that has about this hue; None for pictures almost without color."""
    weight = hsv[..., 1] * hsv[..., 2] * alpha[..., 0] * (hsv[..., 1] > 0.25)
    total = weight.sum()
    if total < 0.3 * alpha.sum():
        return None
    mean = (weight * np.exp(2j * np.pi * hsv[..., 0])).sum() / total
    return float(np.degrees(np.angle(mean)) % 360), float(abs(mean))


def hue_distance(a, b):
    return abs((a - b + 180) % 360 - 180)


def recolours(name, hue, agreement):
    """The colors in which a concept is also shown: some that clearly differ from its own, if it has one main hue."""
    if agreement < 0.75 or any(word in COLOUR_WORDS for word in name.split()):
        return []
    hues = [c for c in HUES if hue_distance(HUES[c], hue) > 30 and (name, c) not in HELD_OUT_PAIRS]
    chosen = keyed_random("recolour", name)
    return chosen.sample(hues, min(HUES_PER_CONCEPT, len(hues))) + chosen.sample(list(SHADES), SHADES_PER_CONCEPT)


def recolour(picture, hue, word):
    """The picture in the named color: with the hue of this color as its main hue, or made white, black, gray or brown."""
    target, *change = SHADES[word] if word in SHADES else (HUES[word], 1, 1, 0)
    return turn(picture, hue, hue if target is None else target, *change)


def turn(picture, hue, target, saturation=1, factor=1, offset=0):
    """The picture with its main hue turned to `target`, both in degrees, and its saturation and value changed."""
    alpha = picture[..., 3:]
    hsv = to_hsv(picture[..., :3] / np.maximum(alpha, 1e-6))
    hsv[..., 0] = (hsv[..., 0] + (target - hue) / 360) % 1
    hsv[..., 1] *= saturation
    hsv[..., 2] = hsv[..., 2] * factor + offset
    return np.concatenate([from_hsv(hsv) * alpha, alpha], -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    arguments = parser.parse_args()
    work, modules = arguments.work, HERE / "node_modules"
    work.mkdir(parents=True, exist_ok=True)

    concepts, labels = read_concepts(), read_labels(modules)
    pictures = load_pictures(modules, work, labels)
    write_pictures(work, pictures, concepts, labels)


def write_pictures(work, pictures, concepts, labels):
    """{style: {code points: picture}} → the two files, with the recoloured copies."""
    rows, pixels = [], []
    for style, found in pictures.items():
        for code in concepts:
            if code not in found:
                print(f"{style} lacks {concepts[code]['names'][0]}")
        for code, picture in found.items():
            pixels.append(to_bytes(picture))
            if code not in concepts:
                rows.append({"kind": "other", "style": style, "concept": labels[code], "colour": None})
                continue
            name = concepts[code]["names"][0]
            rows.append({"kind": "base", "style": style, "concept": name, "colour": None})
            alpha = picture[..., 3:]
            hue = main_hue(to_hsv(picture[..., :3] / np.maximum(alpha, 1e-6)), alpha)
            for word in recolours(name, *hue) if hue else []:
                rows.append({"kind": "recolour", "style": style, "concept": name, "colour": word})
                pixels.append(to_bytes(recolour(picture, hue[0], word)))
    np.save(work / "pictures.npy", np.stack(pixels))
    with (work / "pictures.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    for kind in ("base", "recolour", "other"):
        print(f"{kind}: {sum(row['kind'] == kind for row in rows)} pictures")


if __name__ == "__main__":
    main()
