"""Compares the objects of kustomize with those of Helm."""

import json
import re

from render import key
from tools import Broken

# Annotations that only Helm needs.
OF_HELM = {"helm.sh/hook", "helm.sh/hook-delete-policy", "latentd/settings"}


def compare(name, by_kustomize, by_helm):
    """Raises Broken with every difference."""
    left, right = (by_key(without_hashes(values)) for values in (by_kustomize, by_helm))
    found = [f"only kustomize has {missing}" for missing in left.keys() - right.keys()]
    found += [f"only Helm has {missing}" for missing in right.keys() - left.keys()]
    for known in sorted(left.keys() & right.keys()):
        found += [f"{known}: {line}" for line in differences(left[known], plain(right[known]))]
    if found:
        raise Broken("\n".join(f"{name}: {line}" for line in sorted(found)))


def by_key(values):
    keys = [key(value) for value in values]
    twice = {known for known in keys if keys.count(known) > 1}
    if twice:
        raise Broken(f"two objects have the same name: {sorted(twice)}")
    return dict(zip(keys, values))


def without_hashes(values):
    """The objects with the plain names of generated ConfigMaps."""
    text = json.dumps(values)
    for value in values:
        name = value["metadata"]["name"]
        if value["kind"] == "ConfigMap" and re.search("-[a-z0-9]{10}$", name):
            text = text.replace(f'"{name}"', f'"{name[:-11]}"')
    return json.loads(text)


def plain(value):
    """The object without the annotations of Helm."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: plain(item) for name, item in value.items()}
    if "annotations" in kept:
        kept["annotations"] = {name: text for name, text in kept["annotations"].items() if name not in OF_HELM}
        if not kept["annotations"]:
            del kept["annotations"]
    return kept


def differences(left, right, path=""):
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted(left.keys() | right.keys()):
            yield from differences(left.get(name), right.get(name), f"{path}.{name}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        if path.endswith((".volumes", ".volumeMounts", ".env")):
            left, right = (sorted(items, key=lambda item: item["name"]) for items in (left, right))
        for index, pair in enumerate(zip(left, right)):
            yield from differences(*pair, f"{path}[{index}]")
    elif left != right:
        yield f"{path} is {left!r} by kustomize, {right!r} by Helm"
