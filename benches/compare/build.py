"""Compiles the programs to compare."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from models import ROOT, WORK

CARGO = os.environ.get("CARGO", "cargo")


def latentd(profile):
    """Builds latentd with one of cargo's profiles. Returns the paths (contender, server)."""
    command = [CARGO, "bench", "--locked", "--profile", profile, "--bench", "contender", "--no-run"]
    built = subprocess.run([*command, "--message-format=json-render-diagnostics"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE, text=True)
    found = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["executable"]:
            found[message["target"]["name"]] = message["executable"]
    return found["contender"], found["latentd"]


def candle():
    """Builds the contender of candle-transformers, a separate package. Returns its path."""
    target = WORK / "candle"
    manifest = Path(__file__).resolve().parent / "candle" / "Cargo.toml"
    subprocess.run([CARGO, "build", "--locked", "--release", "--manifest-path", manifest, "--target-dir", target],
                   check=True, stdout=sys.stderr)
    return str(target / "release" / "candle-contender")


def sdcpp():
    """Installs stable-diffusion.cpp's Python binding, compiled for this machine with its fast matrix products."""
    if importlib.util.find_spec("stable_diffusion_cpp") is None:
        package = "stable-diffusion-cpp-python"
        environment = {**os.environ, "CMAKE_ARGS": "-DGGML_LLAMAFILE=ON -DGGML_NATIVE=ON -DSD_BUILD_EXAMPLES=OFF"}
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-binary", package, f"{package}==0.4.7"], check=True, env=environment, stdout=sys.stderr)
