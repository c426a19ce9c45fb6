#!/bin/sh
# What one expects: a file of an emoji package is named by the code points of its emoji, so 1f44b-1f3fc.webp is the waving hand in medium-light and
# 1f44b-1f3fd.webp the one in medium (U+1F3FB to U+1F3FF are the five skin tones from light to dark). Whoever trains or judges a model by skin tone
# takes the label from the name.
# What happens with @lobehub/fluent-emoji-3d 1.1.0 (npm): the files of these two tones are in each other's place. In 123 of the 130 emoji that have
# all five tones, the file named medium-light is darker than the file named medium; light, medium-dark and dark are in order. The median brightness
# of the waving hand, from light to dark by name, is 201, 140, 181, 104 and 57. The other seven, which are five
# couples, a dancer and a mountain biker, do not show the exchange.
# Source: https://unicode.org/reports/tr51/#Emoji_Modifiers_Table for the names; the package's assets for the pictures.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm pack --silent @lobehub/fluent-emoji-3d@1.1.0 > name
tar xzf "$(cat name)"
python3 -m venv venv
venv/bin/pip install --quiet pillow==12.0.0
venv/bin/python - <<'PYTHON'
import glob
import os
import statistics

from PIL import Image

TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")


def brightness(path):
    """The median brightness of the opaque pixels, 0 to 255."""
    pixels = Image.open(path).convert("RGBA").getdata()
    return statistics.median((299 * r + 587 * g + 114 * b) / 1000 for r, g, b, alpha in pixels if alpha > 250)


found = sorted(os.path.basename(path).split("-")[0] for path in glob.glob("package/assets/*-1f3fc.webp"))
swapped = 0
for code in dict.fromkeys(found):
    light, medium_light, medium, medium_dark, dark = (brightness(f"package/assets/{code}-{tone}.webp") for tone in TONES)
    swapped += medium_light < medium
    if code == "1f44b":
        print("waving hand:", *map(round, (light, medium_light, medium, medium_dark, dark)))
        assert light > medium > medium_light > medium_dark > dark
emoji = len(set(found))
print(f"{swapped} of {emoji} emoji: the file named medium-light is darker than the file named medium")
assert emoji == 130 and swapped == 123
PYTHON
