"""Checks alerts with promtool, and makes the PrometheusRule from the file of alerts."""

import yaml

from tools import Broken, is_required, program, run

RULES = "monitoring/rules.yaml"

HEAD = "# Made from alerts.yaml by deploy/check/check.py --write.\n"


def rules(deploy):
    """The PrometheusRule with the alerts, as text."""
    groups = yaml.safe_load((deploy / "monitoring/alerts.yaml").read_text())
    labels = {"app.kubernetes.io/name": "latentd"}
    value = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "latentd", "labels": labels},
        "spec": groups,
    }
    return HEAD + yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=True)


def write(deploy):
    (deploy / RULES).write_text(rules(deploy))


def check(deploy):
    """Raises Broken if the alerts are wrong, or if their PrometheusRule is out of date."""
    if (deploy / RULES).read_text() != rules(deploy):
        raise Broken(f"deploy/{RULES} is out of date: run deploy/check/check.py --write")
    if not program("promtool"):
        if is_required():
            raise Broken("LATENTD_REQUIRE_DEPLOY is set, but there is no promtool")
        return "skipped: there is no promtool (Debian's package prometheus)"
    run(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", deploy / "monitoring/alerts.yaml")
    run(program("promtool"), "test", "rules", deploy / "monitoring/alerts.test.yaml")
    return ""
