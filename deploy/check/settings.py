"""Checks the names and types of settings in environment variables against config/latentd.toml."""

import re
import tomllib

import yaml

from tools import ROOT, Broken

DEFAULTS = tomllib.loads((ROOT / "config/latentd.toml").read_text())


def default(name):
    """The default of the setting that an environment variable sets."""
    value = DEFAULTS
    for part in name.removeprefix("LATENTD_").lower().split("__"):
        if not isinstance(value, dict) or part not in value:
            raise Broken(f"{name} is no setting of config/latentd.toml")
        value = value[part]
    if isinstance(value, dict):
        raise Broken(f"{name} is a section of config/latentd.toml, no setting")
    return value


def check_setting(name, text):
    """Raises Broken if there is no such setting, or if it has another type."""
    expected = default(name)
    numbers = r"-?\d+(\.\d+)?"
    pattern = "true|false" if isinstance(expected, bool) else numbers if isinstance(expected, (int, float)) else ".*"
    if not re.fullmatch(pattern, text):
        raise Broken(f"{name}={text}: the setting must be of the type of its default, {expected!r}")


def settings_of(values, container):
    """The environment variables of a container that are not secret."""
    maps = {value["metadata"]["name"]: value["data"] for value in values if value["kind"] == "ConfigMap"}
    found = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= maps.get(source["configMapRef"]["name"], {})
    return found | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def shutdown_timeout_s(settings):
    return float(settings.get("LATENTD_SHUTDOWN_TIMEOUT_S", DEFAULTS["shutdown_timeout_s"]))


def check_container(values, container):
    for name, text in settings_of(values, container).items():
        if name.startswith("LATENTD_"):
            check_setting(name, text)


def check_files(deploy):
    """Checks the example of the Secret, the Dockerfile, and the compose files."""
    for name, text in re.findall(r"^(LATENTD_\w+)=(.*)$", (deploy / "secret.example.env").read_text(), re.M):
        check_setting(name, text)
    for name, text in re.findall(r"^(?:ENV)? +(LATENTD_\w+)=(\S+)", (ROOT / "Dockerfile").read_text(), re.M):
        check_setting(name, text)
    for file in deploy.glob("*compose.yaml"):
        for service in yaml.safe_load(file.read_text())["services"].values():
            environment = service.get("environment", {})
            for name, text in environment.items():
                if name.startswith("LATENTD_"):
                    check_setting(name, str(text))
