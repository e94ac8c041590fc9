# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The pure functions under module_utils, as filters: the only arithmetic and rendering that roles and playbooks use."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle, firewall, guc, plan_report, postgresql, schema, server, sizing, tuning


def mlflow_workers(cpus: int, memory_mib: int) -> int:
    """See ``sizing.mlflow_workers``."""
    return sizing.mlflow_workers(int(cpus), int(memory_mib))


def _has(hosts_of: dict[str, list[str]], service: str, host: dict[str, Any]) -> bool:
    return host.get("inventory_hostname") in hosts_of.get(service, [])


def _number(host: dict[str, Any], name: str) -> int:
    """Read a number of the inventory; 0 when there is none, or something else, which preflight names."""
    value = str(host.get(name, ""))
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else 0


def _object_store_mib(host: dict[str, Any], hosts_of: dict[str, list[str]]) -> int:
    return sizing.OBJECT_STORE_MIB if _has(hosts_of, "object_store", host) else 0


def site_workers(host: dict[str, Any], hosts_of: dict[str, list[str]]) -> int:
    """Worker processes of an MLflow host, beside what else it runs.

    Args:
        host: its variables, with facts.
        hosts_of: the names of the hosts that run each service.

    Returns:
        0 when the host runs no MLflow, or has no facts yet.
    """
    facts = host.get("ansible_facts") or {}
    if not _has(hosts_of, "mlflow", host) or "processor_vcpus" not in facts:
        return 0
    database = _has(hosts_of, "postgresql", host)
    return sizing.mlflow_workers(int(facts["processor_vcpus"]), int(facts["memtotal_mb"]), database, _object_store_mib(host, hosts_of))


def site_memory_share(host: dict[str, Any], hosts_of: dict[str, list[str]]) -> float:
    """Part of a host's memory that PostgreSQL may plan with, beside what else it runs (see ``tuning.memory_share``)."""
    workers = _number(host, "mlflow_workers") or site_workers(host, hosts_of) if _has(hosts_of, "mlflow", host) else 0
    return tuning.memory_share(int((host.get("ansible_facts") or {}).get("memtotal_mb", 0)), workers, _object_store_mib(host, hosts_of))


def site_connections(hosts: list[dict[str, Any]], hosts_of: dict[str, list[str]], users: Any = None) -> dict[str, Any]:
    """Database connections that a site can need, and what for.

    Args:
        hosts: the variables of each MLflow host; what the inventory leaves out is planned from the host's facts.
        hosts_of: the names of the hosts that run each service.
        users: ``postgresql_users``, each with its share in ``connections``.

    Returns:
        ``total``, how many ``hosts``, the ``workers`` of all of them, ``parts``: ``what`` and ``count`` of each, ``by_store``: the pools' connections to each
        database, ``unknown``: hosts that nobody looked at, of which nothing is counted, and ``elsewhere``: whether MLflow connects to an
        address of its own choice, which may be a pooler's.
    """
    parts, unknown, all_workers, by_store = [], [], 0, {"tracking": 0, "auth": 0}
    for host in hosts:
        workers = _number(host, "mlflow_workers") or site_workers(host, hosts_of)
        if workers == 0:
            unknown.append(host.get("inventory_hostname"))
        pool = _number(host, "mlflow_database_pool_size") or sizing.POOL_SIZE
        overflow = _number(host, "mlflow_database_max_overflow") or sizing.MAX_OVERFLOW
        engines = sizing.ENGINES - 1 if host.get("mlflow_auth") == "none" else sizing.ENGINES
        stores = "tracking, registry, users" if engines > 2 else "tracking, registry"
        what = f"{host.get('inventory_hostname')}: {workers} workers × ({pool} + {overflow}) × {engines} pools ({stores})"
        parts.append({"what": what, "count": sizing.mlflow_connections(workers, pool, overflow, engines)})
        jobs = sizing.JOB_CONNECTIONS if boolean(host.get("mlflow_jobs"), strict=False) else 0
        parts += [{"what": f"{host.get('inventory_hostname')}: jobs", "count": jobs}] if jobs else []
        all_workers += workers
        by_store["tracking"] += jobs + sizing.mlflow_connections(workers, pool, overflow, 2)
        by_store["auth"] += sizing.mlflow_connections(workers, pool, overflow, engines - 2)
    for user in users if isinstance(users, list) else []:
        if isinstance(user, dict):
            parts.append({"what": f"postgresql_users: {user.get('name')}", "count": postgresql.user_connections(user)})
    parts += [{"what": what, "count": count} for what, count in sizing.RESERVE.items()]
    return {
        "total": sum(part["count"] for part in parts),
        "hosts": len(hosts),
        "workers": all_workers,
        "parts": parts,
        "by_store": by_store,
        "unknown": unknown,
        "elsewhere": any("mlflow_database_host" in host for host in hosts),
    }


def host_address(host: dict[str, Any]) -> str:
    """The address by which the other hosts of the inventory reach one.

    Args:
        host: its variables; ``mlops_address`` has the first word, then the address of the default route, then any.

    Returns:
        An IP address.
    """
    facts = host.get("ansible_facts") or {}
    routed = [facts.get(family, {}).get("address") for family in ("default_ipv4", "default_ipv6")]
    address = next((each for each in (host.get("mlops_address"), *routed, *_addresses(host)) if each), "")
    if not address:
        raise AnsibleFilterError(f"mlops_address of {host.get('inventory_hostname')} is unknown, as nobody has looked at that host: set it to an IP address")
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise AnsibleFilterError(f"mlops_address = {address!r} of {host.get('inventory_hostname')}: use an IP address of the host") from error


def _addresses(host: dict[str, Any]) -> list[str]:
    facts = host.get("ansible_facts") or {}
    return [*facts.get("all_ipv4_addresses", []), *facts.get("all_ipv6_addresses", [])]


def names_of_database(host: dict[str, Any], clients: list[dict[str, Any]]) -> list[str]:
    """Names or addresses by which MLflow reaches the database host itself, and which its certificate must have.

    Args:
        host: the variables of the database host.
        clients: those of the MLflow hosts, with what preflight saw there.

    Returns:
        Nothing for MLflow on the same host, which uses the loopback address; nor where it connects elsewhere, to a pooler for instance.
    """
    own = set(_addresses(host))
    found = []
    for client in clients:
        name = client.get("mlflow_database_host")
        if name:
            resolved = ((client.get("__preflight_looked") or {}).get("report") or {}).get("resolved", {})
            found += [str(name)] if own & {str(name), *resolved.get(str(name), [])} else []
        elif own and client.get("inventory_hostname") != host.get("inventory_hostname"):
            found.append(host_address(host))
    return sorted(set(found))


def names_of_host(host: dict[str, Any]) -> list[str]:
    """Names and addresses by which a host is called, those of its gateway first.

    Args:
        host: its variables.

    Returns:
        Each once. Not every address of the host: those of containers and tunnels come and go, and each change would restart servers.
    """
    facts = host.get("ansible_facts") or {}
    own = [host.get("inventory_hostname"), host.get("ansible_host"), facts.get("hostname"), facts.get("default_ipv4", {}).get("address")]
    given = host.get("gateway_server_names")
    names = [*(given if isinstance(given, list) else []), *own, host.get("mlops_address")]
    return list(dict.fromkeys(str(name) for name in names if name))


def backend(host: dict[str, Any], local: bool) -> dict[str, Any]:
    """Where a gateway finds an MLflow server.

    Args:
        host: the variables of the MLflow host.
        local: whether the gateway is on the same host.

    Returns:
        ``address`` and ``port``.
    """
    given = host.get("mlflow_listen_address", "0.0.0.0" if local else "")
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(given, given) if local else host_address(host)
    return {"address": address, "port": int(host.get("mlflow_port", 5000))}


def backend_place(place: dict[str, Any]) -> str:
    """Write a server's address and port as nginx wants them, an IPv6 address in brackets."""
    address = str(place["address"])
    return f"{f'[{address}]' if ':' in address else address}:{place.get('port', 5000)}"


def gateway_url(host: dict[str, Any]) -> str:
    """The URL of the gateway on a host.

    Args:
        host: its variables. A certificate of the user's own is for the first of ``gateway_server_names``, one of the private CA also for the address.

    Returns:
        ``https://name:port`` without the port 443.
    """
    given = [name for name in ("gateway_certificate_file", "pki_certificate_file") if host.get(name)]
    names = host.get("gateway_server_names")
    name = str(names[0]) if given and names else host_address(host)
    return server.origins([name], "https", int(host.get("gateway_https_port", 443)))[0]


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


def bundle_url(host: dict[str, Any]) -> str:
    """The URL of the bundles that the role bundle_mirror serves on a host.

    Args:
        host: its variables.
    """
    return server.origins([host_address(host)], "https", firewall.port_of(host, "bundle_mirror_port"))[0]


def package_updates(lines: list[str]) -> list[str]:
    """The packages that an upgrade would bring to a newer version, but for those that have a way of their own: PostgreSQL's, and the object store's.

    Args:
        lines: what ``apt-get --simulate upgrade`` prints.

    Returns:
        Their names. A package that would be new is none of them; it comes with the one that needs it.
    """
    names = [found[1] for line in lines if (found := re.match(r"Inst (\S+) \[", line))]
    return [name for name in names if not re.search(r"^(postgresql|libpq)|ceph|^(lib|python3-)?(rados|rbd|rgw)", name)]


def bundle_targets(hosts: list[dict[str, Any]]) -> list[str]:
    """The kinds of hosts in a bundle that hosts need, each once.

    Args:
        hosts: their variables. Who has no facts is left out.
    """
    seen = [host["ansible_facts"] for host in hosts if "distribution" in (host.get("ansible_facts") or {})]
    names = [bundle.target_of(facts["distribution"], facts["distribution_major_version"], facts["architecture"]) for facts in seen]
    return sorted({name for name in names if name})


def site_firewall(host: dict[str, Any], hosts_of: dict[str, list[str]], clients: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """See ``firewall.site_firewall``.

    Args:
        host: the host's variables.
        hosts_of: the names of the hosts that run each service.
        clients: the variables of each host of the site.
    """
    addresses = {client["inventory_hostname"]: host_address(client) if client.get("mlops_address") or _addresses(client) else None for client in clients}
    return firewall.site_firewall(host, hosts_of, addresses)


def firewall_entries(topology: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The entries of ``site_firewall``, as long as no address is missing in them: who waits for it would be shut out."""
    if topology["unknown"]:
        raise AnsibleFilterError(f"host_firewall: nobody has looked at {', '.join(topology['unknown'])}, so that its address is unknown; leave out --limit")
    return topology["entries"]


def firewall_rules(entries: list[dict[str, Any]], ssh_ports: list[Any], ssh_sources: list[str]) -> str:
    """Rules for nft (see ``firewall.render``), SSH first.

    Args:
        entries: what else is let in.
        ssh_ports: the ports of SSH.
        ssh_sources: who may use them; empty for everybody.
    """
    try:
        return firewall.render([firewall.ssh_entry(ssh_ports, ssh_sources), *entries])
    except ValueError as error:
        raise AnsibleFilterError(f"host_firewall: {error}") from error


def client_hba(addresses: list[str], databases: list[str], users: list[str]) -> list[dict[str, Any]]:
    """Entries of pg_hba for clients, all by TLS and SCRAM.

    Args:
        addresses: of the clients.
        databases: those that they may use.
        users: the roles that they log in with.

    Returns:
        Entries of ``postgresql_hba``.
    """
    return [
        {"type": "hostssl", "databases": list(databases), "users": list(users), "address": address, "method": "scram-sha-256"} for address in addresses
    ]


def user_hba(users: list[dict[str, Any]], databases: list[str]) -> list[dict[str, Any]]:
    """Entries of pg_hba for ``postgresql_users``, each from its own addresses.

    Args:
        users: the users.
        databases: of those who do not name theirs.

    Returns:
        Entries of ``postgresql_hba``.
    """
    return [entry for user in users for entry in client_hba(user.get("addresses") or [], user.get("databases") or databases, [user["name"]])]


def user_grants(users: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Name and grants of each of ``postgresql_users``, and nothing else of them."""
    return [{"name": user["name"], "grants": user.get("grants", "read")} for user in users]


def postgresql_plan(host: dict[str, Any], given: dict[str, Any], access: dict[str, Any]) -> dict[str, Any]:
    """Plan PostgreSQL's settings (see ``tuning.plan``).

    Args:
        host: the fields of ``tuning.Host``; texts are read as numbers, and a disk's size may have a unit.
        given: the user's own values; an empty text is none.
        access: addresses, port and TLS.

    Returns:
        ``settings``, ``reasons``, ``memory`` and ``host``: its ``memory_mib``, ``share_mib`` and ``limit_mib``.
    """
    try:
        described = postgresql_host(**host)
        plan = tuning.plan(described, {name: value for name, value in given.items() if value != ""}, access)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    share = described.share_mib
    sizes = {"memory_mib": described.memory_mib, "share_mib": share, "limit_mib": int(share * tuning.LIMIT_WITH_PROCESSES)}
    return {"settings": plan.settings, "reasons": plan.reasons, "memory": plan.memory, "host": sizes}


def postgresql_host(**host: Any) -> tuning.Host:
    """Read the fields of ``tuning.Host`` as an inventory writes them."""
    size = str(host.pop("disk_size", "") or "0")
    disk_mib = int(size) if re.fullmatch("[0-9]+", size) else sizing.parse_memory(size) // sizing.MIB
    share, disk = float(host.pop("share")), str(host.pop("disk"))
    return tuning.Host(share=share, disk=disk, disk_mib=disk_mib, **{name: int(value) for name, value in host.items()})


def postgresql_host_plan(plan: dict[str, Any], host: str, known: dict[str, dict[str, Any]], connections: dict[str, Any]) -> dict[str, Any]:
    """Compare a plan with the server that runs, for ``plan_report``.

    Args:
        plan: of the filter ``postgresql_plan``.
        host: name of the host.
        known: the rows of pg_settings of the running server, by name; empty when none runs.
        connections: of the filter ``site_connections``.

    Returns:
        The host's plan as ``plan_report`` takes it.
    """
    rows = []
    kept = {guc.find(name, known) for name in plan["settings"]}
    left = {name: None for name, row in known.items() if row["ours"] and name not in kept}
    for name, value in sorted((plan["settings"] | left).items()):
        row = known.get(guc.find(name, known) or "")
        rows.append(
            {
                "setting": name,
                "now": guc.show(row) if row else "",
                "planned": "the server's default" if value is None else guc.text(value),
                "reason": plan["reasons"].get(name, "no longer set here"),
                "effect": guc.effect(value, row, bool(known)),
            }
        )
    sizes = plan["host"]
    memory = {"host_mib": sizes["memory_mib"], "share_mib": sizes["share_mib"], "limit_mib": sizes["limit_mib"], "parts": plan["memory"]}
    return {"host": host, "service": "postgresql", "rows": rows, "memory": memory, "connections": connections, "notices": []}


def mlflow_host_plan(planned: dict[str, Any], host: str, now: dict[str, str], notices: list[str]) -> dict[str, Any]:
    """Compare what sizes an MLflow host with what it is configured with, for ``plan_report``.

    Args:
        planned: ``workers``, ``pool_size`` and ``max_overflow``.
        host: name of the host.
        now: of the module host_report.
        notices: what is worth knowing.

    Returns:
        The host's plan as ``plan_report`` takes it.
    """
    reasons = {
        "MLFLOW_WORKERS": ("workers", "one for each core, as far as the memory goes (sizing.mlflow_workers)"),
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": ("pool_size", f"{sizing.THREADS} request threads, each with a connection that stays open"),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": ("max_overflow", "one more, so that a thread that waits for its second connection gets it"),
    }
    rows = [
        {
            "setting": name,
            "now": now.get(name, ""),
            "planned": str(planned[key]),
            "reason": reason,
            "effect": "nothing" if now.get(name) == str(planned[key]) else "restart" if now else "first start",
        }
        for name, (key, reason) in reasons.items()
    ]
    return {"host": host, "service": "mlflow", "rows": rows, "memory": None, "connections": None, "notices": notices}


def lines(text: list[str], result_format: str) -> Any:
    """Return lines in the form in which Ansible prints them one below the other.

    Args:
        text: the lines.
        result_format: of the callback: yaml folds the long lines of a list, and json escapes the ends of those in a text.
    """
    return "\n".join(text) if result_format == "yaml" else text


SERVICES = ("mlflow", "postgresql", "object_store", "gateway", "bundle_mirror")


def services(inventory: dict[str, Any], *names: str) -> list[str]:
    """Name the groups that a play is for: a group that is not there would be an error of the play.

    It also has Ansible load the filters before it starts its workers, where each of them would load them again.

    Args:
        inventory: Ansible's variable groups.
        names: of the groups; without names, those of this collection.

    Returns:
        Those that the inventory has.
    """
    return [name for name in names or SERVICES if name in inventory]


class FilterModule:
    """Filters of mlops.mlflow."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {
            "allowed_hosts": server.allowed_hosts,
            "auth_ini": server.auth_ini,
            "backend": backend,
            "backend_place": backend_place,
            "bundle_targets": bundle_targets,
            "bundle_url": bundle_url,
            "client_hba": client_hba,
            "database_url": lambda target: postgresql.database_url(**target),
            "environment_file": server.environment_file,
            "gateway_url": gateway_url,
            "firewall_entries": firewall_entries,
            "firewall_rules": firewall_rules,
            "host_address": host_address,
            "lines": lines,
            "mlflow_host_plan": mlflow_host_plan,
            "mlflow_workers": mlflow_workers,
            "names_of_database": names_of_database,
            "names_of_host": names_of_host,
            "object_store_url": object_store_url,
            "origins": server.origins,
            "postgresql_conf": postgresql.render_conf,
            "package_updates": package_updates,
            "plan_document": plan_report.document,
            "plan_html": plan_report.html,
            "plan_table": plan_report.table,
            "postgresql_hba": postgresql.render_hba,
            "postgresql_host_plan": postgresql_host_plan,
            "postgresql_plan": postgresql_plan,
            "services": services,
            "server_names": server.server_names,
            "site_connections": site_connections,
            "site_firewall": site_firewall,
            "site_memory_share": site_memory_share,
            "site_workers": site_workers,
            "rollback_notice": schema.loss,
            "upgrade_notice": schema.notice,
            "user_connections": postgresql.user_connections,
            "user_grants": user_grants,
            "user_hba": user_hba,
        }
