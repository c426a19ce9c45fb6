#!/usr/bin/env python3
"""Compares how long two commits take to build from nothing: `cargo build`, which `cargo run -- serve` begins with.

    python3 benches/cold_build.py BEFORE AFTER
    python3 benches/cold_build.py BEFORE AFTER --arguments=--no-default-features --keep /tmp/builds

Clones both commits into a temporary folder and downloads their dependencies. Then builds both at the same time, each on
its half of the processor's threads, so that both have the same machine and the same load. Prints for each the seconds
until the end, the seconds of processor time (user and system) and the number of packages, and the ratio of the times.
Needs Linux and at least two threads, and takes about twice as long as one build. With --keep, the clones and builds stay
in this folder, so that benches/builds.py can compare the speed of the two programs (FOLDER/*/target/debug/latentd).
"""

import argparse
import contextlib
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def clone(commit, folder):
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", REPOSITORY, folder], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)
    subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=folder, check=True)


def build(folder, threads, arguments):
    """Builds in a child process on these threads. Returns the child's id and the end of a pipe with its figures."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    os.sched_setaffinity(0, threads)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CARGO_")}
    environment["CARGO_BUILD_JOBS"] = str(len(threads))
    environment["CARGO_TARGET_DIR"] = str(folder / "target")
    command = ["cargo", "build", "--locked", "--offline", *arguments]
    start = time.monotonic()
    with open(folder / "build.log", "wb") as log:
        status = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
    wall = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.write(writer, f"{status} {wall} {used.ru_utime + used.ru_stime}".encode())
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--arguments", default="", help="further arguments of `cargo build`, for both")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="a new folder for the clones and builds")
    options = parser.parse_args()
    threads = sorted(os.sched_getaffinity(0))
    half = len(threads) // 2
    if not half:
        sys.exit("this needs at least two threads of the processor")
    halves = [set(threads[:half]), set(threads[half : 2 * half])]
    if options.keep:
        options.keep.mkdir(parents=True)
    with contextlib.nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as folder:
        folders = [pathlib.Path(folder) / name for name in ("before", "after")]
        for commit, clone_of in zip((options.before, options.after), folders):
            clone(commit, clone_of)
        builds = [build(*place, shlex.split(options.arguments)) for place in zip(folders, halves)]
        figures = []
        for name, clone_of, (child, reader) in zip(("before", "after"), folders, builds):
            with os.fdopen(reader) as pipe:
                status, wall, used = (float(figure) for figure in pipe.read().split())
            os.waitpid(child, 0)
            log = (clone_of / "build.log").read_text()
            if status:
                sys.exit(f"{name}: the build failed:\n{log[-4000:]}")
            packages = sum(line.lstrip().startswith("Compiling ") for line in log.splitlines())
            print(f"{name}: {wall:.0f} s, {used:.0f} s of processor time, {packages} packages", flush=True)
            figures.append((wall, used))
    (wall_before, used_before), (wall_after, used_after) = figures
    wall, used = wall_after / wall_before, used_after / used_before
    print(f"ratio after / before: {wall:.2f} of the time, {used:.2f} of the processor time")


if __name__ == "__main__":
    main()
