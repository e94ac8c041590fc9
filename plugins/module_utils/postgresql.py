# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How PostgreSQL's configuration files are written, and what a valid entry is: pure functions, no Ansible."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import quote

HBA_TYPES = ("local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc")
HBA_METHODS = ("scram-sha-256", "md5", "cert", "peer", "reject", "ldap", "gss", "pam", "radius")
_HBA_KEYS = {"type", "databases", "users", "address", "method", "options"}
_HBA_WORDS = ("all", "replication", "sameuser", "samerole")
_HBA_ADDRESS_WORDS = ("samehost", "samenet")


def quote_conf_value(value: Any) -> str:
    """Write a value as ``postgresql.conf`` wants it: booleans as on and off, whole numbers as they are, everything else in single quotes."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def render_conf(settings: dict[str, Any]) -> str:
    """Write settings as lines of ``postgresql.conf``, sorted by name; lists become comma-separated values.

    Args:
        settings: names and values; a value that is None leaves the server's default.

    Returns:
        The lines, each ended by a line feed.
    """
    lines = []
    for name, value in sorted(settings.items()):
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            value = ", ".join(str(item) for item in value)
        lines.append(f"{name} = {quote_conf_value(value)}\n")
    return "".join(lines)


USER_CONNECTIONS = 5
USER_GRANTS = ("read", "write")
_USER_KEYS = {"name", "password", "grants", "addresses", "databases", "connections"}


def user_connections(user: dict[str, Any]) -> int:
    """Return the share of one of ``postgresql_users`` in the connections, which is also its limit."""
    value = str(user.get("connections", USER_CONNECTIONS))
    return int(value) if re.fullmatch("[0-9]+", value) else USER_CONNECTIONS


def user_problem(user: Any, reserved: list[str]) -> str | None:
    """Say what is wrong with one entry of ``postgresql_users``.

    Args:
        user: a mapping with ``name``, and ``password``, ``grants``, ``addresses``, ``databases`` and ``connections`` if need be.
        reserved: names that are MLflow's own.

    Returns:
        A sentence with the remedy and without the password, or None when the entry is valid.
    """
    if not isinstance(user, dict) or not user.get("name"):
        return "an entry is a mapping with a name, such as {name: mlflow_reader, grants: read, addresses: [10.0.0.0/8]}"
    name = user["name"]
    unknown = sorted(set(user) - _USER_KEYS, key=str)
    if unknown:
        return f"unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_USER_KEYS))}"
    if name in [*reserved, "postgres"]:
        return f"the name {name!r} is taken by MLflow or PostgreSQL itself; choose another"
    if str(name) in _HBA_WORDS or str(name) in ("none", "public") or str(name).startswith("pg_"):
        return f"the name {name!r} has a meaning of its own in PostgreSQL; choose another"
    if user.get("grants", "read") not in USER_GRANTS:
        return f"grants {user['grants']!r} are unknown; use one of {', '.join(USER_GRANTS)}"
    if not re.fullmatch("0*[1-9][0-9]*", str(user.get("connections", USER_CONNECTIONS))):
        return f"connections is {user['connections']!r}; use a number from 1 on, or leave it out for {USER_CONNECTIONS}"
    addresses = user.get("addresses", [])
    if not isinstance(addresses, list) or not isinstance(user.get("databases", []), list):
        return "addresses and databases are lists"
    return next((fault for address in addresses if (fault := hba_problem({"address": address}))), None)


def password_problem(user: Any) -> str | None:
    """Say why one of ``postgresql_users`` would have no password where the role is made here; None also for what is no user at all."""
    if not isinstance(user, dict) or not user.get("name"):
        return None
    name = user["name"]
    if "password" not in user and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(name)):
        return f"the password of {name!r} cannot be made, as its file would have that name; give it a password, or a name of letters, digits, _ and -"
    return f"the password of {name!r} is empty; give it a value, or leave it out to have one made" if not user.get("password", True) else None


def hba_problem(entry: Any) -> str | None:
    """Say what is wrong with one entry of ``postgresql_hba``.

    Args:
        entry: a mapping with ``type``, ``databases``, ``users``, ``address`` (not for local) and ``method``.

    Returns:
        A sentence with the remedy, or None when the entry is valid.
    """
    if not isinstance(entry, dict):
        return "an entry is a mapping such as {type: hostssl, databases: [mlflow], users: [mlflow], address: 10.0.0.0/8, method: scram-sha-256}"
    unknown = sorted(set(entry) - _HBA_KEYS, key=str)
    if unknown:
        return f"unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_HBA_KEYS))}"
    kind, method, address = entry.get("type", "hostssl"), entry.get("method", "scram-sha-256"), entry.get("address")
    if kind not in HBA_TYPES:
        return f"type {kind!r} is unknown; use one of {', '.join(HBA_TYPES)}"
    if method == "trust":
        return "method 'trust' lets anybody in without a password; use scram-sha-256, or peer for local"
    if method not in HBA_METHODS:
        return f"method {method!r} is unknown; use one of {', '.join(HBA_METHODS)}"
    for key in ("databases", "users"):
        names = entry.get(key, ["all"])
        if not isinstance(names, list) or not names:
            return f"{key} is {names!r}; use a list of names, or leave it out for all"
    if kind == "local":
        return "a local entry has no address; leave it out" if address else None
    if method == "peer":
        return "method 'peer' is for type local only; use scram-sha-256"
    if not address:
        return "address is missing; use a network such as 10.0.0.0/8"
    if address in _HBA_ADDRESS_WORDS:
        return None
    if not isinstance(address, str):
        return f"address {address!r} is no network in CIDR form such as 10.0.0.0/8 (put it in quotes)"
    try:
        network = ipaddress.ip_network(address)
    except ValueError as error:
        return f"address {address!r} is no network in CIDR form such as 10.0.0.0/8 ({error})"
    if network.prefixlen == 0:
        return f"address {address!r} is the whole world; name the networks of the clients"
    return None


def _hba_name(name: str) -> str:
    """Quote a database or user name unless it is one of pg_hba's words."""
    return name if name in _HBA_WORDS else '"' + str(name).replace('"', '""') + '"'


def _hba_address(address: str) -> str:
    """Write a network with its mask, which PostgreSQL wants for a single address too."""
    return address if not address or address in _HBA_ADDRESS_WORDS else str(ipaddress.ip_network(address))


def render_hba(entries: list[dict[str, Any]]) -> str:
    """Write ``pg_hba.conf``: the local peer of the postgres user first, then the entries in the order given.

    Args:
        entries: valid entries (see ``hba_problem``).

    Returns:
        The lines, each ended by a line feed.
    """
    # A copy of the whole server is not among "all".
    lines = ["local all,replication postgres peer\n"]
    for entry in entries:
        fields = [
            entry.get("type", "hostssl"),
            ",".join(_hba_name(name) for name in entry.get("databases", ["all"])),
            ",".join(_hba_name(name) for name in entry.get("users", ["all"])),
            _hba_address(entry.get("address", "")),
            entry.get("method", "scram-sha-256"),
            entry.get("options", ""),
        ]
        lines.append(" ".join(field for field in fields if field) + "\n")
    return "".join(lines)


def database_url(host: str, port: int, name: str, user: str, password: str, parameters: dict[str, Any] | None = None) -> str:
    """Write the URL that SQLAlchemy wants for psycopg2, with every part that may hold special characters encoded.

    Args:
        host: name or address; an absolute path is the folder of a Unix socket.
        port: TCP port, or the number in the socket's name.
        name: the database.
        user: the role.
        password: its password.
        parameters: libpq parameters such as sslmode.

    Returns:
        ``postgresql+psycopg2://…``
    """
    query = dict(parameters or {})
    if str(host).startswith("/"):
        query["host"], place = host, ""
    else:
        place = f"[{str(host).strip('[]')}]" if ":" in str(host) else str(host)
    tail = "&".join(f"{key}={quote(str(value), safe='/')}" for key, value in sorted(query.items()))
    credentials = f"{quote(str(user), safe='')}:{quote(str(password), safe='')}"
    return f"postgresql+psycopg2://{credentials}@{place}:{port}/{quote(str(name), safe='')}" + (f"?{tail}" if tail else "")
