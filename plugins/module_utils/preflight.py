# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an inventory or a host: pure functions, no Ansible.

A problem is one line: the variable (or what was looked at), the value seen, and what would be right.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.mlops.mlflow.plugins.module_utils import accounts, firewall, guc, postgresql, sizing, tuning

TESTED = {("Debian", "12"), ("Debian", "13")}
UNTESTED = {("Ubuntu", "22"), ("Ubuntu", "24")}
ARCHITECTURES = ("x86_64", "aarch64")

# MLflow with two workers beside a small PostgreSQL; a virtual environment, and the pip and uv that build it.
MIN_MEMORY_MIB = {"mlflow": 1700, "postgresql": 900, "object_store": 2500, "gateway": 100, "bundle_mirror": 100}
MIN_FREE_MIB = {"mlflow": 2500, "postgresql": 1000, "object_store": 2000, "gateway": 700, "bundle_mirror": 2000}
MAX_CLOCK_SKEW_S = 60
MIN_PYTHON = (3, 10)

# Environment variables of the server that follow from a variable of their own.
OWN_VARIABLE = {
    "AWS_ACCESS_KEY_ID": "mlflow_s3_access_key_id",
    "AWS_CA_BUNDLE": "mlflow_s3_ca_file",
    "AWS_DEFAULT_REGION": "mlflow_s3_region",
    "AWS_SECRET_ACCESS_KEY": "mlflow_s3_secret_access_key",
    "MLFLOW_ARTIFACTS_DESTINATION": "mlflow_artifacts_destination",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "mlflow_admin_password",
    "MLFLOW_AUTH_ADMIN_USERNAME": "mlflow_admin_user",
    "MLFLOW_BACKEND_STORE_URI": "mlflow_database_*",
    "MLFLOW_CRYPTO_KEK_PASSPHRASE": "mlflow_kek_passphrase",
    "MLFLOW_CRYPTO_KEK_VERSION": "mlflow_kek_passphrase",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "mlflow_flask_secret_key",
    "MLFLOW_HOST": "mlflow_listen_address",
    "MLFLOW_PORT": "mlflow_port",
    "MLFLOW_S3_ENDPOINT_URL": "mlflow_s3_endpoint_url",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow_allowed_hosts",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "mlflow_allowed_hosts",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "mlflow_jobs",
    "MLFLOW_SERVER_JOB_ENABLE_PERIODIC_TASKS": "mlflow_periodic_jobs",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "mlflow_database_max_overflow",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "mlflow_database_pool_size",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "mlflow_webhook_key",
    "MLFLOW_WORKERS": "mlflow_workers",
    "MLOPS_SHORTCUTS": "mlflow_shortcuts",
    "MLOPS_GATEWAY_SECRET": "mlflow_gateway_secret",
    "MLOPS_JOBS_CA_FILE": "mlflow_jobs",
    "MLOPS_JOBS_URL": "mlflow_jobs",
    "PYTHONPATH": "mlflow_auth",
}

# Settings of PostgreSQL that follow from another variable.
OWN_SETTINGS = tuning.VARIABLES | {
    "hba_file": "postgresql_hba",
    "ssl_cert_file": "postgresql_certificate_file",
    "ssl_key_file": "postgresql_key_file",
}

# Where the distribution's own scripts look for a cluster, and what the checks read as a whole.
FIXED_SETTINGS = ("config_file", "data_directory", "external_pid_file", "ident_file", "include", "include_dir", "include_if_exists")

# Sizes of memory that no plan counts: one session, or one subscriber, takes so much at most.
UNCOUNTED_MEMORY = ("logical_decoding_work_mem", "temp_buffers")

# What a plan starts from: while one of them is wrong, there is no telling whether the rest is.
PLANNED_FROM = {
    "mlflow_database_max_overflow",
    "mlflow_database_pool_size",
    "mlflow_workers",
    "postgresql_disk_kind",
    "postgresql_disk_size",
    "postgresql_max_connections",
    "postgresql_memory_share",
    "postgresql_settings",
    "postgresql_shared_buffers",
    "postgresql_users",
    "postgresql_version",
    "postgresql_work_mem",
}

# Variables that playbooks/site.yml fills from those of the role mlflow: what an inventory says would not count.
MAPPED = {
    "gateway_secret": "mlflow_gateway_secret",
    "artifact_store_destination": "mlflow_artifacts_destination",
    "artifact_store_endpoint_url": "mlflow_s3_endpoint_url",
    "artifact_store_region": "mlflow_s3_region",
    "artifact_store_access_key_id": "mlflow_s3_access_key_id",
    "artifact_store_secret_access_key": "mlflow_s3_secret_access_key",
    "artifact_store_ca_file": "mlflow_s3_ca_file",
    "mlflow_schema_host": "mlflow_database_host",
    "mlflow_schema_port": "mlflow_database_port",
    "mlflow_schema_parameters": "mlflow_database_parameters",
    "mlflow_schema_tracking_database": "mlflow_database_name",
    "mlflow_schema_auth_database": "mlflow_database_auth_name",
    "mlflow_schema_owner_user": "mlflow_database_owner_user",
    "mlflow_schema_owner_password": "mlflow_database_owner_password",
    "mlflow_schema_server_user": "mlflow_database_user",
    "mlflow_schema_users": "postgresql_users",
    "mlflow_schema_secure_logging": "mlflow_secure_logging",
}

# With a password in it, a URL of a database is one too.
_SECRET = re.compile(r"password|secret|passphrase|token|_key$|database_url$")


def problem(variable: str, value: Any, remedy: str) -> str:
    """Write one line of the report; the value of a secret is not shown."""
    shown = "(not shown)" if _SECRET.search(variable) else repr(value)
    return f"{variable} = {shown}: {remedy}"


def named(lines: list[str]) -> set[str]:
    """Return the variables that lines are about, and the names in ``postgresql_settings`` with that in front."""
    return {match.group() for line in lines if (match := re.match(r"postgresql_settings\.[^ ]+|\w+", line))}


def _unnamed(values: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    """Leave out what lines are about already: another line on it would only follow from the first."""
    about = named(lines)
    left = {name: value for name, value in values.items() if name not in about}
    if isinstance(left.get("postgresql_settings"), dict):
        left["postgresql_settings"] = {name: value for name, value in left["postgresql_settings"].items() if f"postgresql_settings.{name}" not in about}
    return left


def unknown_variables(names: list[str], known: set[str], prefixes: list[str]) -> list[str]:
    """Find variables that look like the collection's and are none.

    Args:
        names: all variables that the inventory sets for a host.
        known: all variables of the roles.
        prefixes: the roles' names.

    Returns:
        A problem for each, with the nearest known name.
    """
    found = []
    for name in sorted(names):
        if name in known or not any(name.startswith(f"{prefix}_") for prefix in prefixes):
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
        remedy = f"did you mean {near[0]}?" if near else "docs/variables.md lists the variables that exist"
        found.append(f"{name}: there is no such variable; {remedy}")
    return found


def _memory(values: dict[str, Any]) -> list[str]:
    found = []
    for name in ("postgresql_shared_buffers", "postgresql_work_mem", "postgresql_disk_size"):
        value = str(values.get(name, ""))
        if value and not (name == "postgresql_disk_size" and re.fullmatch("[0-9]+", value)):
            try:
                sizing.parse_memory(value)
            except ValueError as error:
                found.append(problem(name, values[name], str(error)))
    return found


def _settings(values: dict[str, Any]) -> list[str]:
    settings = values.get("postgresql_settings")
    if not isinstance(settings, dict):
        return []
    return [
        problem(f"postgresql_settings.{name}", value, f"set {OWN_SETTINGS[str(name).lower()]} instead, from which other values follow")
        for name, value in settings.items()
        if str(name).lower() in OWN_SETTINGS
    ] + [
        problem(f"postgresql_settings.{name}", value, "the cluster's places and files are the distribution's and this role's; leave it out")
        for name, value in settings.items()
        if str(name).lower() in FIXED_SETTINGS
    ]


def _unknown_settings(values: dict[str, Any], known: dict[str, dict[str, Any]]) -> list[str]:
    """Ask what the server says about its settings; without a server that runs there is nothing to ask."""
    settings = values.get("postgresql_settings")
    wanted = {f"postgresql_settings.{name}": (name, value) for name, value in (settings if isinstance(settings, dict) else {}).items()}
    wanted |= {f"postgresql_{name}": (name, values[f"postgresql_{name}"]) for name in ("shared_buffers", "work_mem") if values.get(f"postgresql_{name}")}
    if not known:
        return []
    return [problem(variable, value, fault) for variable, (name, value) in wanted.items() if (fault := guc.problem(str(name), value, known)) is not None]


def _number(values: dict[str, Any], name: str, low: float, high: float, what: str) -> list[str]:
    if name not in values:
        return []
    # A limit that is a float allows fractions.
    form = r"[0-9]+" if isinstance(high, int) else r"[0-9]*\.?[0-9]+"
    if not re.fullmatch(form, str(values[name])) or not low <= float(str(values[name])) <= high:
        return [problem(name, values[name], what)]
    return []


def _numbers(values: dict[str, Any]) -> list[str]:
    found = []
    for name in ("mlflow_port", "postgresql_port", "object_store_port", "mlflow_database_port", "gateway_https_port"):
        found += _number(values, name, 1, 65535, "a TCP port is a number from 1 to 65535")
    found += _number(values, "gateway_http_port", 0, 65535, "a TCP port is a number from 1 to 65535; 0 is none")
    for name in ("gateway_requests_per_second", "gateway_connections_per_address", "gateway_hsts_seconds"):
        found += _number(values, name, 0, 10**9, "use a whole number; 0 is no limit, and no HSTS")
    for name in ("gateway_max_body_mib", "gateway_request_burst", "gateway_timeout"):
        found += _number(values, name, 1, 10**6, "use a whole number from 1 on")
    for name in ("mlflow_port", "postgresql_port"):
        if not found and int(values.get(name, 5000)) < 1024:
            found.append(problem(name, values[name], "the service runs without privileges; use a port from 1024 to 65535"))
    found += _number(values, "mlflow_auth_cache_seconds", 0, 3600, "use a number of seconds from 0 to 3600")
    found += _number(values, "mlflow_workers", 1, 512, "use a number from 1 to 512, or leave it out")
    found += _number(values, "postgresql_max_connections", 10, 262143, "use a number from 10 to 262143, or leave it out")
    share = _number(values, "postgresql_memory_share", 0.0, 1.0, "use a part of the memory above 0 and at most 1, such as 0.5")
    if not share and float(values.get("postgresql_memory_share", 1)) == 0:
        share = [problem("postgresql_memory_share", values["postgresql_memory_share"], "use a part of the memory above 0 and at most 1, such as 0.5")]
    found += share
    sizes = {"mlflow_database_pool_size": sizing.POOL_SIZE, "mlflow_database_max_overflow": sizing.MAX_OVERFLOW}
    malformed = [line for name in sizes for line in _number(values, name, 1, 10000, "use a number of connections; MLflow ignores 0")]
    found += malformed
    if not malformed and set(sizes) & set(values):
        total = sum(int(values.get(name, planned)) for name, planned in sizes.items())
        least = sizing.POOL_SIZE + sizing.MAX_OVERFLOW
        if total < least:
            found.append(
                problem(
                    "mlflow_database_pool_size + mlflow_database_max_overflow",
                    total,
                    f"below {least}, the 40 request threads of a worker can wait for each other's second connection; use {least} or more together",
                )
            )
    return found


def _hba(values: dict[str, Any]) -> list[str]:
    entries = values.get("postgresql_hba", [])
    if not isinstance(entries, list):
        return [problem("postgresql_hba", entries, "use a list of entries")]
    return [
        problem(f"postgresql_hba[{index}]", _without_options(entry), fault)
        for index, entry in enumerate(entries)
        if (fault := postgresql.hba_problem(entry)) is not None
    ]


def _users(values: dict[str, Any]) -> list[str]:
    users = values.get("postgresql_users", [])
    if not isinstance(users, list):
        return ["postgresql_users: its value is not shown; use a list of mappings, each with a name"]
    own = [str(values.get("mlflow_database_user", "mlflow")), str(values.get("mlflow_database_owner_user", "mlflow_owner"))]
    found = [f"postgresql_users[{index}]: {fault}" for index, user in enumerate(users) if (fault := postgresql.user_problem(user, own)) is not None]
    names = [user.get("name") for user in users if isinstance(user, dict)]
    return found + [f"postgresql_users: {name!r} stands there twice; leave one" for name in sorted({str(each) for each in names if names.count(each) > 1})]


def _user_passwords(values: dict[str, Any]) -> list[str]:
    """Ask for the passwords of roles that are made here; a server of somebody else's has its own."""
    users = values.get("postgresql_users")
    about = enumerate(users if isinstance(users, list) else [])
    return [f"postgresql_users[{index}]: {fault}" for index, user in about if (fault := postgresql.password_problem(user)) is not None]


def _accounts(values: dict[str, Any]) -> list[str]:
    users = values.get("mlflow_users", [])
    if not isinstance(users, list):
        return ["mlflow_users: its value is not shown; use a list of mappings, each with a name"]
    if users and values.get("mlflow_auth") == "none":
        return ["mlflow_users: with mlflow_auth none there are no users; set mlflow_auth to basic, or leave them out"]
    if users and values.get("mlflow_auth") == "proxy":
        return ["mlflow_users: with mlflow_auth proxy users are made when they sign in for the first time; leave them out"]
    # Before it the server has no roles, by which permissions are given.
    if users and re.fullmatch(r"[12]\..*|3\.([0-9]|1[0-3])\..*", str(values.get("mlflow_version", ""))):
        return [f"mlflow_users: MLflow {values['mlflow_version']} has no interface for their permissions; use 3.14 or newer, or leave them out"]
    return accounts.user_problems(users, str(values.get("mlflow_admin_user", "admin")))


def _jobs(values: dict[str, Any]) -> list[str]:
    wanted = values.get("mlflow_jobs", False)
    if str(wanted).lower() not in ("true", "yes", "on", "1"):
        return []
    if re.fullmatch(r"[12]\..*|3\.([0-9]|1[0-5])\..*", str(values.get("mlflow_version", ""))):
        return [problem("mlflow_jobs", wanted, f"MLflow {values['mlflow_version']} has other jobs or none; use 3.16 or newer, or leave it out")]
    if values.get("mlflow_auth") == "proxy":
        return [problem("mlflow_jobs", wanted, "with mlflow_auth proxy jobs cannot sign in; use mlflow_auth basic, or leave it out")]
    return []


def _firewall(values: dict[str, Any]) -> list[str]:
    allowed, sources, ports = (values.get(f"host_firewall_{name}", []) for name in ("allow", "ssh_sources", "ssh_ports"))
    found = []
    if isinstance(allowed, list):
        found += [problem(f"host_firewall_allow[{index}]", entry, fault) for index, entry in enumerate(allowed) if (fault := firewall.entry_problem(entry))]
    else:
        found.append(problem("host_firewall_allow", allowed, "use a list of entries such as {port: 9100, sources: [10.0.0.0/8]}"))
    for name, given, read, what in (
        ("host_firewall_ssh_sources", sources, firewall.read_network, "networks, or leave it out to let everybody try"),
        ("host_firewall_ssh_ports", ports, firewall.read_ports, "ports"),
    ):
        if not isinstance(given, list):
            found.append(problem(name, given, f"use a list of {what}"))
            continue
        for index, each in enumerate(given):
            try:
                read(each)
            except ValueError as error:
                found.append(problem(f"{name}[{index}]", each, str(error)))
    return found + _number(values, "host_firewall_rollback_after", 30, 3600, "use a number of seconds from 30 to 3600, or leave it out")


def _has_firewall(values: dict[str, Any]) -> bool:
    return str(values.get("host_firewall")).lower() in ("true", "yes", "on", "1")


def firewall_problems(values: dict[str, Any], report: dict[str, Any], unknown: list[str]) -> list[str]:
    """Check what a firewall needs to know, and that it does not shut out who is asking for it.

    Args:
        values: the variables that the inventory sets.
        report: what the module host_report saw.
        unknown: hosts whose address the rules need and nobody knows.

    Returns:
        One line for each problem.
    """
    if not _has_firewall(values):
        return []
    found = []
    if unknown:
        remedy = "leave out --limit, or set mlops_address for that host"
        found.append(f"host_firewall: nobody has looked at {', '.join(unknown)}, so that its address is unknown; {remedy}")
    sources, connection = values.get("host_firewall_ssh_sources"), report["ssh_connection"].split()
    if connection and isinstance(sources, list) and not firewall.admits(sources, connection[0]):
        remedy = f"this controller comes from {connection[0]}, which it would shut out; add it, or leave the list out to let everybody try"
        found.append(problem("host_firewall_ssh_sources", sources, remedy))
    return found


def firewall_notices(values: dict[str, Any], services: list[str], report: dict[str, Any], entries: list[dict[str, Any]]) -> list[str]:
    """Say what a firewall will let in, and which of the ports that others reach now it will close.

    Args:
        values: the variables that the inventory sets.
        services: what the host runs.
        report: what the module host_report saw.
        entries: what the topology opens.

    Returns:
        One line each.
    """
    if not _has_firewall(values) or _firewall(values):
        return []
    ssh = firewall.ssh_entry([*report["ssh_ports"], *values.get("host_firewall_ssh_ports", [])], values.get("host_firewall_ssh_sources", []))
    allowed = values.get("host_firewall_allow", [])
    opened = [ssh, *entries, *allowed]
    found = [f"host_firewall opens {'; '.join(map(firewall.show, opened))}"]
    closed = firewall.closed(report["listeners"], opened)
    if closed:
        found.append(f"host_firewall closes what else listens here: {', '.join(closed)}; name in host_firewall_allow what others must still reach")
    if "object_store" in services and not firewall.is_open("tcp", firewall.port_of(values, "object_store_port"), allowed):
        found.append(
            "host_firewall lets only MLflow reach the object store: clients that load artifacts straight from it need its port and their networks "
            "in host_firewall_allow, or MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD and _DOWNLOAD set to false"
        )
    return found


def _without_options(entry: Any) -> Any:
    """Return an entry of pg_hba without its options, among which may be the password of an LDAP or RADIUS server."""
    return {key: value for key, value in entry.items() if key != "options"} if isinstance(entry, dict) else entry


def is_http_url(url: str) -> bool:
    """Tell whether a URL has the scheme http or https, a host, and a port that is one if it has any."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _gateway(values: dict[str, Any]) -> list[str]:
    found = []
    names = values.get("gateway_server_names")
    for name in names if isinstance(names, list) else []:
        if not is_name(str(name)):
            found.append(problem("gateway_server_names", name, "use a host name or an IP address, without scheme, port, path or star"))
    pair = ("gateway_certificate_file", "gateway_key_file")
    given = [name for name in pair if values.get(name)]
    if len(given) == 1:
        missing = pair[1 - pair.index(given[0])]
        found.append(f"{missing} is missing: a certificate needs its private key; set it, or leave out {given[0]} too")
    if given and not names:
        found.append("gateway_server_names is missing: say for which names clients have the certificate in gateway_certificate_file")
    path = (values.get("mlflow_environment") or {}).get("MLFLOW_STATIC_PREFIX") if isinstance(values.get("mlflow_environment"), dict) else None
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", str(path)):
        found.append(problem("mlflow_environment.MLFLOW_STATIC_PREFIX", path, "use a path that begins with a slash and does not end with one"))
    return found


def is_name(name: str) -> bool:
    """Tell a host name or an IP address from something else."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return re.fullmatch(r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*", name) is not None
    return True


def _artifacts(values: dict[str, Any], planned: str) -> list[str]:
    found = []
    destination = values.get("mlflow_artifacts_destination")
    if destination is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/\S*)?|/\S+", str(destination)):
        remedy = "use s3://bucket/prefix, the bucket 3 to 63 characters long, or an absolute folder on the host"
        found.append(problem("mlflow_artifacts_destination", destination, remedy))
    endpoint = str(values.get("mlflow_s3_endpoint_url") or "")
    if endpoint:
        if not is_http_url(endpoint):
            place = endpoint if re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?", endpoint) else "s3.example.org:9000"
            found.append(problem("mlflow_s3_endpoint_url", endpoint, f"use a URL with a scheme, such as https://{place}"))
        elif "@" in endpoint.split("//", 1)[1].split("/", 1)[0]:
            found.append(
                "mlflow_s3_endpoint_url: its value is not shown; keys do not belong into it, but into mlflow_s3_access_key_id and "
                "mlflow_s3_secret_access_key"
            )
        elif destination is None and not planned.startswith("s3://"):
            found.append(problem("mlflow_s3_endpoint_url", endpoint, "set mlflow_artifacts_destination too, such as s3://bucket/prefix"))
    pair = ("mlflow_s3_access_key_id", "mlflow_s3_secret_access_key")
    given = [name for name in pair if values.get(name)]
    if len(given) == 1:
        missing = pair[1 - pair.index(given[0])]
        found.append(f"{missing} is missing: half a key pair opens nothing; set it, or leave out {given[0]} too")
    return found


def _versions(values: dict[str, Any], locks: list[str]) -> list[str]:
    found = []
    version = values.get("mlflow_version")
    if version is not None:
        if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", str(version)):
            found.append(problem("mlflow_version", version, f"use a version in quotes, such as '{locks[-1]}'"))
        elif str(version) not in locks and not values.get("mlflow_lock_file") and str(values.get("mlflow_unlocked")).lower() not in ("true", "yes"):
            found.append(
                problem(
                    "mlflow_version",
                    version,
                    f"there is no lock for it, only for {', '.join(locks)}; use one of these, name a lock of your own in mlflow_lock_file, "
                    "or allow unchecked packages with mlflow_unlocked: true",
                )
            )
    if values.get("postgresql_version") not in (None, "") and not re.fullmatch(r"1[4-9]|[2-9]\d", str(values["postgresql_version"])):
        found.append(problem("postgresql_version", values["postgresql_version"], "use a major version, 14 or newer, such as 17"))
    return found


def _access(values: dict[str, Any]) -> list[str]:
    found = []
    place = str(values.get("mlflow_database_host"))
    if re.fullmatch(r"\[.*\]", place):
        found.append(problem("mlflow_database_host", place, f"brackets belong into URLs; leave them out: {place[1:-1]}"))
    auth = values.get("mlflow_auth", "basic")
    if auth not in ("basic", "proxy", "none"):
        found.append(problem("mlflow_auth", auth, "use basic, proxy or none"))
    url = str(values.get("gateway_auth_url") or "")
    if auth == "proxy" and not url:
        found.append("gateway_auth_url is missing: with mlflow_auth proxy the gateway asks there who somebody is; name the forward-auth service")
    elif url and auth != "proxy":
        found.append(problem("gateway_auth_url", url, "it is not asked unless mlflow_auth is proxy; set that too, or leave it out"))
    elif url and not re.fullmatch(r"http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", url):
        remedy = "who somebody is must not cross the network unchecked; run the service on the gateway's host, and use a URL such as http://127.0.0.1:4180"
        found.append(problem("gateway_auth_url", url, remedy))
    if "mlflow_gateway_secret" in values and not re.fullmatch("[A-Za-z0-9_-]{32,}", str(values["mlflow_gateway_secret"])):
        found.append(problem("mlflow_gateway_secret", None, "use 32 or more letters, digits, _ and -, or leave it out to have one made"))
    if auth == "basic" and "mlflow_admin_user" in values and (fault := accounts.name_problem(values["mlflow_admin_user"])):
        found.append(problem("mlflow_admin_user", values["mlflow_admin_user"], fault))
    password = values.get("mlflow_admin_password")
    fault = accounts.password_problem(password) if auth == "basic" and password is not None else None
    if fault:
        found.append(problem("mlflow_admin_password", password, fault))
    for name in sorted(set(MAPPED) & set(values)):
        found.append(f"{name}: its value is not shown; set {MAPPED[name]} instead, this one is filled from it")
    for name in ("sources_python_index_url", "sources_python_proxy", "sources_apt_proxy"):
        if "@" in str(values.get(name, "")):
            found.append(f"{name}: its value is not shown; everybody on the host could read a password in it; use an address without one")
    for name in ("mlflow_allowed_hosts", "postgresql_listen_addresses"):
        if name in values and not isinstance(values[name], list):
            found.append(problem(name, values[name], "use a list"))
    if "mlflow_webhook_key" in values and not re.fullmatch(r"[A-Za-z0-9_-]{43}=", str(values["mlflow_webhook_key"])):
        found.append(problem("mlflow_webhook_key", None, "a Fernet key is 32 bytes in URL-safe base64: openssl rand 32 | base64 | tr +/ -_"))
    for name in ("mlflow_kek_passphrase", "mlflow_flask_secret_key", "mlflow_database_password"):
        # The password of an external database is asked for with its role.
        if name in values and not values[name] and not (name == "mlflow_database_password" and "mlflow_database_host" in values):
            found.append(problem(name, None, "it is empty; give it a value, or leave it out to have one made"))
    one_role = values.get("mlflow_database_user", "mlflow") == values.get("mlflow_database_owner_user", "mlflow_owner")
    passwords = [str(values[name]) for name in ("mlflow_database_password", "mlflow_database_owner_password") if name in values]
    if one_role and len(set(passwords)) > 1:
        remedy = "it differs from mlflow_database_password, and both are of one role; leave one out"
        found.append(problem("mlflow_database_owner_password", None, remedy))
    environment = values.get("mlflow_environment")
    for name in sorted(set(OWN_VARIABLE) & set(environment if isinstance(environment, dict) else {})):
        found.append(f"mlflow_environment.{name}: its value is not shown; set {OWN_VARIABLE[name]} instead, from which other values follow")
    if environment is not None and not isinstance(environment, dict):
        found.append("mlflow_environment: its value is not shown; use a mapping of names and values")
    return found


_TYPES = {
    "int": (lambda value: re.fullmatch(r"-?[0-9]+", str(value)) is not None, "a whole number"),
    "float": (lambda value: re.fullmatch(r"-?[0-9]*[.]?[0-9]+", str(value)) is not None, "a number"),
    "bool": (lambda value: str(value).lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"), "true or false"),
    "list": (lambda value: isinstance(value, list), "a list"),
    "dict": (lambda value: isinstance(value, dict), "a mapping of names and values"),
    "str": (lambda value: not isinstance(value, (list, dict)), "one value"),
    "path": (lambda value: isinstance(value, str), "a path"),
}


def _specified(values: dict[str, Any], known: dict[str, dict[str, Any]], said: list[str]) -> list[str]:
    """Check types and choices of what no line is about yet."""
    found = []
    for name, value in values.items():
        option = known.get(name)
        if option is None or name in named(said):
            continue
        fits, what = _TYPES[option.get("type", "str")]
        if value is None:
            if option["type"] in ("list", "dict"):
                found.append(problem(name, None, f"use {what}, or leave it out"))
            continue
        choices = [str(choice) for choice in option.get("choices", [])]
        if not fits(value):
            found.append(problem(name, value, f"use {what}") if option["type"] not in ("list", "dict") else f"{name}: its value is not shown; use {what}")
        elif choices and option["type"] != "list" and str(value) not in choices:
            found.append(problem(name, value, f"use one of {', '.join(choices)}"))
    return found


def input_problems(values: dict[str, Any], known: dict[str, dict[str, Any]], prefixes: list[str], locks: list[str], artifacts_destination: str) -> list[str]:
    """Check what the inventory says about one host, without looking at the host.

    Args:
        values: the variables that the inventory sets.
        known: all variables of the roles, with their options in the argument specs.
        prefixes: the roles' names.
        locks: the MLflow versions that have a lock, oldest first.
        artifacts_destination: where artifacts go when the inventory does not say.

    Returns:
        One line for each problem.
    """
    found = (
        unknown_variables(list(values), set(known), prefixes)
        + _versions(values, locks)
        + _numbers(values)
        + _memory(values)
        + _settings(values)
        + _hba(values)
        + _users(values)
        + _gateway(values)
        + _firewall(values)
        + _artifacts(values, artifacts_destination)
        + _access(values)
        + _accounts(values)
        + _jobs(values)
    )
    return found + _specified(values, known, found)


def input_notices(values: dict[str, Any], services: list[str], artifacts_destination: str, gateway: bool) -> list[str]:
    """Say what is allowed and still worth knowing.

    Args:
        values: the variables that the inventory sets.
        services: what the host runs: mlflow, postgresql, object_store.
        artifacts_destination: where artifacts will go.
        gateway: whether the site has one.

    Returns:
        One line each.
    """
    if "mlflow" not in services:
        return []
    plain = "MLflow answers plain HTTP, and passwords cross the network readable: put a host into the group gateway, which speaks TLS"
    found = [] if gateway else [plain]
    if gateway and str(values.get("mlflow_listen_address")) in ("0.0.0.0", "::"):
        found.append("mlflow_listen_address lets others go around the gateway, by plain HTTP where it is on the same host; leave it out")
    if artifacts_destination.startswith("/"):
        found.append(
            f"artifacts go to the folder {artifacts_destination} of this host, without a copy elsewhere: name an S3 endpoint in "
            "mlflow_s3_endpoint_url and mlflow_artifacts_destination, or a host in the group object_store"
        )
    if values.get("mlflow_auth") == "none":
        found.append("mlflow_auth is none: everybody who reaches the port may read, change and delete everything")
    if str(values.get("mlflow_unlocked")).lower() in ("true", "yes"):
        found.append("mlflow_unlocked is true: packages that nobody tested together may be installed, without hashes")
    return found


def _host_size(values: dict[str, Any], services: list[str], facts: dict[str, Any], report: dict[str, Any]) -> list[str]:
    found = []
    data = 0
    if "object_store" in services and not values.get("object_store_data_device"):
        try:
            data = sizing.parse_memory(values.get("object_store_data_size", "20GB")) // sizing.MIB
        except ValueError as error:
            found.append(problem("object_store_data_size", values["object_store_data_size"], str(error)))
    for table, seen, what in (
        (MIN_MEMORY_MIB, facts["memtotal_mb"], "memory"),
        (MIN_FREE_MIB, report["free_mib"], "free disk at /"),
    ):
        if report["installed"] and what != "memory":
            continue
        need = sum(table[service] for service in services) + (0 if what == "memory" else data)
        if seen < need:
            found.append(f"{what} = {seen} MiB: {' and '.join(services)} need {need} MiB here; give the host more, or move one to another host")
    return found


def _host_system(services: list[str], facts: dict[str, Any], report: dict[str, Any]) -> list[str]:
    found = []
    system = (facts["distribution"], facts["distribution_major_version"])
    name = f"{facts['distribution']} {facts['distribution_version']}"
    if system not in TESTED | UNTESTED:
        found.append(f"distribution = {name!r}: use Debian 12 or 13 (Ubuntu 22.04 and 24.04 are accepted, untested)")
    elif "object_store" in services and system != ("Debian", "13"):
        found.append(f"distribution = {name!r}: the role object_store needs Debian 13; take this host out of the group object_store")
    if facts["architecture"] not in ARCHITECTURES:
        found.append(f"architecture = {facts['architecture']!r}: MLflow's packages exist for {' and '.join(ARCHITECTURES)}")
    python = facts["python"]["version"]
    if (python["major"], python["minor"]) < MIN_PYTHON:
        found.append(f"Python = {python['major']}.{python['minor']}: MLflow needs 3.10 or newer; use a newer distribution")
    skew = report["clock_skew"]
    if abs(skew) > MAX_CLOCK_SKEW_S:
        found.append(f"clock = {skew:+.0f} s off the controller's: certificates and S3 requests will be refused; set the time (systemd-timesyncd, chrony)")
    return found


def _listen(values: dict[str, Any], services: list[str], facts: dict[str, Any]) -> list[str]:
    own = {ipaddress.ip_address(address) for address in (*facts["all_ipv4_addresses"], *facts["all_ipv6_addresses"])}
    wanted = []
    if "postgresql" in services and isinstance(values.get("postgresql_listen_addresses"), list):
        wanted += [("postgresql_listen_addresses", address) for address in values["postgresql_listen_addresses"]]
    if "mlflow" in services and "mlflow_listen_address" in values:
        wanted.append(("mlflow_listen_address", values["mlflow_listen_address"]))
    found = []
    for name, address in wanted:
        try:
            wish = ipaddress.ip_address(address)
        except ValueError:
            # A name: whether it resolves is checked with the other names.
            continue
        if wish not in own and not wish.is_loopback and not wish.is_unspecified:
            found.append(problem(name, address, f"this host does not have that address; it has {', '.join(sorted(map(str, own)))}"))
    return found


def _ports(ports: dict[str, dict[str, Any]], report: dict[str, Any]) -> list[str]:
    found = []
    for variable, wanted in ports.items():
        for listener in report["listeners"]:
            if listener["protocol"] != "tcp":
                continue
            # Where nothing can be seen (a container without SYS_PTRACE), a host that has been set up gets the benefit of the doubt. A program
            # without a unit is somebody's session.
            ours = listener["unit"].startswith(wanted["unit"]) if listener["unit"] or listener["program"] else report["installed"]
            if listener["port"] == int(wanted["port"]) and not ours:
                owner = listener["unit"] or listener["program"] or f"a program of the user {listener['user']}"
                found.append(problem(variable, wanted["port"], f"the port is in use by {owner}; stop that, or choose another port"))
                break
    seen: dict[int, str] = {}
    for variable, wanted in ports.items():
        port = int(wanted["port"])
        if port in seen:
            found.append(problem(variable, port, f"{seen[port]} has the same port on this host; choose another"))
        seen[port] = variable
    return found


def _uncounted(values: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    settings, found = values.get("postgresql_settings"), []
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if str(name).lower() not in UNCOUNTED_MEMORY or value is None:
            continue
        try:
            size = sizing.parse_memory(str(value)) // sizing.MIB
        except ValueError as error:
            found.append(problem(f"postgresql_settings.{name}", value, str(error)))
            continue
        if size > facts["memtotal_mb"] // 4:
            remedy = f"the host has {facts['memtotal_mb']} MiB; use at most {facts['memtotal_mb'] // 4}MB, or leave it out"
            found.append(problem(f"postgresql_settings.{name}", value, remedy))
    return found


def _plan(values: dict[str, Any], facts: dict[str, Any], report: dict[str, Any], need: dict[str, Any], share: float) -> list[str]:
    """See whether there is a plan for PostgreSQL on this host."""
    if need["unknown"] and "postgresql_max_connections" not in values:
        # A plan without them would take their connections away.
        hosts = ", ".join(need["unknown"])
        return [f"mlflow_workers: nobody has looked at {hosts}, so that its connections are unknown; leave out --limit, or set mlflow_workers for that host"]
    given = values.get("postgresql_max_connections", need["total"])
    # With another address for the database there is something in between, a pooler for instance.
    if int(given) < need["total"] and not need["elsewhere"]:
        arithmetic = ", ".join(f"{part['what']} = {part['count']}" for part in need["parts"])
        remedy = f"{need['total']} are needed ({arithmetic}); use that, leave it out, or use fewer mlflow_workers"
        return [problem("postgresql_max_connections", given, remedy)]
    disk = report["database_disk"]
    size = str(values.get("postgresql_disk_size") or disk["size_mib"])
    settings = values.get("postgresql_settings")
    own = {name: values.get(f"postgresql_{name}") or "" for name in ("shared_buffers", "work_mem")}
    try:
        host = tuning.Host(
            memory_mib=facts["memtotal_mb"],
            cpus=int(facts["processor_vcpus"]),
            connections=int(given),
            share=float(values.get("postgresql_memory_share", share)),
            disk=values.get("postgresql_disk_kind", disk["kind"]),
            disk_mib=int(size) if re.fullmatch("[0-9]+", size) else sizing.parse_memory(size) // sizing.MIB,
            version=int(values.get("postgresql_version") or report.get("postgresql_default") or 17),
            workers=need["workers"],
        )
        tuning.plan(host, {name: value for name, value in own.items() if value} | (settings if isinstance(settings, dict) else {}))
    except ValueError as error:
        return [str(error)]
    return []


def _database(values: dict[str, Any], facts: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """Check each value that PostgreSQL is to run with."""
    version = str(values.get("postgresql_version") or report.get("postgresql_default") or "")
    name = values.get("postgresql_cluster", "main")
    known = next((each["settings"] for each in report["clusters"] if (each["version"], each["name"]) == (version, name)), {})
    found = _unknown_settings(values, known)
    return found + _uncounted(_unnamed(values, found), facts)


def _strangers(values: dict[str, Any], services: list[str], report: dict[str, Any], upgrades: bool) -> list[str]:
    """What is on the host already and was not put there by us."""
    found = []
    if "mlflow" in services and report["foreign_unit"]:
        found.append("mlflow.service = '/etc/systemd/system/mlflow.service': somebody else's unit; stop and remove it first, this one would overwrite it")
    name = values.get("postgresql_cluster", "main")
    wanted = str(values.get("postgresql_version") or report.get("postgresql_default") or "")
    may_return = any(cluster.get("aside") and (cluster["name"], cluster["version"]) == (name, wanted) for cluster in report["clusters"])
    for cluster in report["clusters"] if "postgresql" in services else []:
        place = f"{cluster['version']}/{cluster['name']}"
        if cluster["name"] != name or cluster.get("aside"):
            continue
        if cluster["version"] == wanted and not cluster["ours"]:
            remedy = "choose another name and postgresql_port, or move that cluster away (pg_renamecluster)"
            found.append(problem("postgresql_cluster", name, f"there is a cluster {place} that is not ours; {remedy}"))
        elif cluster["ours"] and cluster["version"] != wanted and not upgrades:
            remedy = f"run playbooks/upgrade_postgresql.yml, or set it to '{cluster['version']}'"
            found.append(problem("postgresql_version", wanted, f"MLflow's data is in the cluster {place}, and another version would start empty; {remedy}"))
        elif cluster["ours"] and wanted.isdigit() and int(wanted) < int(cluster["version"]) and not may_return:
            remedy = f"there is no way down but to a cluster that an upgrade has kept; set it to '{cluster['version']}' or higher"
            found.append(problem("postgresql_version", wanted, f"MLflow's data is in the cluster {place}; {remedy}"))
    return found


def host_problems(
    values: dict[str, Any],
    services: list[str],
    facts: dict[str, Any],
    report: dict[str, Any],
    ports: dict[str, dict[str, Any]],
    connections: dict[str, Any],
    memory_share: float,
    said: list[str],
    upgrades: bool = False,
) -> list[str]:
    """Check one host against what it is to run.

    Args:
        values: the variables that the inventory sets.
        services: what the host runs: mlflow, postgresql, object_store.
        facts: ``ansible_facts``.
        report: what the module host_report saw.
        ports: for each variable with a port, ``port`` and the beginning of the ``unit`` that may use it.
        connections: what the site can open (the filter ``site_connections``).
        memory_share: the part of the memory that PostgreSQL may plan with when the inventory does not say.
        said: the problems of the inventory, what follows from which is left out.
        upgrades: whether the run may bring PostgreSQL to another major version.

    Returns:
        One line for each problem.
    """
    passwords = _user_passwords(values) if "postgresql" in services else []
    values = _unnamed(values, said)
    found = passwords + _host_system(services, facts, report) + _host_size(values, services, facts, report)
    found += _listen(values, services, facts) + _ports(ports, report) + _strangers(values, services, report, upgrades)
    if "postgresql" in services:
        wrong = _database(values, facts, report)
        found += wrong or ([] if PLANNED_FROM & {name.partition(".")[0] for name in named(said)} else _plan(values, facts, report, connections, memory_share))
    for variable, name in report["unresolved"]:
        found.append(problem(variable, name, "this host cannot resolve the name; mend DNS or /etc/hosts, or use an address"))
    distribution_default = report.get("postgresql_default")
    wanted = str(values.get("postgresql_version") or "")
    # A distribution that was upgraded leaves the packages of its older version.
    there = [cluster["version"] for cluster in report["clusters"] if cluster["ours"]]
    without_source = wanted and distribution_default and wanted not in (distribution_default, *there) and not values.get("sources_apt_repositories")
    if "postgresql" in services and without_source and "postgresql_version" not in named(found):
        found.append(
            problem(
                "postgresql_version",
                wanted,
                f"{facts['distribution']} {facts['distribution_major_version']} has {distribution_default}; "
                "name a repository that has it in sources_apt_repositories, or leave it out",
            )
        )
    return found


def host_notices(facts: dict[str, Any]) -> list[str]:
    """Say what is accepted without having been tested."""
    system = (facts["distribution"], facts["distribution_major_version"])
    name = f"{facts['distribution']} {facts['distribution_version']}"
    return [f"{name} shares the code path of Debian, but the tests do not cover it"] if system in UNTESTED else []
