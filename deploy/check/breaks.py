"""Breaks copies of deploy/ and of the Dockerfile, one fault at a time, and expects that the check names each fault."""

import pathlib
import shutil
import sys
import tempfile
import tomllib

import check
from tools import ROOT

BREAKS = tomllib.loads((pathlib.Path(__file__).parent / "breaks.toml").read_text())["break"]


def named(copy):
    """What the check says of a copy of the repository's files."""
    everything = check.steps(copy / "deploy", copy / "Dockerfile", ["check/full"])
    return "\n".join(check.faults(everything, lambda line: None))


def main():
    missed = skipped = 0
    for fault, file, old, new, says in (one.values() for one in BREAKS):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copytree(ROOT / "deploy", copy / "deploy", symlinks=True)
            shutil.copy(ROOT / "Dockerfile", copy)
            if file.startswith("deploy/monitoring") and not (copy / "deploy/monitoring/alerts.yaml").exists():
                print(f"skipped, there is no deploy/monitoring/alerts.yaml: {fault}")
                skipped += 1
                continue
            text = (copy / file).read_text()
            (copy / file).write_text(text.replace(old, new, 1))
            said = named(copy)
        is_found = old in text and says in said
        missed += not is_found
        if not is_found:
            print(f"NOT FOUND: {fault} in {file}; the check says: {said or 'nothing'}")
    print(f"{len(BREAKS) - missed - skipped} of {len(BREAKS) - skipped} faults are found")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
