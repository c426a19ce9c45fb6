"""Checks alerts with promtool, and makes the objects of the cluster from the alerts and the dashboard."""

import yaml

from tools import Broken, is_required, program, run

OBJECTS = "monitoring/objects.yaml"

HEAD = "# Made from alerts.yaml and dashboard.json by deploy/check/check.py --write.\n"


def objects(deploy):
    """The PrometheusRule with the alerts and the ConfigMap with the dashboard, as text."""
    folder, labels = deploy / "monitoring", {"app.kubernetes.io/name": "latentd"}
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "latentd", "labels": labels},
        "spec": yaml.safe_load((folder / "alerts.yaml").read_text()),
    }
    dashboard = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "latentd-dashboard", "labels": labels | {"grafana_dashboard": "1"}},
        "data": {"latentd.json": (folder / "dashboard.json").read_text()},
    }
    options = {"sort_keys": False, "width": 110, "allow_unicode": True}
    return HEAD + "---\n".join(yaml.dump(value, Dumper=Readable, **options) for value in (rule, dashboard))


class Readable(yaml.SafeDumper):
    """Writes texts of several lines as such, and nothing as a reference."""

    def ignore_aliases(self, data):
        return True


Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def write(deploy):
    (deploy / OBJECTS).write_text(objects(deploy))


def check(deploy):
    """Raises Broken if the alerts are wrong, or if the objects are out of date. Returns why it was skipped."""
    if not (deploy / "monitoring/alerts.yaml").exists():
        return "skipped, there is no deploy/monitoring/alerts.yaml"
    if program("promtool"):
        run(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", deploy / "monitoring/alerts.yaml")
        run(program("promtool"), "test", "rules", deploy / "monitoring/alerts.test.yaml")
    elif is_required():
        raise Broken("LATENTD_REQUIRE_DEPLOY is set, but there is no promtool")
    if (deploy / OBJECTS).read_text() != objects(deploy):
        raise Broken(f"deploy/{OBJECTS} is out of date: run deploy/check/check.py --write")
    return "" if program("promtool") else "skipped, there is no promtool (Debian's package prometheus)"
