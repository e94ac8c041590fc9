"""PostgreSQL as the role leaves it: its settings, its doors, its two roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Psql = Callable[[str], str]

# What the server does, with the server's own environment and Python.
AS_SERVER = (
    "systemd-run --quiet --pipe --wait --property=EnvironmentFile=/etc/mlflow/mlflow.env /opt/mlflow/current/bin/python -c %s"
)
CONNECT = (
    "import os, psycopg2, sqlalchemy as s; u = s.engine.make_url(os.environ['MLFLOW_BACKEND_STORE_URI']);"
    "c = lambda **k: psycopg2.connect(**{**dict(host=u.host, port=u.port, dbname=u.database, user=u.username, password=u.password), **k});"
)


def test_settings_come_from_the_drop_in(psql: Psql) -> None:
    """The distribution's own file is not edited."""
    rows = psql("SELECT sourcefile FROM pg_settings WHERE name IN ('shared_buffers', 'work_mem', 'max_connections', 'listen_addresses')")
    assert len(rows.splitlines()) == 4
    assert {row.rsplit("/", 2)[1:] == ["conf.d", "mlops.conf"] for row in rows.splitlines()} == {True}


def test_cluster_has_checksums_and_is_utf8(psql: Psql) -> None:
    """Both are decided once, when the cluster is made."""
    assert psql("SHOW data_checksums") == "on"
    assert psql("SHOW server_encoding") == "UTF8"
    assert psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'mlflow%' AND pg_encoding_to_char(encoding) = 'UTF8'") == "2"


def test_nothing_waits_for_a_restart(psql: Psql) -> None:
    """The one restart that was needed has been done."""
    assert psql("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


def test_max_connections_hold_the_pools(psql: Psql, mlflow: Any) -> None:
    """Workers × 41 × three engines, and the reserve."""
    environment = mlflow.file("/etc/mlflow/mlflow.env").content_string
    workers = int(environment.split('MLFLOW_WORKERS="')[1].split('"')[0])
    assert int(psql("SHOW max_connections")) >= workers * 41 * 3 + 10


def test_doors(psql: Psql) -> None:
    """No trust, peer only for postgres, no network wider than a host, no line that the server does not understand."""
    assert psql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL OR auth_method = 'trust'") == "0"
    assert psql("SELECT array_to_string(user_name, ',') FROM pg_hba_file_rules WHERE auth_method = 'peer'") == "postgres"
    one_host = "'255.255.255.255', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'"
    assert psql(f"SELECT count(*) FROM pg_hba_file_rules WHERE netmask NOT IN ({one_host})") == "0"


def test_passwords_are_scram(psql: Psql) -> None:
    """Every role that logs in with a password has a SCRAM verifier."""
    assert psql("SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'") == "0"
    assert psql("SELECT count(*) FROM pg_authid WHERE rolname IN ('mlflow', 'mlflow_owner') AND rolpassword LIKE 'SCRAM-SHA-256$%'") == "2"


def test_wrong_password_is_refused(mlflow: Any) -> None:
    """SCRAM is asked, not only configured."""
    code = CONNECT + (
        "c()\ntry:\n    c(password='x'); print('in')\n"
        "except psycopg2.OperationalError as e: print('refused' if 'authentication failed' in str(e) else e)"
    )
    assert mlflow.check_output(AS_SERVER, code) == "refused"


def test_server_cannot_change_the_schema(mlflow: Any) -> None:
    """It reads and writes rows; CREATE, ALTER and DROP are the owner's."""
    code = CONNECT + (
        "x = c(); x.autocommit = True; k = x.cursor(); k.execute('SELECT count(*) FROM experiments')\n"
        "for q in ('CREATE TABLE t (i int)', 'ALTER TABLE runs ADD COLUMN x int', 'DROP TABLE runs', 'TRUNCATE runs', 'CREATE SCHEMA s'):\n"
        "    try:\n        k.execute(q); print(q)\n    except psycopg2.errors.InsufficientPrivilege: pass\n"
        "print('done')"
    )
    assert mlflow.check_output(AS_SERVER, code) == "done"


def test_tables_belong_to_the_owner(psql: Psql, postgresql: Any) -> None:
    """Of both databases."""
    for database in ("mlflow", "mlflow_auth"):
        statement = "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'"
        assert postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d %s -c %s", database, statement) == "mlflow_owner"
    assert psql("SELECT count(*) FROM pg_roles WHERE rolname IN ('mlflow', 'mlflow_owner') AND (rolsuper OR rolcreatedb OR rolcreaterole)") == "0"
