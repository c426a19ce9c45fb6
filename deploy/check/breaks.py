"""Breaks copies of deploy/ and of the Dockerfile, one fault at a time, and expects that the check names each fault."""

import pathlib
import shutil
import sys
import tempfile

import check
from tools import ROOT

OVERLAY = "deploy/kustomize/overlays/scale-out"
CHART = "deploy/helm/latentd/templates"
SCALING = "deploy/kustomize/components/autoscaling/worker-scaling.yaml"
GRACE = "less than 15 (preStop) + 30.0 (shutdown_timeout_s) + 10 (margin) = 55"

# The fault, the file, what is replaced, the replacement, and a part of the message.
BREAKS = [
    ("an unknown field", f"{OVERLAY}/worker.yaml", "enableServiceLinks", "enableServiceLinkz", "'enableServiceLinkz' was unexpected"),
    ("a wrong type", f"{OVERLAY}/disruption.yaml", "minAvailable: 1", "minAvailable: true", "minAvailable: True"),
    ("a grace period that is too short", f"{OVERLAY}/api.yaml", "PeriodSeconds: 60", "PeriodSeconds: 50", GRACE),
    ("no time to leave the load balancer", f"{OVERLAY}/api.yaml", "{seconds: 15}", "{seconds: 2}", "preStop sleeps 2 s"),
    ("a probe of the wrong path", f"{OVERLAY}/api.yaml", "path: /livez", "path: /readyz", "livenessProbe must ask /livez"),
    ("a pod that may run as root", f"{OVERLAY}/api.yaml", "NonRoot: true", "NonRoot: false", "runAsNonRoot is not true"),
    ("a misspelled setting", f"{OVERLAY}/worker.yaml", "SHUTDOWN_TIMEOUT_S", "SHUTDOWN_TIME_S", "SHUTDOWN_TIME_S is no setting"),
    ("a setting of another type", "deploy/secret.example.env", "LATENTD_BLOBS__REGION=us-east-1", "LATENTD_BLOBS__ALLOW_HTTP=yes",
     "LATENTD_BLOBS__ALLOW_HTTP=yes"),
    ("another port", "deploy/kustomize/base/settings.env", "0.0.0.0:9090", "0.0.0.0:9091", "but LATENTD_OPERATOR__BIND"),
    ("a chart that differs", f"{CHART}/api.yaml", "maxSurge: 1", "maxSurge: 2", "is 1 by kustomize, 2 by Helm"),
    ("an object that only the chart has", f"{OVERLAY}/kustomization.yaml", "  - migrate.yaml\n", "", "only Helm has batch/v1 Job"),
    ("a selector of nothing", "deploy/kustomize/base/service.yaml", 'serves: "true"', 'serves: "yes"', "selects nothing"),
    ("session affinity", "deploy/kustomize/base/service.yaml", "Affinity: None", "Affinity: ClientIP", "no session affinity"),
    ("a field that KEDA does not know", SCALING, "targetQueryValue", "targetQuery", "is not valid under"),
    ("a scaled number of replicas", "deploy/kustomize/components/autoscaling/kustomization.yaml", "op: remove\n        path: /spec/replicas",
     "op: replace\n        path: /spec/replicas\n        value: 3", "has replicas"),
    ("a webhook port", "deploy/kustomize/components/network-policy/policies.yaml", "port: 8443", "port: 8444", "not those of webhooks.ports"),
    ("a value of the chart", "deploy/helm/latentd/values.yaml", "replicas: 2", "replicas: two", "replicas"),
    ("an alert with a wrong expression", "deploy/monitoring/alerts.yaml", "expr: ", "expr: )", "could not parse expression"),
    ("an alert whose test fails", "deploy/monitoring/alerts.test.yaml", "severity: ", "severity: no-", "FAILED"),
    ("an alert that was changed", "deploy/monitoring/alerts.yaml", "for: ", "for: 1", "is out of date"),
    ("a base image without a version", "Dockerfile", "FROM debian:bookworm-slim", "FROM debian AS none\nFROM debian:bookworm-slim",
     "DL3006"),
    ("a base image without a digest", "Dockerfile", "FROM debian:bookworm-slim@", "FROM debian:bookworm-slim AS none\nFROM debian:bookworm-slim@",
     "no digest"),
]


def named(copy):
    """What the check says of a copy of the repository's files."""
    everything = check.steps(copy / "deploy", copy / "Dockerfile", ["check/full"])
    return "\n".join(check.faults(everything, lambda line: None))


def main():
    missed = 0
    for fault, file, old, new, message in BREAKS:
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copytree(ROOT / "deploy", copy / "deploy", symlinks=True)
            shutil.copy(ROOT / "Dockerfile", copy)
            text = (copy / file).read_text()
            (copy / file).write_text(text.replace(old, new, 1))
            if fault.startswith("an alert with") or fault.startswith("an alert whose"):
                check.monitoring.write(copy / "deploy")
            said = named(copy)
        is_found = old in text and message in said
        missed += not is_found
        if not is_found:
            print(f"NOT FOUND: {fault} in {file}; the check says: {said or 'nothing'}")
    print(f"{len(BREAKS) - missed} of {len(BREAKS)} faults are found")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
