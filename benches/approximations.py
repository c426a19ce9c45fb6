#!/usr/bin/env python3
"""Measures how much work latentd's approximations save and how much they change the pictures.

Requests the same pictures from a running server with and without approximations, compares the pixels, and reads rows
and seconds of the network calls from the metrics. Nothing else may use the server meanwhile. Standard library only.

    latentd serve &
    python3 benches/approximations.py                       # the server's default model, its own steps
    python3 benches/approximations.py --steps 50 --model sd15

Prints a Markdown table. PSNR and difference compare a picture with the exact picture of the same prompt and seed. Rows,
and the time of U-Net and decoder, are shares of those of the exact pictures, summed over all prompts.
"""

import argparse
import json
import math
import re
import statistics
import struct
import urllib.request
import zlib

PROMPTS = [
    "a red fox", "a red apple", "a panda", "a rocket", "a slice of pizza", "a smiling sun", "a red heart", "a green frog",
    "a robot", "a face with sunglasses", "a penguin, noto style", "a purple strawberry", "a cupcake", "a blue whale",
    "an owl, fluent 3d style", "a lion", "a banana", "a hamburger", "a ghost", "a cat, noto style", "a pineapple",
    "a snowman", "a crown", "a mushroom",
]

# main() adds, for comparison, fewer steps, which also save work, and another seed, which shows how far pictures differ.
SETTINGS = [
    ("`guidance_interval: [0, 0.5]`", {"guidance_interval": [0, 0.5]}),
    ("`guidance_interval: [0, 0.8]`", {"guidance_interval": [0, 0.8]}),
    ("`guidance_interval: [0.2, 0.8]`", {"guidance_interval": [0.2, 0.8]}),
    ("`guidance_interval: [0.2, 1]`", {"guidance_interval": [0.2, 1]}),
    ("`feature_cache`, interval 2", {"feature_cache": {"kind": "deepcache", "interval": 2}}),
    ("`feature_cache`, interval 3", {"feature_cache": {"kind": "deepcache", "interval": 3}}),
    ("`feature_cache`, interval 5", {"feature_cache": {"kind": "deepcache", "interval": 5}}),
    ("`feature_cache`, interval 10", {"feature_cache": {"kind": "deepcache", "interval": 10}}),
    (
        "`guidance_interval: [0, 0.8]` and `feature_cache`, interval 2",
        {"guidance_interval": [0, 0.8], "feature_cache": {"kind": "deepcache", "interval": 2}},
    ),
    ("`decoder: tiny`", {"decoder": "tiny"}),
    ("`precision: fast`", {"precision": "fast"}),
]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--server", default="http://127.0.0.1:8080")
    options.add_argument("--operator", default="http://127.0.0.1:9090")
    options.add_argument("--model")
    options.add_argument("--steps", type=int, help="of the exact pictures; default, the model's")
    options.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts")
    options = options.parse_args()

    models = json.loads(fetch(f"{options.server}/v1/models"))["data"]
    model = next(m for m in models if (m["id"] == options.model if options.model else m["default"]))
    card = model["capabilities"]
    steps = options.steps or card["default_steps"]
    base = {"model": model["id"], "steps": steps, "output": {"metadata": "none"}}
    settings = [(name, fields) for name, fields in SETTINGS if fields.get("decoder", "full") in card["decoders"]]
    for share in (0.8, 0.65, 0.5, 0.35):
        fewer = max(1, round(share * steps))
        settings.append((f"for comparison: {fewer} steps", {"steps": fewer}))
    settings.append(("for comparison: the next seed", {"seed_offset": 1}))

    draw(options, base | {"prompt": "", "seed": 0})  # Loads the model.
    exact_work, works = Work(), {name: Work() for name, _ in settings}
    likeness = {name: [] for name, _ in settings}
    # All settings run for each prompt, so that a slow minute of the machine affects all of them.
    for number, prompt in enumerate(PROMPTS[: options.prompts]):
        request = base | {"prompt": prompt, "seed": 100 + number}
        exact = draw(options, request, exact_work)
        for name, fields in settings:
            fields = dict(fields)
            seed = request["seed"] + fields.pop("seed_offset", 0)
            likeness[name].append(compare(exact, draw(options, request | fields | {"seed": seed}, works[name])))

    print(f"Model `{model['id']}`, {steps} steps, guidance {card['default_guidance_scale']:g}, {options.prompts} prompts:\n")
    print("| setting | PSNR in dB: median (worst) | mean difference in levels of 255 | rows | full rows | time |")
    print("|---|---|---|---|---|---|")
    for name, _ in settings:
        psnr = [psnr for psnr, _ in likeness[name]]
        difference = statistics.mean(difference for _, difference in likeness[name])
        shares = " | ".join(f"{100 * share:.0f} %" for share in works[name].shares(exact_work))
        print(f"| {name} | {statistics.median(psnr):.1f} ({min(psnr):.1f}) | {difference:.1f} | {shares} |")
    print(f"\nThe exact pictures took {exact_work.seconds:.2f} s in U-Net and decoder.")


class Work:
    """Rows and seconds that the server has computed for one setting."""

    def __init__(self):
        self.rows = self.shallow_rows = self.seconds = 0.0

    def add(self, before, after):
        def grown(metric):
            return after.get(metric, 0.0) - before.get(metric, 0.0)

        self.rows += grown("latentd_steps_total")
        self.shallow_rows += grown("latentd_shallow_steps_total")
        names = ("denoiser", "denoiser_shallow", "decoder", "tiny_decoder")
        of_networks = [f'network="{name}"' for name in names]
        sums = [metric for metric in after if metric.startswith("latentd_batch_seconds_sum")]
        self.seconds += sum(grown(metric) for metric in sums if any(network in metric for network in of_networks))

    def shares(self, exact):
        return self.rows / exact.rows, (self.rows - self.shallow_rows) / exact.rows, self.seconds / exact.seconds


def draw(options, request, work=None):
    """Requests a picture, adds its cost to `work`, and returns its pixels."""
    before = metrics(options)
    headers = {"Content-Type": "application/json", "Accept": "image/png", "Prefer": "wait=300"}
    picture = fetch(f"{options.server}/v1/images", json.dumps(request).encode(), headers)
    if work:
        work.add(before, metrics(options))
    return pixels(picture)


def metrics(options):
    text = fetch(f"{options.operator}/metrics").decode()
    return {name: float(value) for name, value in re.findall(r"^(latentd_\S+) (\S+)$", text, re.MULTILINE)}


def fetch(url, body=None, headers={}):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=600) as response:
        return response.read()


def compare(exact, other):
    """(PSNR in dB, mean absolute difference in levels of 255)."""
    differences = [abs(a - b) for a, b in zip(exact, other, strict=True)]
    square = sum(d * d for d in differences) / len(differences)
    psnr = 10 * math.log10(255 * 255 / square) if square else math.inf
    return psnr, sum(differences) / len(differences)


def pixels(png):
    """The RGB bytes of a PNG with 8 bits per sample and no interlacing, as the server writes it."""
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IHDR":
            width, height = struct.unpack(">II", png[at + 8 : at + 16])
        elif kind == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    data, stride, lines = zlib.decompress(data), 3 * width, [bytes(3 * width)]
    for y in range(height):
        kind, *line = data[y * (stride + 1) : (y + 1) * (stride + 1)]
        above = lines[-1]
        for x in range(stride):
            left, up, corner = (line[x - 3] if x > 2 else 0), above[x], (above[x - 3] if x > 2 else 0)
            line[x] = (line[x] + (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]) & 255
        lines.append(bytes(line))
    return b"".join(lines[1:])


def paeth(left, up, corner):
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


if __name__ == "__main__":
    main()
