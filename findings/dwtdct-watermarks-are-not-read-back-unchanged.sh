#!/bin/sh
# What one expects: a watermark can be read from the picture that the encoder has just returned, before any file format or change. dwtDct is the method
# that Stable Diffusion's reference scripts use to mark pictures, and the README of invisible-watermark shows an encoder followed by a decoder.
# What happens with invisible-watermark 0.2.0: of five photographs of scikit-image, the 64 bits of one come back whole; in the others 3 to 14 of the 64
# bits are wrong. A picture of a single color 255 returns zeros only. The decoder has no check, so it returns wrong bits (and bits of pictures that were
# never marked) like right ones. So a comparison with dwtDct must count the unchanged picture as a case of its own, and an application must add a
# code that detects and corrects errors.
# Source: EmbedMaxDct in imwatermark/maxDct.py. A bit is written into the largest coefficient of a block; the decoder looks for the largest one again,
# which can be another. The channel is rounded and clipped to 8 bits, and the inverse wavelet transform gets the horizontal and vertical details in
# the other order than the forward transform returns them.
# The package imports torch for another of its methods; dwtDct does not use it, so an empty module stands in for it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps invisible-watermark==0.2.0 opencv-python-headless==5.0.0.93 PyWavelets==1.9.0 \
    numpy==2.4.6 scikit-image==0.26.0 scipy==1.17.1 pillow==13.0.0 networkx==3.6.1 lazy-loader==0.6 packaging==26.4 imageio==2.38.1 tifffile==2026.3.3
mkdir "$folder/torch"
: > "$folder/torch/__init__.py"
cat > "$folder/check.py" <<'PY'
import warnings

import numpy
import skimage.data

warnings.filterwarnings("ignore")
from imwatermark import WatermarkDecoder, WatermarkEncoder

PAYLOAD = bytes.fromhex("0123456789abcdef")


def wrong_bits(picture):
    encoder = WatermarkEncoder()
    encoder.set_watermark("bytes", PAYLOAD)
    marked = encoder.encode(picture[:, :, ::-1].copy(), "dwtDct")
    found = WatermarkDecoder("bytes", 8 * len(PAYLOAD)).decode(marked, "dwtDct")
    bits = [numpy.unpackbits(numpy.frombuffer(text, numpy.uint8)) for text in (PAYLOAD, found)]
    return int((bits[0] != bits[1]).sum())


found = {name: wrong_bits(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket", "cat")}
print("wrong bits of 64:", found)
whole = sum(wrong == 0 for wrong in found.values())
assert whole == 1 and max(found.values()) >= 10, "invisible-watermark has changed"
white = wrong_bits(numpy.full((512, 512, 3), 255, numpy.uint8))
print("a white picture:", white, "wrong")
assert white == 32, "invisible-watermark has changed"
PY
PYTHONPATH="$folder" "$folder/venv/bin/python" "$folder/check.py"
