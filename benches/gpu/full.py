#!/usr/bin/env python3
"""Takes the memory of a GPU away while the server computes, and checks that nothing is lost.

    python3 benches/gpu/full.py LATENTD --folder FOLDER [--seconds 90]

Starts a server with the model `xl` of random_models.py on the first GPU and requests pictures. Meanwhile this process
allocates the GPU's memory until only a little is left, and frees it again, several times. Every generation must succeed
or fail alone with `out_of_memory`, the process must stay alive, and after the last turn a new generation must succeed.
Without a GPU, no memory is taken, which checks the script. Standard library only.
"""

import argparse
import collections
import ctypes
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import memory
import random_models

ON_GPU = os.environ.get("COMPARE_DEVICE", "cpu") != "cpu"
# Seconds that one round of generations may take.
PATIENCE_S = 20 if ON_GPU else 60
SPLITS = "latentd_out_of_memory_splits_total"
# Bytes that stay free, from a lot to nearly nothing.
LEFT = [8 << 30, 2 << 30, 1 << 29, 1 << 28]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--folder", required=True, type=pathlib.Path)
    options.add_argument("--seconds", type=float, default=90)
    options.add_argument("--scale", type=int, default=1 if ON_GPU else 16)
    options.add_argument("--side", type=int, default=1024 if ON_GPU else 64)
    options = options.parse_args()
    deadline = time.monotonic() + options.seconds
    (options.folder / "controlnets").mkdir(parents=True, exist_ok=True)
    random_models.make(options.folder / "models", "xl", options.scale)
    settings = {"LATENTD_ENGINE__DEVICES": os.environ.get("COMPARE_DEVICE", "cpu"), "LATENTD_LIMITS__MAX_IMAGES": "10"}
    with memory.Server(options.program, options.folder, settings) as server:
        server.until_ready()
        faults = experiment(server, options, deadline)
    for fault in faults:
        print(f"**Broken:** {fault}")
    sys.exit(1 if faults else 0)


def experiment(server, options, deadline):
    filler = Filler() if ON_GPU else None

    def request(steps=4 if ON_GPU else 1, images=4 if ON_GPU else 1):
        size = f"{options.side}x{options.side}"
        body = {"model": "xl", "prompt": "a red fox", "size": size, "steps": steps, "n": images}
        status, answer = server.ask("POST", "/v1/images", body)
        if status != 202:
            refused[answer.get("code", str(status))] += 1
        return [answer["id"]] if status == 202 else []

    def ended(accepted, seconds):
        until = min(deadline, time.monotonic() + seconds)
        while server.lives():
            states = [memory.end(server.ask("GET", f"/v1/images/{id}")[1]) for id in accepted]
            if not {"queued", "running"} & set(states) or time.monotonic() > until:
                return states
            time.sleep(0.1)
        return []

    refused = collections.Counter()
    # Loads the model.
    print("first picture:", ended(request(1, 1), 60))
    print("| left free | ends of 4 generations | refused | batches divided so far |")
    print("|---|---|---|---|")
    faults = []
    for left in LEFT if filler else [0]:
        refused.clear()
        accepted = [id for _ in range(4) for id in request()]
        time.sleep(0.5)
        taken = filler.fill(left) if filler else 0
        states = collections.Counter(ended(accepted, PATIENCE_S))
        if filler:
            filler.empty()
        splits = sum(value for name, value in every_metric(server) if name.startswith(SPLITS))
        free = f"{left / 2**30:.2f} GiB ({taken / 2**30:.1f} taken)"
        print(f"| {free} | {dict(states)} | {dict(refused)} | {splits:.0f} |", flush=True)
        wrong = [state for state in states if state not in ("succeeded", "failed out_of_memory", "running", "queued")]
        if wrong:
            faults.append(f"generations ended with {wrong}")
        if not server.lives():
            return [*faults, f"the process ended with {server.process.poll()}"]
        # What still runs finishes with the memory that is there again.
        late = set(ended(accepted, PATIENCE_S)) - {"succeeded", "failed out_of_memory"}
        if late:
            faults.append(f"with memory again, generations are {late}")
    last = ended(request(1, 1), 30)
    print("a picture afterwards:", last)
    if last != ["succeeded"]:
        faults.append(f"the last picture {last}")
    return faults


def every_metric(server):
    for line in server.ask("GET", "/metrics", port=server.operator)[1].splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            yield name, float(value)


class Filler:
    """Allocations of the first GPU, by NVIDIA's driver library."""

    def __init__(self):
        self.cuda, self.taken = ctypes.CDLL("libcuda.so.1"), []
        context, device = ctypes.c_void_p(), ctypes.c_int()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *values):
        code = getattr(self.cuda, name)(*values)
        if code:
            raise SystemExit(f"{name} returned {code}")

    def fill(self, left):
        """Allocates until at most `left` bytes are free, and returns the bytes taken."""
        free, total, begun = ctypes.c_size_t(), ctypes.c_size_t(), len(self.taken)
        block = 1 << 28
        while block >= 1 << 24:
            self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            pointer = ctypes.c_uint64()
            fits = free.value >= left + block
            if fits and self.cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(block)) == 0:
                self.taken.append((pointer, block))
            else:
                block //= 2
        return sum(size for _, size in self.taken[begun:])

    def empty(self):
        for pointer, _ in self.taken:
            self.call("cuMemFree_v2", pointer)
        self.taken.clear()


if __name__ == "__main__":
    main()
