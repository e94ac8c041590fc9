"""What the playbooks do when they are run again, with bad input, or all at once."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
Playbook = Callable[..., Any]

BAD_INPUT = {
    "postgresql_shared_bufers": "4GB",
    "mlflow_prot": 5001,
    "postgresql_shared_buffers": "900GB",
    "postgresql_work_mem": 64,
    "postgresql_hba": [{"type": "hots", "address": "10.0.0.0/8"}, {"address": "10.0.0.300/8"}, {"method": "trust", "address": "10.0.0.0/8"}],
    "postgresql_listen_addresses": ["203.0.113.9"],
    "mlflow_artifacts_destination": "gs://bucket",
    "mlflow_s3_endpoint_url": "s3.example.org:443",
    "mlflow_s3_access_key_id": "AKEXAMPLE",
    "mlflow_s3_secret_access_key": "",
    "mlflow_version": "latest",
    "mlflow_port": 5432,
    "postgresql_settings": {"max_connections": 500, "maintenance_work_mem": "900GB"},
    "mlflow_environment": {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "2"},
    "postgresql_max_connections": 12,
}

REFUSALS = [
    "postgresql_shared_bufers: there is no such variable; did you mean postgresql_shared_buffers?",
    "mlflow_prot: there is no such variable; did you mean mlflow_port?",
    "postgresql_shared_buffers = '900GB': the host has",
    "postgresql_work_mem = 64: 64 is no memory size with a unit",
    "type 'hots' is unknown",
    "address '10.0.0.300/8' is no network",
    "method 'trust' lets anybody in",
    "postgresql_listen_addresses = '203.0.113.9': this host does not have that address",
    "mlflow_artifacts_destination = 'gs://bucket': use s3://bucket/prefix",
    "mlflow_s3_endpoint_url = 's3.example.org:443': use a URL with a scheme",
    "mlflow_s3_secret_access_key is missing: half a key pair",
    "mlflow_version = 'latest': use a version",
    "postgresql_settings.max_connections = 500: set postgresql_max_connections instead",
    "postgresql_settings.maintenance_work_mem = '900GB': the host has",
    "mlflow_environment.MLFLOW_SQLALCHEMYSTORE_POOL_SIZE: its value is not shown; set mlflow_database_pool_size instead",
    "mlflow_port = 5432: the port is in use by postgresql@",
    "postgresql_max_connections = 12: the pools of the MLflow hosts can open",
]


def state(mlflow: Any, postgresql: Any) -> str:
    """What would differ if something had been changed or restarted."""
    files = "sha256sum /etc/mlflow/* /etc/systemd/system/mlflow.service /etc/postgresql/*/main/pg_hba.conf /etc/postgresql/*/main/conf.d/* 2>/dev/null"
    started = "systemctl show -P ExecMainStartTimestampMonotonic mlflow 'postgresql@*' 2>/dev/null"
    return "\n".join(host.run(f"{files}; {started}").stdout for host in (mlflow, postgresql))


def recap(output: str) -> dict[str, int]:
    """The changes of each host."""
    return {host: int(changed) for host, changed in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", output, re.MULTILINE)}


def test_bad_input_is_refused_at_once_and_nothing_is_changed(playbook: Playbook, mlflow: Any, postgresql: Any) -> None:
    """One run, one report, every problem in it."""
    before = state(mlflow, postgresql)
    result = playbook("playbooks/site.yml", variables=BAD_INPUT)
    assert result.returncode != 0
    assert [line for line in REFUSALS if line not in result.stdout + result.stderr] == []
    assert set(recap(result.stdout).values()) == {0}
    assert state(mlflow, postgresql) == before


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
    back = playbook("playbooks/site.yml")
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


def test_a_faulty_setting_does_not_stay(playbook: Playbook, psql: Callable[[str], str], postgresql: Any) -> None:
    """The server's own parser refuses it, and the file is as it was."""
    content = "cat /etc/postgresql/*/main/conf.d/mlops.conf"
    before = postgresql.check_output(content)
    result = playbook("playbooks/site.yml", "--tags", "postgresql", variables={"postgresql_settings": {"work_memory": "4MB"}})
    assert result.returncode != 0
    assert "work_memory" in result.stdout + result.stderr and "the previous one is back in place" in result.stdout + result.stderr
    assert postgresql.check_output(content) == before


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
    assert recap(result.stdout)[site["name"]] >= 5
    outputs = [result.stdout, result.stderr]
    logs = list((Path(os.environ["TEST_SITE_FILE"]).parent / "logs").glob("*.log"))
    assert len(logs) == site["interrupted"]
    outputs += [log.read_text(encoding="utf-8") for log in logs]
    spellings = site["secrets"] + [secret.encode("unicode_escape").decode() for secret in site["secrets"]]
    # Reported by number: the test's own output shows none either.
    assert [number for number, secret in enumerate(spellings) for output in outputs if secret in output] == []


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_nothing_is_left_to_do(playbook: Playbook, options: tuple[str, ...]) -> None:
    """After all of this the site is as the inventory says."""
    result = playbook("playbooks/site.yml", *options)
    assert result.returncode == 0, result.stdout
    assert set(recap(result.stdout).values()) == {0}
