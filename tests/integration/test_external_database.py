"""A PostgreSQL of somebody else's: what is refused, what its administrator is told, and that nobody touched its host."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
from conftest import SSH

Playbook = Callable[..., Any]
Administrator = Callable[..., str]


@pytest.fixture(scope="session")
def theirs(site: dict[str, Any]) -> Any:
    """The host that nobody of this site logs in to."""
    return testinfra.get_host(f"ssh://admin@{site['theirs']}", ssh_identity_file=site["ssh_key"], ssh_extra_args=SSH, sudo=True)


@pytest.fixture(scope="session")
def administrator(theirs: Any) -> Administrator:
    """The database's administrator, who runs what she is sent."""

    def run(statement: str, database: str = "postgres") -> str:
        return theirs.check_output("cd / && runuser -u postgres -- psql -XAt -v ON_ERROR_STOP=1 -d %s -c %s", database, statement)

    return run


@pytest.fixture
def scratch(administrator: Administrator) -> Iterator[str]:
    """A database of its own for what must not happen to MLflow's."""
    administrator("CREATE DATABASE scratch OWNER mlflow_owner ENCODING 'UTF8' TEMPLATE template0")
    yield "scratch"
    administrator("DROP DATABASE scratch WITH (FORCE)")


def problems(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of the report, without the host's name."""
    text = result.stdout + result.stderr
    assert "Nothing has been changed" in text, text[-3000:]
    report = text.rsplit("What is wrong, by host:\n", 1)[1].split("\n\n", 1)[0]
    return [line.strip().removeprefix("tracking: ") for line in report.splitlines()]


def test_it_was_found_well(playbook: Playbook) -> None:
    """The deployed site has nothing to report."""
    result = playbook("playbooks/preflight.yml")
    assert result.returncode == 0, result.stdout


def test_mlflow_checks_whom_it_talks_to(administrator: Administrator, site: dict[str, Any]) -> None:
    """TLS on every connection; the company's CA is trusted because the inventory names it."""
    rows = administrator("SELECT DISTINCT ssl, client_addr FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'ml server'")
    assert rows == f"t|{site['mlflow']}"


def test_nobody_logged_in_to_its_host(theirs: Any) -> None:
    """No file of this collection is there."""
    assert theirs.run("ls -d /etc/postgresql/*/main/conf.d/mlops.conf /etc/ssl/certs/mlops-* /var/lib/mlops-postgresql").stdout == ""


def test_grants_are_the_owners(administrator: Administrator) -> None:
    """The server's role writes rows, the analyst reads them, and neither can make a table."""
    rights = "SELECT bool_and(has_table_privilege('{0}', oid, '{1}')) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    assert administrator(rights.format("ml server", "INSERT"), "mlflow") == "t"
    assert administrator(rights.format("analyst", "SELECT"), "mlflow") == "t"
    assert administrator(rights.format("analyst", "INSERT"), "mlflow") == "f"
    for role in ("ml server", "analyst"):
        assert administrator(f"SELECT has_schema_privilege('{role}', 'public', 'CREATE')", "mlflow") == "f"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"mlflow_database_password": "wrong-password-1"}, ["mlflow_database_password"]),
        ({"mlflow_database_owner_password": "wrong-password-1"}, ["mlflow_database_owner_password"]),
        ({"mlflow_database_port": 5433}, ["mlflow_database_port = 5433", "db.corp.test"]),
        ({"mlflow_database_host": "nowhere.corp.test"}, ["nowhere.corp.test"]),
        ({"mlflow_database_ca_file": "/etc/ssl/certs/mlops-ca.crt"}, ["mlflow_database_"]),
        ({"mlflow_database_name": "absent"}, ["CREATE DATABASE absent OWNER mlflow_owner ENCODING 'UTF8' TEMPLATE template0"]),
        ({"mlflow_database_user": "nobody of theirs"}, ["mlflow_database_user"]),
        ({"mlflow_workers": 3}, ["3 workers × (40 + 1) × 3 pools", "max_connections"]),
        ({"postgresql_users": [{"name": "missing", "password": "tokenAnalyst7"}]}, ["CREATE ROLE missing LOGIN PASSWORD '…'"]),
    ],
)
def test_what_does_not_work_is_one_line(playbook: Playbook, variables: dict[str, Any], expected: list[str]) -> None:
    """With the variable and the remedy; nothing has been changed."""
    found = problems(playbook("playbooks/preflight.yml", variables=variables))
    assert len(found) == 1, found
    assert [part for part in expected if part not in found[0]] == [], found
    assert "wrong-password-1" not in found[0]


def test_the_address_is_not_in_the_certificate(playbook: Playbook, site: dict[str, Any]) -> None:
    """verify-full wants the name; the line tells which names there are."""
    found = problems(playbook("playbooks/preflight.yml", variables={"mlflow_database_host": site["theirs"]}))
    assert len(found) == 1 and "db.corp.test" in found[0]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ("CREATE TABLE invoices (id int)", "invoices"),
        ("CREATE TABLE alembic_version (version_num text); CREATE TABLE invoices (id int)", "its alembic_version is another program's"),
    ],
)
def test_a_database_of_another_program_is_refused(playbook: Playbook, administrator: Administrator, scratch: str, tables: str, expected: str) -> None:
    """Its tables are named; it may even be one that Alembic migrates too."""
    administrator(tables, scratch)
    found = problems(playbook("playbooks/preflight.yml", variables={"mlflow_database_name": scratch}))
    assert len(found) == 1 and expected in found[0] and "mlflow_database_name = 'scratch'" in found[0]


def test_what_it_prints_is_what_helps(playbook: Playbook, administrator: Administrator, scratch: str) -> None:
    """Three faults, three lines with SQL; when the administrator has run it, there is nothing left to say."""
    administrator("ALTER DATABASE scratch OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC", scratch)
    found = problems(playbook("playbooks/preflight.yml", variables={"mlflow_database_name": scratch}))
    statements = [statement for line in found for statement in re.findall(r"(?:ALTER DATABASE|REVOKE|GRANT) [^;']+;", line)]
    assert any(statement.startswith("ALTER DATABASE") for statement in statements), found
    assert any(statement.startswith("REVOKE CREATE") for statement in statements), found
    for statement in statements:
        administrator(statement, scratch)
    result = playbook("playbooks/preflight.yml", variables={"mlflow_database_name": scratch})
    assert result.returncode == 0, result.stdout


def test_one_role_for_both_is_possible_and_said(playbook: Playbook, scratch: str, site: dict[str, Any]) -> None:
    """What is lost is a notice, not a problem."""
    single = {"mlflow_database_name": scratch, "mlflow_database_user": "mlflow_owner", "mlflow_database_password": site["owner_password"]}
    result = playbook("playbooks/preflight.yml", variables=single)
    assert result.returncode == 0, result.stdout
    assert "mlflow_database_owner_user and mlflow_database_user are both mlflow_owner" in " ".join(result.stdout.split())


def test_a_run_that_is_refused_changes_nothing(playbook: Playbook, mlflow: Any) -> None:
    """site.yml stops before the first change, and MLflow runs on."""
    state = "sha256sum /etc/mlflow/*; systemctl show -P MainPID mlflow"
    before = mlflow.check_output(state)
    result = playbook("playbooks/site.yml", variables={"mlflow_database_name": "absent"})
    assert result.returncode != 0
    assert mlflow.check_output(state) == before


def test_nothing_is_left_to_do(playbook: Playbook) -> None:
    """After all of this the site is as the inventory says."""
    result = playbook("playbooks/site.yml")
    assert result.returncode == 0, result.stdout
    assert not [line for line in result.stdout.splitlines() if "ok=" in line and "changed=0" not in line]
