# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How the MLflow server's configuration files are written: pure functions, no Ansible."""

from __future__ import annotations

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
        host = f"[{name}]" if ":" in name and not name.startswith("[") and name.count(":") > 1 else name
        # Clients write the name as they were told, or in lower case.
        for spelling in (host, host.lower()):
            for entry in (spelling, f"{spelling}:{port}"):
                if entry not in result:
                    result.append(entry)
    return result


def auth_ini(options: dict[str, Any]) -> str:
    """Write the ``[mlflow]`` section of MLflow's basic-auth configuration; configparser wants a percent sign doubled.

    Args:
        options: names and values.

    Returns:
        The lines, sorted by name.
    """
    lines = ["[mlflow]\n"]
    for name, value in sorted(options.items()):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"{name} = {text.replace('%', '%%')}\n")
    return "".join(lines)
