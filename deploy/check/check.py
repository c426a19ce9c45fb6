"""Checks what an operator deploys: `make deploy-check`. Renders the manifests in both ways and compares them, validates
every object, checks rules for pods and settings, alerts, and the Dockerfile. Prints one line for each step."""

import argparse
import pathlib
import sys

import compare
import images
import monitoring
import pods
import references
import render
import schemas
import settings
from tools import ROOT, Broken, program, run, unpack_kubectl_and_helm


def steps(deploy, dockerfile, overlays=tuple(render.DEPLOYMENTS)):
    """The name of each step, and what runs it: a function that raises Broken or returns a remark."""
    rendered = {}

    def rendering(overlay):
        rendered[overlay] = render.kustomize(deploy, overlay)
        compare.compare(overlay, rendered[overlay], render.helm(deploy, render.DEPLOYMENTS[overlay]))

    def rules(overlay):
        for check in (pods.check, references.check):
            check(rendered.get(overlay, []))

    for overlay in overlays:
        yield f"{overlay}: kustomize and Helm make the same objects", lambda: rendering(overlay)
        validated = f"{overlay}: schemas of Kubernetes {', '.join(schemas.VERSIONS)} and of custom resources"
        yield validated, lambda: [schemas.validate(value) for value in rendered.get(overlay, [])] and None
        yield f"{overlay}: grace periods, security, probes, names, settings", lambda: rules(overlay)
    yield "settings of the Secret, the Dockerfile and the compose files", lambda: settings.check_files(deploy)
    yield "alerts and their tests", lambda: monitoring.check(deploy)
    yield "the chart by helm lint", lambda: run(program("helm"), "lint", "--strict", deploy / "helm/latentd") and None
    yield "the Dockerfile: hadolint, digests, user, health check", lambda: images.check(dockerfile)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--deploy", type=pathlib.Path, default=ROOT / "deploy", help="a copy of deploy/")
    arguments.add_argument("--dockerfile", type=pathlib.Path, default=ROOT / "Dockerfile")
    arguments.add_argument("--write", action="store_true", help="write the files that are made from others")
    options = arguments.parse_args()
    unpack_kubectl_and_helm()
    if options.write:
        monitoring.write(options.deploy)
    sys.exit(1 if faults(steps(options.deploy, options.dockerfile), print) else 0)


def faults(of_steps, report):
    """Runs the steps; returns what is broken, and reports each step in a line."""
    found = []
    for name, step in of_steps:
        try:
            report(f"{step() or 'ok'}: {name}")
        except Broken as error:
            found.append(str(error))
            report(f"BROKEN: {name}\n{error}")
    return found


if __name__ == "__main__":
    main()
