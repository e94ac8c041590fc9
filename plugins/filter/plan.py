# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The pure functions under module_utils, as filters: the only arithmetic and rendering that roles and playbooks use."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.module_utils import postgresql, server, sizing


def mlflow_workers(cpus: int, memory_mib: int) -> int:
    """See ``sizing.mlflow_workers``."""
    return sizing.mlflow_workers(int(cpus), int(memory_mib))


def site_connections(hosts: list[dict[str, Any]]) -> int:
    """``max_connections`` for the MLflow hosts of an inventory.

    Args:
        hosts: the variables of each MLflow host; what the inventory leaves out is planned from the host's facts.

    Returns:
        What all their pools can open, and the reserve.
    """
    each = []
    for host in hosts:
        facts = host.get("ansible_facts") or {}
        if "processor_vcpus" not in facts:
            # Not looked at yet, or unreachable; preflight reports that.
            continue
        each.append(
            sizing.mlflow_connections(
                int(host.get("mlflow_workers") or sizing.mlflow_workers(facts["processor_vcpus"], facts["memtotal_mb"])),
                int(host.get("mlflow_database_pool_size") or sizing.POOL_SIZE),
                int(host.get("mlflow_database_max_overflow") or sizing.MAX_OVERFLOW),
                2 if host.get("mlflow_auth") == "none" else 3,
            )
        )
    return sizing.max_connections(each)


def host_address(host: dict[str, Any]) -> str:
    """The address by which the other hosts of the inventory reach one.

    Args:
        host: its variables; ``mlops_address`` has the first word, then the address of the default route, then any.

    Returns:
        An IP address.
    """
    facts = host["ansible_facts"]
    routed = [facts.get(family, {}).get("address") for family in ("default_ipv4", "default_ipv6")]
    known = [host.get("mlops_address"), *routed, *facts["all_ipv4_addresses"], *facts["all_ipv6_addresses"]]
    address = next((each for each in known if each), "")
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise AnsibleFilterError(f"mlops_address = {address!r} of {host.get('inventory_hostname')}: use an IP address of the host") from error


def object_store_url(host: dict[str, Any]) -> str:
    """The URL of the S3 gateway that the role object_store runs on a host.

    Args:
        host: its variables.

    Returns:
        ``https://address:port``, or http where TLS is turned off.
    """
    address = host_address(host)
    scheme = "https" if str(host.get("object_store_tls", True)).lower() in ("true", "yes", "on", "1") else "http"
    return f"{scheme}://{f'[{address}]' if ':' in address else address}:{host.get('object_store_port') or 7480}"


def client_hba(addresses: list[str], databases: list[str], users: list[str]) -> list[dict[str, Any]]:
    """Entries of pg_hba for clients: TLS for all but those on the host itself.

    Args:
        addresses: of the clients.
        databases: those that they may use.
        users: the roles that they log in with.

    Returns:
        Entries of ``postgresql_hba``.
    """
    return [
        {
            "type": "host" if address.startswith("127.") else "hostssl",
            "databases": list(databases),
            "users": list(users),
            "address": address,
            "method": "scram-sha-256",
        }
        for address in addresses
    ]


def postgresql_memory(memory_mib: float, connections: int) -> dict[str, str]:
    """See ``sizing.postgresql_memory``."""
    try:
        return sizing.postgresql_memory(int(memory_mib), int(connections))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of mlops.mlflow."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {
            "allowed_hosts": server.allowed_hosts,
            "auth_ini": server.auth_ini,
            "client_hba": client_hba,
            "database_url": lambda target: postgresql.database_url(**target),
            "environment_file": server.environment_file,
            "host_address": host_address,
            "mlflow_workers": mlflow_workers,
            "object_store_url": object_store_url,
            "postgresql_conf": postgresql.render_conf,
            "postgresql_hba": postgresql.render_hba,
            "postgresql_memory": postgresql_memory,
            "site_connections": site_connections,
        }
