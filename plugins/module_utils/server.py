# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How the MLflow server's configuration files are written: pure functions, no Ansible."""

from __future__ import annotations

import re
from typing import Any


def environment_file(variables: dict[str, Any]) -> str:
    """Write variables as systemd's ``EnvironmentFile=`` wants them (systemd.exec(5)), sorted by name.

    Inside double quotes systemd takes a backslash as an escape for ``"``, ``\\``, `````, ``$`` and keeps everything else, line feeds
    included; a percent sign means nothing.

    Args:
        variables: names and values; None and the empty string leave a variable out; booleans become true and false.

    Returns:
        The lines, each ended by a line feed.
    """
    lines = []
    for name, value in sorted(variables.items()):
        if value is None or value == "":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        for character in '\\"`$':
            text = text.replace(character, "\\" + character)
        lines.append(f'{name}="{text}"\n')
    return "".join(lines)


def read_environment(path: str) -> dict[str, str]:
    """Read a file that ``environment_file`` wrote: comments, and values in double quotes.

    Args:
        path: the file.

    Returns:
        Names and values.
    """
    with open(path, encoding="utf-8", newline="") as file:
        found = re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"$', file.read(), re.MULTILINE)
    return {name: re.sub(r'\\([\\"`$])', r"\1", value) for name, value in found}


def allowed_hosts(names: list[str], port: int) -> list[str]:
    """List the Host headers that MLflow accepts: it compares whole strings, so every name stands with and without its port.

    Args:
        names: host names and addresses; empty ones and doubles are dropped, IPv6 addresses get their brackets.
        port: the server's TCP port.

    Returns:
        Names in the order given, each followed by itself with the port, and in lower case.
    """
    result: list[str] = []
    for name in names:
        if not name:
            continue
        host = _bracketed(name)
        # Clients write the name as they were told, or in lower case.
        for spelling in (host, host.lower()):
            for entry in (spelling, f"{spelling}:{port}"):
                if entry not in result:
                    result.append(entry)
    return result


def _bracketed(name: str) -> str:
    """Put an IPv6 address into the brackets that it has in a URL."""
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def server_names(names: list[str]) -> list[str]:
    """Return names and addresses as nginx compares them with a Host header: in lower case, IPv6 addresses in brackets, each once.

    Args:
        names: host names and addresses; empty ones are dropped.

    Returns:
        The names in the order given.
    """
    return list(dict.fromkeys(_bracketed(name).lower() for name in names if name))


def origins(names: list[str], scheme: str, port: int) -> list[str]:
    """List the values of a browser's Origin header for pages that come from this server (RFC 6454: no port where it is the scheme's own).

    Args:
        names: host names and addresses; empty ones are dropped.
        scheme: http or https.
        port: TCP port.

    Returns:
        The origins in the order given, each once.
    """
    tail = "" if port == {"http": 80, "https": 443}[scheme] else f":{port}"
    return [f"{scheme}://{name}{tail}" for name in server_names(names)]


def auth_ini(options: dict[str, Any]) -> str:
    """Write the ``[mlflow]`` section of MLflow's basic-auth configuration; configparser wants a percent sign doubled.

    Args:
        options: names and values; the empty string leaves an option out.

    Returns:
        The lines, sorted by name.
    """
    lines = ["[mlflow]\n"]
    for name, value in sorted(options.items()):
        if value == "":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"{name} = {text.replace('%', '%%')}\n")
    return "".join(lines)
