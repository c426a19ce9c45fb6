"""Checks that objects fit together: selectors, targets, names, ports."""

from pods import template
from render import key
from settings import DEFAULTS, check_container, settings_of
from tools import Broken

# Secrets that docs/kubernetes.md tells the operator to create.
SECRETS = {"latentd", "latentd-scaler", "latentd-models"}


def check(values):
    """Raises Broken with everything that does not fit."""
    pods = [template(value)["metadata"]["labels"] for value in values if template(value)]
    found = []
    for value in values:
        for rule in (selects, targets, pod_names, traffic):
            found += [f"{key(value)}: {line}" for line in rule(value, values, pods)]
    if found:
        raise Broken("\n".join(found))


def labels_of_selector(value):
    spec = value["spec"] if "spec" in value else {}
    if value["kind"] == "Service":
        return spec["selector"]
    if value["kind"] == "NetworkPolicy":
        return spec["podSelector"]["matchLabels"]
    return spec.get("selector", {}).get("matchLabels") if isinstance(spec.get("selector"), dict) else None


def selects(value, values, pods):
    """A selector selects something; a Deployment selects its own pods."""
    wanted = labels_of_selector(value)
    if not wanted:
        return
    candidates = pods
    if value["kind"] == "ServiceMonitor":
        candidates = [one["metadata"].get("labels", {}) for one in values if one["kind"] == "Service"]
    if value["kind"] in ("Deployment", "StatefulSet"):
        candidates = [template(value)["metadata"]["labels"]]
    if not any(wanted.items() <= labels.items() for labels in candidates):
        yield f"its selector {wanted} selects nothing"


def targets(value, values, _pods):
    """What is scaled exists and has no number of replicas of its own; routes lead to Services."""
    if value["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
        name = value["spec"]["scaleTargetRef"]["name"]
        scaled = [one for one in values if one["kind"] == "Deployment" and one["metadata"]["name"] == name]
        if not scaled:
            yield f"there is no Deployment {name}"
        elif "replicas" in scaled[0]["spec"]:
            yield f"the Deployment {name} has replicas, which every update would set again"
    if value["kind"] == "ScaledObject":
        names = {one["metadata"]["name"] for one in values if one["kind"] == "TriggerAuthentication"}
        for trigger in value["spec"]["triggers"]:
            if trigger["authenticationRef"]["name"] not in names:
                yield "there is no such TriggerAuthentication"
            if " FROM queued_work" not in trigger["metadata"]["query"]:
                yield "the query must read the view queued_work, which the role may read"
    if value["kind"] == "HTTPRoute":
        services = {one["metadata"]["name"]: one["spec"]["ports"] for one in values if one["kind"] == "Service"}
        for rule in value["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend["port"] not in [port["port"] for port in services.get(backend["name"], [])]:
                    yield f"there is no Service {backend['name']} with the port {backend['port']}"


def pod_names(value, values, _pods):
    """The names in a pod exist, and its settings are settings."""
    if not template(value):
        return
    spec = template(value)["spec"]
    names = {kind: {one["metadata"]["name"] for one in values if one["kind"] == kind} for kind in
             ("ConfigMap", "ServiceAccount", "PersistentVolumeClaim")}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    claims = {claim["metadata"]["name"] for claim in value["spec"].get("volumeClaimTemplates", [])}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and claim not in names["PersistentVolumeClaim"]:
            yield f"there is no PersistentVolumeClaim {claim}"
    if spec.get("serviceAccountName", "default") not in names["ServiceAccount"] | {"default"}:
        yield f"there is no ServiceAccount {spec['serviceAccountName']}"
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes.keys() | claims:
                yield f"there is no volume {mount['name']}"
        for source in container.get("envFrom", []):
            if "configMapRef" in source and source["configMapRef"]["name"] not in names["ConfigMap"]:
                yield f"there is no ConfigMap {source['configMapRef']['name']}"
            if "secretRef" in source and source["secretRef"]["name"] not in SECRETS:
                yield f"docs/kubernetes.md does not describe the Secret {source['secretRef']['name']}"
        try:
            check_container(values, container)
        except Broken as error:
            yield str(error)
        yield from listens(values, container)


def listens(values, container):
    """The ports of the container are those of the listeners."""
    settings = settings_of(values, container)
    for name, setting in [("http", "LATENTD_HTTP__BIND"), ("operator", "LATENTD_OPERATOR__BIND")]:
        for port in container.get("ports", []):
            if port["name"] == name and not settings.get(setting, "").endswith(f":{port['containerPort']}"):
                yield f"the port {name} is {port['containerPort']}, but {setting} is {settings.get(setting)}"


def traffic(value, _values, _pods):
    """Any pod answers any request, and policies allow the ports of the settings."""
    if value["kind"] == "Service" and value["spec"].get("sessionAffinity", "None") != "None":
        yield "latentd needs no session affinity"
    if value["kind"] == "NetworkPolicy" and value["metadata"]["name"] == "latentd-webhooks":
        ports = {port["port"] for rule in value["spec"]["egress"] for port in rule["ports"]}
        if ports != set(DEFAULTS["webhooks"]["ports"]):
            yield f"the ports {sorted(ports)} are not those of webhooks.ports"
