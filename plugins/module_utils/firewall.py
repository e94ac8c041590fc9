# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The rules of a host's firewall: what the topology opens, and how nftables writes it. Pure functions, no Ansible."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Union

PROTOCOLS = ("tcp", "udp", "any")
SSH_PORT = 22
PORTS = {
    "mlflow_port": 5000,
    "postgresql_port": 5432,
    "object_store_port": 7480,
    "gateway_http_port": 80,
    "gateway_https_port": 443,
    "bundle_mirror_port": 8443,
}
# Those whose hosts get a bundle from the one that has it.
SERVED = ("mlflow", "postgresql", "object_store", "gateway")
# Turns nobody away, and has the kernel keep track of connections: those that are older than that would lose their answers to the real table.
LEARN = """\
table inet mlops
delete table inet mlops
table inet mlops {
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tct state established,related accept
\t}
}
"""

_KEYS = {"port", "protocol", "sources", "comment"}
_EXAMPLE = "{port: 9100, sources: [10.0.0.0/8]}"
# What nft takes, in bytes.
_COMMENT_LENGTH = 120

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def read_network(source: Any) -> Network:
    """Read an address or a network in CIDR form.

    Raises:
        ValueError: it is neither; the text says what would be right.
    """
    if not isinstance(source, str):
        raise ValueError(f"{source!r} is no network such as 10.0.0.0/8 (put it in quotes)")
    try:
        network = ipaddress.ip_network(source)
    except ValueError as error:
        raise ValueError(f"{source!r} is no network such as 10.0.0.0/8 and no address ({error})") from error
    if isinstance(network, ipaddress.IPv6Network):
        if getattr(network.network_address, "scope_id", None):
            raise ValueError(f"{source!r} names an interface; leave out what follows the %")
        if network.network_address.ipv4_mapped is not None:
            raise ValueError(f"{source!r} never comes in that form; write it as an IPv4 address")
    return network


def read_ports(ports: Any) -> list[tuple[int, int]]:
    """Read a port, a range such as 6000-6010, or a list of them.

    Returns:
        First and last port of each range, in order; what overlaps or touches is one.

    Raises:
        ValueError: one of them is no port.
    """
    ranges = []
    for each in ports if isinstance(ports, list) else [ports]:
        match = re.fullmatch("([0-9]{1,5})(?:-([0-9]{1,5}))?", str(each))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"port {each!r} is neither a number from 1 to 65535 nor a range such as 6000-6010")
        ranges.append((first, last))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    if not merged:
        raise ValueError("port is an empty list; name a port, or remove the entry")
    return merged


def entry_problem(entry: Any) -> str | None:
    """Say what is wrong with one entry of ``host_firewall_allow``.

    Args:
        entry: a mapping with ``port`` (a number, a range or a list), ``protocol``, ``sources`` and ``comment``.

    Returns:
        A sentence with the remedy, or None when the entry is valid.
    """
    if not isinstance(entry, dict):
        return f"an entry is a mapping such as {_EXAMPLE}"
    unknown = sorted(set(entry) - _KEYS, key=str)
    if unknown:
        return f"unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}"
    protocol, sources = entry.get("protocol", "tcp"), entry.get("sources")
    if protocol not in PROTOCOLS:
        return f"protocol {protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}"
    if sources is not None and not isinstance(sources, list):
        return "sources is a list of networks"
    # An empty list is more likely a variable that came out empty than the wish to let in the whole world.
    if sources == []:
        return "sources is an empty list; name networks, or leave it out to let everybody in"
    if protocol == "any":
        if "port" in entry:
            return "protocol any has no port; leave one of the two out"
        if sources is None:
            return "protocol any without sources would open everything to everybody; name networks in sources"
    elif "port" not in entry:
        return f"port is missing, as in {_EXAMPLE}"
    try:
        if protocol != "any":
            read_ports(entry["port"])
        for source in sources or []:
            read_network(source)
    except ValueError as error:
        return str(error)
    return None


def _in_sources(sources: list[str] | None) -> list[str]:
    """Write the condition on where a packet comes from, once for each version of IP; a single empty one stands for everybody."""
    if sources is None:
        return [""]
    networks = [read_network(source) for source in sources]
    conditions = []
    for version, word, family in ((4, "ip", "ipv4"), (6, "ip6", "ipv6")):
        # Sorted and without overlaps, which nft refuses.
        found = list(ipaddress.collapse_addresses(network for network in networks if network.version == version))
        texts = [show_network(each) for each in found]
        if any(each.prefixlen == 0 for each in found):
            conditions.append(f"meta nfproto {family} ")
        elif texts:
            conditions.append(f"{word} saddr {_choice(texts)} ")
    return conditions


def _choice(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"


def _plain(entry: dict[str, Any]) -> str:
    """Return an entry's comment as one that cannot end before its end: on one line, without the quote, and no longer than nft takes."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(entry.get("comment") or "").replace('"', "'"))
    return line.encode(errors="ignore")[:_COMMENT_LENGTH].decode(errors="ignore").strip()


def _rules(entry: dict[str, Any]) -> list[str]:
    """Write one entry as rules, one for each version of IP that its sources have."""
    fault = entry_problem(entry)
    if fault:
        raise ValueError(fault)
    protocol = entry.get("protocol", "tcp")
    to = ""
    if protocol != "any":
        to = f"{protocol} dport {_choice([show_range(each) for each in read_ports(entry['port'])])} "
    comment = f' comment "{_plain(entry)}"' if _plain(entry) else ""
    return [f"{source}{to}accept{comment}" for source in _in_sources(entry.get("sources"))]


def show_network(network: Network) -> str:
    """Write a network, or a single address without its mask."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def show_range(ports: tuple[int, int]) -> str:
    """Write a port, or a range with a hyphen."""
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def ssh_entry(ports: list[Any], sources: list[str]) -> dict[str, Any]:
    """The entry that keeps SSH open.

    Args:
        ports: where SSH comes in; 22 when nobody could tell.
        sources: who may; empty for everybody, as an empty list here must not shut everybody out.
    """
    return {"port": ports or [SSH_PORT], "sources": sources or None, "comment": "SSH"}


def render(entries: list[dict[str, Any]]) -> str:
    """Write a file for ``nft -f`` that replaces the table ``inet mlops`` in one transaction, and touches no other table.

    Args:
        entries: what is let in, each with ``port``, ``protocol``, ``sources`` (None for everybody) and ``comment``.

    Raises:
        ValueError: an entry is not valid.
    """
    lines = [
        "type filter hook input priority filter; policy drop;",
        "",
        "ct state established,related accept",
        'iifname "lo" accept',
        "# Without neighbour discovery and path MTU there is no IPv6.",
        "meta l4proto { icmp, icmpv6 } accept",
        "ct state invalid drop",
        "# A lease's answer comes from another address than the question went to.",
        "udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        "",
        *(rule for entry in entries for rule in _rules(entry)),
        "",
        "# Who begins a connection is told at once. Other packets get no answer: a reset would end connections older than this table.",
        "tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset",
        "meta l4proto udp counter reject",
        "counter",
    ]
    body = "".join(f"\t\t{line}\n" if line else "\n" for line in lines)
    return f"table inet mlops\ndelete table inet mlops\n\ntable inet mlops {{\n\tchain input {{\n{body}\t}}\n}}\n"


# --- What the topology needs ---


def port_of(host: dict[str, Any], variable: str) -> int:
    """Read a port of the inventory; the default where it says nothing, or nonsense, which preflight names."""
    value = str(host.get(variable, ""))
    return int(value) if re.fullmatch("[0-9]{1,5}", value) and 1 <= int(value) <= 65535 else PORTS[variable]


def _is_loopback(address: Any) -> bool:
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:
        return str(address) == "localhost"


def own_networks(facts: dict[str, Any]) -> list[str]:
    """The networks that a host is in, which pg_hba calls samenet."""
    found = set()
    for name in facts.get("interfaces") or []:
        interface = facts.get(re.sub("[^A-Za-z0-9]", "_", str(name))) or {}
        for each in [interface.get("ipv4") or {}, *(interface.get("ipv4_secondaries") or [])]:
            if each.get("network") and each.get("netmask"):
                found.add(str(ipaddress.ip_network(f"{each['network']}/{each['netmask']}", strict=False)))
        for each in interface.get("ipv6") or []:
            if each.get("address") and each.get("prefix") and each.get("scope") != "link":
                found.add(str(ipaddress.ip_network(f"{each['address']}/{each['prefix']}", strict=False)))
    return sorted(network for network in found if not ipaddress.ip_network(network).is_loopback)


def _networks(addresses: Any, facts: dict[str, Any]) -> list[str]:
    """Read addresses as pg_hba has them; what is none is named by preflight and opens nothing."""
    found = []
    for address in addresses if isinstance(addresses, list) else []:
        if address == "samenet":
            found += own_networks(facts)
            continue
        try:
            found.append(show_network(read_network(address)))
        except ValueError:
            continue
    return found


def _database_entries(host: dict[str, Any], clients: list[str]) -> list[dict[str, Any]]:
    """What a database host opens: to MLflow's hosts, and to whom its pg_hba lets in besides."""
    facts = host.get("ansible_facts") or {}
    asked: list[tuple[str, Any]] = [("PostgreSQL for MLflow", clients)]
    for user in host.get("postgresql_users") if isinstance(host.get("postgresql_users"), list) else []:
        if isinstance(user, dict):
            asked.append((f"PostgreSQL for {user.get('name')}", user.get("addresses")))
    for entry in host.get("postgresql_hba") if isinstance(host.get("postgresql_hba"), list) else []:
        if isinstance(entry, dict) and entry.get("type") != "local" and entry.get("method") != "reject":
            asked.append(("PostgreSQL, postgresql_hba", [entry.get("address")]))
    found = []
    for comment, addresses in asked:
        sources = _networks(addresses, facts)
        if sources:
            found.append({"port": port_of(host, "postgresql_port"), "sources": sources, "comment": comment})
    return found


def site_firewall(host: dict[str, Any], hosts_of: dict[str, list[str]], addresses: dict[str, str | None]) -> dict[str, list[Any]]:
    """What a host lets in because of its place in the topology.

    Args:
        host: its variables, with facts.
        hosts_of: the names of the hosts that run each service.
        addresses: of the site's hosts, by name; None where nobody knows.

    Returns:
        ``entries`` with ``port``, ``sources`` (None for everybody) and ``comment``, and ``unknown``: hosts whose address is missing in them.
    """
    name = host.get("inventory_hostname")
    found: list[dict[str, Any]] = []
    unknown: set[str] = set()

    def runs(service: str) -> bool:
        return name in hosts_of.get(service, [])

    def others(service: str) -> list[str]:
        names = [each for each in hosts_of.get(service, []) if each != name]
        unknown.update(each for each in names if not addresses.get(each))
        return [address for each in names if (address := addresses.get(each))]

    if runs("gateway"):
        ports = sorted({port_of(host, "gateway_http_port"), port_of(host, "gateway_https_port")})
        found.append({"port": ports, "sources": None, "comment": "gateway"})
    if runs("mlflow") and not _is_loopback(host.get("mlflow_listen_address")):
        # With gateways nobody else needs to reach it.
        sources = others("gateway") if hosts_of.get("gateway") else None
        if sources != []:
            found.append({"port": port_of(host, "mlflow_port"), "sources": sources, "comment": "MLflow"})
    if runs("postgresql"):
        found += _database_entries(host, others("mlflow"))
    if runs("object_store") and (sources := others("mlflow")):
        found.append({"port": port_of(host, "object_store_port"), "sources": sources, "comment": "S3 for MLflow"})
    if runs("bundle_mirror") and (sources := list(dict.fromkeys(each for service in SERVED for each in others(service)))):
        found.append({"port": port_of(host, "bundle_mirror_port"), "sources": sources, "comment": "bundle"})
    return {"entries": found, "unknown": sorted(unknown)}


# --- What preflight says ---


def show(entry: dict[str, Any]) -> str:
    """Write an entry for people."""
    protocol = entry.get("protocol", "tcp")
    to = "everything" if protocol == "any" else f"{protocol} {', '.join(map(show_range, read_ports(entry['port'])))}"
    comment = f" ({_plain(entry)})" if _plain(entry) else ""
    return f"{to}{comment} to {', '.join(map(str, entry['sources'])) if entry.get('sources') else 'everybody'}"


def is_open(protocol: str, port: int, entries: list[dict[str, Any]]) -> bool:
    """Tell whether anybody at all may reach a port."""
    if protocol == "udp" and port in (68, 546):
        return True
    return any(
        entry.get("protocol", "tcp") == protocol and any(first <= port <= last for first, last in read_ports(entry["port"]))
        for entry in entries
        if entry.get("protocol") != "any"
    )


def closed(listeners: list[dict[str, Any]], entries: list[dict[str, Any]]) -> list[str]:
    """Name what others can reach on a host now, and could not any more.

    Args:
        listeners: of the module host_report.
        entries: what is let in.

    Returns:
        Protocol, port and owner of each.
    """
    found = {}
    for each in listeners:
        protocol = each.get("protocol", "tcp")
        if not _is_loopback(each.get("address", "")) and not is_open(protocol, each["port"], entries):
            owner = each["unit"] or each["program"] or f"a program of the user {each['user']}"
            found[(protocol, each["port"])] = f"{protocol} {each['port']} ({owner})"
    return [found[key] for key in sorted(found)]


def admits(sources: list[Any], address: str) -> bool:
    """Tell whether sources, of which none means everybody, have an address; what is no network has none."""
    networks = []
    for source in sources:
        try:
            networks.append(read_network(source))
        except ValueError:
            continue
    return not sources or any(ipaddress.ip_address(address) in network for network in networks)
