#!/usr/bin/env python3
"""Measures how much faster two devices are than one, for pictures of two models at the same time.

Starts servers on free ports in alternation, with one device of one core and with two devices of one core each, and
requests a picture of each of two models at the same time. Nothing else may run meanwhile. Standard library only.

    cargo build --profile dev && python3 benches/devices.py target/debug/latentd
    python3 benches/devices.py target/debug/latentd --models-dir DIR --models sd15 other --steps 20

Without --models-dir, two copies of the embedded model are the two models. Prints a Markdown table with the seconds for
both pictures (median, least, most), and the time of two devices divided by that of one. Fails if pictures differ.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

EMBEDDED = pathlib.Path(__file__).resolve().parent.parent / "models" / "emoji"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("latentd", help="the program")
    options.add_argument("--models-dir", type=pathlib.Path)
    options.add_argument("--models", nargs=2, default=["first", "second"])
    options.add_argument("--cores", nargs=2, type=int, help="default: the first two that this process may use")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--rounds", type=int, default=5)
    options = options.parse_args()
    first, second = options.cores or sorted(os.sched_getaffinity(0))[:2]

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models = options.models_dir or twice(scratch / "models", options.models)
        settings = {"one": f"cpu:{first}", "two": f"cpu:{first},cpu:{second}"}
        seconds, drawn = {name: [] for name in settings}, {}
        for number in range(options.rounds):
            for name, devices in settings.items():
                with Server(options.latentd, scratch / f"{name}-{number}", models, devices, options.models[0]) as server:
                    taken, pictures = both(server, options)
                seconds[name].append(taken)
                if drawn.setdefault("pictures", pictures) != pictures:
                    raise SystemExit("the pictures differ in their bytes")

    print(f"Models {', '.join(options.models)}, {options.steps} steps, {options.rounds} rounds:\n")
    print("| devices | seconds for both pictures: median (least, most) |")
    print("|---|---|")
    for name, devices in settings.items():
        of = seconds[name]
        print(f"| `{devices}` | {statistics.median(of):.2f} ({min(of):.2f}, {max(of):.2f}) |")
    shares = [two / one for one, two in zip(seconds["one"], seconds["two"])]
    print(f"\nTwo devices take {statistics.median(shares):.2f} of the time of one ({min(shares):.2f} to {max(shares):.2f}).")


def twice(folder, names):
    """Copies the embedded model into `folder` under two names."""
    for name in names:
        shutil.copytree(EMBEDDED, folder / name)
    return folder


def both(server, options):
    """(seconds until the pictures of both models are finished, the pictures)."""

    def draw(model, steps, seed):
        # Without metadata, so that the bytes depend only on the pixels.
        request = {"model": model, "prompt": "a red fox", "seed": seed, "steps": steps, "output": {"metadata": "none"}}
        headers = {"Content-Type": "application/json", "Accept": "image/png", "Prefer": "wait=300"}
        return fetch(f"{server.url}/v1/images", json.dumps(request).encode(), headers)

    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        # Loads both models at the same time, so that they go to different devices if there are two.
        list(clients.map(lambda model: draw(model, 20, 1), options.models))
        begun = time.perf_counter()
        pictures = list(clients.map(lambda model: draw(model, options.steps, 2), options.models))
        return time.perf_counter() - begun, pictures


class Server:
    """A server that runs inside a `with` block."""

    def __init__(self, program, data, models, devices, default):
        public, operator = free_port(), free_port()
        self.url, self.operator = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{operator}"
        self.program = program
        self.environment = {
            "LATENTD_DATA_DIR": str(data),
            "LATENTD_MODELS__DIR": str(models),
            "LATENTD_MODELS__DEFAULT": default,
            "LATENTD_HTTP__BIND": f"127.0.0.1:{public}",
            "LATENTD_OPERATOR__BIND": f"127.0.0.1:{operator}",
            "LATENTD_ENGINE__DEVICES": devices,
            "LATENTD_LOG__FILTER": "warn",
        }

    def __enter__(self):
        self.process = subprocess.Popen([self.program, "serve"], env=os.environ | self.environment)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                fetch(f"{self.operator}/readyz")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        self.__exit__()
        raise SystemExit("the server did not become ready")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch(url, body=None, headers={}):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=600) as response:
        return response.read()


if __name__ == "__main__":
    main()
