#!/usr/bin/env python3
"""Measures single steps and decodes of networks of the sizes of Stable Diffusion 1.5 and XL, with random weights, beside
PyTorch on the same device in the same run; and whether the bits of a row depend on its batch.

    python3 benches/gpu/steps.py CONTENDER --folder FOLDER [--seconds 240]

CONTENDER is the program of benches/compare/contender.rs, built with the feature of the device that COMPARE_DEVICE names
(default: cpu). The weights are made in FOLDER, 9 GB in size. PyTorch runs if python3 has it: plain networks
(torch_networks.py), channels last, with scaled_dot_product_attention; diffusers is not needed. Standard library only.

Every program takes the latents from the host and brings the result to the host, as the engine does in each step. The
programs of a case are measured in turns. What does not fit into the time is left out and named. On the CPU, all sizes are
tiny: this checks the script and measures nothing.
"""

import argparse
import array
import dataclasses
import importlib.util
import json
import os
import pathlib
import random
import statistics
import struct
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "compare")]

import random_models
from contender import Contender, Failed

ON_GPU = os.environ.get("COMPARE_DEVICE", "cpu") != "cpu"
ROUNDS = 3
# Seconds that a program computes in one round of a case, and the most calls of a round.
ROUND_S, MOST_CALLS = (0.7, 30) if ON_GPU else (0.0, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    kind: str
    side: int
    batch: int
    precision: str
    compiled: bool = False
    rows: bool = False

    @property
    def name(self):
        return f"{self.model} {self.kind}, {self.batch} × {self.side}², {self.precision}"


CASES = [
    Case("sd15", "unet", 64, 2, "bf16", compiled=True, rows=True),
    Case("sd15", "unet", 64, 8, "bf16", compiled=True, rows=True),
    Case("sd15", "unet", 64, 2, "f32", rows=True),
    Case("sd15", "vae", 64, 1, "bf16"),
    Case("sd15", "unet", 64, 2, "f16"),
    Case("xl", "unet", 128, 2, "bf16"),
    Case("xl", "vae", 128, 1, "f32"),
    Case("sd15", "unet", 64, 16, "bf16"),
    Case("xl", "unet", 128, 8, "bf16"),
]


def tiny(case):
    """The case on the CPU, where candle has no convolutions in bf16."""
    side = 16 if case.kind == "unet" else 8
    return dataclasses.replace(case, side=side, batch=min(case.batch, 3), precision="f32", compiled=False)



def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("contender")
    options.add_argument("--folder", type=pathlib.Path, required=True)
    options.add_argument("--seconds", type=float, default=240)
    options.add_argument("--scale", type=int, default=1 if ON_GPU else 16, help="divides the widths of the networks")
    options = options.parse_args()
    deadline = time.monotonic() + options.seconds

    logs = options.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    commands = {"together": [options.contender], "apart": [options.contender]}
    if importlib.util.find_spec("torch"):
        worker = [sys.executable, str(HERE / "torch_worker.py")]
        commands |= {"eager": worker, "compile": worker}
    else:
        print("PyTorch is missing: latentd is measured alone\n")
    print(f"diffusers is {'there and not used' if importlib.util.find_spec('diffusers') else 'missing; not needed'}\n")
    print("| case | latentd | rows apart | PyTorch | torch.compile | latentd / PyTorch | differences: latentd, PyTorch |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows, programs = [], {}
    try:
        for case in CASES if ON_GPU else {case.name: case for case in map(tiny, reversed(CASES))}.values():
            if time.monotonic() > deadline - 10:
                print(f"| {case.name} | left out: no time | | | | | |", flush=True)
                continue
            measured = Measured(case, options, deadline, programs, commands, logs)
            print(measured.line(), flush=True)
            rows += measured.rows
    finally:
        for program in programs.values():
            program.__exit__()
    print("\nMilliseconds of a call: median of the calls of all rounds. The differences are the largest ones from PyTorch in")
    print("float32, divided by its largest number.\n")
    print("| case | rows | rows whose bits alone differ from those in the batch | largest difference |")
    print("|---|---|---|---|")
    for line in rows:
        print(line)


class Measured:
    def __init__(self, case, options, deadline, programs, commands, logs):
        self.case, self.deadline, self.programs, self.commands, self.logs = case, deadline, programs, commands, logs
        self.folder = random_models.make(options.folder / "models", case.model, options.scale)
        self.inputs = make_inputs(options.folder, case, self.folder)
        self.seconds, self.outputs, self.notes, self.rows = {}, {}, {}, []
        reference = options.folder / f"reference-{self.inputs.stem}.safetensors"
        if "eager" in commands and not reference.exists():
            self.attempt("eager", lambda program: self.load("eager", program, "f32") or program.run(1, reference))
        for name in commands:
            if name != "compile" or case.compiled:
                self.attempt(name, lambda program, name=name: self.begin(name, program, options.folder))
        for _ in range(ROUNDS):
            for name in list(self.seconds):
                self.attempt(name, lambda program, name=name: self.round(name, program))
        if case.rows:
            for name in ("together", "apart"):
                self.attempt(name, lambda program, name=name: self.compare_rows(name, program))
        self.reference = tensor(reference) if reference.exists() else None

    def attempt(self, name, work):
        """Does `work` with a program until the deadline. A program that fails or takes too long is out of the case."""
        if name in self.notes:
            return
        if name not in self.programs:
            threads = int(os.environ.get("THREADS", "0")) or os.cpu_count()
            self.programs[name] = Contender(name, self.commands[name], threads, self.logs / name)
        program = self.programs[name]
        timer = threading.Timer(max(1.0, self.deadline - time.monotonic()), program.process.kill)
        timer.start()
        try:
            work(program)
        except Failed as failure:
            self.notes[name] = "no time" if time.monotonic() >= self.deadline else "failed"
            self.seconds.pop(name, None)
            print(f"{self.case.name}, {name}: {failure}", file=sys.stderr)
            if program.process.poll() is not None or self.notes[name] == "no time":
                self.programs.pop(name).__exit__()
        finally:
            timer.cancel()

    def load(self, name, program, precision):
        request = dict(kind=self.case.kind, folder=str(self.folder), inputs=str(self.inputs), precision=precision)
        request |= {"rows": name} if name in ("together", "apart") else {"compiled": name == "compile"}
        program.ask("load", **request)

    def begin(self, name, program, folder):
        """Loads the network; the first call is the warm-up, whose result is compared."""
        self.load(name, program, self.case.precision)
        output = folder / f"output-{name}.safetensors"
        program.run(1, output)
        self.outputs[name] = tensor(output)
        self.seconds[name] = []
        self.calls = getattr(self, "calls", {}) | {name: max(1, min(MOST_CALLS, int(ROUND_S / program.run(2)[-1])))}

    def round(self, name, program):
        self.seconds[name] += program.run(self.calls[name])

    def compare_rows(self, name, program):
        found = program.ask("rows")
        different = f"{found['different']} of {found['rows']}"
        self.rows.append(f"| {self.case.name} | {name} | {different} | {found['most']:.1e} |")

    def line(self):
        def cell(name):
            seconds = self.seconds.get(name)
            return f"{1000 * statistics.median(seconds):.1f}" if seconds else self.notes.get(name, "")

        ratio = ""
        if self.seconds.get("together") and self.seconds.get("eager"):
            ratio = f"{statistics.median(self.seconds['together']) / statistics.median(self.seconds['eager']):.2f}"
        def compared(name):
            made = self.outputs.get(name)
            return f"{distance(made, self.reference):.1e}" if made and self.reference else "-"

        differences = map(compared, ("together", "eager"))
        cells = [self.case.name, *map(cell, ("together", "apart", "eager", "compile")), ratio, ", ".join(differences)]
        return "| " + " | ".join(cells) + " |"


def make_inputs(folder, case, model):
    """Writes random inputs of a case."""
    path = folder / f"inputs-{case.model}-{case.kind}-{case.batch}.safetensors"
    config = json.loads((model / "unet/config.json").read_text())
    numbers = random.Random(2)
    normal = lambda *shape: (list(shape), array.array("f", (numbers.gauss(0, 1) for _ in range(count(shape)))))
    tensors = {"sample": normal(case.batch, 4, case.side, case.side)}
    if case.kind == "unet":
        tensors["t"] = ([case.batch], array.array("f", (100.0 + 37 * row for row in range(case.batch))))
        tensors["text"] = normal(case.batch, 77, config["cross_attention_dim"])
        if "addition_embed_type" in config:
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            tensors["text_embeds"] = normal(case.batch, pooled)
            ids = [1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]
            tensors["time_ids"] = ([case.batch, 6], array.array("f", ids * case.batch))
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def count(shape):
    total = 1
    for side in shape:
        total *= side
    return total


def tensor(path):
    """The only tensor of a file of float32 numbers."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return array.array("f", content[8 + length :])


def distance(made, reference):
    largest = max(max(reference), -min(reference))
    most = max(abs(a - b) for a, b in zip(made, reference, strict=True))
    return most / largest


if __name__ == "__main__":
    main()
