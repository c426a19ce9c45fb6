"""The Rust programs that take part."""

import json
import os
import subprocess
import sys
from pathlib import Path

from models import ROOT, WORK

CARGO = os.environ.get("CARGO", "cargo")


def latentd(profile):
    """(the contender, the server), built with one of cargo's profiles."""
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
    """The contender of candle-transformers, a package of its own."""
    target = WORK / "candle"
    manifest = Path(__file__).resolve().parent / "candle" / "Cargo.toml"
    subprocess.run([CARGO, "build", "--locked", "--release", "--manifest-path", manifest, "--target-dir", target],
                   check=True, stdout=sys.stderr)
    return str(target / "release" / "candle-contender")
