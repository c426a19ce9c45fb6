"""Renders the overlays of kustomize and the same deployments of the Helm chart."""

import yaml

from tools import program, run

ALL = ["autoscaling.enabled=true", "gateway.enabled=true", "models.enabled=true", "monitoring.enabled=true"]

# The folder of an overlay, and the values with which the chart makes the same objects.
DEPLOYMENTS = {
    "kustomize/overlays/single": ["mode=single"],
    "kustomize/overlays/scale-out": [],
    "kustomize/overlays/gpu": ["gpu.enabled=true"],
    "check/full": ALL,
}


def kustomize(deploy, overlay):
    """The objects of an overlay."""
    return objects(run(program("kubectl"), "kustomize", deploy / overlay))


def helm(deploy, values):
    """The objects of the chart."""
    options = [word for value in values for word in ("--set", value)]
    return objects(run(program("helm"), "template", "latentd", deploy / "helm/latentd", *options))


def objects(text):
    """The objects of a stream of YAML documents."""
    return [value for value in yaml.safe_load_all(text) if value]


def key(value):
    """What identifies an object, such as apps/v1 Deployment latentd-api."""
    return f"{value['apiVersion']} {value['kind']} {value['metadata']['name']}"
