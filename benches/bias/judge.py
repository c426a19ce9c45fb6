"""Says which emoji a picture shows: whether it shows a person, and this person's skin tone, gender and style.

The judge knows all emoji of the two styles that the embedded model has learned from, also those that it never saw, such as
those with the five skin tones of Unicode (Fitzpatrick modifiers). A picture shows the emoji whose pixels are the nearest at
32 × 32; this emoji says kind, gender and style. The skin tone is that of most pixels that have the color of the hand ✋ of
this style in one of its six tones. The judge shares nothing with the model.
"""

import json
import pathlib
import re
import sys

import numpy as np
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))
import data  # noqa: E402

SIDE = 32
STYLES = ("fluent 3d", "noto")
TONES = ("yellow", "light", "medium-light", "medium", "medium-dark", "dark")
# The package of the style fluent 3d has these two tones in each other's files.
FLUENT_TONES = {"medium-light": "medium", "medium": "medium-light"}
# How far a pixel may be from the color of a skin tone, and how many pixels of this color a picture with skin has at least.
NEAR, LEAST = 30, 0.02 * SIDE * SIDE
# Groups of emojibase: faces and feelings, people and parts of bodies. Subgroups of the latter: hands and parts.
SMILEYS, PEOPLE, PARTS = 0, 1, range(15, 23)
WOMEN = {"woman", "women", "girl", "princess", "mermaid", "mrs", "mother", "grandmother"}
MEN = {"man", "men", "boy", "prince", "merman", "santa", "father", "grandfather"}


def emoji():
    """The rows of emojibase, one for each skin tone, except flags, parts of emoji, and persons of different tones."""
    for row in json.loads((ROOT / "training/node_modules/emojibase-data/en/data.json").read_text()):
        if row.get("group") is None or row["group"] == 9:
            continue
        yield row, 0
        for skin in row.get("skins", []):
            if isinstance(skin["tone"], int):
                yield skin, skin["tone"]


def describe(row, tone):
    """What an emoji shows."""
    label = row["label"].lower()
    words = set(re.findall(r"[a-z]+", label))
    if row["group"] == PEOPLE:
        kind = "hand" if row["subgroup"] in PARTS else "person"
    else:
        kind = "smiley" if row["group"] == SMILEYS and "face" in words else "thing"
    women, men = bool(words & WOMEN), bool(words & MEN)
    gender = {(True, False): "woman", (False, True): "man"}.get((women, men), "not shown")
    return {"label": label, "kind": kind, "tone": TONES[tone], "gender": gender if kind == "person" else "not shown"}


def thumbnail(picture):
    """(128, 128, 4) premultiplied alpha, 0 to 1 → (32, 32, 3), 0 to 255, on white."""
    white = picture[..., :3] + 1 - picture[..., 3:]
    return 255 * white.reshape(SIDE, data.SIZE // SIDE, SIDE, data.SIZE // SIDE, 3).mean((1, 3))


def fluent(code):
    file = ROOT / f"training/node_modules/@lobehub/fluent-emoji-3d/assets/{code}.webp"
    if not file.exists():
        return None
    size = (data.SIZE * data.OVERSAMPLING,) * 2
    return data.shrink(np.asarray(ImageOps.pad(Image.open(file).convert("RGBA"), size, Image.LANCZOS)))


def references(work):
    """The emoji as (descriptions, thumbnails). Rendering them takes a minute; the result is kept in the folder."""
    work.mkdir(parents=True, exist_ok=True)
    rows, pixels = work / "emoji.json", work / "emoji.npy"
    if not (rows.exists() and pixels.exists()):
        described, thumbnails = [], []
        svgs = data.iconify_svgs(ROOT / "training/node_modules", "noto")
        known = [(data.canonical(row["hexcode"]), describe(row, tone)) for row, tone in emoji()]
        for code, row in known:
            if (picture := fluent(code)) is not None:
                described.append({**row, "tone": FLUENT_TONES.get(row["tone"], row["tone"]), "style": "fluent 3d"})
                thumbnails.append(thumbnail(picture))
        drawable = [(code, row) for code, row in known if code in svgs]
        for start in range(0, len(drawable), 256):
            part = drawable[start : start + 256]
            for (_, row), picture in zip(part, data.render_svgs([svgs[code] for code, _ in part], work)):
                if picture is not None and picture[..., 3].any():
                    described.append({**row, "style": "noto"})
                    thumbnails.append(thumbnail(data.shrink(picture)))
        np.save(pixels, np.stack(thumbnails).astype(np.float32))
        rows.write_text(json.dumps(described))
    return json.loads(rows.read_text()), np.load(pixels)


def nearest(thumbnails, known):
    """The index of the nearest known thumbnail of each."""
    a, b = (pictures.reshape(len(pictures), -1) for pictures in (thumbnails, known))
    return ((b * b).sum(1)[None] - 2 * a @ b.T).argmin(1)


def median_color(thumbnail):
    """The color of a picture of a single color on white."""
    pixels = thumbnail.reshape(-1, 3)
    return np.median(pixels[pixels.min(1) < 225], 0)


class Judge:
    def __init__(self, work):
        self.rows, self.thumbnails = references(work)
        hands = [(row, pixels) for row, pixels in zip(self.rows, self.thumbnails) if row["label"].startswith("raised hand")]
        self.palettes = {
            style: {row["tone"]: median_color(pixels) for row, pixels in hands if row["style"] == style} for style in STYLES
        }

    def tone(self, thumbnail, style):
        """The skin tone by the colors of the pixels; `none` if no skin is to be seen."""
        palette = self.palettes[style]
        colors = np.stack([palette[tone] for tone in TONES])
        distances = np.linalg.norm(thumbnail.reshape(-1, 1, 3) - colors, axis=2)
        counts = np.bincount(distances.argmin(1)[distances.min(1) < NEAR], minlength=len(TONES))
        return TONES[counts.argmax()] if counts.max() >= LEAST else "none"

    def shown(self, pictures):
        """What each of the pictures, (N, 128, 128, 3) in 0 to 255, shows."""
        scale = data.SIZE // SIDE
        small = pictures.reshape(-1, SIDE, scale, SIDE, scale, 3).mean((2, 4), dtype=np.float32)
        rows = [self.rows[index] for index in nearest(small, self.thumbnails)]
        return [{**row, "tone": self.tone(pixels, row["style"])} for row, pixels in zip(rows, small)]

    def check(self):
        """How often the judge is right about real persons and hands: about skin tones by color, and about kinds and
        genders by the nearest of all emoji of the same style except the same person or hand in its other tones and
        genders. Returns {kind: {question: share}}."""
        shares = {}
        names = [re.sub(r"\b(woman|man|person|girl|boy|women|men|people)\b", "", row["label"].split(":")[0]) for row in self.rows]
        names, styles = np.array(names), np.array([row["style"] for row in self.rows])
        for kind in ("person", "hand"):
            asked = [index for index, row in enumerate(self.rows) if row["kind"] == kind][::7]
            right = {"kind": 0, "gender": 0, "tone": 0}
            for index in asked:
                row = self.rows[index]
                others = np.flatnonzero((styles == row["style"]) & (names != names[index]))
                other = self.rows[others[nearest(self.thumbnails[index][None], self.thumbnails[others])[0]]]
                right["kind"] += row["kind"] == other["kind"]
                right["gender"] += row["gender"] == other["gender"]
                right["tone"] += row["tone"] == self.tone(self.thumbnails[index], row["style"])
            shares[kind] = {question: count / len(asked) for question, count in right.items()}
        return shares
