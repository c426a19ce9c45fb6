"""Judges what the server's approximations and few steps cost: prompts.tsv, one picture of each prompt, with each setting.

Needs a running server with the embedded model; nothing else may use it meanwhile:

    latentd serve &
    python -m approximations

The judge is that of evaluate.py. PSNR compares a picture with the exact picture of the same prompt, seed, steps and scheduler. The
seconds are those of all network calls, by the server's metrics; all settings run for each prompt, so that a slow minute of the machine
affects all of them.
"""

import argparse
import io
import json
import math
import re
import statistics
import urllib.request
from pathlib import Path

import numpy as np
from evaluate import HERE, Judge, read_prompts
from PIL import Image

FAST, TINY = {"precision": "fast"}, {"decoder": "tiny"}
CACHE = {"feature_cache": {"kind": "deepcache", "interval": 2}}


def few(steps):
    return {"loras": [{"name": "emoji-lcm"}], "scheduler": "lcm", "guidance_scale": 1, "steps": steps}


# The name of a setting, its fields, and the setting whose pictures it approximates.
SETTINGS = [("20 steps", {}, None)]
SETTINGS += [(f"20 steps, {name}", fields, "20 steps") for name, fields in [
    ("fast", FAST), ("tiny decoder", TINY), ("feature cache", CACHE), ("all three", FAST | TINY | CACHE),
]]  # fmt: skip
for steps in (4, 2, 1):
    name = f"LCM, {steps} step" + "s" * (steps > 1)
    SETTINGS += [(name, few(steps), None)]
    SETTINGS += [(f"{name}, {what}", few(steps) | fields, name) for what, fields in [("fast", FAST), ("fast, tiny decoder", FAST | TINY)]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--operator", default="http://127.0.0.1:9090")
    parser.add_argument("--prompts", type=int, help="only every N-th prompt", default=1)
    arguments = parser.parse_args()
    judge = Judge(arguments.work)
    right, psnr, seconds = ({name: [] for name, _, _ in SETTINGS} for _ in range(3))
    prompts = read_prompts()[:: arguments.prompts]
    for name, fields, _ in SETTINGS:
        draw(arguments, {"prompt": "", "seed": 0} | fields)  # Loads what the setting needs.
    for seed, (_, prompt, wanted) in enumerate(prompts):
        pictures = {}
        for name, fields, like in SETTINGS:
            before = spent(arguments)
            pictures[name] = draw(arguments, {"prompt": prompt, "seed": seed} | fields)
            seconds[name].append(spent(arguments) - before)
            right[name].append(judge.right(pictures[name], wanted))
            if like:
                error = np.square(pictures[name].astype(float) - pictures[like]).mean()
                psnr[name].append(10 * math.log10(255**2 / error) if error else math.inf)
    print(f"{len(prompts)} prompts:\n")
    print("| setting | right | PSNR in dB: median (worst) | milliseconds for each picture |\n|---|---|---|---|")
    for name, _, _ in SETTINGS:
        close = f"{statistics.median(psnr[name]):.1f} ({min(psnr[name]):.1f})" if psnr[name] else "–"
        print(f"| {name} | {np.mean(right[name]):.3f} | {close} | {1000 * np.mean(seconds[name]):.0f} |")


def draw(arguments, request):
    """A picture, (S, S, 3)."""
    body = json.dumps(request | {"output": {"metadata": "none", "provenance": False}}).encode()
    headers = {"Content-Type": "application/json", "Accept": "image/png", "Prefer": "wait=300"}
    request = urllib.request.Request(f"{arguments.server}/v1/images", body, headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        return np.asarray(Image.open(io.BytesIO(response.read())).convert("RGB"))


def spent(arguments):
    """Seconds that all network calls took so far."""
    with urllib.request.urlopen(f"{arguments.operator}/metrics", timeout=60) as response:
        return sum(map(float, re.findall(r"^latentd_batch_seconds_sum\S* (\S+)$", response.read().decode(), re.MULTILINE)))


if __name__ == "__main__":
    main()
