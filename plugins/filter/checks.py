# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The checks of module_utils/preflight.py, as filters over a host's variables."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle, certificates, external, preflight
from jinja2 import Undefined

ROLES = Path(__file__).resolve().parents[2] / "roles"

# The one in C is there wherever PyYAML comes as a wheel or a package, and takes a tenth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Variables of the playbooks, not of a role.
SITE_VARIABLES = {"mlops_address": {"type": "str"}, "mlops_secrets_folder": {"type": "path"}}

# The variables with each service's ports, their defaults, and the beginning of the names of the units that may have them.
PORTS = {
    "mlflow": [("mlflow_port", 5000, "mlflow.")],
    "postgresql": [("postgresql_port", 5432, "postgresql")],
    "object_store": [("object_store_port", 7480, "ceph-")],
    "bundle_mirror": [("bundle_mirror_port", 8443, "mlops-bundle.")],
    "gateway": [("gateway_https_port", 443, "mlflow-gateway."), ("gateway_http_port", 80, "mlflow-gateway.")],
}

# What does not go with a bundle.
OTHER_SOURCES = ("sources_apt_repositories", "sources_apt_proxy", "sources_python_index_url", "sources_python_wheels", "sources_python_proxy")


@functools.cache
def known_variables() -> dict[str, dict[str, Any]]:
    """All variables in the argument specs of the roles, each with its option there."""
    options: dict[str, dict[str, Any]] = {}
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        for entry_point in yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)["argument_specs"].values():
            options |= entry_point.get("options", {})
    return options


def locks() -> list[str]:
    """The MLflow versions that have a lock, oldest first."""
    versions = [path.stem for path in (ROLES / "mlflow" / "files" / "locks").glob("*.txt")]
    return sorted(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])


def settled(value: Any) -> Any:
    """Return a value with everything inside it evaluated, which Ansible otherwise leaves to whoever reads it.

    Raises:
        jinja2.UndefinedError: something in it is not defined.
    """
    if isinstance(value, dict):
        return {key: settled(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [settled(each) for each in value]
    if isinstance(value, Undefined):
        str(value)
    return value


def given(host: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Read what the inventory says about a host, of all that could be meant for the roles.

    Args:
        host: its variables.

    Returns:
        Names and values, and a problem for each value that cannot be evaluated; none before there are facts, as it may need them.
    """
    prefixes = ("mlops_", *(f"{path.name}_" for path in ROLES.iterdir()))
    values, problems = {}, []
    for name in host:
        # One variable has the very name of its role.
        if name.startswith(prefixes) or name == "host_firewall":
            try:
                values[name] = settled(host[name])
            except Exception as error:
                if "distribution" in (host.get("ansible_facts") or {}):
                    problems.append(f"{name}: its value cannot be evaluated: {error}")
    return values, problems


def input_problems(host: dict[str, Any], artifacts_destination: str = "") -> list[str]:
    """See ``preflight.input_problems``."""
    values, problems = given(host)
    known = known_variables() | SITE_VARIABLES
    problems += preflight.input_problems(values, known, sorted(path.name for path in ROLES.iterdir()) + ["mlops"], locks(), artifacts_destination)
    values = {name: value for name, value in values.items() if name not in preflight.named(problems)}
    for name in ("pki_certificate_file", "pki_key_file", "pki_ca_file", "gateway_certificate_file", "gateway_key_file", "sources_bundle_ca_file"):
        if values.get(name) and not Path(str(values[name])).is_file():
            problems.append(preflight.problem(name, values[name], "there is no such file on the controller; use an absolute path, or leave it out"))
    for path in values["sources_ca_files"] if isinstance(values.get("sources_ca_files"), list) else []:
        if not Path(str(path)).is_file():
            problems.append(preflight.problem("sources_ca_files", path, "there is no such file on the controller; use an absolute path"))
    # The role would take a missing file for the wish to have no lock.
    lock = values.get("mlflow_lock_file")
    if lock and not Path(str(lock)).is_file():
        problems.append(preflight.problem("mlflow_lock_file", lock, "there is no such file on the controller; use an absolute path, or leave it out"))
    return problems


def input_notices(host: dict[str, Any], services: list[str], artifacts_destination: str, gateway: bool = False) -> list[str]:
    """See ``preflight.input_notices``."""
    values = given(host)[0]
    return preflight.input_notices(values, services, str(values.get("mlflow_artifacts_destination") or artifacts_destination), gateway)


def file_text(path: str) -> str:
    """Return the text of a file on the controller."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def certificate_problems(host: dict[str, Any], names: list[str], purposes: list[str]) -> list[str]:
    """See ``certificates.problems``; nothing to say about files that are not there, which ``input_problems`` names.

    Args:
        host: the host's variables.
        names: by which clients of this site reach it, and its certificate of the role pki.
        purposes: what it uses that certificate as, ``server`` or ``client``.
    """
    values = given(host)[0]
    served = values.get("gateway_server_names") if isinstance(values.get("gateway_server_names"), list) else []
    own = bool(values.get("gateway_certificate_file"))
    site = _certificate_problems(values, ["pki_certificate_file", "pki_key_file", "pki_ca_file"], names + ([] if own else served), purposes)
    return site + _certificate_problems(values, ["gateway_certificate_file", "gateway_key_file"], served, ["server"])


def _certificate_problems(values: dict[str, Any], variables: list[str], names: list[str], purposes: list[str]) -> list[str]:
    paths = {name: str(values.get(name) or "") for name in variables}
    if not all(path and Path(path).is_file() for path in paths.values()):
        return []
    files = {name: Path(path).read_bytes() for name, path in paths.items()}
    if any(file.startswith(b"$ANSIBLE_VAULT") for file in files.values()):
        # Only the role, which has Ansible read it, can look into it.
        return []
    found = certificates.problems(files, names, purposes, datetime.datetime.now(datetime.timezone.utc))
    return [preflight.problem(name, Path(paths[name]).name, fault) for name, fault in found.items()]


def names_to_resolve(host: dict[str, Any], services: list[str]) -> list[dict[str, str]]:
    """Names in a host's variables that its services must resolve, each with its variable; addresses and folders of sockets are none."""
    values, names = given(host)[0], []
    if "mlflow" in services:
        endpoint = str(values.get("mlflow_s3_endpoint_url") or "")
        names += [("mlflow_database_host", values.get("mlflow_database_host")), ("mlflow_listen_address", values.get("mlflow_listen_address"))]
        names.append(("mlflow_s3_endpoint_url", urlsplit(endpoint).hostname if preflight.is_http_url(endpoint) else None))
    addresses = values.get("postgresql_listen_addresses")
    if "postgresql" in services and isinstance(addresses, list):
        names += [("postgresql_listen_addresses", address) for address in addresses if address != "*"]
    return [{"variable": variable, "name": str(name)} for variable, name in names if name and not str(name).startswith("/") and not is_address(str(name))]


def is_address(name: str) -> bool:
    """Tell an IP address, with or without brackets, from a name."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def host_problems(
    host: dict[str, Any],
    services: list[str],
    report: dict[str, Any],
    connections: dict[str, Any],
    memory_share: float = 1.0,
    artifacts_destination: str = "",
    upgrades: bool = False,
) -> list[str]:
    """See ``preflight.host_problems``; and what ``input_problems`` says only now that there are facts.

    Args:
        host: the host's variables.
        services: what it runs.
        report: what host_report registered, or that it could not.
        connections: what the site can open (the filter site_connections).
        memory_share: the part of the memory that PostgreSQL may plan with when the inventory does not say.
        artifacts_destination: where artifacts go when the inventory does not say.
        upgrades: whether the run may bring PostgreSQL to another major version.
    """
    if report.get("unreachable") or "distribution" not in (host.get("ansible_facts") or {}):
        return ["this host cannot be reached by SSH: see the line UNREACHABLE above, and mend ansible_host, ansible_user or the key"]
    report = report["report"]
    values, facts = given(host)[0], host["ansible_facts"]
    said = host.get("__preflight_problems") or []
    late = [line for line in input_problems(host, artifacts_destination) if line not in said]
    ports = {}
    for variable, default, unit in [port for service in services for port in PORTS[service]]:
        port = values.get(variable, default)
        if re.fullmatch("[0-9]+", str(port)) and int(port) > 0:
            ports[variable] = {"port": port, "unit": unit}
    defaults = ROLES / "postgresql" / "vars" / f"{facts['distribution']}_{facts['distribution_major_version']}.yml"
    if defaults.exists():
        report = {**report, "postgresql_default": yaml.safe_load(defaults.read_text(encoding="utf-8"))["__postgresql_distribution_version"]}
    return late + preflight.host_problems(values, services, facts, report, ports, connections, float(memory_share), said + late, upgrades)


def bundle_problems(host: dict[str, Any], opened: dict[str, Any]) -> list[str]:
    """Why a bundle cannot be used for a host.

    Args:
        host: the host's variables.
        opened: what the module bundle_open registered.
    """
    values, facts = given(host)[0], host.get("ansible_facts") or {}
    shown = values.get("sources_bundle")
    others = [name for name in OTHER_SOURCES if values.get(name)]
    found = [preflight.problem(name, values[name], "with sources_bundle no other source is asked; leave it out") for name in others]
    if values.get("sources_bundle_url") and not str(values["sources_bundle_url"]).startswith("https://"):
        found.append(preflight.problem("sources_bundle_url", values["sources_bundle_url"], "use an address that begins with https://"))
    if opened["problem"]:
        return found + [preflight.problem("sources_bundle", shown, opened["problem"])]
    if "distribution" in facts:
        fault = bundle.misfit(opened, facts["distribution"], facts["distribution_major_version"], facts["architecture"])
        found += [preflight.problem("sources_bundle", shown, fault)] if fault else []
    return found


def bundle_notices(host: dict[str, Any], opened: dict[str, Any]) -> list[str]:
    """What is worth knowing of a bundle; the arguments are those of ``bundle_problems``."""
    if opened["problem"] or given(host)[0].get("sources_bundle_key"):
        return []
    return [
        f"sources_bundle_key is not set, so a bundle of anybody's would do. This one is signed with the key {opened['fingerprint']}: compare that with what "
        "whoever made it says, and set it"
    ]


def database_problems(host: dict[str, Any], target: dict[str, Any], looked: dict[str, Any], connections: dict[str, Any]) -> list[str]:
    """See ``external.database_problems``.

    Args:
        host: the host's variables.
        target: the options that the module database_report had.
        looked: what it registered.
        connections: what the site can open (the filter site_connections).
    """
    if "report" not in looked:
        return []
    found = external.database_problems(looked["report"], database_target(target), connections)
    return [line for line in found if line not in (host.get("__preflight_problems") or [])]


def database_notices(looked: dict[str, Any], target: dict[str, Any], connections: dict[str, Any] | None = None) -> list[str]:
    """See ``external.database_notices``; the arguments are those of ``database_problems``."""
    return external.database_notices(looked["report"], database_target(target), connections) if "report" in looked else []


def database_target(target: dict[str, Any]) -> dict[str, Any]:
    """The options of database_report, without the passwords, as ``external`` takes them."""
    owner, server = target["owner"]["user"], target["server"]["user"]
    shown = {name: target[name] for name in ("host", "port", "sslmode", "databases")}
    return {**shown, "owner_user": owner, "server_user": server, "single_role": owner == server}


def missing_passwords(target: dict[str, Any]) -> list[str]:
    """Passwords that only the inventory can say, because the roles are somebody else's. Where one role is both, it says one of the two."""
    wanted = {"mlflow_database_password": "server", "mlflow_database_owner_password": "owner"}
    if target["owner"]["user"] == target["server"]["user"]:
        wanted = {} if target["owner"]["password"] else {"mlflow_database_password": "server"}
    remedy = "set it to the password of the role"
    return [f"{name} is missing: {remedy} {target[which]['user']} on {target['host']}" for name, which in wanted.items() if not target[which]["password"]]


def firewall_problems(host: dict[str, Any], looked: dict[str, Any], topology: dict[str, list[Any]]) -> list[str]:
    """See ``preflight.firewall_problems``.

    Args:
        host: the host's variables.
        looked: what host_report registered, or that it could not.
        topology: of the filter site_firewall.
    """
    if "report" not in looked:
        return []
    found = preflight.firewall_problems(given(host)[0], looked["report"], topology["unknown"])
    return [line for line in found if line not in (host.get("__preflight_problems") or [])]


def firewall_notices(host: dict[str, Any], services: list[str], looked: dict[str, Any], topology: dict[str, list[Any]]) -> list[str]:
    """See ``preflight.firewall_notices``; the arguments are those of ``firewall_problems``, and what the host is to run."""
    return preflight.firewall_notices(given(host)[0], services, looked["report"], topology["entries"]) if "report" in looked else []


def host_notices(host: dict[str, Any]) -> list[str]:
    """See ``preflight.host_notices``."""
    facts = host.get("ansible_facts") or {}
    return preflight.host_notices(facts) if "distribution" in facts else []


def problem_report(hosts: list[dict[str, Any]], looked: bool = True) -> list[str]:
    """One list of all hosts' problems; a problem that several hosts share stands once, with their names.

    Args:
        hosts: the variables of each host.
        looked: whether the hosts themselves were to be looked at.

    Returns:
        The lines.
    """
    where: dict[str, list[str]] = {}
    for host in hosts:
        lines = list(host.get("__preflight_problems") or [])
        if looked and not host.get("__preflight_looked_at"):
            lines.append("this host could not be looked at; its error is above")
        for line in lines:
            where.setdefault(line, []).append(host["inventory_hostname"])
    if any(line.startswith("this host cannot be reached") for line in where):
        # That is the reason.
        where = {line: names for line, names in where.items() if ": nobody has looked at" not in line}
    return [f"{', '.join(names)}: {line}" for line, names in where.items()]


class FilterModule:
    """Filters of mlops.mlflow."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {
            "bundle_notices": bundle_notices,
            "bundle_problems": bundle_problems,
            "certificate_problems": certificate_problems,
            "database_notices": database_notices,
            "database_problems": database_problems,
            "file_text": file_text,
            "firewall_notices": firewall_notices,
            "firewall_problems": firewall_problems,
            "host_notices": host_notices,
            "host_problems": host_problems,
            "input_notices": input_notices,
            "input_problems": input_problems,
            "missing_passwords": missing_passwords,
            "names_to_resolve": names_to_resolve,
            "problem_report": problem_report,
        }
