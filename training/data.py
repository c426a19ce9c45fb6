"""The data set: emoji pictures at 64×64 on white, with captions made from templates.

Pictures come from two npm packages (`package.json` pins them, README.md lists their licences), names from `concepts.tsv`
and from emojibase-data. Two kinds of rows are written to `pictures.jsonl`, in the order of `pictures.npy`:

- `base`: a concept of `concepts.tsv` in one style, and `recolour`: the same picture with its hue turned to a named colour.
  These have captions and teach text-to-image.
- `other`: every other emoji of the two styles. These have no captions; they teach the autoencoder to see pictures in general,
  and the evaluation uses them as distractors.

Everything random is keyed by content, so that the data set is the same on every machine.
"""

import argparse
import colorsys
import hashlib
import json
import random
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
SIZE = 64
OVERSAMPLING = 2  # pictures are rendered larger and averaged down with premultiplied alpha, for clean edges
CAPTIONS_PER_PICTURE = 48

STYLES = {
    "noto": ["noto style", "noto", "noto emoji", "in noto style"],
    "fluent": ["fluent 3d style", "fluent 3d", "3d", "3d render", "in fluent 3d style"],
}
# A prompt without a style word should mean one thing most of the time: two pictures that differ in pose would blend.
SHARE_WITHOUT_STYLE = {"noto": 0.15, "fluent": 0.5}

HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 125, "blue": 215, "purple": 275, "pink": 325}
COLOUR_WORDS = set(HUES) | {"white", "black", "brown", "gray", "grey", "golden"}
RECOLOURS_PER_CONCEPT = 3
RECOLOUR_WEIGHT = 0.14
# Never shown, so that the evaluation can ask whether a colour word carries over to a new pair.
HELD_OUT_PAIRS = {
    ("banana", "blue"), ("frog", "red"), ("fox", "green"), ("car", "purple"), ("cat", "blue"), ("strawberry", "purple"),
    ("elephant", "pink"), ("octopus", "green"), ("house", "pink"), ("star", "green"), ("balloon", "green"), ("smiling face", "blue"),
}  # fmt: skip


def keyed_random(*key):
    digest = hashlib.sha256("|".join(map(str, key)).encode()).hexdigest()
    return random.Random(int(digest[:16], 16))


def canonical(code_points):
    """Emoji are named by their code points; the invisible variation selector FE0F is sometimes left out, so drop it."""
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


def noto_svgs(modules):
    package = modules / "@iconify-json/noto"
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
    """SVG documents → (N, S, S, 4) straight-alpha pixels; None where the renderer gave up.

    The renderer aborts the whole process on a few degenerate documents, so it is started again behind each of them.
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
    """(k·64, k·64, 4) straight alpha → ((64, 64, 3) colour, (64, 64, 1) alpha), averaged with premultiplied alpha, 0–1."""
    pixels = pixels.astype(np.float32) / 255
    k = pixels.shape[0] // SIZE
    alpha = pixels[..., 3:]
    blocks = np.concatenate([pixels[..., :3] * alpha, alpha], -1).reshape(SIZE, k, SIZE, k, 4).mean((1, 3))
    return blocks[..., :3] / np.maximum(blocks[..., 3:], 1e-6), blocks[..., 3:]


def on_white(colour, alpha):
    return ((colour * alpha + 1 - alpha) * 255).round().clip(0, 255).astype(np.uint8)


def load_pictures(modules, work, labels):
    """{style: {code points: (colour, alpha)}} for every emoji that has a label."""
    fluent = {}
    for file in sorted((modules / "@lobehub/fluent-emoji-3d/assets").glob("*.webp")):
        code = canonical(file.stem)
        if code in labels:
            picture = Image.open(file).convert("RGBA")
            if picture.size != (SIZE * 4, SIZE * 4):
                picture = ImageOps.pad(picture, (SIZE * 4, SIZE * 4), Image.LANCZOS)
            fluent[code] = shrink(np.asarray(picture))
    svgs = {code: svg for code, svg in noto_svgs(modules).items() if code in labels}
    rendered = render_svgs(list(svgs.values()), work)
    noto = {code: shrink(pixels) for code, pixels in zip(svgs, rendered) if pixels is not None and pixels[..., 3].max() > 0}
    return {"noto": noto, "fluent": fluent}


def to_hsv(colour):
    return np.apply_along_axis(lambda p: colorsys.rgb_to_hsv(*p), -1, colour.clip(0, 1)).astype(np.float32)


def from_hsv(hsv):
    return np.apply_along_axis(lambda p: colorsys.hsv_to_rgb(*p), -1, hsv).astype(np.float32)


def main_hue(hsv, alpha):
    """(hue in degrees, how much of the saturated area agrees with it), or None for pictures almost without colour."""
    weight = hsv[..., 1] * hsv[..., 2] * alpha[..., 0] * (hsv[..., 1] > 0.25)
    total = weight.sum()
    if total < 0.3 * alpha.sum():
        return None
    mean = (weight * np.exp(2j * np.pi * hsv[..., 0])).sum() / total
    return float(np.degrees(np.angle(mean)) % 360), float(abs(mean))


def hue_distance(a, b):
    return abs((a - b + 180) % 360 - 180)


def recolours(name, hue, agreement):
    """The colours to which a concept is turned: some of those clearly unlike its own, if it has one main hue."""
    if agreement < 0.75 or any(word in COLOUR_WORDS for word in name.split()):
        return []
    colours = [c for c in HUES if hue_distance(HUES[c], hue) > 30 and (name, c) not in HELD_OUT_PAIRS]
    return keyed_random("recolour", name).sample(colours, RECOLOURS_PER_CONCEPT)


def with_article(text):
    if text.endswith("s") and not text.endswith(("ss", "us", "bus", "cactus")):
        return text
    return ("an " if text[0] in "aeiou" else "a ") + text


def phrase(random, names, descriptions):
    """One way in which a person may ask for the thing."""
    name = random.choice(names) if random.random() < 0.6 else names[0]
    adjective = random.choice(["cute", "little", "small", "nice", "beautiful", "big", "funny", "lovely", "simple", "single", "shiny"])
    kind = random.choice(["picture", "drawing", "emoji", "image", "photo", "icon", "illustration", "painting", "render", "sticker"])
    plain, article = name, with_article(name)
    forms = [
        (5, plain), (6, article), (2, f"the {plain}"), (1, f"one {plain}"), (1.5, f"{plain} emoji"),
        (2, f"{with_article(kind)} of {article}"), (0.7, f"{kind} of {plain}"), (0.7, f"the {kind} of the {plain}"),
        (2, with_article(f"{adjective} {plain}")), (0.7, f"{adjective} {plain}"), (0.5, f"{with_article(kind)} of {with_article(f'{adjective} {plain}')}"),
        (0.4, f"draw {article}"), (0.4, f"show me {article}"), (0.4, f"i want {article}, please"), (0.4, f"{article} on a white background"),
        (0.3, f"{article}, high quality"), (0.3, f"{plain}, {adjective}"), (0.3, f"this is {article}"), (0.3, f"here is my {plain}"),
    ]  # fmt: skip
    if descriptions:
        forms += [(2, f"{plain}, {', '.join(random.sample(descriptions, random.randint(1, len(descriptions))))}")]
        forms += [(1, f"{random.choice(descriptions)}, {plain}")]
    return random.choices([text for _, text in forms], [weight for weight, _ in forms])[0]


def captions(code, style, names, descriptions, colour=None):
    random = keyed_random("captions", code, style, colour)
    if colour:
        names, descriptions = [f"{colour} {name}" for name in names if not set(name.split()) & COLOUR_WORDS], []
    result = []
    for _ in range(CAPTIONS_PER_PICTURE):
        text = phrase(random, names, descriptions)
        if random.random() >= SHARE_WITHOUT_STYLE[style]:
            word = random.choice(STYLES[style])
            if word.startswith("in "):
                text = f"{text} {word}"
            else:
                text = f"{text}, {word}" if random.random() < 0.8 else f"{word} {text}"
        result.append(text)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    arguments = parser.parse_args()
    work, modules = arguments.work, HERE / "node_modules"
    work.mkdir(parents=True, exist_ok=True)

    concepts, labels = read_concepts(), read_labels(modules)
    pictures = load_pictures(modules, work, labels)
    rows, pixels = [], []
    for style, found in pictures.items():
        for code in concepts:
            if code not in found:
                print(f"{style} lacks {concepts[code]['names'][0]}")
        for code, (colour, alpha) in found.items():
            if code not in concepts:
                rows.append({"kind": "other", "style": style, "concept": labels[code], "colour": None, "weight": 0.0, "captions": []})
                pixels.append(on_white(colour, alpha))
                continue
            concept = concepts[code]
            names, descriptions, weight = concept["names"], concept["descriptions"], concept["weight"]
            row = {"style": style, "concept": names[0]}
            rows.append({**row, "kind": "base", "colour": None, "weight": weight, "captions": captions(code, style, names, descriptions)})
            pixels.append(on_white(colour, alpha))
            hsv = to_hsv(colour)
            hue = main_hue(hsv, alpha)
            for word in recolours(names[0], *hue) if hue else []:
                turned = hsv.copy()
                turned[..., 0] = (turned[..., 0] + (HUES[word] - hue[0]) / 360) % 1
                texts = captions(code, style, names, descriptions, word)
                rows.append({**row, "kind": "recolour", "colour": word, "weight": weight * RECOLOUR_WEIGHT, "captions": texts})
                pixels.append(on_white(from_hsv(turned), alpha))
    np.save(work / "pictures.npy", np.stack(pixels))
    with (work / "pictures.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    for kind in ("base", "recolour", "other"):
        chosen = [row for row in rows if row["kind"] == kind]
        print(f"{kind}: {len(chosen)} pictures, weight {sum(row['weight'] for row in chosen):.0f}")


if __name__ == "__main__":
    main()
