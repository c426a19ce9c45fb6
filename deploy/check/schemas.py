"""Validates objects against the schemas of Kubernetes and of the custom resources in crds/."""

import functools
import json
import pathlib

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

from render import key
from tools import Broken

# The oldest version in which the sleep of preStop needs no feature gate and image volumes exist, and two newer ones.
VERSIONS = ["1.31", "1.34", "1.37"]

CRDS = pathlib.Path(__file__).parent / "crds"

# The package reads the same large files for each object.
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)


def validate(value):
    """Raises Broken if a version of Kubernetes would refuse the object or drop a field of it."""
    schema = CRDS / f"{value['kind'].lower()}.json"
    if schema.exists():
        try:
            jsonschema.validate(value, json.loads(schema.read_text()), jsonschema.Draft202012Validator)
        except jsonschema.ValidationError as error:
            raise Broken(f"{key(value)}: {place(error)}: {error.message}") from error
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(value, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Broken(f"{key(value)}: Kubernetes {version}: {place(error)}: {error.message}") from error
        except kubernetes_validate.SchemaNotFoundError as error:
            raise Broken(f"{key(value)}: {error.message}, and {schema.name} is not in deploy/check/crds") from error


def place(error):
    return ".".join(str(part) for part in error.path)
