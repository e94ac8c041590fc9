"""PostgreSQL on a host of its own: what comes in and how, what restarts it, who else uses it, and the plan that it runs by."""

from __future__ import annotations

import datetime
import ipaddress
import json
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PROJECT = Path(__file__).resolve().parents[2]
CLIENT_PYTHON = PROJECT / ".venv-client" / "bin" / "python"
Psql = Callable[[str], str]
Playbook = Callable[..., Any]

STARTED = "SELECT pg_postmaster_start_time()"
# What has to do with further users of the database.
WHO_MAY = ("--tags", "host_firewall,postgresql,mlflow_schema")


@pytest.fixture
def settle(playbook: Playbook) -> Iterator[None]:
    """Bring the database back to what the inventory says, whatever a test did."""
    yield
    assert playbook("playbooks/site.yml", "--tags", "postgresql").returncode == 0


def run_client(code: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run code with the real client's Python on this machine; secrets travel by standard input."""
    return subprocess.run([CLIENT_PYTHON, "-c", code, *arguments], input=given, capture_output=True, text=True, check=False)


def login(site: dict[str, Any], user: str, password: str, database: str = "mlflow", **parameters: str) -> str:
    """A libpq URL from this machine to the database host."""
    query = urllib.parse.urlencode({"sslmode": "verify-full", "sslrootcert": site["ca_file"], **parameters})
    return f"postgresql://{user}:{urllib.parse.quote(password, safe='')}@{site['postgresql']}:5432/{database}?{query}"


@pytest.fixture(scope="session")
def reader(site: dict[str, Any]) -> str:
    """The reader's password, which the playbook made."""
    return (Path(site["secrets_folder"]) / "postgresql_mlflow_reader_password").read_text(encoding="utf-8").strip()


SELECT = """
import sys, psycopg2
for url in sys.stdin.read().splitlines():
    try:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in sys.argv[1:]:
            try:
                cursor.execute(statement)
                print(cursor.fetchall() if cursor.description else 'done')
            except psycopg2.Error as error:
                print(type(error).__name__)
    except psycopg2.OperationalError as error:
        print(str(error).strip().splitlines()[-1])
"""


def select(url: str, *statements: str) -> list[str]:
    """What each statement returned, or the name of its error; or why there is no connection."""
    result = run_client(SELECT, *statements, given=url)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_mlflow_comes_by_tls(psql: Psql, site: dict[str, Any]) -> None:
    """All of its connections, from its own host and no other, in the newest version."""
    rows = psql("SELECT DISTINCT ssl, version, client_addr FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'mlflow'")
    assert rows == f"t|TLSv1.3|{site['mlflow']}"


def test_mlflow_checks_whom_it_talks_to(mlflow: Any) -> None:
    """The address is in the server's certificate, and the private CA signed it; with another CA there is no connection."""
    uri = "import os, psycopg2, sqlalchemy as s; u = s.engine.make_url(os.environ['MLFLOW_BACKEND_STORE_URI']); print(u.query['sslmode']);"
    code = uri + "psycopg2.connect(u.set(drivername='postgresql', query={**u.query, **%s}).render_as_string(False))"
    run = "systemd-run --quiet --pipe --wait --property=EnvironmentFile=/etc/mlflow/mlflow.env /opt/mlflow/current/bin/python -c %s"
    assert mlflow.check_output(run, code % "{}") == "verify-full"
    stranger = mlflow.run(run, code % "{'sslrootcert': '/etc/ssl/certs/ca-certificates.crt'}")
    assert stranger.rc != 0 and "certificate verify failed" in stranger.stdout + stranger.stderr


def test_without_tls_nobody_gets_in(site: dict[str, Any], reader: str) -> None:
    """The right password does not help."""
    assert "no encryption" in select(login(site, "mlflow_reader", reader, sslmode="disable"))[0]


def test_a_new_door_restarts_nothing(playbook: Playbook, psql: Psql, settle: None) -> None:
    """It opens by a reload, and the order of the entries stays."""
    before = psql(STARTED)
    doors = [
        {"type": "hostssl", "users": ["dashboard"], "address": "192.0.2.7/32", "method": "reject"},
        {"type": "hostssl", "databases": ["mlflow"], "users": ["dashboard"], "address": "192.0.2.0/24"},
    ]
    assert playbook("playbooks/site.yml", "--tags", "postgresql", variables={"postgresql_hba": doors}).returncode == 0
    assert psql("SELECT string_agg(auth_method, ',' ORDER BY line_number) FROM pg_hba_file_rules WHERE 'dashboard' = ANY (user_name)") == "reject,scram-sha-256"
    assert psql("SELECT pg_conf_load_time() > pg_postmaster_start_time()") == "t"
    assert psql(STARTED) == before


def test_a_renewed_certificate_restarts_nothing(playbook: Playbook, psql: Psql, site: dict[str, Any], postgresql: Any) -> None:
    """The next run makes another one in place of the one that is gone, and new connections get it."""
    before = psql(STARTED)
    probe = f"echo | openssl s_client -starttls postgres -connect {site['postgresql']}:5432 2>/dev/null | openssl x509 -noout -serial"
    serial = postgresql.check_output(probe)
    assert serial.startswith("serial=")
    (Path(site["secrets_folder"]) / "pki" / "host-database.crt").unlink()
    assert playbook("playbooks/site.yml", "--tags", "pki,postgresql").returncode == 0
    assert postgresql.check_output(probe) != serial
    assert psql(STARTED) == before


def company_certificate(folder: Path, names: list[str]) -> dict[str, str]:
    """Make a CA and a certificate of the company's own; return the variables that name the files."""
    now, one_day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Company CA")])
    # The name by which the gateway knows MLflow's servers.
    addresses = [x509.DNSName("mlflow.mlops.internal"), *(x509.IPAddress(ipaddress.ip_address(name)) for name in names)]

    def made(subject: x509.Name, public: Any, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number(), now - 60 * one_day, now + 30 * one_day)
        return builder.add_extension(extension, critical=True).sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    host = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hosts")])
    files = {
        "pki_ca_file": made(issuer, authority.public_key(), x509.BasicConstraints(True, None)),
        "pki_certificate_file": made(host, key.public_key(), x509.SubjectAlternativeName(addresses)),
        "pki_key_file": key.private_bytes(*plain),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in files}


def test_a_certificate_that_does_not_fit_is_refused(playbook: Playbook, site: dict[str, Any], tmp_path: Path) -> None:
    """For other names, with another's key: one line each, before anything is changed."""
    good, other = tmp_path / "good", tmp_path / "other"
    for folder in (good, other):
        folder.mkdir()
    right, wrong = company_certificate(good, [site["postgresql"]]), company_certificate(other, ["192.0.2.1"])
    for variables, line in (
        (wrong, f"it is for mlflow.mlops.internal, 192.0.2.1, and this host is reached as {site['postgresql']}; use a certificate for that too"),
        ({**right, "pki_key_file": wrong["pki_key_file"]}, "pki_key_file = 'pki_key_file': it does not belong to the certificate"),
    ):
        refused = playbook("playbooks/preflight.yml", variables=variables)
        assert refused.returncode != 0 and line in " ".join((refused.stdout + refused.stderr).split()), refused.stdout[-2000:]


def test_a_certificate_of_the_companys_own(playbook: Playbook, psql: Psql, site: dict[str, Any], tmp_path: Path, mlflow: Any, postgresql: Any) -> None:
    """MLflow trusts it at the next connection and PostgreSQL is not restarted; without it the private CA's is back."""
    before = psql(STARTED)
    probe = f"echo | openssl s_client -starttls postgres -connect {site['postgresql']}:5432 2>/dev/null | openssl x509 -noout -issuer"
    own = company_certificate(tmp_path, [site["postgresql"], site["object_store"], site["mlflow"]])
    for variables, issuer in ((own, "Company CA"), ({}, "MLflow private CA")):
        run = playbook("playbooks/site.yml", variables=variables)
        assert run.returncode == 0, run.stdout[-3000:]
        assert issuer in postgresql.check_output(probe)
        assert psql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'mlflow'") == "t"
        assert psql(STARTED) == before
    assert mlflow.service("mlflow").is_running


def test_what_this_server_cannot_run_with_is_refused(playbook: Playbook, postgresql: Any) -> None:
    """It is asked itself: names, ranges, units. One line each, nothing changed."""
    content = "cat /etc/postgresql/*/main/conf.d/mlops.conf"
    before = postgresql.check_output(content)
    settings = {"wrok_mem": "4MB", "checkpoint_timeout": "2d", "random_page_cost": "cheap", "wal_compression": "zip", "bgwriter_delay": "5MB"}
    refused = playbook("playbooks/preflight.yml", variables={"postgresql_settings": settings})
    output = " ".join((refused.stdout + refused.stderr).split())
    assert refused.returncode != 0
    assert "postgresql_settings.wrok_mem = '4MB': this server has no such setting; did you mean work_mem?" in output
    for name in settings:
        assert f"postgresql_settings.{name} = {settings[name]!r}: " in output
    assert postgresql.check_output(content) == before


def test_plan_says_what_would_change_and_changes_nothing(playbook: Playbook, psql: Psql, tmp_path: Path) -> None:
    """By reload, by restart, or not at all; as a table, as data and as a page."""
    started, loaded = psql(STARTED), psql("SELECT pg_conf_load_time()")
    files = {"plan_json": str(tmp_path / "plan.json"), "plan_html": str(tmp_path / "plan.html")}
    wish = {"postgresql_shared_buffers": "256MB", "postgresql_settings": {"log_lock_waits": True}}
    shown = playbook("playbooks/plan.yml", variables={**files, **wish})
    assert shown.returncode == 0, shown.stdout
    plans = {plan["service"]: plan for plan in json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["plans"]}
    effects = {row["setting"]: (row["planned"], row["effect"]) for row in plans["postgresql"]["rows"]}
    assert effects["shared_buffers"] == ("256MB", "restart")
    assert effects["log_lock_waits"] == ("on", "reload")
    assert effects["max_connections"] == (psql("SHOW max_connections"), "nothing")
    # What follows from shared_buffers, and what does not.
    follow = {"shared_buffers", "log_lock_waits", "wal_buffers", "work_mem", "huge_pages"}
    assert {name for name, (dummy, effect) in effects.items() if effect != "nothing"} <= follow
    assert {row["effect"] for row in plans["mlflow"]["rows"]} == {"nothing"}
    assert "shared_buffers" in shown.stdout and "256MB" in (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert (psql(STARTED), psql("SELECT pg_conf_load_time()")) == (started, loaded)


def test_the_server_runs_by_the_plan(playbook: Playbook, psql: Psql, tmp_path: Path) -> None:
    """Right after the installation nothing is left to change, in memory that all connections together do not exceed."""
    shown = playbook("playbooks/plan.yml", variables={"plan_json": str(tmp_path / "plan.json")})
    assert shown.returncode == 0, shown.stdout
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["plans"][0]
    assert [row for row in plan["rows"] if row["effect"] != "nothing"] == []
    bytes_of = "SELECT pg_size_bytes(current_setting('{}'))"
    size = {name: int(psql(bytes_of.format(name))) for name in ("shared_buffers", "work_mem", "autovacuum_work_mem", "maintenance_work_mem", "wal_buffers")}
    count = {name: float(psql(f"SHOW {name}")) for name in ("max_connections", "max_parallel_workers", "hash_mem_multiplier", "autovacuum_max_workers")}
    worst = size["shared_buffers"] + size["maintenance_work_mem"] + size["wal_buffers"] + count["autovacuum_max_workers"] * size["autovacuum_work_mem"]
    worst += (count["max_connections"] + count["max_parallel_workers"]) * size["work_mem"] * count["hash_mem_multiplier"]
    assert worst <= 0.8 * plan["memory"]["host_mib"] * 1024**2


def test_an_analyst_reads_and_nothing_else(site: dict[str, Any], reader: str) -> None:
    """SQL over the tables, those of later migrations too; no write, no user database, no more connections than its share."""
    url = login(site, "mlflow_reader", reader)
    seen = select(url, "SELECT count(*) > 0 FROM experiments", "SELECT 1 FROM runs, params, metrics LIMIT 1", "DELETE FROM runs", "CREATE TABLE t (i int)")
    assert seen[0] == "[(True,)]" and seen[2:] == ["InsufficientPrivilege", "InsufficientPrivilege"]
    assert "no pg_hba.conf entry" in select(login(site, "mlflow_reader", reader, database="mlflow_auth"))[0]
    crowd = "import sys, psycopg2; u = sys.stdin.read(); c = [psycopg2.connect(u) for i in range(int(sys.argv[1]))]; print(len(c))"
    assert run_client(crowd, "3", given=url).stdout == "3\n"
    assert "too many connections for role" in run_client(crowd, "4", given=url).stderr


def test_a_table_that_a_migration_adds_is_readable(site: dict[str, Any], reader: str, postgresql: Any) -> None:
    """As the owner makes it, and without a further run."""
    psql = "cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s"
    postgresql.check_output(psql, "SET ROLE mlflow_owner; CREATE TABLE public.from_a_migration (i int)")
    try:
        seen = select(login(site, "mlflow_reader", reader), "SELECT count(*) FROM from_a_migration", "INSERT INTO from_a_migration VALUES (1)")
        assert seen == ["[(0,)]", "InsufficientPrivilege"]
    finally:
        postgresql.check_output(psql, "DROP TABLE public.from_a_migration")


TRACK = """
import sys, mlflow
mlflow.set_tracking_uri(sys.stdin.read())
experiment = mlflow.create_experiment(sys.argv[1], artifact_location='s3://elsewhere/x')
with mlflow.start_run(experiment_id=experiment) as run:
    mlflow.log_params({'depth': 7}); mlflow.log_metrics({'rmse': 0.25}, step=3); mlflow.set_tag('from', 'a notebook')
print(run.info.run_id)
"""


def test_a_notebook_writes_straight_into_the_database(site: dict[str, Any], reader: str, psql: Psql) -> None:
    """The real client with the database as its tracking URI; the analyst sees what it logged, the schema stays the owner's."""
    url = login(site, "notebook", "n@t:e/b%o'k\"d $x tokenBook7")
    written = run_client(TRACK, f"notebook {psql('SELECT now()')}", given=url.replace("postgresql://", "postgresql+psycopg2://"))
    assert written.returncode == 0, written.stderr
    run = written.stdout.splitlines()[-1]
    statements = (f"SELECT key, value, step FROM metrics WHERE run_uuid = '{run}'", f"SELECT key FROM params WHERE run_uuid = '{run}'")
    seen = select(login(site, "mlflow_reader", reader), *statements)
    assert seen == ["[('rmse', 0.25, 3)]", "[('depth',)]"]
    assert select(url, "ALTER TABLE runs ADD COLUMN x int", "TRUNCATE runs") == ["InsufficientPrivilege"] * 2


def test_grants_follow_the_inventory(site: dict[str, Any], playbook: Playbook, psql: Psql) -> None:
    """From write to read and back; whoever is no longer listed does not get in."""
    url, password = "", "n@t:e/b%o'k\"d $x tokenBook7"
    url = login(site, "notebook", password)
    entry = {"name": "notebook", "password": password, "addresses": ["10.213.2.1/32"]}
    statements = ("SELECT count(*) >= 0 FROM runs", "DELETE FROM tags WHERE false")
    for users, expected in (([{**entry, "grants": "read"}], ["[(True,)]", "InsufficientPrivilege"]), ([], None)):
        assert playbook("playbooks/site.yml", *WHO_MAY, variables={"postgresql_users": users}).returncode == 0
        seen = select(url, *statements)
        # The firewall has not even the port for those whom pg_hba does not have.
        assert seen == expected if expected else "Is the server running" in seen[0]
    assert playbook("playbooks/site.yml", *WHO_MAY).returncode == 0
    assert select(url, *statements) == ["[(True,)]", "done"]


def test_a_hundred_clients_at_once(site: dict[str, Any], postgresql: Any, psql: Psql) -> None:
    """Each makes a run and ten log-batch calls of 20 metrics: no answer but 200, and never more connections than planned."""
    # Through psql's own loop: a new session for each look would be counted too.
    look = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = $$client backend$$ \\watch 0.2"
    watch = f"cd / && echo '{look}' | timeout 400 runuser -u postgres -- psql -XAt"
    with ThreadPoolExecutor() as pool:
        counting = pool.submit(postgresql.run, watch)
        command = [CLIENT_PYTHON, PROJECT / "tests" / "integration" / "load.py", site["url"], site["ca_file"]]
        credentials = f"admin\n{site['admin_password']}\n"
        load = subprocess.run(command, input=credentials, capture_output=True, text=True, check=False)
        postgresql.run("pkill -x psql")
        counts = [int(line) for line in counting.result().stdout.split() if line.isdigit()]
    assert load.returncode == 0, load.stderr
    assert json.loads(load.stdout) == {"200": 100 * 11}
    assert len(counts) > 20
    planned = int(psql("SHOW max_connections")) - int(psql("SHOW superuser_reserved_connections"))
    assert 10 < max(counts) <= planned
    full = "FATAL: +(sorry, too many clients|remaining connection slots)"
    assert postgresql.run(f"grep -cE '{full}' /var/log/postgresql/*.log").stdout.split() == ["0"]
