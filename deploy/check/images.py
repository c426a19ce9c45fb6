"""Checks the Dockerfile: with hadolint, and that base images are pinned."""

import re

from tools import Broken, program, run


def check(dockerfile):
    """Raises Broken if hadolint warns, a base image has no digest, or an image would run as root."""
    run(program("hadolint"), "--no-color", dockerfile)
    text = dockerfile.read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", text, re.M)
    own = {name for _, name in stages}
    for image, _ in stages:
        if image not in own and not re.search("@sha256:[0-9a-f]{64}$", image):
            raise Broken(f"Dockerfile: the base image {image} has no digest")
    if not re.search(r"^USER 65532:65532$", text, re.M) or not re.search(r"^HEALTHCHECK .*latentd", text, re.M):
        raise Broken("Dockerfile: the user must be 65532:65532, and latentd must check its own health")
