#!/usr/bin/env python3
"""Measures how long pictures wait beside films. Nothing else may run meanwhile. Standard library only.

    cargo build && python3 benches/films.py target/debug/latentd FOLDER

FOLDER is that of a model that makes films of a picture, such as Stable Video Diffusion with small random weights; the
pictures are those of the embedded model. Each round asks for one film and `--pictures` pictures at once, then for two
films of one size and as many pictures, and compares the seconds until each picture is ready. Two films share their
batches, so a picture should wait at most one step of a film longer than beside one film. Also prints how many batches
two films share, and the share of encoding and storing the file in the time of a film.
"""

import argparse
import base64
import http.client
import pathlib
import statistics
import struct
import tempfile
import threading
import time
import zlib

from builds import Server


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("latentd")
    options.add_argument("folder", type=pathlib.Path)
    options.add_argument("--size", default="320x192", help="of the films")
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--steps", type=int, default=10, help="of the films")
    options.add_argument("--pictures", type=int, default=10)
    options.add_argument("--rounds", type=int, default=4)
    options = options.parse_args()
    film = {
        "model": options.folder.resolve().name, "image": picture(), "size": options.size, "frames": options.frames,
        "steps": options.steps,
    }
    with tempfile.TemporaryDirectory() as models:
        (pathlib.Path(models) / options.folder.resolve().name).symlink_to(options.folder.resolve())
        with Server(options.latentd, settings={"LATENTD_MODELS__DIR": models}) as server:
            measure(server, film, options)


def measure(server, film, options):
    ask(server, "/v1/videos", {**film, "steps": 1})  # Loads the model.
    ask(server, "/v1/images", {"prompt": "a fox"})
    alone, whole, saving = alone_seconds(server, film, options.steps)
    print(f"A film alone takes {whole:.2f} s, each of its steps {alone:.3f} s, and encoding and storing {saving:.3f} s"
          f" ({saving / whole:.1%}).")
    print("\n| round | slowest picture beside one film | beside two films | longest further wait | in steps of a film |")
    print("|---|---|---|---|---|")
    further = []
    for number in range(options.rounds):
        one, two = (beside(server, film, films, options.pictures, number) for films in (1, 2))
        waits = [b - a for a, b in zip(sorted(one), sorted(two))]
        further.append(max(waits) / alone)
        print(f"| {number + 1} | {max(one):.2f} s | {max(two):.2f} s | {max(waits):.2f} s | {further[-1]:.2f} |", flush=True)
    print(f"\nThe longest further wait of a picture: {statistics.median(further):.2f} steps of a film (median of rounds)")
    before = shared(server)
    beside(server, film, 2, 0, options.rounds)
    print(f"Two films of {options.steps} steps share {shared(server) - before} batches of the denoiser.")


def alone_seconds(server, film, steps):
    """The seconds of a step of a film, of a film, and of encoding and storing its file."""
    seconds, saving = {}, {}
    for count in (1, steps):
        start, saved = time.monotonic(), saved_seconds(server)
        ask(server, "/v1/videos", {**film, "steps": count})
        seconds[count], saving[count] = time.monotonic() - start, saved_seconds(server) - saved
    return (seconds[steps] - seconds[1]) / max(steps - 1, 1), seconds[steps], saving[steps]


def saved_seconds(server):
    return sum(value for name, value in metrics(server) if "stage_seconds_sum" in name and 'stage="save"' in name)


def beside(server, film, films, pictures, number):
    """The seconds until each picture is ready, in any order."""
    seconds, threads = [], []

    def draw(seed):
        start = time.monotonic()
        ask(server, "/v1/images", {"prompt": "a fox", "seed": seed})
        seconds.append(time.monotonic() - start)

    for seed in range(films):
        threads.append(threading.Thread(target=ask, args=(server, "/v1/videos", {**film, "seed": seed + 10 * number})))
    threads += [threading.Thread(target=draw, args=(seed + 100 * number,)) for seed in range(pictures)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def ask(server, path, body):
    answer = server.ask("POST", path, body, wait=True)
    if answer.get("status") != "succeeded":
        raise SystemExit(f"not made: {answer}")


def shared(server):
    """The number of batches of the denoiser with the rows of more than one generation."""
    values = dict(metrics(server))
    return int(values["latentd_batch_runs_count"] - values['latentd_batch_runs_bucket{le="1"}'])


def metrics(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.operator, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return [(line.rsplit(" ", 1)[0], float(line.rsplit(" ", 1)[1])) for line in lines if line and line[0] != "#"]


def picture():
    """A gradient of 64 × 64 pixels as a PNG file in base64."""
    rows = b"".join(b"\0" + bytes(level for x in range(64) for level in (4 * x, 4 * y, 128)) for y in range(64))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(file).decode()


if __name__ == "__main__":
    main()
