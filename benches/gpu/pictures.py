#!/usr/bin/env python3
"""Measures pictures per second of a server, and whether the bytes of a picture depend on the other pictures of its
batches, with engine.batch_invariant = false and true.

    python3 benches/gpu/pictures.py LATENTD --folder FOLDER [--seconds 90]

The model is `sd15` of random_models.py, on the device that COMPARE_DEVICE names (default: cpu, with reference kernels and
tiny sizes, which checks the script). Standard library only; with Pillow, differences are printed in levels.
"""

import argparse
import concurrent.futures
import hashlib
import http.client
import io
import json
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import memory
import random_models

ON_GPU = os.environ.get("COMPARE_DEVICE", "cpu") != "cpu"
AT_A_TIME = (1, 4, 16) if ON_GPU else (1, 2)
COMPANY = 7 if ON_GPU else 2


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--folder", required=True, type=pathlib.Path)
    options.add_argument("--seconds", type=float, default=90)
    options.add_argument("--scale", type=int, default=1 if ON_GPU else 16)
    options.add_argument("--side", type=int, default=512 if ON_GPU else 64)
    options.add_argument("--steps", type=int, default=20 if ON_GPU else 2)
    options = options.parse_args()
    deadline = time.monotonic() + options.seconds
    (options.folder / "controlnets").mkdir(parents=True, exist_ok=True)
    random_models.make(options.folder / "models", "sd15", options.scale)
    print(f"{options.side}², {options.steps} steps, guided\n")
    print(f"| batch_invariant | pictures/s by the number at a time | one picture alone and beside {COMPANY} others |")
    print("|---|---|---|")
    broken = False
    for invariant in ("false", "true"):
        settings = {
            "LATENTD_ENGINE__DEVICES": os.environ.get("COMPARE_DEVICE", "cpu"),
            "LATENTD_ENGINE__KERNELS": "reference",
            "LATENTD_ENGINE__BATCH_INVARIANT": invariant,
            "LATENTD_MODELS__DEFAULT": "sd15",
        }
        with memory.Server(options.program, options.folder, settings) as server:
            server.until_ready()
            alone = draw(server, options, 7)
            together = draw_all(server, options, range(7, 8 + COMPANY))[0]
            rates = [rate(server, options, at_a_time, deadline) for at_a_time in AT_A_TIME]
        equal = alone == together
        broken |= not equal and (invariant == "true" or not ON_GPU)
        compared = "equal bytes" if equal else difference(alone, together)
        print(f"| {invariant} | {', '.join(rates)} | {compared} |", flush=True)
    if broken:
        print("\n**Broken:** the bytes of a picture depend on its batch")
    sys.exit(broken)


def draw(server, options, seed):
    """The PNG of a picture, without metadata."""
    body = {"model": "sd15", "prompt": "a red fox", "seed": seed, "steps": options.steps,
            "size": f"{options.side}x{options.side}", "guidance_scale": 7.5, "output": {"metadata": "none"}}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    headers = {"content-type": "application/json", "accept": "image/png", "prefer": "wait=300"}
    connection.request("POST", "/v1/images", json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {content[:500]}")
    return content


def draw_all(server, options, seeds):
    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as clients:
        return list(clients.map(lambda seed: draw(server, options, seed), seeds))


def rate(server, options, at_a_time, deadline):
    if time.monotonic() > deadline:
        return "no time"
    begun = time.monotonic()
    draw_all(server, options, range(100, 100 + at_a_time))
    return f"{at_a_time}: {at_a_time / (time.monotonic() - begun):.2f}"


def difference(one, other):
    try:
        from PIL import Image
    except ImportError:
        return f"other bytes: {hashlib.sha256(one).hexdigest()[:8]} and {hashlib.sha256(other).hexdigest()[:8]}"
    pixels = [Image.open(io.BytesIO(png)).convert("RGB").tobytes() for png in (one, other)]
    return f"other bytes, {max(abs(a - b) for a, b in zip(*pixels))} levels at most"


if __name__ == "__main__":
    main()
