"""What is refused before anything is changed: one line for each problem, with the variable, the value seen and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import generate
import pytest
from ansible_collections.mlops.mlflow.plugins.filter.checks import FilterModule, known_variables, locks
from ansible_collections.mlops.mlflow.plugins.module_utils import preflight
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
        "all_ipv4_addresses": ["10.0.0.7"],
        "all_ipv6_addresses": ["fd00::7"],
    } | changes


def report(**changes: Any) -> dict[str, Any]:
    """Return what host_report says about such a host."""
    return {"listeners": [], "unresolved": [], "free_mib": 40000, "installed": False, "clock_skew": 0.0, "clusters": [], "foreign_unit": False} | changes


def listener(port: int, unit: str = "", program: str = "", user: str = "root") -> dict[str, Any]:
    """Return one listening socket."""
    return {"port": port, "unit": unit, "program": program, "user": user}


def host(
    monkeypatch: pytest.MonkeyPatch, services: list[str], seen: dict[str, Any] | None = None, about: dict[str, Any] | None = None, **variables: Any
) -> list[str]:
    """Return the problems of a host with these services, report, facts and variables."""
    found: list[str] = FILTERS["host_problems"]({"ansible_facts": about or facts(), **variables}, services, {"report": seen or report()})
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
            "postgresql_shared_buffers = 512: 512 is no memory size with a unit such as 512MB or 4GB (units: B, kB, MB, GB, TB)",
        ),
        ({"postgresql_work_mem": "8 mb"}, "postgresql_work_mem = '8 mb': '8 mb' is no memory size with a unit such as 512MB or 4GB (units: B, kB, MB, GB, TB)"),
        ({"mlflow_port": 70000}, "mlflow_port = 70000: a TCP port is a number from 1 to 65535"),
        ({"object_store_port": 7480.5}, "object_store_port = 7480.5: a TCP port is a number from 1 to 65535"),
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
            "mlflow_database_pool_size + mlflow_database_max_overflow = 31: below 41, the 40 request threads of a worker can wait for each "
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
        ({"mlflow_auth": "ldap"}, "mlflow_auth = 'ldap': use basic or none"),
        ({"mlflow_admin_password": "short"}, "mlflow_admin_password = (not shown): MLflow wants 12 characters or more"),
        ({"mlflow_allowed_hosts": "a.example.org"}, "mlflow_allowed_hosts = 'a.example.org': use a list"),
        ({"postgresql_listen_addresses": "*"}, "postgresql_listen_addresses = '*': use a list"),
        ({"postgresql_users": {"x": "y"}}, "postgresql_users: its value is not shown; use a list of mappings, each with a name"),
        ({"postgresql_databases": ["mlflow"]}, "postgresql_databases: its value is not shown; use a list of mappings, each with a name"),
        ({"mlflow_environment": ["A=1"]}, "mlflow_environment: its value is not shown; use a mapping of names and values"),
    ],
)
def test_bad_input_is_one_line(variables: dict[str, Any], line: str) -> None:
    """The line alone, word for word, as the user will read it."""
    assert inputs(**variables) == [line]


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
            mlflow_version="3.0.0rc1",
            mlflow_lock_file=str(lock),
            mlflow_port="5001",
            mlflow_workers=4,
            mlflow_auth="basic",
            mlflow_admin_password="p@s:s/w%o'r x",
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
            postgresql_users=[{"name": "a", "password": "b"}],
            postgresql_databases=[{"name": "a", "owner": "b"}],
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
        postgresql_hba=[{"address": "nonsense", "method": "ldap", "options": f"ldapbindpasswd={value}"}],
        mlflow_environment=[f"KEY={value}"],
    )
    assert len(lines) == 3
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


def test_values_made_of_facts_are_checked_when_there_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first look could not see, the second does, and it repeats nothing."""
    said = ["mlflow_port = 0: a TCP port is a number from 1 to 65535"]
    late = host(monkeypatch, [], mlflow_port=0, mlflow_workers=0, **{"__preflight_problems": said})
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
def test_hosts_that_do_not_do(monkeypatch: pytest.MonkeyPatch, services: list[str], changes: dict[str, Any], line: str) -> None:
    """Distribution, architecture, Python and memory."""
    assert host(monkeypatch, services, about=facts(**changes)) == [line]


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
def test_what_a_host_has_running(monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any], line: str) -> None:
    """Disk, clock, names and ports."""
    assert host(monkeypatch, ["mlflow", "postgresql"], report(**seen)) == [line]


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"clock_skew": 59},
        {"listeners": [listener(5000, "mlflow.service"), listener(5432, "postgresql@17-main.service"), listener(22, "ssh.service")]},
        {"listeners": [listener(5000), listener(5432, user="postgres")], "installed": True},
        {"free_mib": 10, "installed": True},
    ],
)
def test_hosts_that_do(monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]) -> None:
    """A bare host, our own services, and a host that was set up and does not let us look."""
    assert host(monkeypatch, ["mlflow", "postgresql"], report(**seen)) == []


def test_a_host_without_services_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small, full, and its ports are its own."""
    seen = report(free_mib=1, listeners=[listener(5000, "x.service")])
    assert host(monkeypatch, [], seen, facts(memtotal_mb=100), postgresql_shared_buffers="1TB", mlflow_listen_address="10.9.9.9") == []


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"postgresql_listen_addresses": ["localhost", "10.0.0.8"]}, "postgresql_listen_addresses = '10.0.0.8': this host does not have that address; "),
        ({"mlflow_listen_address": "fd00::8"}, "mlflow_listen_address = 'fd00::8': this host does not have that address; it has 10.0.0.7, fd00::7"),
        ({"postgresql_shared_buffers": "6GB"}, "postgresql_shared_buffers = '6GB': the host has 8000 MiB; use at most 4800MB, or leave it out"),
        (
            {"postgresql_settings": {"maintenance_work_mem": "9TB"}},
            "postgresql_settings.maintenance_work_mem = '9TB': the host has 8000 MiB; use at most 2000MB, or leave it out",
        ),
        ({"postgresql_work_mem": "2001MB"}, "postgresql_work_mem = '2001MB': the host has 8000 MiB; use at most 2000MB, or leave it out"),
        ({"postgresql_port": 5000}, "postgresql_port = 5000: mlflow_port has the same port on this host; choose another"),
        (
            {"postgresql_version": 16},
            "postgresql_version = '16': Debian 13 has 17; name a repository that has it in sources_apt_repositories, or leave it out",
        ),
    ],
)
def test_wishes_that_a_host_cannot_grant(monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], line: str) -> None:
    """Addresses that it does not have, memory beyond its own, two services on one port, a version that its sources lack."""
    (only,) = host(monkeypatch, ["mlflow", "postgresql"], **variables)
    assert only.startswith(line)


@pytest.mark.parametrize(
    "variables",
    [
        {"postgresql_listen_addresses": ["localhost", "*", "127.0.0.2", "::1", "10.0.0.7", "FD00:0::7", "db.example.org"]},
        {"mlflow_listen_address": "0.0.0.0"},
        {"mlflow_listen_address": "::"},
        {"postgresql_shared_buffers": "4GB", "postgresql_work_mem": "1GB"},
        {"postgresql_version": "17"},
        {"postgresql_version": "16", "sources_apt_repositories": [{"name": "pgdg"}]},
    ],
)
def test_wishes_that_a_host_grants(monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]) -> None:
    """The address written in another way is the same address, and a name is looked up with the others."""
    assert host(monkeypatch, ["mlflow", "postgresql"], **variables) == []


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


# --- The report ---


def test_hosts_with_the_same_problem_share_a_line() -> None:
    """In the order of the first mention; a host that was to be looked at and was not is a problem of its own."""
    problems = {"a": ["x", "y"], "b": [], "c": ["y", "z"], "d": None}
    hosts = [{"inventory_hostname": name, "__preflight_problems": lines} for name, lines in problems.items()]
    unseen = {"inventory_hostname": "e"}
    assert FILTERS["problem_report"]([*hosts, unseen], looked=False) == ["a: x", "a, c: y", "c: z"]
    seen = [host | {"__preflight_looked_at": True} for host in hosts]
    assert FILTERS["problem_report"]([*seen, unseen])[-1] == "e: this host could not be looked at; its error is above"


def test_a_host_that_cannot_be_reached_is_a_line() -> None:
    """And nothing else is said of it."""
    assert FILTERS["host_problems"]({"ansible_facts": {}}, ["mlflow"], {"unreachable": True})[0].startswith("this host cannot be reached by SSH")


def test_strangers_are_left_alone() -> None:
    """A cluster or a unit that is not ours is not taken over, and ours is not left behind for another version."""

    def lines(cluster: dict[str, Any], **variables: Any) -> list[str]:
        seen = {"report": report(clusters=[cluster], foreign_unit=False)}
        return FILTERS["host_problems"]({"ansible_facts": facts(), **variables}, ["postgresql"], seen)

    theirs, ours = {"version": "17", "name": "main", "ours": False}, {"version": "15", "name": "main", "ours": True}
    assert lines(theirs)[0].startswith("postgresql_cluster = 'main': there is a cluster 17/main that is not ours")
    assert lines(theirs, postgresql_cluster="mlflow") == []
    assert lines(ours)[0].startswith("postgresql_version = '17': MLflow's data is in the cluster 15/main")
    assert lines(ours | {"version": "17"}) == []
    foreign = FILTERS["host_problems"]({"ansible_facts": facts()}, ["mlflow"], {"report": report(foreign_unit=True)})
    assert foreign[0].startswith("mlflow.service = '/etc/systemd/system/mlflow.service': somebody else's unit")


def test_the_plan_is_made_before_anything_is_changed() -> None:
    """Connections below the need of the pools, and memory too small for them."""

    def lines(connections: int, memory: int = 8000, **variables: Any) -> list[str]:
        about = {"ansible_facts": facts(memtotal_mb=memory), **variables}
        return FILTERS["host_problems"](about, ["postgresql"], {"report": report()}, connections)

    assert lines(256) == []
    assert lines(256, postgresql_max_connections=300) == []
    assert lines(256, postgresql_max_connections=100)[0].startswith("postgresql_max_connections = 100: the pools of the MLflow hosts can open 256")
    assert lines(9000, 1024)[0].startswith("postgresql_max_connections = 9000: 1024 MiB for PostgreSQL are too few for 9000 connections")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"postgresql_settings": {"work_mem": "8MB"}},
            "postgresql_settings.work_mem = '8MB': set postgresql_work_mem instead, from which other values follow",
        ),
        (
            {"postgresql_settings": {"temp_buffers": 64}},
            "postgresql_settings.temp_buffers = 64: 64 is no memory size with a unit such as 512MB or 4GB (units: B, kB, MB, GB, TB)",
        ),
        ({"artifact_store_region": "x"}, "artifact_store_region: its value is not shown; set mlflow_s3_region instead, this one is filled from it"),
        ({"mlops_adress": "10.0.0.7"}, "mlops_adress: there is no such variable; did you mean mlops_address?"),
        ({"mlflow_port": 80}, "mlflow_port = 80: the service runs without privileges; use a port from 1024 to 65535"),
        (
            {"sources_python_index_url": "https://u:p@index.example.org"},
            "sources_python_index_url: its value is not shown; everybody on the host could read a password in it; use an address without one",
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
    assert FILTERS["input_problems"](variables) == [line]


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
    mlflow: {hosts: {one.invalid: {mlflow_port: 0}}}
    postgresql: {hosts: {two.invalid: }}
"""
    said = play(inventory, tmp_path)
    assert "one.invalid, two.invalid: mlflow_prot: there is no such variable; did you mean mlflow_port?" in said
    assert "one.invalid: mlflow_port = 0: a TCP port is a number from 1 to 65535" in said
    assert "mlflow_workers" not in said and "UNREACHABLE" not in said
