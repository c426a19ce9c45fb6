"""Times latentd's networks and those of its peers in alternation, with the same number of threads: `make compare`.

See README.md.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import build
import models
from contender import Contender, Failed, machine_cpu_seconds
from models import WORK

HERE = Path(__file__).resolve().parent
PYTHON_PEERS = ("pytorch", "openvino", "onnxruntime", "pytorch-channels-last", "pytorch-compile", "sdcpp")
PEERS = (*PYTHON_PEERS, "candle")
BATCHES = (1, 2, 4, 8, 16, 32)
TOLERANCE = 1e-4  # The largest accepted difference of latentd from PyTorch, divided by the largest value.
SAME = 1e-2  # Likewise for peers. A peer with a larger difference does not do the same work.
SETTLE_S = 0.05  # Pause before a measurement, in which threads that spin after a call can go to sleep.
CHECKED = ("unet-sd15", "vae")


def main():
    options = arguments()
    chosen = [case for case in models.cases(options.batch) if not options.only or case.group in options.only]
    if options.check:
        chosen = [case for case in chosen if case.group in CHECKED]
    for case in chosen:
        models.make(case)
    commands = {"latentd": [build.latentd(options.profile)[0]]}
    if "candle" in options.peers and not options.check:
        commands["candle"] = [build.candle()]
    if "sdcpp" in options.peers and not options.check:
        build.sdcpp()
    for peer in PYTHON_PEERS:
        commands[peer] = [sys.executable, str(HERE / "worker.py"), peer]
    bench = Bench(options, commands)
    if options.check:
        sys.exit(0 if all([bench.check(case) for case in chosen]) else 1)
    results = []
    for case in chosen:
        results.append(bench.compare(case))
        report(options, results)
    print((WORK / "report.md").read_text())
    wrong = [f"{r['case']} {c}" for r in results for c, row in r["contenders"].items() if row.get("wrong")]
    if wrong:
        sys.exit(f"not what PyTorch makes: {', '.join(wrong)}")


def arguments():
    words = lambda text: tuple(filter(None, text.split(",")))
    groups = list(dict.fromkeys(case.group for case in models.cases(BATCHES)))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=words, default=(), help=f"some of {','.join(groups)}")
    parser.add_argument("--peers", type=words, default=("openvino", "pytorch", "onnxruntime", "candle"),
                        help=f"some of {','.join(PEERS)}")
    parser.add_argument("--batch", type=lambda text: tuple(map(int, words(text))), default=BATCHES,
                        help="batches of the small U-Nets")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, help="pairs; by default 5 of the large networks, 15 of the small ones")
    parser.add_argument("--profile", default="dev", help="cargo's profile for latentd")
    parser.add_argument("--matrix-unit", choices=("off", "auto"), default="off",
                        help="latentd's setting kernels.matrix_unit")
    parser.add_argument("--check", action="store_true",
                        help="only compare one step and one decode of full width with PyTorch's")
    options = parser.parse_args()
    for given, known in ((options.only, groups), (options.peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return options


class Bench:
    def __init__(self, options, commands):
        self.options, self.commands = options, commands
        (WORK / "logs").mkdir(parents=True, exist_ok=True)
        (WORK / "outputs").mkdir(exist_ok=True)
        os.environ["COMPARE_MATRIX_UNIT"] = options.matrix_unit

    def start(self, name):
        return Contender(name, self.commands[name], self.options.threads, WORK / "logs" / f"{name}.log")

    def check(self, case):
        """Returns whether latentd's output agrees with PyTorch's."""
        self.reference(case)
        with self.start("latentd") as ours:
            difference = self.loaded(ours, case)
        print(f"{case.name}: largest difference to PyTorch by largest value {difference:.2g}, at most {TOLERANCE:g}")
        return difference <= TOLERANCE

    def compare(self, case):
        """Measures latentd with one peer after another. At most two programs are in memory, and one computes."""
        say(f"{case.name}: reference")
        self.reference(case)
        parameters, flops = models.work(case)
        result = {"case": case.name, "group": case.group, "batch": case.batch, "parameters": parameters,
                  "gflop": flops / 1e9, "contenders": {}}
        with self.start("latentd") as ours:
            difference = self.loaded(ours, case)
            peaks = [ours.ask("peak")]
            row = {"difference": difference, "wrong": not difference <= TOLERANCE, "seconds": [],
                   "cpu_seconds": [], "load_peak_bytes": ours.peak_bytes()}
            result["contenders"]["latentd"] = row
            ours.forget_peak()
            for name in self.options.peers:
                if name == "sdcpp" and case.group != "unet-sd15":
                    continue  # sdcpp runs only steps of Stable Diffusion 1.5.
                if name == "candle" and case.kind not in ("unet", "vae"):
                    continue
                try:
                    result["contenders"][name] = self.beside(ours, name, case)
                except (Failed, subprocess.CalledProcessError) as error:
                    say(f"  {name}: {error}")
                    result["contenders"][name] = {"failed": str(error)}
                peaks.append(ours.ask("peak"))
            if not self.options.peers:
                before = ours.cpu_seconds()
                row["seconds"] = [ours.run()[0] for _ in range(self.runs(case))]
                row["cpu_seconds"] = [(ours.cpu_seconds() - before) / self.runs(case)]
            for other in result["contenders"].values():
                row["seconds"] += other.get("latentd_seconds", [])
                row["cpu_seconds"] += other.get("latentd_cpu_seconds", [])
            row["peak_bytes"] = ours.peak_bytes()
        for kind in ("fma", "gemm"):
            result[f"{kind}_gflops"] = max(peak[kind] for peak in peaks)
        return result

    def beside(self, ours, name, case):
        """Measures latentd and a peer in pairs. A measurement of a small network makes as many calls as take 0.4 s."""
        with self.start(name) as peer:
            say(f"{case.name}: {name} loads")
            difference = self.loaded(peer, case)
            if difference is not None:
                say(f"{case.name}: {name} differs from PyTorch by {difference:.1e} of the largest value")
            load_peak = peer.peak_bytes()
            peer.forget_peak()
            slow = case.large
            calls = {c: 1 if slow else max(1, round(0.4 / min(c.run(3)))) for c in (ours, peer)}
            times, cpu = {ours: [], peer: []}, {ours: [], peer: []}
            idle = foreign = wall = 0.0
            for _ in range(self.runs(case)):
                for one, other in ((ours, peer), (peer, ours)):
                    time.sleep(SETTLE_S)
                    start, others, all_ = time.monotonic(), other.cpu_seconds(), machine_cpu_seconds()
                    own = one.cpu_seconds()
                    times[one].append(statistics.fmean(one.run(calls[one])))
                    all_, own = machine_cpu_seconds() - all_, one.cpu_seconds() - own
                    others = other.cpu_seconds() - others
                    cpu[one].append(own / calls[one])
                    wall += time.monotonic() - start
                    idle += others
                    foreign += max(0.0, all_ - own - others)
            row = {
                "difference": difference,
                "wrong": difference is not None and not difference <= SAME,
                "seconds": times[peer],
                "latentd_seconds": times[ours],
                "cpu_seconds": cpu[peer],
                "latentd_cpu_seconds": cpu[ours],
                "ratios": [theirs / mine for mine, theirs in zip(times[ours], times[peer], strict=True)],
                "load_peak_bytes": load_peak,
                "peak_bytes": peer.peak_bytes(),
                # CPU seconds per second: of the program that waits, and of everything else on the machine.
                "computed_while_waiting": idle / wall,
                "foreign_load": foreign / wall,
            }
            median = statistics.median
            say(f"{case.name}: {name} {median(times[peer]):.4g} s, latentd {median(times[ours]):.4g} s, "
                f"ratio {median(row['ratios']):.2f}")
            return row

    def runs(self, case):
        return self.options.runs or (5 if case.large else 15)

    def loaded(self, contender, case):
        """Loads a contender and runs it once. Returns the difference of its output from the reference, if available."""
        from safetensors.numpy import load_file

        files = {}
        if contender.name == "openvino":
            files["openvino"] = str(self.converted(case, "openvino", "xml"))
        if contender.name == "onnxruntime":
            files["onnx"] = str(self.converted(case, "onnx", "onnx"))
        if contender.name == "sdcpp":
            contender.ask("load", kind=case.kind, inputs=str(case.inputs), sdcpp=str(models.for_sdcpp(case)))
            contender.run()
            return None
        if contender.name == "latentd":
            files["stored"] = case.keeps_bf16
        contender.ask("load", kind=case.kind, folder=str(case.folder), inputs=str(case.inputs), **files)
        output = WORK / "outputs" / f"{case.name}-{contender.name}.safetensors"
        contender.run(output=output)
        made, wanted = load_file(output)["output"], load_file(case.reference)["output"]
        output.unlink()
        if made.shape != wanted.shape:
            raise Failed(f"{contender.name} makes {made.shape}, not {wanted.shape}")
        return float(abs(made - wanted).max() / abs(wanted).max())

    def reference(self, case):
        if case.reference.exists():
            return
        case.reference.parent.mkdir(parents=True, exist_ok=True)
        with self.start("pytorch") as pytorch:
            pytorch.ask("load", kind=case.kind, folder=str(case.folder), inputs=str(case.inputs))
            part = case.reference.with_suffix(".part")
            pytorch.run(output=part)
            part.rename(case.reference)

    def converted(self, case, to, suffix):
        """Converts the model to a peer's format, with a free batch size for the small U-Nets. Returns its path."""
        target = WORK / "peers" / f"{case.group.removesuffix('-bf16')}.{suffix}"
        free = case.name != case.group
        example = dataclasses.replace(case, batch=2) if free else case
        if not target.exists():
            say(f"{case.group}: conversion for {to}")
            models.make(example)
            with open(WORK / "logs" / f"convert-{to}.log", "w") as log:
                subprocess.run([sys.executable, HERE / "convert.py", to, case.kind, case.folder, example.inputs, target,
                                *(["free"] if free else [])], check=True, stdout=log, stderr=log)
        return target


def say(line):
    print(line, file=sys.stderr, flush=True)


def report(options, results):
    facts = {
        "machine": machine(),
        "threads": options.threads,
        "latentd_profile": options.profile,
        "versions": {name: metadata.version(name) for name in ("torch", "openvino", "onnxruntime", "diffusers")},
    }
    (WORK / "report.json").write_text(json.dumps({**facts, "results": results}, indent=1))
    (WORK / "report.md").write_text("\n".join(lines(facts, results)) + "\n")


def machine():
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
        if line.startswith("flags"):
            wide = [flag for flag in ("avx2", "fma", "avx512f", "amx_tile") if flag in line.split()]
            return f"{name} ({', '.join(wide)})"
    return name


def lines(facts, results):
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    yield f"{facts['machine']}, {facts['threads']} threads, float32. {versions}, candle-transformers 0.11.1."
    yield ""
    yield "Medians of runs in alternation with latentd. `by latentd` is the peer's time divided by latentd's: the ratio of"
    yield "the medians, and the median and quartiles of the ratios of the pairs; above 1 latentd is faster."
    for result in results:
        fma, gemm = result["fma_gflops"], result["gemm_gflops"]
        yield ""
        yield f"## {result['case']}"
        yield ""
        yield (f"{result['parameters'] / 1e6:.1f} M parameters, {result['gflop']:.1f} GFLOP a call; the machine: "
               f"{gemm:.1f} GFLOP/s in a product of 2048×2048 matrices, {fma:.1f} in multiply-adds alone.")
        yield ""
        yield "| | s a call (quartiles) | CPU s | rows/s | GFLOP/s | of that product | peak RSS (loading) | difference | by latentd | pairs | other load |"
        yield "|---|---|---|---|---|---|---|---|---|---|---|"
        for name, row in result["contenders"].items():
            yield "| " + " | ".join([name, *cells(result, row)]) + " |"
        yield from verdict(result)


def cells(result, row):
    if "failed" in row:
        return ["failed", *[""] * 9]
    low, median, high = quartiles(row["seconds"])
    speed = result["gflop"] / median
    ratio, pairs, load = "", "", ""
    memory = f"{row['peak_bytes'] / 1e9:.2f} GB ({row['load_peak_bytes'] / 1e9:.2f})"
    if "ratios" in row:
        ratio = f"{median / statistics.median(row['latentd_seconds']):.2f}"
        first, middle, third = quartiles(row["ratios"])
        pairs = f"{middle:.2f} ({first:.2f}–{third:.2f}), n={len(row['ratios'])}"
        load = f"{row['foreign_load']:.2f} cores"
        if row["computed_while_waiting"] > 0.02:
            load += f", {row['computed_while_waiting']:.2f} by the one that waits"
    difference = "–" if row["difference"] is None else f"{row['difference']:.1e}" + " **wrong**" * row["wrong"]
    return [
        f"{median:.4g} ({low:.4g}–{high:.4g})", f"{statistics.median(row['cpu_seconds']):.3g}",
        f"{result['batch'] / median:.3g}", f"{speed:.1f}",
        f"{speed / result['gemm_gflops']:.0%}", memory, difference,
        ratio, pairs, load,
    ]


def verdict(result):
    timed = {name: row for name, row in result["contenders"].items() if row.get("ratios")}
    if timed:
        best = min(timed, key=lambda name: statistics.median(timed[name]["ratios"]))
        row = timed[best]
        ratio = statistics.median(row["seconds"]) / statistics.median(row["latentd_seconds"])
        yield ""
        yield (f"Closest peer: {best}, {ratio:.2f} by medians, {statistics.median(row['ratios']):.2f} by pairs.")


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


if __name__ == "__main__":
    main()
