"""What the topology opens, how nftables is told, and how a host is kept from locking everybody out."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.filter.checks import FilterModule as Checks
from ansible_collections.mlops.mlflow.plugins.filter.plan import FilterModule
from ansible_collections.mlops.mlflow.plugins.module_utils import firewall, preflight, sockets
from ansible_collections.mlops.mlflow.plugins.modules import firewall_table
from hypothesis import given
from hypothesis import strategies as st

FILTERS = FilterModule().filters() | Checks().filters()

PORTS = st.one_of(
    st.integers(1, 65535),
    st.integers(1, 65535).map(str),
    st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
)
NETWORKS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: str(ipaddress.ip_network(pair, strict=False))),
    st.tuples(st.ip_addresses(v=6, network="2001:db8::/32"), st.integers(0, 128)).map(lambda pair: str(ipaddress.ip_network(pair, strict=False))),
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"port": st.one_of(PORTS, st.lists(PORTS, min_size=1))},
        optional={"protocol": st.sampled_from(["tcp", "udp"]), "sources": st.lists(NETWORKS, min_size=1), "comment": st.text()},
    )
)


def rules(*entries: dict[str, Any]) -> list[str]:
    """Return the lines that let something in because of entries."""
    always = set(firewall.render([]).splitlines())
    return [line.strip() for line in firewall.render(list(entries)).splitlines() if line not in always]


# --- The rules ---


@pytest.mark.parametrize(
    ("entry", "lines"),
    [
        ({"port": 5000}, ["tcp dport 5000 accept"]),
        ({"port": "5000", "comment": "MLflow"}, ['tcp dport 5000 accept comment "MLflow"']),
        ({"port": [443, 80]}, ["tcp dport { 80, 443 } accept"]),
        ({"port": ["6000-6010", 6005, "6011"], "protocol": "udp"}, ["udp dport 6000-6011 accept"]),
        ({"port": 1, "sources": ["10.0.0.7"]}, ["ip saddr 10.0.0.7 tcp dport 1 accept"]),
        ({"port": 1, "sources": ["10.0.0.7/32", "10.0.0.0/8", "10.1.0.0/16"]}, ["ip saddr 10.0.0.0/8 tcp dport 1 accept"]),
        (
            {"port": 1, "sources": ["10.9.9.9", "fd00::/8", "10.0.1.0/24"]},
            ["ip saddr { 10.0.1.0/24, 10.9.9.9 } tcp dport 1 accept", "ip6 saddr fd00::/8 tcp dport 1 accept"],
        ),
        ({"port": 1, "sources": ["0.0.0.0/0"]}, ["meta nfproto ipv4 tcp dport 1 accept"]),
        ({"port": 1, "sources": ["::/0", "10.0.0.1"]}, ["ip saddr 10.0.0.1 tcp dport 1 accept", "meta nfproto ipv6 tcp dport 1 accept"]),
        ({"port": 1, "sources": None}, ["tcp dport 1 accept"]),
        ({"protocol": "any", "sources": ["10.0.0.7"]}, ["ip saddr 10.0.0.7 accept"]),
        ({"port": 1, "comment": 'a "b"; }\n}\nflush ruleset'}, ["tcp dport 1 accept comment \"a 'b'; } } flush ruleset\""]),
        ({"port": 1, "comment": "é" * 100}, [f'tcp dport 1 accept comment "{"é" * 60}"']),
    ],
)
def test_an_entry_becomes_rules(entry: dict[str, Any], lines: list[str]) -> None:
    """One for each version of IP, with networks and ports that do not overlap, which nft refuses, and a comment that stays one."""
    assert rules(entry) == lines


def test_the_table_stands_for_itself() -> None:
    """It replaces itself in one transaction, and no other table."""
    text = firewall.render([])
    assert re.findall(r"^\S.*", text, re.MULTILINE) == ["table inet mlops", "delete table inet mlops", "table inet mlops {", "}"]
    assert "policy drop;" in text and "flush" not in text
    assert text.index("ct state established") < text.index("ct state invalid")
    assert re.search(r"icmpv6 \} accept\n\s+ct state invalid drop", text), "neighbour discovery must not depend on what conntrack makes of it"


def test_protocols_have_names_that_nft_knows_by_itself() -> None:
    """A minimal Debian has no /etc/protocols, and nft looks up there what is no word of its own."""
    assert re.findall(r"meta l4proto (.*?) (?:accept|counter)", firewall.render([])) == ["{ icmp, icmpv6 }", "udp"]


@given(entries=ENTRIES, ports=st.lists(PORTS), sources=st.lists(NETWORKS))
def test_ssh_comes_first_whatever_follows(entries: list[dict[str, Any]], ports: list[Any], sources: list[str]) -> None:
    """The first rule with a port of TCP is that of SSH, and nothing breaks out of its line."""
    text = FILTERS["firewall_rules"](entries, ports, sources)
    first = next(line for line in text.splitlines() if "tcp dport" in line)
    assert first.endswith('accept comment "SSH"')
    assert "dport 22 " in first or ports
    for line in text.splitlines()[5:-2]:
        assert line == "" or re.fullmatch(r'\t\t(#.*|type .*|.*(accept|drop|reject|counter|reset)( comment "[^"]*")?)', line)


@given(networks=st.lists(NETWORKS, min_size=1), address=st.ip_addresses(v=4))
def test_networks_keep_their_addresses(networks: list[str], address: ipaddress.IPv4Address) -> None:
    """What is merged for nft admits whom the networks did, and nobody else."""
    before = any(address in ipaddress.ip_network(each) for each in networks)
    text = "\n".join(rules({"port": 1, "sources": networks}))
    after = "nfproto ipv4" in text or any(address in ipaddress.ip_network(each) for each in re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", text))
    assert before == after == firewall.admits(networks, str(address))


@given(ports=st.lists(PORTS, min_size=1), port=st.integers(1, 65535))
def test_ports_keep_their_numbers(ports: list[Any], port: int) -> None:
    """The same of ranges, which stand apart when they are read."""
    bounds = [[int(each) for each in str(text).split("-")] for text in ports]
    merged = firewall.read_ports(ports)
    assert any(each[0] <= port <= each[-1] for each in bounds) == any(first <= port <= last for first, last in merged)
    assert all(one[1] + 1 < other[0] for one, other in zip(merged, merged[1:]))


def test_nobody_is_shut_out_by_an_empty_list() -> None:
    """Of SSH. Without any port there is still the one that everybody knows."""
    assert firewall.ssh_entry([], []) == {"port": [22], "sources": None, "comment": "SSH"}
    assert firewall.ssh_entry([2222], ["10.0.0.0/8"])["sources"] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("9100", "an entry is a mapping such as {port: 9100, sources: [10.0.0.0/8]}"),
        ({}, "port is missing, as in {port: 9100, sources: [10.0.0.0/8]}"),
        ({"ports": [1]}, "unknown key 'ports'; the keys are comment, port, protocol, sources"),
        ({"port": 0}, "port 0 is neither a number from 1 to 65535 nor a range such as 6000-6010"),
        ({"port": 65536}, "port 65536 is neither a number"),
        ({"port": "9-8"}, "port '9-8' is neither a number"),
        ({"port": True}, "port True is neither a number"),
        ({"port": "http"}, "port 'http' is neither a number"),
        ({"port": "²"}, "port '²' is neither a number"),
        ({"port": None}, "port None is neither a number"),
        ({"port": []}, "port is an empty list; name a port, or remove the entry"),
        ({"port": 1, "protocol": "icmp"}, "protocol 'icmp' is unknown; use one of tcp, udp, any"),
        ({"port": 1, "sources": "10.0.0.0/8"}, "sources is a list of networks"),
        ({"port": 1, "sources": []}, "sources is an empty list; name networks, or leave it out to let everybody in"),
        ({"port": 1, "sources": ["10.0.0.1/8"]}, "'10.0.0.1/8' is no network such as 10.0.0.0/8 and no address (10.0.0.1/8 has host bits set)"),
        ({"port": 1, "sources": ["db.example.org"]}, "'db.example.org' is no network such as 10.0.0.0/8 and no address ("),
        ({"port": 1, "sources": [10]}, "10 is no network such as 10.0.0.0/8 (put it in quotes)"),
        ({"port": 1, "sources": ["::ffff:10.0.0.1"]}, "'::ffff:10.0.0.1' never comes in that form; write it as an IPv4 address"),
        ({"port": 1, "sources": ["fe80::1%eth0"]}, "'fe80::1%eth0' "),
        ({"protocol": "any"}, "protocol any without sources would open everything to everybody; name networks in sources"),
        ({"protocol": "any", "port": 1, "sources": ["10.0.0.1"]}, "protocol any has no port; leave one of the two out"),
    ],
)
def test_a_bad_entry_is_one_sentence(entry: Any, fault: str) -> None:
    """And it is never rendered."""
    assert (firewall.entry_problem(entry) or "").startswith(fault)
    with pytest.raises(AnsibleFilterError, match="^host_firewall: "):
        FILTERS["firewall_rules"]([entry], [22], [])


@given(entries=ENTRIES)
def test_good_entries_have_no_problem(entries: list[dict[str, Any]]) -> None:
    """The form that the rules are made of."""
    assert [fault for entry in entries if (fault := firewall.entry_problem(entry))] == []


# --- The topology ---

ONE_HOST = {"mlflow": ["a"], "postgresql": ["a"], "object_store": ["a"]}
THREE_HOSTS = {"mlflow": ["m1", "m2"], "postgresql": ["d"], "object_store": ["s"]}
GATEWAYS = {**THREE_HOSTS, "gateway": ["g", "m1"]}
NUMBERS = {"m1": 1, "m2": 2, "d": 3, "s": 4, "g": 5}


def member(name: str, **variables: Any) -> dict[str, Any]:
    """Return the variables of a host with facts."""
    facts = {"default_ipv4": {"address": f"10.0.0.{NUMBERS.get(name, 9)}"}, "all_ipv4_addresses": [f"10.0.0.{NUMBERS.get(name, 9)}"], "all_ipv6_addresses": []}
    return {"inventory_hostname": name, "ansible_facts": facts} | variables


def opened(name: str, hosts_of: dict[str, list[str]], **variables: Any) -> list[tuple[Any, Any]]:
    """Return port and sources of what a host of a site opens."""
    clients = [member(each) for each in sorted({each for names in hosts_of.values() for each in names})]
    topology = FILTERS["site_firewall"](member(name, **variables), hosts_of, clients)
    entries = FILTERS["firewall_entries"](topology)
    assert [fault for entry in entries if (fault := firewall.entry_problem(entry))] == []
    return [(entry["port"], entry["sources"]) for entry in entries]


@pytest.mark.parametrize(
    ("name", "hosts_of", "expected"),
    [
        ("a", ONE_HOST, [(5000, None)]),
        ("m1", THREE_HOSTS, [(5000, None)]),
        ("d", THREE_HOSTS, [(5432, ["10.0.0.1", "10.0.0.2"])]),
        ("s", THREE_HOSTS, [(7480, ["10.0.0.1", "10.0.0.2"])]),
        ("m2", GATEWAYS, [(5000, ["10.0.0.5", "10.0.0.1"])]),
        ("m1", GATEWAYS, [([80, 443], None), (5000, ["10.0.0.5"])]),
        ("g", GATEWAYS, [([80, 443], None)]),
        ("m1", {"mlflow": ["m1"], "gateway": ["m1"]}, [([80, 443], None)]),
        ("d", {"mlflow": ["d"], "postgresql": ["d"]}, [(5000, None)]),
        ("other", THREE_HOSTS, []),
        ("s", {**THREE_HOSTS, "bundle_mirror": ["s"]}, [(7480, ["10.0.0.1", "10.0.0.2"]), (8443, ["10.0.0.1", "10.0.0.2", "10.0.0.3"])]),
        ("other", {**THREE_HOSTS, "bundle_mirror": ["other"]}, [(8443, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"])]),
        ("a", {**ONE_HOST, "bundle_mirror": ["a"]}, [(5000, None)]),
    ],
)
def test_what_a_place_in_the_topology_opens(name: str, hosts_of: dict[str, list[str]], expected: list[Any]) -> None:
    """To the hosts that need it, and to nobody where the host needs it alone: that must not read as everybody."""
    assert opened(name, hosts_of) == expected


def test_ports_follow_the_inventory() -> None:
    """Nonsense, which preflight names, is the default here."""
    assert opened("m1", THREE_HOSTS, mlflow_port="5001") == [(5001, None)]
    assert opened("d", THREE_HOSTS, postgresql_port=6432)[0][0] == 6432
    assert opened("s", THREE_HOSTS, object_store_port=70000)[0][0] == 7480
    assert opened("g", GATEWAYS, gateway_http_port=8080, gateway_https_port="8080") == [([8080], None)]
    assert opened("m1", THREE_HOSTS, mlflow_listen_address="127.0.0.1") == []


def test_whom_the_database_lets_in_reaches_it() -> None:
    """The addresses of further logins and entries; what opens nothing there opens nothing here."""
    facts = member("d")["ansible_facts"] | {
        "interfaces": ["lo", "eth0.7", "docker-0"],
        "lo": {"ipv4": {"network": "127.0.0.0", "netmask": "255.0.0.0"}},
        "eth0_7": {
            "ipv4": {"network": "10.7.0.0", "netmask": "255.255.0.0"},
            "ipv4_secondaries": [{"network": "10.8.0.0", "netmask": "255.255.255.0"}],
            "ipv6": [{"address": "fd00::5", "prefix": "64", "scope": "site"}, {"address": "fe80::5", "prefix": "64", "scope": "link"}],
        },
    }
    users = [{"name": "reader", "addresses": ["10.5.0.0/16", "nonsense"]}, {"name": "nobody"}, {"name": "near", "addresses": ["samenet", "samehost"]}, "x"]
    hba = [{"address": "10.6.0.0/16"}, {"address": "10.9.0.0/16", "method": "reject"}, {"type": "local", "method": "peer"}, {"address": "samehost"}, 1]
    found = opened("d", THREE_HOSTS, ansible_facts=facts, postgresql_users=users, postgresql_hba=hba)
    near = ["10.7.0.0/16", "10.8.0.0/24", "fd00::/64"]
    assert [sources for _port, sources in found] == [["10.0.0.1", "10.0.0.2"], ["10.5.0.0/16"], near, ["10.6.0.0/16"]]
    assert opened("d", THREE_HOSTS, postgresql_users={"a": 1}, postgresql_hba="all") == [(5432, ["10.0.0.1", "10.0.0.2"])]


def test_an_unknown_address_is_no_closed_port() -> None:
    """A host that nobody looked at would be shut out, so there are no rules without it; its mlops_address is enough."""
    clients = [member("m1"), {"inventory_hostname": "m2"}]
    topology = FILTERS["site_firewall"](member("d"), THREE_HOSTS, clients)
    assert topology["unknown"] == ["m2"]
    with pytest.raises(AnsibleFilterError, match="nobody has looked at m2"):
        FILTERS["firewall_entries"](topology)
    clients[1]["mlops_address"] = "10.0.0.77"
    assert FILTERS["site_firewall"](member("d"), THREE_HOSTS, clients) == {
        "entries": [{"port": 5432, "sources": ["10.0.0.1", "10.0.0.77"], "comment": "PostgreSQL for MLflow"}],
        "unknown": [],
    }
    assert FILTERS["site_firewall"](member("m1"), THREE_HOSTS, [{"inventory_hostname": "m1"}])["unknown"] == []


# --- Preflight ---


def report(**changes: Any) -> dict[str, Any]:
    """Return what host_report saw of the firewall's business."""
    return {"listeners": [], "ssh_connection": "10.0.0.250 40000 10.0.0.3 22", "ssh_ports": [22]} | changes


def listener(port: int, address: str = "0.0.0.0", protocol: str = "tcp", unit: str = "", program: str = "x") -> dict[str, Any]:
    """Return a socket that waits."""
    return {"port": port, "address": address, "protocol": protocol, "unit": unit, "program": program, "user": "u"}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"host_firewall": "maybe"}, "host_firewall = 'maybe': use true or false"),
        ({"host_firewall_alow": []}, "host_firewall_alow: there is no such variable; did you mean host_firewall_allow?"),
        ({"host_firewall_allow": {"port": 1}}, "host_firewall_allow = {'port': 1}: use a list of entries such as {port: 9100, sources: [10.0.0.0/8]}"),
        ({"host_firewall_allow": None}, "host_firewall_allow = None: use a list of entries"),
        ({"host_firewall_allow": [{"port": 1}, {"port": 0}]}, "host_firewall_allow[1] = {'port': 0}: port 0 is neither"),
        ({"host_firewall_ssh_sources": "10.0.0.0/8"}, "host_firewall_ssh_sources = '10.0.0.0/8': use a list of networks, or leave it out to let everybody try"),
        ({"host_firewall_ssh_sources": ["x"]}, "host_firewall_ssh_sources[0] = 'x': 'x' is no network"),
        ({"host_firewall_ssh_ports": 2222}, "host_firewall_ssh_ports = 2222: use a list of ports"),
        ({"host_firewall_ssh_ports": [22, "ssh"]}, "host_firewall_ssh_ports[1] = 'ssh': port 'ssh' is neither"),
        ({"host_firewall_rollback_after": 5}, "host_firewall_rollback_after = 5: use a number of seconds from 30 to 3600, or leave it out"),
    ],
)
def test_bad_input_is_one_line(variables: dict[str, Any], line: str) -> None:
    """With the variable, the value and the remedy."""
    (only,) = FILTERS["input_problems"](variables)
    assert only.startswith(line)


def checked(topology: dict[str, Any] | None = None, seen: dict[str, Any] | None = None, **variables: Any) -> list[str]:
    """Return the problems of a host that was looked at."""
    found: list[str] = FILTERS["firewall_problems"](variables, {"report": seen or report()}, topology or {"entries": [], "unknown": []})
    return found


def test_the_controller_is_not_shut_out() -> None:
    """It is refused with the address that it has for the host; one that is no network has a line of its own already."""
    (line,) = checked(host_firewall=True, host_firewall_ssh_sources=["10.1.0.0/16"])
    assert line.startswith("host_firewall_ssh_sources = ['10.1.0.0/16']: this controller comes from 10.0.0.250, which it would shut out; add it")
    assert checked(host_firewall=True, host_firewall_ssh_sources=["10.0.0.0/24", "fd00::/8"]) == []
    assert checked(host_firewall=True, host_firewall_ssh_sources=[]) == []
    assert checked(host_firewall=False, host_firewall_ssh_sources=["10.1.0.0/16"]) == []
    assert checked(seen=report(ssh_connection=""), host_firewall=True, host_firewall_ssh_sources=["10.1.0.0/16"]) == []


def test_a_host_that_nobody_looked_at_is_named() -> None:
    """Where the rules need its address, and not beside the reason why nobody could."""
    topology = {"entries": [], "unknown": ["m2"]}
    line = "host_firewall: nobody has looked at m2, so that its address is unknown; leave out --limit, or set mlops_address for that host"
    assert checked(topology, host_firewall="true") == [line]
    assert checked(topology) == checked(topology, host_firewall="no") == []
    assert FILTERS["firewall_problems"]({"host_firewall": True}, {"unreachable": True}, topology) == []
    gone = {"inventory_hostname": "m2", "__preflight_looked_at": True, "__preflight_problems": ["this host cannot be reached by SSH: x"]}
    here = {"inventory_hostname": "d", "__preflight_looked_at": True, "__preflight_problems": [line]}
    assert FILTERS["problem_report"]([here, gone]) == ["m2: this host cannot be reached by SSH: x"]


def told(seen: dict[str, Any], services: list[str] | None = None, **variables: Any) -> list[str]:
    """Return the notices of a host with the firewall on."""
    entries = [{"port": 5432, "sources": ["10.0.0.1"], "comment": "PostgreSQL for MLflow"}]
    found: list[str] = FILTERS["firewall_notices"](
        {"host_firewall": True, **variables}, services or ["postgresql"], {"report": seen}, {"entries": entries, "unknown": []}
    )
    return found


def test_nobody_is_surprised() -> None:
    """What others reach now and will not: not what listens on the host itself, answers DHCP, or is opened to somebody."""
    seen = report(
        listeners=[
            listener(22),
            listener(5432, "::"),
            listener(9100, "::", unit="exporter.service"),
            listener(9100, unit="exporter.service"),
            listener(53, "10.88.0.1", "udp", program="aardvark-dns"),
            listener(68, protocol="udp"),
            listener(6000, "127.0.0.1"),
            listener(6000, "::1"),
            listener(323, "127.0.0.1", "udp"),
            listener(8080, program=""),
            listener(9090, unit="prometheus.service"),
        ]
    )
    ssh, closes = told(seen, host_firewall_allow=[{"port": "9090-9099", "sources": ["10.0.0.0/8"]}], host_firewall_ssh_ports=[2222])
    assert ssh == (
        "host_firewall opens tcp 22, 2222 (SSH) to everybody; tcp 5432 (PostgreSQL for MLflow) to 10.0.0.1; tcp 9090-9099 to 10.0.0.0/8"
    )
    assert closes == (
        "host_firewall closes what else listens here: tcp 8080 (a program of the user u), tcp 9100 (exporter.service), udp 53 (aardvark-dns); "
        "name in host_firewall_allow what others must still reach"
    )


def test_there_is_nothing_to_tell() -> None:
    """Without a firewall, of a host that cannot be reached, or of rules that are refused anyway."""
    assert FILTERS["firewall_notices"]({}, [], {"report": report()}, {"entries": [], "unknown": []}) == []
    assert FILTERS["firewall_notices"]({"host_firewall": True}, [], {}, {"entries": [], "unknown": []}) == []
    assert told(report(), host_firewall_allow=[{"port": 0}]) == []
    assert len(told(report(listeners=[listener(22), listener(5432)]))) == 1


def test_clients_of_the_store_are_thought_of() -> None:
    """They reach it by themselves only if the inventory says so."""
    assert told(report(), ["object_store"])[-1].startswith("host_firewall lets only MLflow reach the object store: ")
    assert len(told(report(), ["object_store"], host_firewall_allow=[{"port": 7480, "sources": ["10.0.0.0/8"]}])) == 1
    assert len(told(report(), ["object_store"], object_store_port=8000, host_firewall_allow=[{"port": 7480}])) == 2


def test_a_notice_stays_on_its_line() -> None:
    """Whatever a comment has in it."""
    (line,) = told(report(), host_firewall_allow=[{"port": 1, "comment": "a\nb"}])
    assert "tcp 1 (a b) to everybody" in line


def test_everything_of_a_neighbour() -> None:
    """No port is open to all by it, and it is shown."""
    (line,) = told(report(), host_firewall_allow=[{"protocol": "any", "sources": ["10.0.0.9"]}])
    assert line.endswith("everything to 10.0.0.9")
    assert preflight.firewall_notices({"host_firewall": True}, [], report(listeners=[listener(1)]), [{"protocol": "any", "sources": ["10.0.0.9"]}])[1:]


# --- How SSH comes in ---

SHOWN = """\
ActiveState=active
Listen=0.0.0.0:22 (Stream)
Listen=[::]:2022 (Stream)
Listen=/run/ssh-unix-local/22 (Stream)
Listen=vsock::22222 (Stream)

ActiveState=inactive
Listen=[::]:2222 (Stream)
"""


def test_the_ports_of_systemd() -> None:
    """Those of TCP, of sockets that are in use."""
    assert sockets.ssh_socket_ports(SHOWN) == [22, 2022]
    assert sockets.ssh_socket_ports("") == sockets.ssh_socket_ports("ActiveState=inactive\n") == []


def processes(monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Put files in place of those in /proc, named process_file."""
    table = {f"/proc/{name.split('_', 2)[1]}/{name.split('_', 2)[2]}": content for name, content in files.items()}
    monkeypatch.setattr(sockets, "text", lambda path: table.get(path, ""))


def test_the_session_is_found_through_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo gives its child an environment without the variable, and has it itself."""
    processes(
        monkeypatch,
        p_self_stat="40 (python3) S 30 1 1",
        p_self_environ="HOME=/root\0",
        p_30_stat="30 (su (do)) S 20 1 1",
        p_30_environ="A=b\0SSH_CONNECTION=10.0.0.250 40000 10.0.0.3 2222\0",
    )
    assert sockets.ssh_connection() == "10.0.0.250 40000 10.0.0.3 2222"
    processes(monkeypatch, p_self_stat="40 (python3) S 30 1 1", p_30_stat="30 (sh) S 1 1 1", p_30_environ="SSH_CONNECTION=nonsense\0", p_1_environ="")
    assert sockets.ssh_connection() == ""


def test_the_daemon_and_not_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that a session forwards is no port of SSH, although its process has the same name."""
    found = {"1": ("tcp", 22), "2": ("tcp", 8080), "3": ("tcp", 5432), "4": ("udp", 9)}
    monkeypatch.setattr(sockets, "open_sockets", lambda: {inode: {"protocol": protocol, "port": port} for inode, (protocol, port) in found.items()})
    monkeypatch.setattr(sockets, "holders", lambda inodes: {"1": ["100"], "2": ["200"], "3": ["300"]})
    processes(
        monkeypatch,
        p_100_comm="sshd\n",
        p_100_stat="100 (sshd) S 1 1",
        p_200_comm="sshd\n",
        p_200_stat="200 (sshd) S 100 1",
        p_300_comm="postgres\n",
        p_300_stat="300 (postgres) S 1 1",
    )
    assert sockets.ssh_daemon_ports() == [22]


def test_who_holds_a_socket() -> None:
    """This process does."""
    with socket.socket() as waiting:
        waiting.bind(("127.0.0.1", 0))
        waiting.listen()
        inode = str(os.fstat(waiting.fileno()).st_ino)
        assert sockets.holders({inode: {}})[inode] == [str(os.getpid())]


# --- The table on the host ---


class Exited(Exception):
    """What a module says at its end."""

    def __init__(self, failed: bool, **result: Any) -> None:
        """Keep it."""
        super().__init__(str(result))
        self.failed, self.result = failed, result


class Host:
    """A host with nft and systemd, which also is the AnsibleModule."""

    def __init__(self) -> None:
        """A bare one, that somebody has come in to."""
        self.kernel, self.timer, self.units, self.log = "", False, set[str](), list[str]()
        self.connection, self.refuses, self.has_nft, self.has_timers = "c 1 h 22", "", True, True
        self.params: dict[str, Any] = {}
        self.check_mode = False

    def get_bin_path(self, name: str, **options: Any) -> str | None:
        """Where nft is."""
        assert options
        return f"/usr/sbin/{name}" if self.has_nft else None

    def fail_json(self, **result: Any) -> NoReturn:
        """End badly."""
        raise Exited(True, **result)

    def exit_json(self, **result: Any) -> NoReturn:
        """End well."""
        raise Exited(False, **result)

    def run_command(self, command: list[str], data: str = "", **_options: Any) -> tuple[int, str, str]:
        """Do what the commands do."""
        if command[0].endswith("nft"):
            if "list" in command:
                return (0, self.kernel, "") if self.kernel else (1, "", "No such file or directory")
            if self.refuses and self.refuses in data:
                return 1, "", "Error: syntax error"
            if "--check" not in command:
                self.log.append("load")
                self.kernel = data.removeprefix(firewall_table.EMPTY)
        elif command[0] == "systemd-run":
            if not self.has_timers:
                return 1, "", "no bus"
            self.log.append("arm")
            self.timer = True
        elif command[1] == "stop":
            self.timer = False
        elif command[1] != "show":
            self.log.append(" ".join(command[1:]))
        return 0, "inactive\n", ""

    def goes_off(self) -> None:
        """What the timer does."""
        assert self.timer
        self.kernel = Path(firewall_table.BEFORE).read_text(encoding="utf-8").removeprefix(firewall_table.EMPTY)
        for path in Path(firewall_table.TRIAL).iterdir():
            path.unlink()
        Path(firewall_table.TRIAL).rmdir()
        self.timer = False


def run(host: Host, state: str, rules_text: str = "", **options: Any) -> Exited:
    """Run the module on a host."""
    host.params = {"state": state, "rules": rules_text, "rollback_after": 120, "new_connection": True, **options}
    with pytest.raises(Exited) as caught:
        getattr(firewall_table, state)(firewall_table.Table(host))
    return caught.value


def come_in(host: Host) -> None:
    """Open a new connection."""
    number = int(host.connection.split()[1]) + 1
    host.connection = f"c {number} h 22"


@pytest.fixture(name="host")
def fixture_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """Return a host whose files are in a folder of their own."""
    found = Host()
    for name in ("UNIT", "RULES", "LISTING", "TRIAL", "BEFORE", "CANDIDATE", "CONNECTION"):
        monkeypatch.setattr(firewall_table, name, f"{tmp_path}{getattr(firewall_table, name)}")
    monkeypatch.setattr(firewall_table, "LEARN_SECONDS", 0)
    monkeypatch.setattr(firewall_table, "ssh_connection", lambda: found.connection)
    return found


def settled(host: Host, text: str) -> None:
    """Bring a host to rules that are kept."""
    assert run(host, "tried", text).result["changed"]
    come_in(host)
    assert run(host, "kept").result["changed"]
    host.log.clear()


def test_rules_are_tried_and_kept(host: Host) -> None:
    """The timer is set before the first rule is loaded; the file comes last; the second run does nothing."""
    assert run(host, "tried", "new").result["changed"]
    assert host.log == ["arm", "load", "load"], "the first teaches the kernel the connections that there are"
    assert (host.kernel, host.timer, Path(firewall_table.RULES).exists()) == ("new", True, False)
    come_in(host)
    assert run(host, "kept").result["changed"]
    assert (host.timer, Path(firewall_table.RULES).read_text(encoding="utf-8"), Path(firewall_table.TRIAL).exists()) == (False, "new", False)
    host.log.clear()
    assert not run(host, "tried", "new").result["changed"]
    assert host.log == []


def test_a_change_is_tried_too(host: Host) -> None:
    """Without a pause, as the kernel knows the connections; the diff has both."""
    settled(host, "old")
    result = run(host, "tried", "new").result
    assert (result["diff"]["before"], result["diff"]["after"], host.log) == ("old", "new", ["arm", "load"])
    host.goes_off()
    assert host.kernel == "old"
    come_in(host)
    late = run(host, "kept")
    assert late.failed and "taken the rules back already" in late.result["msg"]
    assert Path(firewall_table.RULES).read_text(encoding="utf-8") == "old"


def test_the_old_session_proves_nothing(host: Host) -> None:
    """It would go on whatever the rules say. The timer goes on too. Where Ansible runs on the host there is no other."""
    run(host, "tried", "new")
    refused = run(host, "kept")
    assert refused.failed and "still the session" in refused.result["msg"] and host.timer
    assert run(host, "kept", new_connection=False).result["changed"]


def test_a_run_that_ended_in_the_middle(host: Host) -> None:
    """The next one begins with what was there before it, not with what was never kept."""
    settled(host, "old")
    run(host, "tried", "locks everybody out")
    run(host, "tried", "new")
    assert Path(firewall_table.BEFORE).read_text(encoding="utf-8") == firewall_table.EMPTY + "old"
    host.goes_off()
    assert host.kernel == "old"
    run(host, "tried", "locks everybody out")
    assert run(host, "tried", "old").result["changed"]
    assert host.kernel == "old"


@pytest.mark.parametrize("somebody", ["", "old, and a rule by hand"])
def test_a_table_that_was_changed_by_hand(host: Host, somebody: str) -> None:
    """It is loaded anew, and flushed ones too."""
    settled(host, "old")
    host.kernel = somebody
    assert run(host, "tried", "old").result["changed"]
    assert host.kernel == "old"


def test_rules_that_nft_refuses(host: Host) -> None:
    """Nothing is armed, loaded or written."""
    settled(host, "old")
    host.refuses = "bad"
    refused = run(host, "tried", "bad")
    assert refused.failed and refused.result["msg"] == "nft refuses the rules, and nothing was changed: Error: syntax error"
    assert (host.log, host.kernel, host.timer, Path(firewall_table.TRIAL).exists()) == ([], "old", False, False)


def test_no_rules_without_a_way_back(host: Host) -> None:
    """A host on which no timer can be set keeps what it has."""
    host.has_timers = False
    refused = run(host, "tried", "new")
    assert refused.failed and "nothing was loaded: no bus" in refused.result["msg"]
    assert (host.kernel, Path(firewall_table.TRIAL).exists()) == ("", False)


def test_check_mode_changes_nothing(host: Host) -> None:
    """On a bare host without nft, and on one with it."""
    host.check_mode, host.has_nft = True, False
    assert run(host, "tried", "new").result["changed"]
    assert not run(host, "absent").result["changed"]
    host.has_nft = True
    assert run(host, "tried", "new").result["changed"]
    assert (host.log, host.kernel, Path(firewall_table.TRIAL).exists()) == ([], "", False)
    host.check_mode = False
    settled(host, "old")
    host.check_mode = True
    assert not run(host, "tried", "old").result["changed"]
    assert run(host, "absent").result["changed"]
    assert host.kernel == "old"


def test_a_host_without_nft(host: Host) -> None:
    """Says what it lacks, and has nothing to remove."""
    host.has_nft = False
    assert "install the package nftables" in run(host, "tried", "new").result["msg"]
    assert run(host, "absent").result == {"changed": False, "removed": []}


def test_everything_goes(host: Host) -> None:
    """Table, unit and files, also those of a trial; then there is nothing left to remove."""
    settled(host, "old")
    run(host, "tried", "new")
    unit = Path(firewall_table.UNIT)
    unit.parent.mkdir(parents=True)
    unit.write_text("", encoding="utf-8")
    host.log.clear()
    assert run(host, "absent").result["removed"][-1] == "table inet mlops"
    assert host.log == ["disable --now mlops-firewall.service", "daemon-reload", "load"]
    assert (host.kernel, host.timer, unit.exists()) == ("", False, False)
    assert not any(Path(path).parent.exists() for path in (firewall_table.RULES, firewall_table.LISTING, firewall_table.BEFORE))
    assert run(host, "absent").result == {"changed": False, "removed": []}


def test_files_that_cannot_be_removed_are_not_passed_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that stay would be those of the next boot."""

    def unlink(*_path: Any, **_where: Any) -> None:
        raise PermissionError("read-only")

    settled(host, "old")
    with monkeypatch.context() as broken:
        broken.setattr(firewall_table.os, "unlink", unlink)
        host.params = {"state": "absent"}
        with pytest.raises(PermissionError):
            firewall_table.absent(firewall_table.Table(host))
    assert run(host, "absent").result["changed"]
