"""The firewall of a site with a host for each service: who reaches what, and that nobody is locked out."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

Playbook = Callable[..., Any]

SITE = ("playbooks/site.yml", "--tags", "host_firewall")

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
TABLE = "nft --stateless list table inet mlops"


def reach(host: Any, address: str, port: int) -> str:
    """Try to connect from a host of the site; a test host that was started again may have a new hardware address, which others learn late."""
    for _attempt in range(5):
        result = host.run("timeout 10 python3 -c %s %s %s", CONNECT, address, str(port))
        if result.rc == 0:
            return "open"
        if "refused" in result.stderr:
            return "refused"
    return "silent"


def recap(output: str) -> dict[str, int]:
    """The changes of each host."""
    return {host: int(changed) for host, changed in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", output, re.MULTILINE)}


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        ("mlflow", "postgresql", 5432, "open"),
        ("object_store", "postgresql", 5432, "refused"),
        ("mlflow", "object_store", 7480, "open"),
        ("postgresql", "object_store", 7480, "refused"),
        ("postgresql", "mlflow", 5000, "open"),
        ("object_store", "mlflow", 5000, "refused"),
        ("object_store", "postgresql", 443, "open"),
        ("mlflow", "postgresql", 80, "open"),
        ("object_store", "postgresql", 22, "open"),
        ("postgresql", "mlflow", 22, "open"),
        ("mlflow", "object_store", 22, "open"),
        ("object_store", "object_store", 7480, "open"),
        ("postgresql", "postgresql", 5432, "open"),
    ],
)
def test_who_reaches_what(site: dict[str, Any], connect: Callable[[str], Any], source: str, target: str, port: int, expected: str) -> None:
    """A host reaches what the topology says, and itself; everybody reaches SSH and the gateway, and the gateway alone reaches MLflow."""
    assert reach(connect(source), site[target], port) == expected


@pytest.mark.parametrize(("target", "port"), [("postgresql", 5432), ("object_store", 7480), ("postgresql", 443)])
def test_whom_the_inventory_names_comes_in(site: dict[str, Any], target: str, port: int) -> None:
    """This machine: by postgresql_users, by host_firewall_allow, and as a client."""
    socket.create_connection((site[target], port), 5).close()


def test_a_port_that_nobody_needs_is_closed(site: dict[str, Any], mlflow: Any, postgresql: Any) -> None:
    """A program that somebody starts is reached from the host alone."""
    postgresql.check_output("systemd-run --quiet --unit=stranger python3 -m http.server 8099 --directory /var/empty")
    try:
        postgresql.check_output("for i in $(seq 50); do ss -Htln sport = :8099 | grep -q . && break; sleep 0.1; done")
        assert reach(postgresql, "127.0.0.1", 8099) == "open"
        assert reach(mlflow, site["postgresql"], 8099) == "refused"
    finally:
        postgresql.check_output("systemctl stop stranger")


def test_what_is_closed_is_told_before(playbook: Playbook, postgresql: Any) -> None:
    """With the program behind it, and what is opened to whom."""
    postgresql.check_output("systemd-run --quiet --unit=stranger python3 -m http.server 8099 --directory /var/empty")
    try:
        result = playbook("playbooks/preflight.yml")
    finally:
        postgresql.check_output("systemctl stop stranger")
    text = re.sub(r"\s+", " ", result.stdout)
    assert result.returncode == 0, result.stdout
    assert "host_firewall opens tcp 22 (SSH) to everybody; tcp 80, 443 (gateway) to everybody; tcp 5432 (PostgreSQL for MLflow) to" in text
    assert "host_firewall closes what else listens here:" in text and "tcp 8099 (stranger.service)" in text


@pytest.mark.parametrize("fault", ["nft flush ruleset", "nft insert rule inet mlops input tcp dport 5432 accept", "systemctl stop mlops-firewall"])
def test_the_rules_come_back(playbook: Playbook, postgresql: Any, fault: str) -> None:
    """Whatever somebody did to them; and only they."""
    before = postgresql.check_output(TABLE)
    postgresql.check_output(fault)
    assert postgresql.run(TABLE).stdout != before
    result = playbook(*SITE)
    assert result.returncode == 0, result.stdout
    assert postgresql.check_output(TABLE) == before
    changes = recap(result.stdout)
    assert changes["database"] > 0 and sum(changes.values()) == changes["database"]


def test_the_rules_are_there_at_boot(postgresql: Any) -> None:
    """The service loads the file, before the network and with nothing to fear from the distribution's own."""
    before = postgresql.check_output(TABLE)
    postgresql.check_output("nft flush ruleset && systemctl restart mlops-firewall")
    assert postgresql.check_output(TABLE) == before
    assert postgresql.check_output("systemctl is-enabled mlops-firewall") == "enabled"
    order = postgresql.check_output("systemctl show mlops-firewall --property=Before,After")
    assert "network-pre.target" in order and "nftables.service" in order
    postgresql.check_output("systemctl start nftables && systemctl restart mlops-firewall && systemctl restart nftables && sleep 1")
    assert postgresql.check_output(TABLE) == before
    postgresql.check_output("systemctl reload nftables && sleep 1")
    assert postgresql.check_output(TABLE) == before
    postgresql.check_output("systemctl stop nftables && systemctl start mlops-firewall")


def test_a_controller_that_would_shut_itself_out_is_refused(playbook: Playbook, postgresql: Any) -> None:
    """Beside all other bad input, and before anything is changed."""
    before = postgresql.check_output(TABLE)
    bad = {"host_firewall_ssh_sources": ["192.0.2.0/24"], "host_firewall_allow": [{"port": 99999}, {"port": 1, "sources": []}], "host_firewall_alow": []}
    result = playbook("playbooks/site.yml", variables=bad)
    assert result.returncode != 0
    for line in (
        "host_firewall_ssh_sources = ['192.0.2.0/24']: this controller comes from ",
        "host_firewall_allow[0] = {'port': 99999}: port 99999 is neither a number from 1 to 65535",
        "host_firewall_allow[1] = {'port': 1, 'sources': []}: sources is an empty list",
        "host_firewall_alow: there is no such variable; did you mean host_firewall_allow?",
    ):
        assert line in result.stdout + result.stderr
    assert set(recap(result.stdout).values()) == {0}
    assert postgresql.check_output(TABLE) == before


def test_rules_that_shut_everybody_out_do_not_stay(playbook: Playbook, site: dict[str, Any], postgresql: Any) -> None:
    """The host takes the old ones back by itself, and the run says so."""
    before = postgresql.check_output(TABLE)
    files = "sha256sum /etc/mlops-firewall/* /var/lib/mlops-firewall/*; ls /run/mlops-firewall 2>/dev/null; systemctl is-active mlops-firewall-rollback.timer"
    state = postgresql.run(files).stdout
    result = playbook("tests/integration/lock_out.yml")
    assert result.returncode != 0
    assert "could not come in by a new connection, so the host has taken the old ones back" in result.stdout + result.stderr
    assert postgresql.check_output(TABLE) == before
    assert postgresql.run(files).stdout == state
    socket.create_connection((site["postgresql"], 22), 5).close()


def test_turned_off_it_leaves_nothing(playbook: Playbook, site: dict[str, Any], connect: Callable[[str], Any], postgresql: Any) -> None:
    """No table, unit or file; the tables of others are as they were, on and off."""
    postgresql.check_output("nft add table inet theirs")
    traces = "nft list tables; systemctl list-unit-files 'mlops-firewall*' --no-legend; ls -d /etc/mlops-firewall /var/lib/mlops-firewall /run/mlops-firewall"
    try:
        off = playbook(*SITE, variables={"host_firewall": False})
        assert off.returncode == 0, off.stdout
        assert postgresql.run(traces).stdout.strip() == "table inet theirs"
        assert reach(connect("object_store"), site["postgresql"], 5432) == "open"
        again = playbook(*SITE, variables={"host_firewall": False})
        assert set(recap(again.stdout).values()) == {0}
        on = playbook(*SITE)
        assert on.returncode == 0, on.stdout
        assert sorted(postgresql.check_output("nft list tables").splitlines()) == ["table inet mlops", "table inet theirs"]
        assert reach(connect("object_store"), site["postgresql"], 5432) == "refused"
    finally:
        postgresql.check_output("nft delete table inet theirs")


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_nothing_is_left_to_do(playbook: Playbook, options: tuple[str, ...]) -> None:
    """After all of this the site is as the inventory says."""
    result = playbook("playbooks/site.yml", *options)
    assert result.returncode == 0, result.stdout
    assert set(recap(result.stdout).values()) == {0}
