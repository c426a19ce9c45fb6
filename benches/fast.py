#!/usr/bin/env python3
"""Compares `precision: fast` with `exact`: the seconds of each network of a large model. Standard library only; Linux.

    python3 benches/fast.py target/debug/latentd --folder /tmp/weights
    python3 benches/fast.py target/debug/latentd --folder /tmp/weights --model sdxl --side 1024 --steps 2

Makes a model with the shapes of Stable Diffusion 1.5 (2.1 GB of disk) or Stable Diffusion XL (6.9 GB) and random numbers, as
half_precision.py does. A server draws pictures with both precisions in turn. For each network, prints the median seconds
of a call in both precisions, and the median of their ratios in the pairs. Random weights show the speed, and say nothing
about the quality; training/approximations.py judges real pictures.
"""

import argparse
import pathlib
import re
import statistics
import urllib.request

import half_precision
from builds import Server


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--folder", required=True, type=pathlib.Path, help="of the weights; what is there is used again")
    options.add_argument("--model", choices=["sd15", "sdxl"], default="sd15")
    options.add_argument("--side", type=int, default=512, help="pixels of the pictures")
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--pairs", type=int, default=3, help="of pictures")
    options.add_argument("--unit", default="auto", help="the setting kernels.fast")
    options = options.parse_args()
    half_precision.make(options.folder, options.model)
    settings = {"LATENTD_MODELS__DIR": str(options.folder), "LATENTD_PROVENANCE__CREDENTIALS": "false"}
    settings |= {"LATENTD_MODELS__DEFAULT": options.model, "LATENTD_KERNELS__FAST": options.unit}
    request = {"model": options.model, "steps": options.steps, "seed": 1, "size": f"{options.side}x{options.side}"}
    with Server(options.program, settings) as server:
        for precision in ("exact", "fast"):
            half_precision.draw(server, request | {"prompt": "warm", "precision": precision})
        pairs = []
        for pair in range(options.pairs):
            times = {}
            for precision in ("exact", "fast") if pair % 2 == 0 else ("fast", "exact"):
                before = calls(server)
                # Another prompt for each picture, because the server keeps the results of text encoders.
                half_precision.draw(server, request | {"prompt": f"a red fox {pair}", "precision": precision})
                times[precision] = per_call(before, calls(server))
            pairs.append(times)
            print(f"pair {pair + 1} of {options.pairs}", flush=True)
    print("\n| network | exact, seconds of a call | fast | ratio |\n|---|---|---|---|")
    for network in pairs[0]["exact"]:
        exact, fast = ([times[precision][network] for times in pairs] for precision in ("exact", "fast"))
        ratio = statistics.median(a / b for a, b in zip(exact, fast))
        print(f"| {network} | {statistics.median(exact):.3f} | {statistics.median(fast):.3f} | {ratio:.2f} |")


def calls(server):
    """{network: (calls, seconds)} so far"""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.operator}/metrics", timeout=60) as response:
        text = response.read().decode()
    found = {}
    for what, network, value in re.findall(r'^latentd_batch_seconds_(count|sum)\{.*?network="(\w+)".*?\} (\S+)$', text, re.MULTILINE):
        found.setdefault(network, {}).setdefault(what, 0.0)
        found[network][what] += float(value)
    return {network: (values["count"], values["sum"]) for network, values in found.items()}


def per_call(before, after):
    """{network: seconds of a call} between two moments"""
    grown = {network: [b - a for a, b in zip(before.get(network, (0, 0)), after[network])] for network in after}
    return {network: seconds / count for network, (count, seconds) in grown.items() if count}


if __name__ == "__main__":
    main()
