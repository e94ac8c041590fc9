"""What is refused before anything is changed: one line for each problem, with the variable, the value seen and the remedy."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import generate
import pytest
from ansible_collections.mlops.mlflow.plugins.filter.checks import FilterModule, database_target, known_variables, locks
from ansible_collections.mlops.mlflow.plugins.filter.plan import SERVICES
from ansible_collections.mlops.mlflow.plugins.module_utils import external, preflight
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined

ROOT = Path(__file__).resolve().parents[2]
FILTERS = FilterModule().filters()
NOW = 1_800_000_000.0

# A sentence of the report has none of these letters, so a value made of them is there only if it was shown.
HIDDEN = st.text("ЖЯШЭ", min_size=1, max_size=40)


def inputs(**variables: Any) -> list[str]:
    """Return the problems of a host whose inventory says this."""
    found: list[str] = FILTERS["input_problems"](variables)
    return found


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts of a host on which everything fits."""
    return {
        "distribution": "Debian",
        "distribution_version": "13.1",
        "distribution_major_version": "13",
        "architecture": "x86_64",
        "python": {"version": {"major": 3, "minor": 13}},
        "memtotal_mb": 8000,
        "processor_vcpus": 4,
        "all_ipv4_addresses": ["10.0.0.7"],
        "all_ipv6_addresses": ["fd00::7"],
    } | changes


def report(**changes: Any) -> dict[str, Any]:
    """Return what host_report says about such a host."""
    seen = {"listeners": [], "unresolved": [], "free_mib": 40000, "installed": False, "clock_skew": 0.0, "clusters": [], "foreign_unit": False}
    seen |= {"ssh_connection": "10.0.0.1 40000 10.0.0.7 22", "ssh_ports": [22]}
    return seen | {"database_disk": {"size_mib": 100_000, "kind": "ssd"}, "mlflow": {}} | changes


def listener(port: int, unit: str = "", program: str = "", user: str = "root", protocol: str = "tcp", address: str = "0.0.0.0") -> dict[str, Any]:
    """Return one listening socket."""
    return {"port": port, "unit": unit, "program": program, "user": user, "protocol": protocol, "address": address}


def need(total: int = 256, workers: int = 2, unknown: list[str] | None = None, elsewhere: bool = False) -> dict[str, Any]:
    """Return what a site needs of connections."""
    parts = [{"what": "m: 2 workers", "count": total - 10}, {"what": "reserve", "count": 10}]
    found = {"total": total, "workers": workers, "parts": parts, "by_store": {"tracking": total - 10, "auth": 0}}
    return {**found, "unknown": unknown or [], "elsewhere": elsewhere}


def host(
    services: list[str],
    seen: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    connections: dict[str, Any] | None = None,
    share: float = 1.0,
    **variables: Any,
) -> list[str]:
    """Return the problems of a host with these services, report, facts and variables, beside those that the inventory alone shows."""
    values = {"ansible_facts": about or facts(), **variables}
    values.setdefault("__preflight_problems", FILTERS["input_problems"](values))
    found: list[str] = FILTERS["host_problems"](values, services, {"report": seen or report()}, connections or need(), share)
    return found


# --- The inventory ---


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"mlflow_prot": 5000}, "mlflow_prot: there is no such variable; did you mean mlflow_port?"),
        ({"postgresql_shared_bufers": "1GB"}, "postgresql_shared_bufers: there is no such variable; did you mean postgresql_shared_buffers?"),
        ({"sources_zzzzzzzz": 1}, "sources_zzzzzzzz: there is no such variable; docs/variables.md lists the variables that exist"),
        (
            {"postgresql_shared_buffers": 512},
            "postgresql_shared_buffers = 512: '512' is no memory size with a unit such as 512MB or 4GB (units: B, kB, MB, GB, TB)",
        ),
        ({"postgresql_work_mem": "8 mb"}, "postgresql_work_mem = '8 mb': '8 mb' is no memory size with a unit such as 512MB or 4GB (units: B, kB, MB, GB, TB)"),
        ({"mlflow_port": 70000}, "mlflow_port = 70000: a TCP port is a number from 1 to 65535"),
        ({"object_store_port": 7480.5}, "object_store_port = 7480.5: a TCP port is a number from 1 to 65535"),
        ({"mlflow_database_host": "[fd00::7]"}, "mlflow_database_host = '[fd00::7]': brackets belong into URLs; leave them out: fd00::7"),
        ({"mlflow_database_port": "5_432"}, "mlflow_database_port = '5_432': a TCP port is a number from 1 to 65535"),
        ({"postgresql_port": True}, "postgresql_port = True: a TCP port is a number from 1 to 65535"),
        ({"mlflow_workers": "auto"}, "mlflow_workers = 'auto': use a number from 1 to 512, or leave it out"),
        ({"mlflow_workers": None}, "mlflow_workers = None: use a number from 1 to 512, or leave it out"),
        ({"postgresql_max_connections": 5}, "postgresql_max_connections = 5: use a number from 10 to 262143, or leave it out"),
        ({"postgresql_memory_share": 0}, "postgresql_memory_share = 0: use a part of the memory above 0 and at most 1, such as 0.5"),
        ({"postgresql_memory_share": "50%"}, "postgresql_memory_share = '50%': use a part of the memory above 0 and at most 1, such as 0.5"),
        ({"mlflow_database_max_overflow": 0}, "mlflow_database_max_overflow = 0: use a number of connections; MLflow ignores 0"),
        ({"mlflow_database_pool_size": "20.5"}, "mlflow_database_pool_size = '20.5': use a number of connections; MLflow ignores 0"),
        (
            {"mlflow_database_pool_size": "10"},
            "mlflow_database_pool_size + mlflow_database_max_overflow = 11: below 41, the 40 request threads of a worker can wait for each "
            "other's second connection; use 41 or more together",
        ),
        ({"postgresql_hba": "all"}, "postgresql_hba = 'all': use a list of entries"),
        (
            {"postgresql_hba": [{"address": "samenet"}, {"type": "tcp", "address": "samenet"}]},
            "postgresql_hba[1] = {'type': 'tcp', 'address': 'samenet'}: type 'tcp' is unknown; use one of local, host, hostssl, hostnossl, "
            "hostgssenc, hostnogssenc",
        ),
        (
            {"postgresql_hba": [{"address": "samenet", "method": "trust"}]},
            "postgresql_hba[0] = {'address': 'samenet', 'method': 'trust'}: method 'trust' lets anybody in without a password; use scram-sha-256, "
            "or peer for local",
        ),
        (
            {"postgresql_hba": [{"address": "10.0.0.300/8"}]},
            "postgresql_hba[0] = {'address': '10.0.0.300/8'}: address '10.0.0.300/8' is no network in CIDR form such as 10.0.0.0/8 "
            "('10.0.0.300/8' does not appear to be an IPv4 or IPv6 network)",
        ),
        (
            {"mlflow_artifacts_destination": "gs://bucket"},
            "mlflow_artifacts_destination = 'gs://bucket': use s3://bucket/prefix, the bucket 3 to 63 characters long, or an absolute folder on the host",
        ),
        (
            {"mlflow_artifacts_destination": "./a"},
            "mlflow_artifacts_destination = './a': use s3://bucket/prefix, the bucket 3 to 63 characters long, or an absolute folder on the host",
        ),
        (
            {"mlflow_s3_endpoint_url": "s3.example.org:9000", "mlflow_artifacts_destination": "s3://bucket"},
            "mlflow_s3_endpoint_url = 's3.example.org:9000': use a URL with a scheme, such as https://s3.example.org:9000",
        ),
        (
            {"mlflow_s3_endpoint_url": "https://[::1", "mlflow_artifacts_destination": "s3://bucket"},
            "mlflow_s3_endpoint_url = 'https://[::1': use a URL with a scheme, such as https://s3.example.org:9000",
        ),
        (
            {"mlflow_s3_endpoint_url": "https://s3:99999", "mlflow_artifacts_destination": "s3://bucket"},
            "mlflow_s3_endpoint_url = 'https://s3:99999': use a URL with a scheme, such as https://s3.example.org:9000",
        ),
        (
            {"mlflow_s3_endpoint_url": "https://s3.example.org"},
            "mlflow_s3_endpoint_url = 'https://s3.example.org': set mlflow_artifacts_destination too, such as s3://bucket/prefix",
        ),
        (
            {"mlflow_s3_access_key_id": "AKIA"},
            "mlflow_s3_secret_access_key is missing: half a key pair opens nothing; set it, or leave out mlflow_s3_access_key_id too",
        ),
        (
            {"mlflow_s3_secret_access_key": "x", "mlflow_s3_access_key_id": ""},
            "mlflow_s3_access_key_id is missing: half a key pair opens nothing; set it, or leave out mlflow_s3_secret_access_key too",
        ),
        ({"mlflow_version": "latest"}, f"mlflow_version = 'latest': use a version in quotes, such as '{locks()[-1]}'"),
        ({"mlflow_version": 3.1}, f"mlflow_version = 3.1: use a version in quotes, such as '{locks()[-1]}'"),
        (
            {"mlflow_version": "3.0.0", "mlflow_unlocked": False},
            f"mlflow_version = '3.0.0': there is no lock for it, only for {', '.join(locks())}; use one of these, name a lock of your own in "
            "mlflow_lock_file, or allow unchecked packages with mlflow_unlocked: true",
        ),
        (
            {"mlflow_lock_file": "/nowhere/lock.txt"},
            "mlflow_lock_file = '/nowhere/lock.txt': there is no such file on the controller; use an absolute path, or leave it out",
        ),
        ({"postgresql_version": 9.6}, "postgresql_version = 9.6: use a major version, 14 or newer, such as 17"),
        ({"postgresql_version": "17.2"}, "postgresql_version = '17.2': use a major version, 14 or newer, such as 17"),
        ({"mlflow_auth": "ldap"}, "mlflow_auth = 'ldap': use basic, proxy or none"),
        ({"mlflow_admin_password": "short"}, "mlflow_admin_password = (not shown): MLflow wants 12 characters or more"),
        (
            {"mlflow_admin_password": "password1234"},
            "mlflow_admin_password = (not shown): that one stood in older releases of MLflow, so that everybody knows it; use another",
        ),
        ({"mlflow_users": {"alice": "x"}}, "mlflow_users: its value is not shown; use a list of mappings, each with a name"),
        ({"mlflow_users": [{"name": "a"}, {"name": "b", "experiments": {"x": "WRITE"}}]}, "mlflow_users[1]: 'b': experiments.x: the permission 'WRITE' is "),
        ({"mlflow_users": [{"name": "boss"}], "mlflow_admin_user": "boss"}, "mlflow_users[0]: 'boss' is the administrator of mlflow_admin_user, with "),
        (
            {"mlflow_users": [{"name": "a"}], "mlflow_version": "3.1.4"},
            "mlflow_users: MLflow 3.1.4 has no interface for their permissions; use 3.14 or newer, or leave them out",
        ),
        (
            {"mlflow_jobs": True, "mlflow_version": "3.1.4"},
            "mlflow_jobs = True: MLflow 3.1.4 has other jobs or none; use 3.16 or newer, or leave it out",
        ),
        (
            {"mlflow_jobs": "yes", "mlflow_auth": "proxy", "gateway_auth_url": "http://127.0.0.1:4180"},
            "mlflow_jobs = 'yes': with mlflow_auth proxy jobs cannot sign in; use mlflow_auth basic, or leave it out",
        ),
        (
            {"mlflow_environment": {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}},
            "mlflow_environment.MLFLOW_SERVER_ENABLE_JOB_EXECUTION: its value is not shown; set mlflow_jobs instead, from which other values follow",
        ),
        (
            {"mlflow_users": [{"name": "a"}], "mlflow_auth": "none"},
            "mlflow_users: with mlflow_auth none there are no users; set mlflow_auth to basic, or leave them out",
        ),
        ({"mlflow_allowed_hosts": "a.example.org"}, "mlflow_allowed_hosts = 'a.example.org': use a list"),
        ({"postgresql_listen_addresses": "*"}, "postgresql_listen_addresses = '*': use a list"),
        ({"postgresql_users": {"x": "y"}}, "postgresql_users: its value is not shown; use a list of mappings, each with a name"),
        ({"postgresql_users": [{"name": "a"}, "b"]}, "postgresql_users[1]: an entry is a mapping with a name, such as {name: mlflow_reader, grants: read, "),
        ({"postgresql_users": [{"name": "mlflow"}]}, "postgresql_users[0]: the name 'mlflow' is taken by MLflow or PostgreSQL itself; choose another"),
        (
            {"mlflow_database_owner_user": "boss", "postgresql_users": [{"name": "mlflow_owner"}, {"name": "boss"}]},
            "postgresql_users[1]: the name 'boss' is taken by MLflow or PostgreSQL itself; choose another",
        ),
        ({"postgresql_users": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "postgresql_users: 'a' stands there twice; leave one"),
        ({"postgresql_users": [{"name": "a", "connections": 0}]}, "postgresql_users[0]: connections is 0; use a number from 1 on, or leave it out for 5"),
        ({"postgresql_databases": ["mlflow"]}, "postgresql_databases: there is no such variable; did you mean "),
        ({"mlflow_environment": ["A=1"]}, "mlflow_environment: its value is not shown; use a mapping of names and values"),
    ],
)
def test_bad_input_is_one_line(variables: dict[str, Any], line: str) -> None:
    """The line alone, word for word, as the user will read it."""
    (only,) = inputs(**variables)
    assert only == line or (line[-1] == " " and only.startswith(line))


def test_all_problems_are_told_at_once() -> None:
    """None hides another."""
    bad = {"mlflow_port": 0, "mlflow_workers": 0, "mlflow_database_pool_size": 1, "postgresql_work_mem": 1, "mlflow_auth": "x", "mlflow_x": 1}
    assert len(inputs(**bad)) == len(bad)


def test_valid_input_gives_no_problem(tmp_path: Path) -> None:
    """Every checked variable with a good value, numbers also as strings; names of others are none of our business."""
    lock = tmp_path / "lock.txt"
    lock.write_text("", encoding="utf-8")
    assert inputs() == []
    assert (
        inputs(
            ansible_host="10.0.0.7",
            mlops_address="10.0.0.7",
            mlflowish=1,
            mlflow_version="3.20.0rc1",
            mlflow_lock_file=str(lock),
            mlflow_port="5001",
            mlflow_workers=4,
            mlflow_auth="basic",
            mlflow_admin_password="p@s:s/w%o'r x",
            mlflow_users=[{"name": "alice", "experiments": {"churn": "EDIT"}}, {"name": "bob", "state": "absent"}],
            mlflow_allowed_hosts=["mlflow.example.org"],
            mlflow_database_host="db.example.org",
            mlflow_database_port=5432,
            mlflow_database_pool_size=40,
            mlflow_database_max_overflow="1",
            mlflow_artifacts_destination="s3://my.bucket-1/a/b.c",
            mlflow_s3_endpoint_url="https://s3.example.org:9000",
            mlflow_s3_access_key_id="a",
            mlflow_s3_secret_access_key="b",
            mlflow_environment={"MLFLOW_LOGGING_LEVEL": "DEBUG"},
            postgresql_version=17,
            postgresql_listen_addresses=["localhost", "*"],
            postgresql_hba=[{"address": "10.0.0.0/8"}],
            postgresql_memory_share=1.0,
            postgresql_max_connections="200",
            postgresql_shared_buffers="1.5GB",
            postgresql_work_mem="64kB",
            postgresql_users=[{"name": "a", "password": "b"}, {"name": "b", "grants": "write", "addresses": ["10.0.0.0/8"], "connections": 3}],
            postgresql_service_users=[{"name": "a", "password": "b"}],
            postgresql_service_databases=[{"name": "a", "owner": "b"}],
            postgresql_service_hba=[{"address": "10.0.0.7"}],
            postgresql_disk_kind="hdd",
            postgresql_disk_size="100GB",
            postgresql_settings={"maintenance_work_mem": "1GB", "jit": True, "max_wal_size": None},
            host_firewall="yes",
            host_firewall_allow=[{"port": 9100}, {"port": ["80", 443], "sources": ["10.0.0.0/8", "fd00::1"], "comment": "web"}],
            host_firewall_ssh_sources=["10.0.0.0/8"],
            host_firewall_ssh_ports=["2222"],
            host_firewall_rollback_after="60",
        )
        == []
    )
    assert inputs(mlflow_version="3.0.0", mlflow_unlocked="yes", mlflow_artifacts_destination="/srv/artifacts", postgresql_version="") == []


def test_every_variable_of_every_role_is_known() -> None:
    """The defaults are all in the specs, so none of them is taken for a misspelt one."""
    names = {name for role in generate.load_roles(ROOT) for name in role.defaults}
    assert len(names) > 50
    assert names <= set(known_variables())


def secret_variables() -> list[str]:
    """Return the variables that the specs call secrets."""
    points = [spec.get("options") or {} for role in generate.load_roles(ROOT) for spec in role.entry_points.values()]
    return sorted({name for options in points for name, option in options.items() if option.get("no_log")})


def test_there_are_secrets() -> None:
    """The test below would pass on none."""
    assert {"mlflow_admin_password", "mlflow_webhook_key", "mlflow_s3_secret_access_key"} <= set(secret_variables())


@pytest.mark.parametrize("name", secret_variables())
@given(value=HIDDEN, wrap=st.sampled_from([lambda value: value, lambda value: [value], lambda value: {"a": value}]))
def test_secrets_are_never_shown(name: str, value: str, wrap: Any) -> None:
    """Neither as they should be nor in a value of the wrong kind."""
    assert value not in preflight.problem(name, wrap(value), "x")
    assert value not in "".join(inputs(**{name: wrap(value)}))


@given(value=HIDDEN)
def test_secrets_inside_other_values_are_never_shown(value: str) -> None:
    """Passwords of roles, options of pg_hba (an LDAP password), environment variables."""
    lines = inputs(
        postgresql_users=[{"password": value}],
        mlflow_users=[{"password": value}],
        postgresql_hba=[{"address": "nonsense", "method": "ldap", "options": f"ldapbindpasswd={value}"}],
        mlflow_environment=[f"KEY={value}"],
    )
    assert len(lines) == 4
    assert value not in "".join(lines)


class Lazy(dict[str, Any]):
    """The variables of a host as Ansible hands them over: reading one that cannot be evaluated fails."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if isinstance(value, Exception):
            raise value
        return value


@pytest.mark.parametrize("value", [ValueError("'x' is undefined"), StrictUndefined(name="x"), {"a": [StrictUndefined(name="x")]}])
def test_a_value_that_cannot_be_evaluated(value: Any) -> None:
    """It is a problem like others once there are facts, and before that it may be waiting for them."""
    broken = Lazy(mlflow_workers=value, mlflow_port=0)
    port = "mlflow_port = 0: a TCP port is a number from 1 to 65535"
    assert FILTERS["input_problems"](broken) == [port]
    broken["ansible_facts"] = {"discovered_interpreter_python": "/usr/bin/python3"}
    assert FILTERS["input_problems"](broken) == [port]
    broken["ansible_facts"] = facts()
    assert FILTERS["input_problems"](broken) == ["mlflow_workers: its value cannot be evaluated: 'x' is undefined", port]


def test_values_made_of_facts_are_checked_when_there_are_facts() -> None:
    """What the first look could not see, the second does, and it repeats nothing."""
    said = ["mlflow_port = 0: a TCP port is a number from 1 to 65535"]
    late = host([], mlflow_port=0, mlflow_workers=0, **{"__preflight_problems": said})
    assert late == ["mlflow_workers = 0: use a number from 1 to 512, or leave it out"]


# --- The hosts ---


@pytest.mark.parametrize(
    ("services", "changes", "line"),
    [
        (
            ["mlflow"],
            {"distribution": "Fedora", "distribution_version": "42", "distribution_major_version": "42"},
            "distribution = 'Fedora 42': use Debian 12 or 13 (Ubuntu 22.04 and 24.04 are accepted, untested)",
        ),
        (
            ["object_store"],
            {"distribution_version": "12.9", "distribution_major_version": "12"},
            "distribution = 'Debian 12.9': the role object_store needs Debian 13; take this host out of the group object_store",
        ),
        (["mlflow"], {"architecture": "riscv64"}, "architecture = 'riscv64': MLflow's packages exist for x86_64 and aarch64"),
        (["mlflow"], {"python": {"version": {"major": 3, "minor": 9}}}, "Python = 3.9: MLflow needs 3.10 or newer; use a newer distribution"),
        (
            ["mlflow", "postgresql"],
            {"memtotal_mb": 2000},
            "memory = 2000 MiB: mlflow and postgresql need 2600 MiB here; give the host more, or move one to another host",
        ),
    ],
)
def test_hosts_that_do_not_do(services: list[str], changes: dict[str, Any], line: str) -> None:
    """Distribution, architecture, Python and memory."""
    assert host(services, about=facts(**changes)) == [line]


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        ({"free_mib": 3000}, "free disk at / = 3000 MiB: mlflow and postgresql need 3500 MiB here; give the host more, or move one to another host"),
        (
            {"clock_skew": -61},
            "clock = -61 s off the controller's: certificates and S3 requests will be refused; set the time (systemd-timesyncd, chrony)",
        ),
        (
            {"clock_skew": 3600},
            "clock = +3600 s off the controller's: certificates and S3 requests will be refused; set the time (systemd-timesyncd, chrony)",
        ),
        (
            {"unresolved": [["mlflow_database_host", "db.exampel.org"]]},
            "mlflow_database_host = 'db.exampel.org': this host cannot resolve the name; mend DNS or /etc/hosts, or use an address",
        ),
        ({"listeners": [listener(5432, "redis.service")]}, "postgresql_port = 5432: the port is in use by redis.service; stop that, or choose another port"),
        ({"listeners": [listener(5000, "", "python3", "eve")]}, "mlflow_port = 5000: the port is in use by python3; stop that, or choose another port"),
        (
            {"listeners": [listener(5000, user="eve"), listener(5000, user="eve")]},
            "mlflow_port = 5000: the port is in use by a program of the user eve; stop that, or choose another port",
        ),
        (
            {"listeners": [listener(5000, "", "python3", "eve")], "installed": True},
            "mlflow_port = 5000: the port is in use by python3; stop that, or choose another port",
        ),
    ],
)
def test_what_a_host_has_running(seen: dict[str, Any], line: str) -> None:
    """Disk, clock, names and ports."""
    assert host(["mlflow", "postgresql"], report(**seen)) == [line]


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"clock_skew": 59},
        {"listeners": [listener(5000, "mlflow.service"), listener(5432, "postgresql@17-main.service"), listener(22, "ssh.service")]},
        {"listeners": [listener(5000), listener(5432, user="postgres")], "installed": True},
        {"listeners": [listener(5000, "syslog.service", protocol="udp")]},
        {"free_mib": 10, "installed": True},
    ],
)
def test_hosts_that_do(seen: dict[str, Any]) -> None:
    """A bare host, our own services, and a host that was set up and does not let us look."""
    assert host(["mlflow", "postgresql"], report(**seen)) == []


def test_a_host_without_services_needs_nothing() -> None:
    """Small, full, and its ports are its own."""
    seen = report(free_mib=1, listeners=[listener(5000, "x.service")])
    assert host([], seen, facts(memtotal_mb=100), postgresql_shared_buffers="1TB", mlflow_listen_address="10.9.9.9") == []


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"postgresql_listen_addresses": ["localhost", "10.0.0.8"]}, "postgresql_listen_addresses = '10.0.0.8': this host does not have that address; "),
        ({"mlflow_listen_address": "fd00::8"}, "mlflow_listen_address = 'fd00::8': this host does not have that address; it has 10.0.0.7, fd00::7"),
        ({"postgresql_port": 5000}, "postgresql_port = 5000: mlflow_port has the same port on this host; choose another"),
        (
            {"postgresql_version": 16},
            "postgresql_version = '16': Debian 13 has 17; name a repository that has it in sources_apt_repositories, or leave it out",
        ),
    ],
)
def test_wishes_that_a_host_cannot_grant(variables: dict[str, Any], line: str) -> None:
    """Addresses that it does not have, memory beyond its own, two services on one port, a version that its sources lack."""
    (only,) = host(["mlflow", "postgresql"], **variables)
    assert only.startswith(line)


@pytest.mark.parametrize(
    "variables",
    [
        {"postgresql_listen_addresses": ["localhost", "*", "127.0.0.2", "::1", "10.0.0.7", "FD00:0::7", "db.example.org"]},
        {"mlflow_listen_address": "0.0.0.0"},
        {"mlflow_listen_address": "::"},
        {"postgresql_shared_buffers": "2GB", "postgresql_work_mem": "2MB"},
        {"postgresql_version": "17"},
        {"postgresql_version": "16", "sources_apt_repositories": [{"name": "pgdg"}]},
    ],
)
def test_wishes_that_a_host_grants(variables: dict[str, Any]) -> None:
    """The address written in another way is the same address, and a name is looked up with the others."""
    assert host(["mlflow", "postgresql"], **variables) == []


def test_names_to_resolve() -> None:
    """Names that the host's own services use; no addresses, no folders of sockets, and nothing from a URL that is none."""
    variables = {
        "mlflow_database_host": "db.example.org",
        "mlflow_s3_endpoint_url": "https://S3.example.org:9000/x",
        "mlflow_listen_address": "0.0.0.0",
        "postgresql_listen_addresses": ["localhost", "*", "10.0.0.7"],
    }

    def names(services: list[str], **changes: Any) -> list[tuple[str, str]]:
        return [(each["variable"], each["name"]) for each in FILTERS["names_to_resolve"](variables | changes, services)]

    mlflow = [("mlflow_database_host", "db.example.org"), ("mlflow_s3_endpoint_url", "s3.example.org")]
    assert names(["mlflow"]) == mlflow
    assert names(["mlflow", "postgresql"]) == [*mlflow, ("postgresql_listen_addresses", "localhost")]
    assert names(["object_store"]) == []
    for place in ("/run/postgresql", "10.0.0.7", "[::1]", ""):
        assert names(["mlflow"], mlflow_database_host=place, mlflow_s3_endpoint_url="https://[::1") == []


# --- A certificate of the user's own ---


def write_certificate(folder: Path, names: list[str], days: int = 30) -> dict[str, str]:
    """Write the files of a certificate that is its own CA; return the variables for them."""
    now, name = datetime.datetime.now(datetime.timezone.utc), x509.Name([])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=60)).not_valid_after(now + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {"pki_certificate_file": pem, "pki_key_file": private, "pki_ca_file": pem}
    for variable, content in files.items():
        (folder / f"{variable}.pem").write_bytes(content)
    return {variable: str(folder / f"{variable}.pem") for variable in files}


def test_certificates_are_read_from_the_controller(tmp_path: Path) -> None:
    """A line for each file with something wrong: with the variable, the name of the file, and the remedy."""
    check = FILTERS["certificate_problems"]
    variables = write_certificate(tmp_path, ["db.example.org"])
    assert inputs(**variables) == check(variables, ["db.example.org"], ["server"]) == check(variables, [], ["server"]) == []
    assert check(variables, ["10.0.0.7"], ["server"]) == [
        "pki_certificate_file = 'pki_certificate_file.pem': it is for db.example.org, and this host is reached as 10.0.0.7; use a certificate "
        "for that too, or reach it by one of its names (mlflow_database_host, gateway_server_names)"
    ]
    (expired,) = check(write_certificate(tmp_path, ["db.example.org"], -1), ["db.example.org"], ["server"])
    assert expired.startswith("pki_certificate_file = 'pki_certificate_file.pem': it expired on ")
    Path(variables["pki_key_file"]).write_text("no key", encoding="utf-8")
    (garbage,) = check(variables, ["db.example.org"], ["server"])
    assert "no key" not in garbage and garbage.endswith(": it is no private key in PEM form without a passphrase; use one")


def test_an_encrypted_key_is_left_to_ansible(tmp_path: Path) -> None:
    """The role pki has it decrypted, and checks it then; as it stands, it would be no key."""
    variables = write_certificate(tmp_path, ["db.example.org"])
    Path(variables["pki_key_file"]).write_text("$ANSIBLE_VAULT;1.1;AES256\n3061\n", encoding="utf-8")
    assert FILTERS["certificate_problems"](variables, ["db.example.org"], ["server"]) == []


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({"mlflow_database_password": "one"}, 0),
        ({"mlflow_database_password": "one", "mlflow_database_owner_password": "one"}, 0),
        ({"mlflow_database_password": "one", "mlflow_database_owner_password": "two"}, 1),
        ({"mlflow_database_password": "one", "mlflow_database_owner_password": "two", "mlflow_database_owner_user": "mlflow_owner"}, 0),
    ],
)
def test_one_role_has_one_password(variables: dict[str, str], lines: int) -> None:
    """Where the owner is the server too, the second of two passwords would be tried in vain."""
    found = inputs(**{"mlflow_database_owner_user": "mlflow", **variables})
    remedy = "it differs from mlflow_database_password, and both are of one role; leave one out"
    assert found == [f"mlflow_database_owner_password = (not shown): {remedy}"] * lines


def test_certificates_that_are_not_there_have_a_line_already(tmp_path: Path) -> None:
    """Nothing else is said of them; without the variables the site has a CA of its own."""
    variables = write_certificate(tmp_path, ["db.example.org"])
    Path(variables["pki_ca_file"]).unlink()
    (line,) = inputs(**variables)
    assert line.startswith("pki_ca_file = ") and FILTERS["certificate_problems"](variables, ["x"], ["server"]) == []
    assert FILTERS["certificate_problems"]({}, ["x"], ["server"]) == []
    assert FILTERS["certificate_problems"]({"pki_certificate_file": ["x"], "pki_key_file": "", "pki_ca_file": None}, ["x"], ["server"]) == []


def test_the_text_of_a_file(tmp_path: Path) -> None:
    """Letter by letter."""
    (tmp_path / "ca.pem").write_text("é\n\n", encoding="utf-8")
    assert FILTERS["file_text"](str(tmp_path / "ca.pem")) == "é\n\n"


# --- A PostgreSQL of somebody else's ---


def target(owner: str = "mlflow_owner", server: str = "mlflow", password: str = "x", owner_password: str = "y", **changes: Any) -> dict[str, Any]:
    """Return the options of database_report as playbooks/group_vars/all.yml makes them."""
    about = {"host": "db", "port": 5432, "sslmode": "verify-full", "ca_file": "", "ca_text": "", "databases": [{"store": "tracking", "name": "mlflow"}]}
    roles = {"owner": {"user": owner, "password": owner_password}, "server": {"user": server, "password": password}, "further_users": []}
    return about | roles | changes


def test_passwords_that_only_the_owner_of_the_server_knows() -> None:
    """None of them can be made here."""
    missing = FILTERS["missing_passwords"]
    assert missing(target()) == []
    assert missing(target(password="")) == ["mlflow_database_password is missing: set it to the password of the role mlflow on db"]
    assert missing(target(password="", owner_password="", owner="boss")) == [
        "mlflow_database_password is missing: set it to the password of the role mlflow on db",
        "mlflow_database_owner_password is missing: set it to the password of the role boss on db",
    ]


def test_one_role_needs_one_password() -> None:
    """In whichever of the two variables."""
    missing = FILTERS["missing_passwords"]
    assert missing(target(owner="one", server="one", password="")) == missing(target(owner="one", server="one", owner_password="")) == []
    assert missing(target(owner="one", server="one", password="", owner_password="")) == [
        "mlflow_database_password is missing: set it to the password of the role one on db"
    ]


def test_passwords_are_asked_for_where_the_roles_are_made() -> None:
    """All at once, beside what else is wrong; a server of somebody else's has its own."""
    users = [{"name": "team a"}, {"name": "b", "password": ""}, {"name": "c", "grants": "x"}]
    assert inputs(postgresql_users=users[:2], mlflow_database_host="db.example.org") == host(["mlflow"], postgresql_users=users[:2]) == []
    cannot, empty = host(["mlflow", "postgresql"], postgresql_users=users)
    assert cannot.startswith("postgresql_users[0]: the password of 'team a' cannot be made") and empty.startswith("postgresql_users[1]: the password of 'b'")


def test_the_target_has_no_password() -> None:
    """What the sentences are made of cannot show one."""
    assert database_target(target(password="ЖЯШ", owner_password="ЭЖЯ")) == {
        "host": "db",
        "port": 5432,
        "sslmode": "verify-full",
        "databases": [{"store": "tracking", "name": "mlflow"}],
        "owner_user": "mlflow_owner",
        "server_user": "mlflow",
        "single_role": False,
    }
    assert database_target(target(server="one", owner="one"))["single_role"] is True


def test_what_a_database_of_somebody_elses_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other look said is not said again."""
    asked = []

    def problems(report: Any, about: dict[str, Any], connections: dict[str, Any]) -> list[str]:
        asked.append((report, about["owner_user"], connections))
        return ["said", "new"]

    monkeypatch.setattr(external, "database_problems", problems)
    connections = need()
    check = FILTERS["database_problems"]
    assert check({"__preflight_problems": ["said"]}, target(), {"report": {"a": 1}}, connections) == ["new"]
    assert asked == [({"a": 1}, "mlflow_owner", connections)]
    for looked in ({"skipped": True}, {"unreachable": True}):
        assert check({}, target(), looked, connections) == FILTERS["database_notices"](looked, target()) == []


def test_notices_of_a_database_of_somebody_elses() -> None:
    """One role for both, and less than full TLS."""
    looked = {"report": {"databases": [{"owner": {"kind": "ok", "tls": True}, "facts": None}]}}
    assert FILTERS["database_notices"](looked, target()) == []
    single, weaker = FILTERS["database_notices"](looked, target(owner="mlflow", sslmode="require"))
    assert single.startswith("mlflow_database_owner_user and mlflow_database_user are both mlflow: ")
    assert weaker.startswith("mlflow_database_sslmode is require: ") and weaker.endswith("; verify-full prevents that")


# --- The report ---


def test_hosts_with_the_same_problem_share_a_line() -> None:
    """In the order of the first mention; a host that was to be looked at and was not is a problem of its own."""
    problems = {"a": ["x", "y"], "b": [], "c": ["y", "z"], "d": None}
    hosts = [{"inventory_hostname": name, "__preflight_problems": lines} for name, lines in problems.items()]
    unseen = {"inventory_hostname": "e"}
    assert FILTERS["problem_report"]([*hosts, unseen], looked=False) == ["a: x", "a, c: y", "c: z"]
    seen = [host | {"__preflight_looked_at": True} for host in hosts]
    assert FILTERS["problem_report"]([*seen, unseen])[-1] == "e: this host could not be looked at; its error is above"


def test_what_follows_from_a_host_that_cannot_be_reached_is_left_out() -> None:
    """Its connections are unknown for that reason; with --limit there is no other."""
    unknown = host(["postgresql"], connections=need(unknown=["m"]))
    gone = FILTERS["host_problems"]({"ansible_facts": {}}, ["mlflow"], {"unreachable": True}, need())
    database = {"inventory_hostname": "d", "__preflight_problems": unknown, "__preflight_looked_at": True}
    mlflow = {"inventory_hostname": "m", "__preflight_problems": gone, "__preflight_looked_at": True}
    assert FILTERS["problem_report"]([database]) == [f"d: {unknown[0]}"]
    assert FILTERS["problem_report"]([database, mlflow]) == [f"m: {gone[0]}"]


def test_a_host_that_cannot_be_reached_is_a_line() -> None:
    """And nothing else is said of it."""
    for looked in ({"unreachable": True}, {"report": report()}):
        (line,) = FILTERS["host_problems"]({"ansible_facts": {}, "mlflow_port": 0}, ["mlflow"], looked, need())
        assert line.startswith("this host cannot be reached by SSH")


def test_strangers_are_left_alone() -> None:
    """A cluster or a unit that is not ours is not taken over, and ours is not left behind for another version."""

    def lines(cluster: dict[str, Any], **variables: Any) -> list[str]:
        seen = {"report": report(clusters=[cluster], foreign_unit=False)}
        return FILTERS["host_problems"]({"ansible_facts": facts(), **variables}, ["postgresql"], seen, need())

    theirs = {"version": "17", "name": "main", "ours": False, "settings": {}}
    ours = {"version": "15", "name": "main", "ours": True, "settings": {}}
    assert lines(theirs)[0].startswith("postgresql_cluster = 'main': there is a cluster 17/main that is not ours")
    assert lines(theirs, postgresql_cluster="mlflow") == []
    assert lines(ours)[0].startswith("postgresql_version = '17': MLflow's data is in the cluster 15/main")
    assert lines(ours | {"version": "17"}) == []
    foreign = FILTERS["host_problems"]({"ansible_facts": facts()}, ["mlflow"], {"report": report(foreign_unit=True)}, need())
    assert foreign[0].startswith("mlflow.service = '/etc/systemd/system/mlflow.service': somebody else's unit")


def test_the_way_to_another_version_of_postgresql() -> None:
    """Only the playbook for it may go there, and down only to a cluster that was kept; other runs are told about it."""

    def lines(wanted: str, *versions: str, aside: str = "", upgrades: bool = False) -> list[str]:
        clusters = [{"version": each, "name": "main", "ours": True, "aside": each == aside, "settings": {}} for each in versions]
        seen = {"report": report(clusters=clusters, foreign_unit=False)}
        return FILTERS["host_problems"]({"ansible_facts": facts(), "postgresql_version": wanted}, ["postgresql"], seen, need(), upgrades=upgrades)

    assert "run playbooks/upgrade_postgresql.yml, or set it to '15'" in lines("17", "15")[0]
    assert lines("17", "15", upgrades=True) == []
    # After the upgrade.
    assert lines("17", "15", "17", aside="15") == []
    assert "run playbooks/upgrade_postgresql.yml, or set it to '17'" in lines("15", "15", "17", aside="15")[0]
    assert lines("15", "15", "17", aside="15", upgrades=True) == []
    # After the way back, or an upgrade that was interrupted.
    assert lines("15", "15", "17", aside="17") == []
    assert lines("17", "15", "17", aside="17", upgrades=True) == []
    (line,) = lines("15", "17", upgrades=True)
    assert "there is no way down but to a cluster that an upgrade has kept; set it to '17' or higher" in line


# --- PostgreSQL's plan ---


def row(setting: str, vartype: str = "integer", unit: str | None = None, low: str = "0", enumvals: list[str] | None = None) -> dict[str, Any]:
    """Return a row of pg_settings as host_report has it."""
    limits = {"min_val": low, "max_val": "2147483647"} if vartype in ("integer", "real") else {"min_val": None, "max_val": None}
    about = {"setting": setting, "vartype": vartype, "unit": unit, "context": "sighup", "enumvals": enumvals, "pending_restart": False}
    return about | limits | {"source": "default", "boot_val": setting, "ours": False}


KNOWN = {
    "autovacuum_max_workers": row("3", low="1"),
    "effective_cache_size": row("524288", unit="8kB", low="1"),
    "hash_mem_multiplier": row("2", "real", low="1"),
    "jit": row("on", "bool"),
    "logical_decoding_work_mem": row("65536", unit="kB", low="64"),
    "maintenance_work_mem": row("65536", unit="kB", low="64"),
    "max_connections": row("100", low="1"),
    "max_wal_size": row("1024", unit="MB", low="2"),
    "min_wal_size": row("80", unit="MB", low="2"),
    "port": row("5432", low="1"),
    "shared_buffers": row("16384", unit="8kB", low="16"),
    "temp_buffers": row("1024", unit="8kB", low="100"),
    "wal_keep_size": row("0", unit="MB"),
    "wal_level": row("replica", "enum", enumvals=["minimal", "replica", "logical"]),
    "work_mem": row("4096", unit="kB", low="64"),
}
RUNNING = [{"version": "17", "name": "main", "ours": True, "settings": KNOWN}]


def lines(clusters: list[dict[str, Any]], variables: dict[str, Any], **given: Any) -> list[str]:
    """Return all that is said about a host that runs MLflow and PostgreSQL, by the look at its variables and that at itself."""
    return inputs(**variables) + host(["mlflow", "postgresql"], report(clusters=clusters), **given, **variables)


SIZE = "is no memory size with a unit such as 512MB or 4GB (units: B, kB, MB, GB, TB)"
PART = "use a part of the memory above 0 and at most 1, such as 0.5"


@pytest.mark.parametrize("clusters", [RUNNING, []], ids=["running", "bare"])
@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"postgresql_work_mem": "8 mb"}, f"postgresql_work_mem = '8 mb': '8 mb' {SIZE}"),
        ({"postgresql_work_mem": "-1"}, f"postgresql_work_mem = '-1': '-1' {SIZE}"),
        ({"postgresql_shared_buffers": 512}, f"postgresql_shared_buffers = 512: '512' {SIZE}"),
        ({"postgresql_shared_buffers": "60GB"}, "postgresql_shared_buffers = '60GB': the memory of all connections and caches together "),
        ({"postgresql_work_mem": "2001MB"}, "postgresql_work_mem = '2001MB': the memory of all connections and caches together "),
        ({"postgresql_memory_share": 0}, f"postgresql_memory_share = 0: {PART}"),
        ({"postgresql_memory_share": "0.0"}, f"postgresql_memory_share = '0.0': {PART}"),
        ({"postgresql_memory_share": -0.5}, f"postgresql_memory_share = -0.5: {PART}"),
        ({"postgresql_memory_share": 1.01}, f"postgresql_memory_share = 1.01: {PART}"),
        ({"postgresql_memory_share": "half"}, f"postgresql_memory_share = 'half': {PART}"),
        ({"postgresql_memory_share": None}, f"postgresql_memory_share = None: {PART}"),
        ({"postgresql_memory_share": True}, f"postgresql_memory_share = True: {PART}"),
        ({"postgresql_memory_share": 0.01}, "postgresql_max_connections = 256: 80 MiB for PostgreSQL (postgresql_memory_share = 0.01 of 8000 MiB) leave "),
        ({"postgresql_max_connections": "many"}, "postgresql_max_connections = 'many': use a number from 10 to 262143, or leave it out"),
        ({"postgresql_max_connections": None}, "postgresql_max_connections = None: use a number from 10 to 262143, or leave it out"),
        (
            {"postgresql_max_connections": 100},
            "postgresql_max_connections = 100: 256 are needed (m: 2 workers = 246, reserve = 10); use that, leave it out, or use fewer mlflow_workers",
        ),
        ({"postgresql_max_connections": "0100"}, "postgresql_max_connections = '0100': 256 are needed (m: 2 workers = 246, reserve = 10); "),
        ({"postgresql_max_connections": 20000}, "postgresql_max_connections = 20000: 7936 MiB for PostgreSQL (postgresql_memory_share = 1 of 8000 MiB) "),
        ({"postgresql_disk_size": "100 gb"}, f"postgresql_disk_size = '100 gb': '100 gb' {SIZE}"),
        ({"postgresql_disk_size": -1}, f"postgresql_disk_size = -1: '-1' {SIZE}"),
        ({"postgresql_disk_size": 1.5}, f"postgresql_disk_size = 1.5: '1.5' {SIZE}"),
        ({"postgresql_disk_size": "50%"}, f"postgresql_disk_size = '50%': '50%' {SIZE}"),
        ({"postgresql_disk_size": "²"}, f"postgresql_disk_size = '²': '²' {SIZE}"),
        ({"postgresql_disk_size": [1]}, f"postgresql_disk_size = [1]: '[1]' {SIZE}"),
        ({"postgresql_disk_size": 500}, "postgresql_disk_size = 500 MiB: the log of the server alone wants 30 % of 2048 MiB; use a larger disk"),
        ({"postgresql_settings": {"Data_Directory": "/srv"}}, "postgresql_settings.Data_Directory = '/srv': the cluster's places and files are "),
        ({"postgresql_disk_kind": "nvme"}, "postgresql_disk_kind = 'nvme': use one of ssd, hdd"),
        ({"postgresql_version": "x"}, "postgresql_version = 'x': use a major version, 14 or newer, such as 17"),
        ({"postgresql_version": [17]}, "postgresql_version = [17]: use a major version, 14 or newer, such as 17"),
        ({"postgresql_version": 13}, "postgresql_version = 13: use a major version, 14 or newer, such as 17"),
        ({"postgresql_settings": ["x"]}, "postgresql_settings: its value is not shown; use a mapping of names and values"),
        ({"postgresql_settings": {"work_mem": "8 mb"}}, "postgresql_settings.work_mem = '8 mb': set postgresql_work_mem instead, from which "),
        ({"postgresql_settings": {"Work_Mem": "8GB"}}, "postgresql_settings.Work_Mem = '8GB': set postgresql_work_mem instead, from which "),
        ({"postgresql_settings": {"sort_mem": "8GB"}}, "postgresql_settings.sort_mem = '8GB': this is another name of work_mem; set postgresql_work_mem "),
        ({"postgresql_settings": {"Jit": True}}, "postgresql_settings.Jit = True: this is another name of jit; set postgresql_settings.jit instead"),
        ({"postgresql_settings": {"max_connections": "many"}}, "postgresql_settings.max_connections = 'many': set postgresql_max_connections instead, "),
        ({"postgresql_settings": {"port": "x"}}, "postgresql_settings.port = 'x': set postgresql_port instead, from which other values follow"),
        ({"postgresql_settings": {"temp_buffers": 1024}}, f"postgresql_settings.temp_buffers = 1024: '1024' {SIZE}"),
        ({"postgresql_settings": {"temp_buffers": "9GB"}}, "postgresql_settings.temp_buffers = '9GB': the host has 8000 MiB; use at most 2000MB, "),
        ({"postgresql_settings": {"TEMP_BUFFERS": "9GB"}}, "postgresql_settings.TEMP_BUFFERS = '9GB': the host has 8000 MiB; use at most 2000MB, or leave "),
        (
            {"postgresql_settings": {"logical_decoding_work_mem": "2001MB"}},
            "postgresql_settings.logical_decoding_work_mem = '2001MB': the host has 8000 MiB; use at most 2000MB, or leave it out",
        ),
        ({"postgresql_settings": {"effective_cache_size": "9GB"}}, "postgresql_settings.effective_cache_size = '9GB': the host has no more; use "),
        ({"postgresql_settings": {"maintenance_work_mem": "7GB"}}, "postgresql_settings.maintenance_work_mem = '7GB': the memory of all connections and "),
        ({"postgresql_settings": {"maintenance_work_mem": 64}}, f"postgresql_settings.maintenance_work_mem = 64: '64' {SIZE}"),
        ({"postgresql_settings": {"min_wal_size": "20GB"}}, "postgresql_settings.min_wal_size = '20GB': max_wal_size is no larger; use at most 8192MB"),
        ({"postgresql_settings": {"wal_keep_size": "90GB"}}, "postgresql_settings.wal_keep_size = '90GB': WAL may take 30 % of its disk of 100000 MiB; "),
        ({"mlflow_workers": "auto"}, "mlflow_workers = 'auto': use a number from 1 to 512, or leave it out"),
        ({"mlflow_database_pool_size": "x"}, "mlflow_database_pool_size = 'x': use a number of connections; MLflow ignores 0"),
        ({"postgresql_users": [{"name": "a", "connections": "x"}]}, "postgresql_users[0]: connections is 'x'; use a number from 1 on, or leave it out for 5"),
    ],
)
def test_one_mistake_is_one_line(clusters: list[dict[str, Any]], variables: dict[str, Any], line: str) -> None:
    """From the two looks together, on a host with a server and on a bare one: nothing that only follows from the mistake is said too."""
    (only,) = lines(clusters, variables)
    assert only == line or (line[-1] == " " and only.startswith(line))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"shared_bufers": "1GB"}, "shared_bufers = '1GB': this server has no such setting; did you mean shared_buffers?"),
        ({"jit": "maybe"}, "jit = 'maybe': is neither on nor off; use one of them"),
        ({"wal_level": "x"}, "wal_level = 'x': is unknown; use one of minimal, replica, logical"),
        ({"temp_buffers": 64}, "temp_buffers = 64: is out of range; use 800kB to 15TB (without a unit it counts in 8kB)"),
        ({"temp_buffers": "8 mb"}, "temp_buffers = '8 mb': unit 'mb' is unknown here; write MB (case matters)"),
        ({"logical_decoding_work_mem": "x"}, "logical_decoding_work_mem = 'x': is no number; write one such as 64MB"),
        ({"maintenance_work_mem": "9 mb"}, "maintenance_work_mem = '9 mb': unit 'mb' is unknown here; write MB (case matters)"),
        ({"effective_cache_size": "8 gb"}, "effective_cache_size = '8 gb': unit 'gb' is unknown here; write GB (case matters)"),
        ({"hash_mem_multiplier": 0}, "hash_mem_multiplier = 0: is out of range; use 1 to 2147483647"),
        ({5: 6}, "5 = 6: this server has no such setting; leave it out"),
    ],
)
def test_the_server_that_runs_knows_its_settings(settings: dict[str, Any], line: str) -> None:
    """Names, units and ranges are its own; another cluster's, or those of a server that is not there yet, are not asked."""
    assert lines(RUNNING, {"postgresql_settings": settings}) == [f"postgresql_settings.{line}"]
    named = [cluster | {"version": "16", "name": "other"} for cluster in RUNNING]
    assert lines(named, {"postgresql_settings": {"shared_bufers": "1GB"}}) == []


def test_a_value_that_the_server_that_runs_would_refuse() -> None:
    """Those with a variable of their own too."""
    assert lines(RUNNING, {"postgresql_work_mem": "1kB"}) == ["postgresql_work_mem = '1kB': is out of range; use 64kB to 2047GB"]


@pytest.mark.parametrize("clusters", [RUNNING, []], ids=["running", "bare"])
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"postgresql_max_connections": 300},
        {"postgresql_memory_share": "0.5"},
        {"postgresql_memory_share": 1},
        {"postgresql_disk_size": "100GB", "postgresql_disk_kind": "hdd"},
        {"postgresql_disk_size": 100_000},
        {"postgresql_disk_size": "100000"},
        {"postgresql_disk_size": ""},
        {"postgresql_disk_size": 0},
        {"postgresql_settings": {"temp_buffers": None, "logical_decoding_work_mem": "64MB", "max_wal_size": None}},
        {"postgresql_settings": {"temp_buffers": "2000MB", "effective_cache_size": "8000MB"}},
        {"postgresql_settings": {"maintenance_work_mem": "1GB", "pg_stat_statements.max": 1000, "jit": "ON"}},
        {"postgresql_shared_buffers": "", "postgresql_work_mem": ""},
    ],
)
def test_wishes_that_can_be_planned_around(clusters: list[dict[str, Any]], variables: dict[str, Any]) -> None:
    """Every one of them is within the bound."""
    assert lines(clusters, variables) == []


def test_fewer_connections_than_the_pools_can_open() -> None:
    """They are well with something in between, a pooler for instance."""
    few = {"postgresql_max_connections": 100}
    assert host(["postgresql"], connections=need(256, elsewhere=True), **few) == []
    assert len(host(["postgresql"], connections=need(256), **few)) == 1


def test_the_plan_is_made_for_what_the_host_has() -> None:
    """Its memory and the share of it, and the site's connections."""
    assert host(["postgresql"], connections=need(400)) == []
    (line,) = host(["postgresql"], connections=need(9000), share=0.5)
    assert line.startswith("postgresql_max_connections = 9000: 3968 MiB for PostgreSQL (postgresql_memory_share = 0.5 of 8000 MiB) leave them ")
    assert "give the host " in line
    (line,) = host(["postgresql"], about=facts(memtotal_mb=1000))
    assert line.startswith("postgresql_max_connections = 256: ")
    assert host(["mlflow"], connections=need(9000)) == []


@pytest.mark.parametrize("variables", [{"postgresql_memory_share": "half"}, {"mlflow_workers": "auto"}, {"postgresql_settings": {"port": 1}}])
def test_no_plan_is_made_of_what_is_wrong(variables: dict[str, Any]) -> None:
    """That it would not fit either is known only when the mistake is mended; other mistakes do not hide it."""
    assert len(lines([], variables, connections=need(9000))) == 1
    assert len(lines([], {"mlflow_auth": "x"}, connections=need(9000))) == 2


def test_hosts_that_nobody_looked_at() -> None:
    """A plan without their connections would take them away, unless the inventory says how many there are."""
    (line,) = host(["postgresql"], connections=need(unknown=["a", "b"]))
    assert line.startswith("mlflow_workers: nobody has looked at a, b, so that ")
    assert host(["postgresql"], connections=need(unknown=["a"]), postgresql_max_connections=300) == []


def test_the_version_of_the_cluster_that_is_there_has_the_first_word() -> None:
    """Where the other version would come from does not matter then."""
    (line,) = lines(RUNNING, {"postgresql_version": 16})
    assert line.startswith("postgresql_version = '16': MLflow's data is in the cluster 17/main")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.text(), PLAIN, max_size=2)
SIZING = sorted(preflight.PLANNED_FROM - {"postgresql_settings"})


@given(st.sampled_from(SIZING), ANYTHING)
def test_any_value_of_what_a_plan_starts_from_is_at_most_one_line(name: str, value: Any) -> None:
    """Never a traceback, and never a second line."""
    found = lines(RUNNING, {name: value})
    if name != "postgresql_users":
        assert len(found) <= 1
    assert len(found) == len(set(found))


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)) | st.text(min_size=1), ANYTHING, max_size=1))
def test_any_setting_is_at_most_one_line(settings: dict[str, Any]) -> None:
    """With a server that says what is wrong, and with none."""
    for clusters in (RUNNING, []):
        assert len(lines(clusters, {"postgresql_settings": settings})) <= 1


def test_what_lines_are_about() -> None:
    """Variables, and the names in postgresql_settings."""
    said = ["mlflow_port = 0: x", "postgresql_hba[1] = 2: x", "a_x + b = 1", "postgresql_settings.a.b = 1: x", "postgresql_users: x", " x"]
    assert preflight.named(said) == {"mlflow_port", "postgresql_hba", "a_x", "postgresql_settings.a.b", "postgresql_users"}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"postgresql_settings": {"work_mem": "8MB"}},
            "postgresql_settings.work_mem = '8MB': set postgresql_work_mem instead, from which other values follow",
        ),
        (
            {"postgresql_settings": {"HBA_File": "/x"}},
            "postgresql_settings.HBA_File = '/x': set postgresql_hba instead, from which other values follow",
        ),
        ({"postgresql_settings": None}, "postgresql_settings = None: use a mapping of names and values, or leave it out"),
        ({"sources_ca_files": None}, "sources_ca_files = None: use a list, or leave it out"),
        ({"postgresql_disk_kind": "nvme"}, "postgresql_disk_kind = 'nvme': use one of ssd, hdd"),
        ({"pki_key_file": ["x"]}, "pki_key_file = ['x']: use one value"),
        ({"pki_key_file": "/no"}, "pki_key_file = '/no': there is no such file on the controller; use an absolute path, or leave it out"),
        ({"mlflow_lock_file": 5}, "mlflow_lock_file = 5: "),
        ({"artifact_store_region": "x"}, "artifact_store_region: its value is not shown; set mlflow_s3_region instead, this one is filled from it"),
        ({"mlops_adress": "10.0.0.7"}, "mlops_adress: there is no such variable; did you mean mlops_address?"),
        ({"mlflow_port": 80}, "mlflow_port = 80: the service runs without privileges; use a port from 1024 to 65535"),
        (
            {"sources_python_index_url": "https://u:p@index.example.org"},
            "sources_python_index_url: its value is not shown; everybody on the host could read a password in it; use an address without one",
        ),
        (
            {"sources_python_proxy": "http://u:pw@proxy.example.org:3128"},
            "sources_python_proxy: its value is not shown; everybody on the host could read a password in it; use an address without one",
        ),
        ({"sources_ca_files": ["/no/ca.pem"]}, "sources_ca_files = '/no/ca.pem': there is no such file on the controller; use an absolute path"),
        ({"mlflow_default_permission": "ALL"}, "mlflow_default_permission = 'ALL': use one of READ, USE, EDIT, MANAGE, NO_PERMISSIONS"),
        ({"postgresql_settings": ["work_mem"]}, "postgresql_settings: its value is not shown; use a mapping of names and values"),
        ({"postgresql_restart_allowed": "maybe"}, "postgresql_restart_allowed = 'maybe': use true or false"),
        ({"sources_ca_files": "/ca.pem"}, "sources_ca_files: its value is not shown; use a list"),
        ({"mlflow_webhook_key": "x"}, "mlflow_webhook_key = (not shown): a Fernet key is 32 bytes in URL-safe base64: openssl rand 32 | base64 | tr +/ -_"),
        ({"mlflow_kek_passphrase": ""}, "mlflow_kek_passphrase = (not shown): it is empty; give it a value, or leave it out to have one made"),
        (
            {"mlflow_s3_endpoint_url": "https://u:pw@s3.example.org"},
            "mlflow_s3_endpoint_url: its value is not shown; keys do not belong into it, but into mlflow_s3_access_key_id and "
            "mlflow_s3_secret_access_key",
        ),
    ],
)
def test_types_and_choices_come_from_the_specs(variables: dict[str, Any], line: str) -> None:
    """What no check of its own is about."""
    (only,) = inputs(**variables)
    assert only == line or (line[-1] == " " and only.startswith(line))


def test_services_are_the_groups() -> None:
    """Every group that a play is for is one whose needs are known."""
    specs = generate.load_yaml(generate.ROOT / "roles/preflight/meta/argument_specs.yml")
    known = set(specs["argument_specs"]["main"]["options"]["preflight_services"]["choices"])
    assert known == set(SERVICES) == set(preflight.MIN_MEMORY_MIB) == set(preflight.MIN_FREE_MIB)


def test_notices() -> None:
    """What is allowed and still worth knowing, and nothing about hosts without MLflow."""
    notices = FILTERS["input_notices"]
    assert notices({}, ["postgresql"], "/var/lib/mlflow/artifacts") == []
    assert [line.split()[0] for line in notices({}, ["mlflow"], "s3://b")] == ["MLflow"]
    assert "artifacts go to the folder /a of this host" in notices({}, ["mlflow"], "/a")[1]
    assert "artifacts go to the folder /own of this host" in notices({"mlflow_artifacts_destination": "/own"}, ["mlflow"], "s3://b")[1]
    assert [line.partition(":")[0] for line in notices({"mlflow_auth": "none", "mlflow_unlocked": True}, ["mlflow"], "s3://b")[1:]] == [
        "mlflow_auth is none",
        "mlflow_unlocked is true",
    ]
    assert FILTERS["host_notices"]({"ansible_facts": facts()}) == []
    ubuntu = {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}
    assert FILTERS["host_notices"]({"ansible_facts": facts(**ubuntu)}) == ["Ubuntu 24.04 shares the code path of Debian, but the tests do not cover it"]


def play(inventory: str, folder: Path) -> str:
    """Run the playbook on an inventory, without contacting its hosts, and return what it says; it must fail."""
    (folder / "hosts.yml").write_text(inventory, encoding="utf-8")
    command = [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.yml", "--skip-tags", "hosts", "playbooks/preflight.yml"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0, result.stdout
    return result.stdout + result.stderr


def test_a_group_that_is_needed_and_empty(tmp_path: Path) -> None:
    """The first thing that can be wrong with an inventory."""
    assert "The group postgresql has no host: add one to the inventory" in play("all: {children: {mlflow: {hosts: {one: }}, postgresql: }}\n", tmp_path)


def test_the_playbook_reports_all_hosts_at_once(tmp_path: Path) -> None:
    """Values that need facts, or the site's plan, are no problem at this point; nobody is contacted."""
    inventory = """
all:
  vars: {ansible_connection: ssh, mlflow_workers: "{{ ansible_facts['processor_vcpus'] * 2 }}", mlflow_prot: 1}
  children:
    mlflow: {hosts: {one.invalid: {mlflow_port: 0}, three.invalid: {mlflow_workers: auto}}}
    postgresql: {hosts: {two.invalid: }}
"""
    said = play(inventory, tmp_path)
    assert "one.invalid, three.invalid, two.invalid: mlflow_prot: there is no such variable; did you mean mlflow_port?" in said
    assert "one.invalid: mlflow_port = 0: a TCP port is a number from 1 to 65535" in said
    assert "three.invalid: mlflow_workers = 'auto': use a number from 1 to 512, or leave it out" in said
    assert all(line.strip().startswith("three.invalid: ") for line in said.splitlines() if "mlflow_workers" in line) and "UNREACHABLE" not in said
