"""A PostgreSQL of somebody else's: what is refused, what its administrator is told, and that nobody touched its host."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_mlflow
import testinfra
from conftest import PROJECT, SSH

Playbook = Callable[..., Any]
Administrator = Callable[..., str]

CLIENT_PYTHON = PROJECT / ".venv-client" / "bin" / "python"
OWNER = '"ML Owner"'
TAKEN = "every role of the server may connect to "


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
    administrator(f"CREATE DATABASE scratch OWNER {OWNER} ENCODING 'UTF8' TEMPLATE template0")
    yield "scratch"
    administrator("DROP DATABASE scratch WITH (FORCE)")


def problems(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of the report, without the host's name."""
    text = result.stdout + result.stderr
    assert "Nothing has been changed" in text, text[-3000:]
    report = text.rsplit("What is wrong, by host:\n", 1)[1].split("\n\n", 1)[0]
    return [line.strip().removeprefix("tracking: ") for line in report.splitlines()]


def said(result: subprocess.CompletedProcess[str]) -> str:
    """What it printed, wherever the lines end."""
    return " ".join(result.stdout.split())


def test_it_was_found_well(playbook: Playbook) -> None:
    """The deployed site has nothing to report, and nothing more to take from anybody."""
    result = playbook("playbooks/preflight.yml")
    assert result.returncode == 0, result.stdout
    assert TAKEN not in said(result)


def test_mlflow_checks_whom_it_talks_to(administrator: Administrator, site: dict[str, Any]) -> None:
    """TLS on every connection; the company's CA is trusted because the inventory names it."""
    rows = administrator("SELECT DISTINCT ssl, client_addr FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'ml server'")
    assert rows == f"t|{site['mlflow']}"


def test_nothing_of_this_collection_is_on_its_host(theirs: Any) -> None:
    """No configuration, certificate or mark."""
    assert theirs.run("ls -d /etc/postgresql/*/main/conf.d/mlops.conf /etc/ssl/certs/mlops-* /var/lib/mlops-postgresql").stdout == ""


@pytest.mark.parametrize("check", [name for name in vars(test_mlflow.TestSecrets) if name.startswith("test_")])
def test_no_secret_is_left_on_its_host(connect: Callable[[str], Any], check: str) -> None:
    """Its server got the passwords in statements and logins, and was refused some: as on the hosts of the site, none can be read."""
    getattr(test_mlflow.TestSecrets(), check)(connect, "theirs")


def test_a_migration_needs_no_more_connections_than_are_planned(administrator: Administrator, playbook: Playbook) -> None:
    """The owner had as many and no more when the tables were made; with one less preflight says so."""
    assert administrator("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'ML Owner'") == "3"
    administrator(f"ALTER ROLE {OWNER} CONNECTION LIMIT 2")
    try:
        found = problems(playbook("playbooks/preflight.yml"))
    finally:
        administrator(f"ALTER ROLE {OWNER} CONNECTION LIMIT 3")
    remedy = f"the role is limited to 2 connections, and a migration takes 3; ALTER ROLE {OWNER} CONNECTION LIMIT 3;"
    assert found == [f"mlflow_database_owner_user = 'ML Owner': {remedy}"]


HOLD = """
import sys, psycopg2
url = sys.stdin.readline().strip()
held = [psycopg2.connect(url) for _ in range(8)]
print("open", flush=True)
sys.stdin.read()
"""


def test_sessions_of_the_sites_own_users_count_once(playbook: Playbook, site: dict[str, Any]) -> None:
    """Their share is in the sum already; what they have open is not in use by others."""
    url = f"postgresql://analyst:tokenAnalyst7@{site['theirs']}:5432/mlflow?sslmode=require\n"
    with subprocess.Popen([CLIENT_PYTHON, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin and client.stdout
        client.stdin.write(url)
        client.stdin.flush()
        assert client.stdout.readline() == "open\n"
        found = problems(playbook("playbooks/preflight.yml", variables={"mlflow_workers": 3}))
        client.stdin.close()
    assert len(found) == 1
    assert "of max_connections 340, 3 are reserved and 6 for backup and monitoring, which leaves 331; 417 are needed (tracking: 3 workers" in found[0]
    assert "postgresql_users: analyst = 2, migration = 3)" in found[0]


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
        ({"mlflow_database_host": "[::1]"}, ["mlflow_database_host = '[::1]'", "leave them out: ::1"]),
        ({"mlflow_database_host": "/var/run/postgresql"}, ["mlflow_database_host = '/var/run/postgresql'", "over TCP"]),
        (
            {"mlflow_database_ca_file": "/etc/ssl/certs/mlops-ca.crt"},
            ["mlflow_database_ca_file = '/etc/ssl/certs/mlops-ca.crt': the certificate of db.corp.test is not from a CA in there"],
        ),
        ({"mlflow_database_name": "absent"}, [f"CREATE DATABASE absent OWNER {OWNER} ENCODING 'UTF8' TEMPLATE template0"]),
        ({"mlflow_database_user": "nobody of theirs"}, ["mlflow_database_user"]),
        ({"mlflow_database_user": "ML Owner"}, ["mlflow_database_owner_password", "mlflow_database_password, and both are of one role"]),
        ({"postgresql_users": [{"name": "missing", "password": "tokenAnalyst7"}]}, ["CREATE ROLE missing LOGIN PASSWORD '…'"]),
        # Nobody makes its password here, so that none is asked for.
        ({"postgresql_users": [{"name": "team b"}]}, ["CREATE ROLE \"team b\" LOGIN PASSWORD '…'"]),
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


def test_one_role_for_both_is_possible_and_said(playbook: Playbook, administrator: Administrator, scratch: str, site: dict[str, Any]) -> None:
    """What is lost is a notice, not a problem; so is what everybody else loses in a new database."""
    single = {"mlflow_database_name": scratch, "mlflow_database_user": "ML Owner", "mlflow_database_password": site["owner_password"]}
    (limited,) = problems(playbook("playbooks/preflight.yml", variables=single))
    assert "the role is limited to 3 connections" in limited
    administrator(f"ALTER ROLE {OWNER} CONNECTION LIMIT -1")
    try:
        result = playbook("playbooks/preflight.yml", variables=single)
    finally:
        administrator(f"ALTER ROLE {OWNER} CONNECTION LIMIT 3")
    assert result.returncode == 0, result.stdout
    assert "mlflow_database_owner_user and mlflow_database_user are both ML Owner" in said(result)
    assert f"{TAKEN}scratch (PUBLIC): site.yml takes that away" in said(result)


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
