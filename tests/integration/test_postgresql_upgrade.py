"""PostgreSQL from one major version to the next and back, and to a newer minor release: whatever goes wrong, one of them serves, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT
from test_mlflow import EXPERIMENT, answer, basic, opener
from test_postgresql import AS_SERVER, CONNECT

UPGRADE = "playbooks/upgrade_postgresql.yml"
OLD, NEW = "15", "17"
# Of every table: its name, and a sum over its rows.
SUMS = """
SELECT relname, (xpath('//x/text()', query_to_xml(format(
  'SELECT count(*) || md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '''')) AS x FROM public.%I t', relname), true, false, '')))[1]
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1
"""
# Another application in the cluster, which does not wait for us: numbers its rows, and prints those that were acknowledged, with the server's version.
OTHER = CONNECT + """
import itertools, time
numbers = itertools.count()
while True:
    try:
        x = c(); x.autocommit = True; k = x.cursor()
        for n in numbers:
            k.execute("INSERT INTO other.notes VALUES (%s) RETURNING n || ' ' || current_setting('server_version_num')::int / 10000", (n,))
            print(k.fetchone()[0], flush=True)
            time.sleep(0.05)
    except psycopg2.Error:
        time.sleep(0.02)
"""
UNITS = "ls /etc/systemd/system/multi-user.target.wants | grep ^postgresql@"


@pytest.fixture(scope="module", name="sums")
def fixture_sums(postgresql: Any) -> Callable[[], str]:
    """A function that reads all of MLflow's tables."""
    return lambda: postgresql.check_output("cd / && runuser -u postgres -- psql -XAt mlflow -c %s", SUMS)


@pytest.fixture(scope="module", name="run")
def fixture_run(site: dict[str, Any], playbook: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs a playbook with the MLflow that serves, and returns its exit code and output without line breaks."""
    version = answer(site, "/version")[1]

    def run(name: str, *options: str, **variables: Any) -> tuple[int, str]:
        result = playbook(name, *options, variables={"mlflow_version": version, "postgresql_version": NEW, **variables})
        return result.returncode, " ".join((result.stdout + result.stderr).split())

    return run


@pytest.fixture(name="unharmed")
def fixture_unharmed(site: dict[str, Any], postgresql: Any, psql: Callable[[str], str], sums: Callable[[], str]) -> Iterator[None]:
    """After the test the old version serves what it had, and nothing is left of another one."""
    before = sums()
    yield
    assert psql("SHOW server_version").startswith(OLD) and sums() == before
    assert answer(site, EXPERIMENT)[0] == 200
    assert postgresql.check_output(UNITS) == f"postgresql@{OLD}-main.service"
    assert postgresql.check_output("ls -d /etc/postgresql/*/*").split() == [f"/etc/postgresql/{OLD}/main"]
    assert postgresql.check_output("ls -d /var/lib/postgresql/*/*").split() == [f"/var/lib/postgresql/{OLD}/main"]


@pytest.fixture(name="other")
def fixture_other(mlflow: Any, postgresql: Any) -> Iterator[None]:
    """An application writes as soon as somebody lets it in; after the test it has written to both versions, and all that was acknowledged is there."""
    as_root = "cd / && runuser -u postgres -- psql -XAtq mlflow -c %s"
    # After the way back it is there again.
    make = "DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other; CREATE TABLE other.notes (n int)"
    postgresql.check_output(as_root, f"{make}; GRANT ALL ON SCHEMA other TO mlflow; GRANT ALL ON other.notes TO mlflow")
    unit = AS_SERVER.replace("--pipe --wait", "--unit=test-other --property=StandardOutput=truncate:/run/test-other")
    mlflow.check_output(unit, OTHER)
    try:
        yield
    finally:
        mlflow.check_output("systemctl stop test-other")
        kept = set(postgresql.check_output(as_root, "SELECT n FROM other.notes").split())
        postgresql.check_output(as_root, "DROP SCHEMA other CASCADE")
    acknowledged = dict(line.split() for line in mlflow.check_output("cat /run/test-other").splitlines())
    assert set(acknowledged.values()) == {OLD, NEW}
    assert set(acknowledged) <= kept


@pytest.mark.usefixtures("unharmed")
def test_a_new_server_that_does_not_start(run: Callable[..., Any]) -> None:
    """When it shows, the old one has been stopped already; it comes back."""
    rc, output = run(UPGRADE, confirm=f"{OLD}-{NEW}", postgresql_settings={"shared_preload_libraries": "nowhere"})
    assert rc != 0 and "PostgreSQL and MLflow run as before, in the version that they had." in output


def killed_in_the_move(site: dict[str, Any], variables: Path) -> bool:
    """Run the upgrade, and kill the controller while Debian's program works on the host, which goes on; False when it never did."""
    command = ["ansible-playbook", "--inventory", site["inventory"], "--extra-vars", f"@{variables}", UPGRADE]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as run:
        for line in run.stdout or ():
            if "upgrade | Bring it to the state moved" in line:
                time.sleep(4)
                os.killpg(run.pid, signal.SIGKILL)
                return True
    return False


@pytest.mark.usefixtures("unharmed")
def test_a_controller_that_is_killed(site: dict[str, Any], run: Callable[..., Any], tmp_path: Path) -> None:
    """In the middle of an upgrade; the next run undoes it, rehearses on a copy, and says how to confirm."""
    variables = tmp_path / "variables.json"
    variables.write_text(json.dumps({"mlflow_version": answer(site, "/version")[1], "postgresql_version": NEW, "confirm": f"{OLD}-{NEW}"}), encoding="utf-8")
    assert killed_in_the_move(site, variables)
    assert answer(site, EXPERIMENT)[0] == 503
    rc, output = run(UPGRADE)
    assert rc != 0 and "Rehearsed on a copy" in output and f"run this again with -e confirm={OLD}-{NEW}" in output


@pytest.mark.usefixtures("other")
def test_upgrade(site: dict[str, Any], run: Callable[..., Any], postgresql: Any, psql: Callable[[str], str], sums: Callable[[], str]) -> None:
    """The same rows in the new version, and statistics for its planner; what others write in the meantime is not in the way, and not lost."""
    before = sums()
    rc, output = run(UPGRADE, "--skip-tags", "site", confirm=f"{OLD}-{NEW}")
    assert rc == 0, output
    assert psql("SHOW server_version").startswith(NEW) and sums() == before
    assert answer(site, EXPERIMENT)[0] == 200
    assert postgresql.check_output(UNITS) == f"postgresql@{NEW}-main.service"
    assert postgresql.check_output("cd / && runuser -u postgres -- psql -XAt mlflow -c 'SELECT count(*) > 0 FROM pg_statistic WHERE starelid > 16000'") == "t"


def test_a_minor_release(site: dict[str, Any], run: Callable[..., Any], postgresql: Any, psql: Callable[[str], str]) -> None:
    """From an older one to the newest, by site.yml, which the old version's cluster does not disturb."""
    releases = postgresql.check_output(f"apt-cache madison postgresql-{NEW} | cut -d'|' -f2").split()
    assert len(releases) > 1, "the distribution offers no older release to start from"
    packages = f"postgresql-{NEW}={releases[-1]} postgresql-client-{NEW}={releases[-1]}"
    postgresql.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get install -qq --allow-downgrades {packages}")
    assert releases[-1] in psql("SELECT version()")
    rc, output = run("playbooks/site.yml", postgresql_update=True)
    assert rc == 0 and releases[0] in psql("SELECT version()"), output
    assert answer(site, EXPERIMENT)[0] == 200


def test_the_way_back(site: dict[str, Any], run: Callable[..., Any], psql: Callable[[str], str], sums: Callable[[], str]) -> None:
    """It says what would be lost, and does it when exactly that is confirmed."""
    before = sums()
    headers = {"Authorization": basic("admin", site["admin_password"]), "Content-Type": "application/json"}
    body = json.dumps({"name": f"later-{time.time_ns()}"}).encode()
    with opener(site).open(urllib.request.Request(f"{site['url']}/api/2.0/mlflow/experiments/create", body, headers), timeout=60) as reply:
        assert reply.status == 200
    rc, output = run(UPGRADE, postgresql_version=OLD)
    assert rc != 0 and f"confirm={NEW}-{OLD}" in output and "mlflow: public.experiments: " in output
    assert psql("SHOW server_version").startswith(NEW)
    rc, output = run(UPGRADE, "--skip-tags", "site", postgresql_version=OLD, confirm=f"{NEW}-{OLD}")
    assert rc == 0, output
    assert psql("SHOW server_version").startswith(OLD) and sums() == before
    assert answer(site, EXPERIMENT)[0] == 200


@pytest.mark.usefixtures("other")
def test_a_failure_after_others_were_let_in(site: dict[str, Any], run: Callable[..., Any], psql: Callable[[str], str], sums: Callable[[], str]) -> None:
    """The new version keeps the data, MLflow serves from it, and nothing is left to be done."""
    before = sums()
    # MLflow runs, and is looked for where it is not.
    rc, output = run(UPGRADE, "--skip-tags", "site", confirm=f"{OLD}-{NEW}", mlflow_port=5999)
    assert rc != 0 and f"PostgreSQL {NEW} has the data and keeps it, as others may have written to it." in output
    assert psql("SHOW server_version").startswith(NEW) and sums() == before
    assert answer(site, EXPERIMENT)[0] == 200
    rc, output = run(UPGRADE, "--skip-tags", "site")
    assert rc == 0 and f"PostgreSQL {NEW} has MLflow's data already." in output, output
