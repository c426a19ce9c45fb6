"""Measures the watermark: which changes it survives, beside dwtDct, and how often unmarked pictures seem to have one.

    cargo build --release --example watermark && cargo build --release
    python3 -m venv /tmp/v && /tmp/v/bin/pip install --no-deps -r requirements.txt
    /tmp/v/bin/python table.py --crops 100000
"""

import argparse
import pathlib
import statistics

import numpy as np

from attacks import ATTACKS
from marks import DwtDct, Latentd
from pictures import ROOT, drawn, parts, photographs


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2))


def right_bits(found, bits):
    """The share of the 64 bits that are right. Without an answer, half of them are right by chance."""
    return 0.5 if found is None else 1 - (found ^ bits).bit_count() / 64


def measure(mark, pictures, seed):
    """Prints a row for each attack: how many payloads came back whole, and the mean share of right bits."""
    rng = np.random.default_rng(seed)
    whole, right = {name: 0 for name in ATTACKS}, {name: [] for name in ATTACKS}
    noises, embedding, detecting = [], [], []
    for picture in pictures:
        bits = int(rng.integers(0, 2**64, dtype=np.uint64))
        marked, seconds = mark.embed(picture, bits)
        noises.append(psnr(marked, picture))
        embedding.append(seconds)
        for name, attack in ATTACKS.items():
            found, seconds = mark.detect(attack(marked, rng))
            detecting.append(seconds)
            whole[name] += found == bits
            right[name].append(right_bits(found, bits))
    count = len(pictures)
    print(f"{mark.name}: {count} pictures, PSNR median {statistics.median(noises):.1f} dB, least {min(noises):.1f} dB;"
          f" ms to embed: median {1e3 * statistics.median(embedding):.2f}, most {1e3 * max(embedding):.2f};"
          f" ms to detect: median {1e3 * statistics.median(detecting):.1f}, most {1e3 * max(detecting):.1f}")
    for name in ATTACKS:
        print(f"| {name} | {whole[name]} of {count} | {100 * statistics.mean(right[name]):.1f} % |", flush=True)


def count_false(mark, count, side, more):
    """Prints how many of `count` unmarked parts of pictures seem to have a watermark."""
    rng = np.random.default_rng(4)
    pictures = [picture for picture in [*photographs(), *more] if min(picture.shape[:2]) >= side]
    false = 0
    for index in range(count):
        picture = pictures[index % len(pictures)]
        top, left = (rng.integers(0, size - side + 1) for size in picture.shape[:2])
        part = picture[top : top + side, left : left + side]
        false += mark.detect(part if index % 2 else part[:, ::-1])[0] is not None
        if (index + 1) % 10_000 == 0:
            print(f"{false} of {index + 1} unmarked parts of {side} × {side} pixels have a watermark", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--example", default=ROOT / "target/release/examples/watermark")
    parser.add_argument("--latentd", default=ROOT / "target/release/latentd")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp/latentd-watermark"))
    parser.add_argument("--crops", type=int, default=0, help="unmarked parts to look at")
    parser.add_argument("--only-crops", action="store_true")
    arguments = parser.parse_args()
    mark = Latentd(arguments.example)
    emoji = list(drawn(arguments.latentd, arguments.folder, 100))
    if not arguments.only_crops:
        print("Pictures of the embedded model, 128 × 128 pixels")
        measure(mark, emoji, 1)
        print("dwtDct: refuses pictures of fewer than 256 × 256 pixels")
        for side in (128, 256, 512):
            print(f"Parts of photographs, {side} × {side} pixels")
            photos = list(parts(50, side, 2))
            measure(mark, photos, 3)
            if side >= 256:
                measure(DwtDct(), photos, 3)
    count_false(mark, arguments.crops, 96, emoji)


if __name__ == "__main__":
    main()
