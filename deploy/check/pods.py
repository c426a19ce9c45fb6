"""Rules for pods: grace periods, security, probes, images, volumes."""

from render import key
from settings import settings_of, shutdown_timeout_s
from tools import Broken

# Seconds between the end of shutdown_timeout_s and SIGKILL.
MARGIN_S = 10
# Least seconds for load balancers to learn that a pod leaves.
WITHDRAWAL_S = 10


def template(value):
    """The pod template of an object, or None."""
    return value["spec"].get("template") if value["kind"] in ("Deployment", "StatefulSet", "Job") else None


def sleep_s(container):
    """The seconds for which a container answers after Kubernetes has decided to stop it."""
    return container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)


def check(values):
    """Raises Broken with every rule that a pod breaks."""
    found = []
    for value in values:
        if template(value):
            spec = template(value)["spec"]
            for container in spec["containers"]:
                rules = [secure(spec, container), sound(spec, container)]
                if container.get("args", [""])[0] == "serve":
                    labels = template(value)["metadata"]["labels"]
                    rules += [grace(values, spec, container), withdrawal(value, labels, container), probes(container)]
                found += [f"{key(value)}: {line}" for rule in rules for line in rule]
    if found:
        raise Broken("\n".join(found))


def grace(values, spec, container):
    """Whether Kubernetes waits long enough before it kills the process."""
    parts = (sleep_s(container), shutdown_timeout_s(settings_of(values, container)), MARGIN_S)
    if spec["terminationGracePeriodSeconds"] < sum(parts):
        yield (
            f"terminationGracePeriodSeconds is {spec['terminationGracePeriodSeconds']}, less than {parts[0]} (preStop) "
            f"+ {parts[1]} (shutdown_timeout_s) + {parts[2]} (margin) = {sum(parts)}"
        )


def withdrawal(value, labels, container):
    if value["kind"] == "Deployment" and labels.get("latentd/serves") and sleep_s(container) < WITHDRAWAL_S:
        yield f"preStop sleeps {sleep_s(container)} s, less than the {WITHDRAWAL_S} s that load balancers need"


def probes(container):
    ports = [port["name"] for port in container["ports"]]
    for name, path in [("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        get = container.get(name, {}).get("httpGet")
        if get != {"path": path, "port": "operator"} or "operator" not in ports:
            yield f"{name} must ask {path} on the operator port, not {get}"


def secure(spec, container):
    """The restricted level of the pod security standards, and more."""
    pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
    expected = {
        "runAsNonRoot is not true": pod.get("runAsNonRoot") is True,
        "runAsUser is root": pod.get("runAsUser", 0) != 0 and own.get("runAsUser") != 0,
        "seccompProfile is not RuntimeDefault": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
        "not all capabilities are dropped": own.get("capabilities") == {"drop": ["ALL"]},
        "readOnlyRootFilesystem is not true": own.get("readOnlyRootFilesystem") is True,
        "automountServiceAccountToken is not false": spec.get("automountServiceAccountToken") is False,
        "enableServiceLinks is not false": spec.get("enableServiceLinks") is False,
        "it shares a namespace of the host": not any(name.startswith("host") for name in spec),
        "a volume has a kind that is not allowed": all(
            volume.keys() - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in spec.get("volumes", [])
        ),
    }
    return [rule for rule, holds in expected.items() if not holds]


def sound(spec, container):
    """Errors that no schema finds."""
    image = container["image"].rpartition("/")[2]
    if ":" not in image or image.endswith(":latest"):
        yield f"the image {container['image']} has no version"
    resources = container["resources"]
    if not {"cpu", "memory"} <= resources["requests"].keys() or "memory" not in resources["limits"]:
        yield "requests of cpu and memory and a limit of memory are needed"
