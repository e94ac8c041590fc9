# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The checks of module_utils/preflight.py, as filters over a host's variables."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.mlops.mlflow.plugins.module_utils import preflight

ROLES = Path(__file__).resolve().parents[2] / "roles"

# The variable with each service's port, its default, and the beginning of the names of the units that may have it.
PORTS = {
    "mlflow": ("mlflow_port", 5000, "mlflow"),
    "postgresql": ("postgresql_port", 5432, "postgresql"),
    "object_store": ("object_store_port", 7480, "ceph-"),
}


def known_variables() -> set[str]:
    """All variables in the argument specs of the roles."""
    names: set[str] = set()
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        for entry_point in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            names |= set(entry_point.get("options", {}))
    return names


def locks() -> list[str]:
    """The MLflow versions that have a lock, oldest first."""
    versions = [path.stem for path in (ROLES / "mlflow" / "files" / "locks").glob("*.txt")]
    return sorted(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])


def given(host: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Read what the inventory says about a host, of all that could be meant for the roles.

    Args:
        host: its variables.

    Returns:
        Names and values, and a problem for each value that cannot be evaluated.
    """
    prefixes = tuple(f"{path.name}_" for path in ROLES.iterdir())
    values, problems = {}, []
    for name in host:
        if name.startswith(prefixes):
            try:
                values[name] = host[name]
            except Exception as error:
                problems.append(f"{name}: its value cannot be evaluated: {error}")
    return values, problems


def input_problems(host: dict[str, Any]) -> list[str]:
    """See ``preflight.input_problems``."""
    values, problems = given(host)
    return problems + preflight.input_problems(values, known_variables(), sorted(path.name for path in ROLES.iterdir()), locks())


def input_notices(host: dict[str, Any], services: list[str], artifacts_destination: str) -> list[str]:
    """See ``preflight.input_notices``."""
    values = given(host)[0]
    return preflight.input_notices(values, services, values.get("mlflow_artifacts_destination") or artifacts_destination)


def names_to_resolve(host: dict[str, Any]) -> list[dict[str, str]]:
    """Names of other machines in a host's variables, each with its variable."""
    values = given(host)[0]
    names = {
        "mlflow_database_host": values.get("mlflow_database_host"),
        "mlflow_s3_endpoint_url": urlsplit(str(values.get("mlflow_s3_endpoint_url") or "")).hostname,
    }
    return [{"variable": variable, "name": name} for variable, name in names.items() if name and not name.startswith("/")]


def host_problems(host: dict[str, Any], services: list[str], report: dict[str, Any]) -> list[str]:
    """See ``preflight.host_problems``."""
    values, facts = given(host)[0], host["ansible_facts"]
    ports = {}
    for service in services:
        variable, default, unit = PORTS[service]
        port = values.get(variable, default)
        if str(port).isdigit():
            ports[variable] = {"port": port, "unit": unit}
    defaults = ROLES / "postgresql" / "vars" / f"{facts['distribution']}_{facts['distribution_major_version']}.yml"
    if defaults.exists():
        report = {**report, "postgresql_default": yaml.safe_load(defaults.read_text(encoding="utf-8"))["__postgresql_distribution_version"]}
    return preflight.host_problems(values, services, facts, report, ports, time.time())


def host_notices(host: dict[str, Any]) -> list[str]:
    """See ``preflight.host_notices``."""
    return preflight.host_notices(host["ansible_facts"])


def problem_report(hosts: list[dict[str, Any]]) -> list[str]:
    """One list of all hosts' problems; a problem that several hosts share stands once, with their names."""
    where: dict[str, list[str]] = {}
    for host in hosts:
        for line in host.get("__preflight_problems") or []:
            where.setdefault(line, []).append(host["inventory_hostname"])
    return [f"{', '.join(names)}: {line}" for line, names in where.items()]


class FilterModule:
    """Filters of mlops.mlflow."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {
            "host_notices": host_notices,
            "host_problems": host_problems,
            "input_notices": input_notices,
            "input_problems": input_problems,
            "names_to_resolve": names_to_resolve,
            "problem_report": problem_report,
        }
