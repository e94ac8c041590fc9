"""What the playbooks do when they are run again, with bad input, or all at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_mlflow import basic, opener

PROJECT = Path(__file__).resolve().parents[2]
Playbook = Callable[..., Any]

# One fault in each, of all that can be checked one by one.
BAD_INPUT = {
    "mlflow_prot": 5001,
    "postgresql_shared_bufers": "4GB",
    "mlflow_version": "latest",
    "mlflow_workers": "many",
    "postgresql_max_connections": 5,
    "postgresql_memory_share": 1.5,
    "postgresql_work_mem": 64,
    "postgresql_settings": {"max_connections": "lots", "work_memory": "4MB", "checkpoint_timeout": "2d", "wal_compression": "zip", "temp_buffers": "900GB"},
    "postgresql_hba": [
        {"type": "hots", "address": "10.0.0.0/8"},
        {"address": "10.0.0.300/8"},
        {"method": "trust", "address": "10.0.0.0/8"},
        {"method": "ldpa", "address": "10.0.0.0/8", "options": "ldapbindpasswd=tokenBad7"},
    ],
    "postgresql_users": [{"name": "postgres", "password": "tokenBad7"}, {"name": "analyst", "password": "tokenBad7", "grants": "everything"}],
    "postgresql_disk_kind": "floppy",
    "mlflow_artifacts_destination": "gs://bucket",
    "mlflow_s3_endpoint_url": "s3.example.org:443",
    "mlflow_s3_access_key_id": "AKEXAMPLE",
    "mlflow_s3_secret_access_key": "",
    "mlflow_admin_password": "tokenBad7",
    "mlflow_environment": {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "2"},
    "postgresql_listen_addresses": ["203.0.113.9"],
    "mlflow_port": 5432,
}

# How the lines of the report begin, in any order.
REFUSALS = [
    "mlflow_prot: there is no such variable; did you mean mlflow_port?",
    "postgresql_shared_bufers: there is no such variable; did you mean postgresql_shared_buffers?",
    "mlflow_version = 'latest': use a version in quotes, such as '",
    "mlflow_workers = 'many': use a number from 1 to 512, or leave it out",
    "postgresql_max_connections = 5: use a number from 10 to 262143, or leave it out",
    "postgresql_memory_share = 1.5: use a part of the memory above 0 and at most 1",
    "postgresql_work_mem = 64: '64' is no memory size with a unit such as 512MB",
    "postgresql_settings.max_connections = 'lots': set postgresql_max_connections instead",
    "postgresql_settings.work_memory = '4MB': this server has no such setting; did you mean work_mem?",
    "postgresql_settings.checkpoint_timeout = '2d': is out of range; use 30s to 1d",
    "postgresql_settings.wal_compression = 'zip': is unknown; use one of pglz, ",
    "postgresql_settings.temp_buffers = '900GB': the host has ",
    "postgresql_hba[0] = {'type': 'hots', 'address': '10.0.0.0/8'}: type 'hots' is unknown; use one of local, ",
    "postgresql_hba[1] = {'address': '10.0.0.300/8'}: address '10.0.0.300/8' is no network in CIDR form such as 10.0.0.0/8",
    "postgresql_hba[2] = {'method': 'trust', 'address': '10.0.0.0/8'}: method 'trust' lets anybody in without a password; use scram-sha-256",
    "postgresql_hba[3] = {'method': 'ldpa', 'address': '10.0.0.0/8'}: method 'ldpa' is unknown; use one of scram-sha-256, ",
    "postgresql_users[0]: the name 'postgres' is taken by MLflow or PostgreSQL itself; choose another",
    "postgresql_users[1]: grants 'everything' are unknown; use one of read, write",
    "postgresql_disk_kind = 'floppy': use one of ssd, hdd",
    "mlflow_artifacts_destination = 'gs://bucket': use s3://bucket/prefix",
    "mlflow_s3_endpoint_url = 's3.example.org:443': use a URL with a scheme, such as https://s3.example.org:443",
    "mlflow_s3_secret_access_key is missing: half a key pair opens nothing; set it, or leave out mlflow_s3_access_key_id too",
    "mlflow_admin_password = (not shown): MLflow wants 12 characters or more",
    "mlflow_environment.MLFLOW_SQLALCHEMYSTORE_POOL_SIZE: its value is not shown; set mlflow_database_pool_size instead",
    "postgresql_listen_addresses = '203.0.113.9': this host does not have that address; it has ",
    "mlflow_port = 5432: the port is in use by postgresql@",
    "postgresql_port = 5432: mlflow_port has the same port on this host; choose another",
]

# Values that are fine by themselves and do not fit this host, each with the rest of its line, and the value that the line offers.
TOO_MUCH = [
    ("postgresql_shared_buffers", "900GB", r"the memory of all connections and caches together .*; use at most (\d+MB), or leave it out"),
    ("postgresql_work_mem", "100GB", r"the memory of all connections and caches together .*; use at most (\d+[kM]B), or leave it out"),
    ("postgresql_settings.maintenance_work_mem", "900GB", r"the memory of all connections and caches together .*; use at most (\d+MB), or leave it out"),
    ("postgresql_settings.effective_cache_size", "900GB", r"the host has no more; use at most (\d+MB)"),
    ("postgresql_settings.max_wal_size", "900TB", r"WAL may take 30 % of its disk of \d+ MiB; use at most (\d+MB), or a larger disk"),
    ("postgresql_max_connections", 12, r"(\d+) are needed \(.+\); use that, leave it out, or use fewer mlflow_workers"),
]


def state(mlflow: Any, postgresql: Any) -> str:
    """What would differ if something had been changed or restarted."""
    files = "sha256sum /etc/mlflow/* /etc/systemd/system/mlflow.service /etc/postgresql/*/main/pg_hba.conf /etc/postgresql/*/main/conf.d/* 2>/dev/null"
    started = "systemctl show -P ExecMainStartTimestampMonotonic mlflow 'postgresql@*' 2>/dev/null"
    return "\n".join(host.run(f"{files}; {started}").stdout for host in (mlflow, postgresql))


def recap(output: str) -> dict[str, int]:
    """The changes of each host."""
    return {host: int(changed) for host, changed in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", output, re.MULTILINE)}


def report(result: Any, site: dict[str, Any]) -> list[str]:
    """The lines of the preflight's report about the site's host."""
    # At the left margin is Ansible's own copy of it.
    assert len(re.findall(r"^ +Nothing has been changed\. What is wrong, by host:$", result.stdout, re.MULTILINE)) == 1, result.stdout
    return re.findall(rf"^ +{site['name']}: (.+)$", result.stdout, re.MULTILINE)


def setting(name: str, value: Any) -> dict[str, Any]:
    """The variables of an inventory that say what a line of the report names."""
    variable, dummy, key = name.partition(".")
    return {variable: {key: value} if key else value}


def test_bad_input_is_refused_at_once_and_nothing_is_changed(playbook: Playbook, site: dict[str, Any], mlflow: Any, postgresql: Any) -> None:
    """One run, one report, one line for each problem, and no other; a password in it is not shown."""
    before = state(mlflow, postgresql)
    result = playbook("playbooks/site.yml", variables=BAD_INPUT)
    assert result.returncode != 0
    lines = report(result, site)
    assert [refusal for refusal in REFUSALS if sum(line.startswith(refusal) for line in lines) != 1] == []
    assert [line for line in lines if not line.startswith(tuple(REFUSALS))] == []
    assert "tokenBad7" not in result.stdout + result.stderr
    assert set(recap(result.stdout).values()) == {0}
    assert state(mlflow, postgresql) == before


@pytest.mark.parametrize(("name", "value", "remedy"), TOO_MUCH, ids=[name for name, *dummy in TOO_MUCH])
def test_what_does_not_fit_the_host_is_refused(
    playbook: Playbook, site: dict[str, Any], mlflow: Any, postgresql: Any, name: str, value: Any, remedy: str
) -> None:
    """One line, with a value that fits: it is taken."""
    before = state(mlflow, postgresql)
    result = playbook("playbooks/site.yml", variables=setting(name, value))
    assert result.returncode != 0
    lines = report(result, site)
    assert len(lines) == 1
    fitting = re.fullmatch(re.escape(f"{name} = {value!r}: ") + remedy, lines[0])
    assert fitting, lines
    assert set(recap(result.stdout).values()) == {0}
    accepted = playbook("playbooks/preflight.yml", variables=setting(name, fitting.group(1)))
    assert accepted.returncode == 0, accepted.stdout
    assert state(mlflow, postgresql) == before


def test_more_workers_than_the_memory_holds_are_refused(playbook: Playbook, site: dict[str, Any]) -> None:
    """With the number that fits: it is taken."""
    line, *more = report(playbook("playbooks/preflight.yml", variables={"mlflow_workers": 512}), site)
    needed = re.match(r"postgresql_max_connections = (\d+): .* leave them 0 kB of work_mem each, and 512 kB are the least; ", line)
    assert more == [] and needed, line
    # 3 pools of 40 + 1 connections each, and a few of everybody else's.
    assert 512 * 3 * 41 < int(needed.group(1)) < 512 * 3 * 41 + 50
    fitting = re.search(r"use (\d+) mlflow_workers in all instead of 512", line)
    assert fitting, line
    accepted = playbook("playbooks/preflight.yml", variables={"mlflow_workers": fitting.group(1)})
    assert accepted.returncode == 0, accepted.stdout


def test_too_few_connections_are_refused_with_the_arithmetic(playbook: Playbook, site: dict[str, Any], psql: Callable[[str], str]) -> None:
    """The parts come to what is needed, and that is what the server has."""
    line, *more = report(playbook("playbooks/preflight.yml", variables={"postgresql_max_connections": 12}), site)
    total, parts = re.findall(r": (\d+) are needed", line), re.findall(r" = (\d+)[,)]", line)
    assert more == [] and f"{site['name']}: " in line and "superuser_reserved_connections = " in line
    assert total == [str(sum(map(int, parts)))] == [psql("SHOW max_connections")]


def test_empty_group_is_refused(tmp_path: Path) -> None:
    """An inventory without hosts for PostgreSQL, or without any host, installs nothing and says so."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {children: {mlflow: {hosts: {mlflow.example.org: }}}}", encoding="utf-8")
    command = ["ansible-playbook", "--inventory", str(inventory), "playbooks/site.yml"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "The group postgresql has no host" in result.stdout + result.stderr


def test_a_reloadable_setting_restarts_nothing(playbook: Playbook, psql: Callable[[str], str], mlflow: Any) -> None:
    """It is in force, PostgreSQL and MLflow run on; without it the default is back."""
    started = "SELECT pg_postmaster_start_time()"
    process = "systemctl show -P MainPID mlflow"
    before = psql(started), mlflow.check_output(process)
    changed = playbook("playbooks/site.yml", variables={"postgresql_settings": {"log_min_duration_statement": 12345}})
    assert changed.returncode == 0, changed.stdout
    assert psql("SHOW log_min_duration_statement") == "12345ms"
    assert (psql(started), mlflow.check_output(process)) == before
    back = playbook("playbooks/site.yml", "--tags", "postgresql")
    assert back.returncode == 0, back.stdout
    assert psql("SHOW log_min_duration_statement") == "-1"
    assert (psql(started), mlflow.check_output(process)) == before


def test_a_setting_that_needs_a_restart_waits_until_it_is_allowed(playbook: Playbook, psql: Callable[[str], str]) -> None:
    """It is named, and the server runs on; taken back, nothing waits any more; allowed, it is in force after one restart."""
    started = "SELECT pg_postmaster_start_time()"
    before = psql(started)
    later = {"postgresql_settings": {"max_locks_per_transaction": 96}, "postgresql_restart_allowed": False}
    waiting = playbook("playbooks/site.yml", "--tags", "postgresql", variables=later)
    assert waiting.returncode == 0, waiting.stdout
    assert "max_locks_per_transaction" in waiting.stdout
    assert psql(started) == before
    assert playbook("playbooks/site.yml", "--tags", "postgresql").returncode == 0
    assert psql("SHOW max_locks_per_transaction") == "64"
    assert psql(started) == before
    allowed = playbook("playbooks/site.yml", "--tags", "postgresql", variables={"postgresql_settings": {"max_locks_per_transaction": 96}})
    assert allowed.returncode == 0, allowed.stdout
    assert psql("SHOW max_locks_per_transaction") == "96"
    restarted = psql(started)
    assert restarted != before
    # The same again: that was the one restart.
    assert playbook("playbooks/site.yml", "--tags", "postgresql", variables={"postgresql_settings": {"max_locks_per_transaction": 96}}).returncode == 0
    assert psql(started) == restarted
    assert playbook("playbooks/site.yml", "--tags", "postgresql").returncode == 0
    assert psql("SHOW max_locks_per_transaction") == "64"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        # The preflight knows the names of all settings and the ranges of their numbers; what a text may say, the server alone.
        ({"postgresql_settings": {"log_destination": "journal"}}, ["the previous ones stay", 'parameter "log_destination": "journal"']),
        (
            # Shown on request: options may hold a password.
            {
                "postgresql_settings": {"log_min_duration_statement": 12345},
                "postgresql_hba": [{"address": "192.0.2.0/24", "method": "ldap", "options": "ldapnonsense=1"}],
                "postgresql_secure_logging": False,
            },
            ["the previous one is back in place", 'unrecognized authentication option name: "ldapnonsense"'],
        ),
    ],
    ids=["setting", "door"],
)
def test_what_the_server_refuses_does_not_stay(
    playbook: Playbook, psql: Callable[[str], str], postgresql: Any, variables: dict[str, Any], said: list[str]
) -> None:
    """Its own parsers read both files. They are as they were, the one without a fault too, and the server runs on with them."""
    content = "cd /etc/postgresql/*/main && ls . conf.d && cat conf.d/mlops.conf pg_hba.conf"
    started = "SELECT pg_postmaster_start_time()"
    before = postgresql.check_output(content), psql(started)
    result = playbook("playbooks/site.yml", "--tags", "postgresql", variables=variables)
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode != 0
    assert [words for words in said if words not in output] == []
    assert set(recap(result.stdout).values()) == {0}
    assert (postgresql.check_output(content), psql(started)) == before
    assert (psql("SHOW log_destination"), psql("SHOW log_min_duration_statement")) == ("stderr", "-1")
    assert psql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"
    assert psql("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"


def test_hosts_that_migrate_together_do_not_collide(playbook: Playbook, psql: Callable[[str], str]) -> None:
    """Of three at once on an empty database, one migrates and two find it done. The door to that database opens and closes by a reload."""
    started = psql("SELECT pg_postmaster_start_time()")
    door = {"type": "host", "databases": ["mlflow", "mlflow_auth", "scratch"], "users": ["mlflow", "mlflow_owner"], "address": "127.0.0.1"}
    opened = playbook("playbooks/site.yml", "--tags", "postgresql", variables={"postgresql_hba": [door]})
    assert opened.returncode == 0, opened.stdout
    result = playbook("tests/integration/migrate_together.yml")
    closed = playbook("playbooks/site.yml", "--tags", "postgresql")
    assert result.returncode == 0, result.stdout
    assert closed.returncode == 0, closed.stdout
    assert psql("SELECT pg_postmaster_start_time()") == started


def test_output_shows_no_secret(playbook: Playbook, site: dict[str, Any], mlflow: Any, psql: Callable[[str], str]) -> None:
    """Not with -vvv and --diff, not while everything that holds a secret is written again."""
    mlflow.check_output("rm -r /etc/mlflow /etc/systemd/system/mlflow.service")
    psql("ALTER ROLE mlflow PASSWORD 'another'")
    psql("ALTER ROLE mlflow_owner PASSWORD 'another'")
    result = playbook("playbooks/site.yml", "-vvv", "--diff")
    assert result.returncode == 0, result.stdout[-5000:]
    # The roles' passwords, the files, and the service.
    assert recap(result.stdout)[site["name"]] == 3
    assert re.findall(r"^\+\+\+ .*mlflow\.env", result.stdout, re.MULTILINE)
    outputs = [result.stdout, result.stderr]
    logs = list((Path(os.environ["TEST_SITE_FILE"]).parent / "logs").glob("*.log"))
    assert len(logs) == site["interrupted"]
    outputs += [log.read_text(encoding="utf-8") for log in logs]
    spellings = site["secrets"] + [secret.encode("unicode_escape").decode() for secret in site["secrets"]]
    # Reported by number: the test's own output shows none either.
    assert [number for number, secret in enumerate(spellings) for output in outputs if secret in output] == []


def test_the_proof_removes_its_own_only(playbook: Playbook, site: dict[str, Any], postgresql: Any) -> None:
    """What a user has deleted stays where he can restore it."""

    def call(path: str, **body: Any) -> dict[str, Any]:
        headers = {"Authorization": basic("admin", site["admin_password"]), "Content-Type": "application/json"}
        request = urllib.request.Request(f"{site['url']}/api/2.0/mlflow/{path}", json.dumps(body).encode(), headers)
        with opener(site).open(request, timeout=60) as reply:
            return json.load(reply)

    run = call("runs/create", experiment_id="0")["run"]["info"]["run_id"]
    call("runs/delete", run_id=run)
    query = "SELECT (SELECT count(*) FROM experiments), (SELECT count(*) FROM runs), (SELECT count(*) FROM logged_models)"
    count = f"cd / && runuser -u postgres -- psql -XAtd mlflow -c '{query}'"
    before = postgresql.check_output(count)
    result = playbook("playbooks/verify.yml")
    assert result.returncode == 0, result.stdout
    assert postgresql.check_output(count) == before
    call("runs/restore", run_id=run)


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_nothing_is_left_to_do(playbook: Playbook, options: tuple[str, ...]) -> None:
    """After all of this the site is as the inventory says."""
    result = playbook("playbooks/site.yml", *options)
    assert result.returncode == 0, result.stdout
    assert set(recap(result.stdout).values()) == {0}
