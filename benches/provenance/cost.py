#!/usr/bin/env python3
"""Measures what content credentials and the watermark cost. Nothing else may run meanwhile. Standard library only.

    cargo build --release --example watermark && cargo build --release
    python3 benches/provenance/cost.py target/release/latentd target/release/examples/watermark

First, the milliseconds on one core for a picture of 512 × 512 pixels: to mark it (by the example `watermark`), and to
sign its PNG file (by the server's metric latentd_sign_seconds, one request at a time). Then, the pictures per second
of two servers that differ only in these settings, measured in alternation with as many requests as keep them busy.
"""

import argparse
import http.client
import os
import pathlib
import random
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from builds import Server, pictures_a_second  # noqa: E402

ON = {"LATENTD_PROVENANCE__CREDENTIALS": "true", "LATENTD_PROVENANCE__WATERMARK": "on"}
OFF = {"LATENTD_PROVENANCE__CREDENTIALS": "false", "LATENTD_PROVENANCE__WATERMARK": "off"}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("latentd")
    options.add_argument("example", help="the program of examples/watermark.rs")
    options.add_argument("--side", type=int, default=512, help="width and height of the pictures on one core")
    options.add_argument("--marks", type=int, default=200, help="pictures to mark")
    options.add_argument("--signatures", type=int, default=50, help="pictures to draw and sign")
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--pictures", type=int, default=60, help="of each round and server")
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--size", help="of the pictures of the rounds, such as 512x512; by default that of the model")
    options = options.parse_args()

    core = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    mark = marking([*core, options.example], options.side, options.marks)
    sign = signing(core, options.latentd, options.side, options.signatures)
    print(f"One core, {options.side} × {options.side} pixels: {1e3 * mark:.1f} ms to mark (median of {options.marks}), {1e3 * sign:.1f} ms"
          f" to sign (mean of {options.signatures}), together {1e3 * (mark + sign):.1f} ms",
          flush=True)

    more = {"size": options.size} if options.size else {}
    with Server(options.latentd, settings=OFF) as off, Server(options.latentd, settings=ON) as on:
        servers = {"off": off, "on": on}
        for server in servers.values():
            pictures_a_second(server, 2 * options.clients, options.clients, more)
        print("\n| round | off, pictures/s | on, pictures/s | on / off |\n|---|---|---|---|")
        ratios = []
        for number in range(options.rounds):
            names = list(servers) if number % 2 == 0 else list(servers)[::-1]
            rate = {name: pictures_a_second(servers[name], options.pictures, options.clients, more) for name in names}
            ratios.append(rate["on"] / rate["off"])
            print(f"| {number + 1} | {rate['off']:.2f} | {rate['on']:.2f} | {ratios[-1]:.3f} |", flush=True)
        print(f"\non / off: median {statistics.median(ratios):.3f}, mean {statistics.mean(ratios):.3f}")


def marking(command, side, count):
    """The median of the seconds that a mark takes."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pixels, seconds = random.Random(1).randbytes(3 * side * side), []
    for bits in range(count):
        process.stdin.write(f"embed {side} {side} {bits}\n".encode() + pixels)
        process.stdin.flush()
        seconds.append(float(process.stdout.readline()))
        process.stdout.read(len(pixels))
    process.stdin.close()
    process.wait(60)
    return statistics.median(seconds)


def signing(core, program, side, count):
    """The mean of the seconds that a signature takes."""
    with Server(program, settings=ON, before=core) as server:
        request = {"prompt": "a red fox", "size": f"{side}x{side}", "steps": 1, "output": {"format": "png"}}
        before = None
        # The first picture waits for the digest of the model and is not counted.
        for seed in range(count + 1):
            answer = server.ask("POST", "/v1/images", {**request, "seed": seed}, wait=True)
            if answer.get("status") != "succeeded":
                raise SystemExit(f"not drawn: {answer}")
            before = before or metric(server)
        after = metric(server)
    return (after[0] - before[0]) / (after[1] - before[1])


def metric(server):
    """The sum of the seconds of all signatures, and their number."""
    connection = http.client.HTTPConnection("127.0.0.1", server.operator, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("latentd_sign_seconds_"))
    return float(values["latentd_sign_seconds_sum"]), float(values["latentd_sign_seconds_count"])


if __name__ == "__main__":
    main()
