"""From an MLflow of years ago to the newest, and back: whatever goes wrong on the way, the service is up and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from conftest import PROJECT, SSH
from test_mlflow import EXPERIMENT, answer, basic, opener

Playbook = Callable[..., Any]

OLD, EARLY, MIDDLE, NEW = "2.22.5", "3.1.4", "3.17.1", "3.17.2"
# What an upgrade runs of site.yml; the rest of a site is as it was.
TAGS = ("--tags", "mlflow,mlflow_schema")
# The last of MIDDLE's migrations.
MIDDLE_HEAD = "dc11669786a5"
# A site may be tested twice.
HISTORY = f"history-{time.time_ns()}"
BROKEN = PROJECT / "tests" / "integration" / "broken_revision.py"


# A migration moves the names of traces from their tags to a column.
MOVED = {"trace_tags": " WHERE key <> 'mlflow.traceName'"}


def client(site: dict[str, Any], version: str, *arguments: str) -> str:
    """Run the history's program with the real client of a version; return what it printed."""
    folder = ".venv-client" if version == NEW else f".venv-client-{version}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "MLFLOW_TRACKING_URI": site["url"],
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": site["admin_password"],
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "REQUESTS_CA_BUNDLE": site["ca_file"],
    }
    command = [str(PROJECT / folder / "bin" / "python"), str(PROJECT / "tests/integration/history.py"), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def served(site: dict[str, Any]) -> str:
    """Ask which version answers."""
    return answer(site, "/version")[1]


@pytest.fixture(scope="module", name="hosts")
def fixture_hosts(site: dict[str, Any]) -> dict[str, Any]:
    """The MLflow hosts by their names, as root."""
    return {
        name: testinfra.get_host(f"ssh://admin@{address}", ssh_identity_file=site["ssh_key"], ssh_extra_args=SSH, sudo=True)
        for name, address in site["mlflow_hosts"].items()
    }


@pytest.fixture(scope="module", name="sql")
def fixture_sql(postgresql: Any) -> Callable[[str], str]:
    """A function that runs a statement in the tracking database and returns the rows."""
    return lambda statement: postgresql.check_output("cd / && runuser -u postgres -- psql -XAtd mlflow -c %s", statement)


@pytest.fixture(scope="module", name="tables")
def fixture_tables(sql: Callable[[str], str]) -> Callable[[], dict[str, str]]:
    """A function that returns a checksum of each table that the old version has, over the columns that it has."""
    query = """SELECT json_object_agg(table_name, names) FROM (SELECT table_name, string_agg(quote_ident(column_name), ',' ORDER BY column_name) names
        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version' GROUP BY 1) t"""
    columns = json.loads(sql(query))

    def sums() -> dict[str, str]:
        parts = [
            f"SELECT '{table}', md5(string_agg(line, E'\\n' ORDER BY line COLLATE \"C\")) "
            f"FROM (SELECT row({names})::text AS line FROM {table}{MOVED.get(table, '')}) t"
            for table, names in columns.items()
        ]
        return dict(line.split("|", 1) for line in sql(" UNION ALL ".join(parts)).splitlines())

    return sums


@pytest.fixture(scope="module", name="before", autouse=True)
def fixture_before(site: dict[str, Any], tables: Callable[[], dict[str, str]]) -> dict[str, Any]:
    """What the old version's client has logged, as it reads it, and the tables."""
    assert served(site) == OLD
    client(site, OLD, "write", HISTORY)
    said = client(site, OLD, "read", HISTORY)
    seen = json.loads(said)
    assert len(seen["traces"]) == 4 and len(seen["runs"]) == 4
    return {"said": said, "tables": tables()}


@pytest.fixture(name="unharmed")
def fixture_unharmed(site: dict[str, Any], hosts: dict[str, Any], tables: Callable[[], dict[str, str]], before: dict[str, Any]) -> Iterator[None]:
    """After the test the old version serves on all hosts what it had."""
    yield
    assert {host.check_output("systemctl is-active mlflow") for host in hosts.values()} == {"active"}
    assert {current(host) for host in hosts.values()} == {OLD}
    assert [answer(site, EXPERIMENT)[0] for _server in range(6)] == [200] * 6
    assert tables() == before["tables"]
    assert client(site, OLD, "read", HISTORY) == before["said"]


def current(host: Any) -> str:
    """The version that a host's link leads to."""
    return host.check_output("basename $(readlink /opt/mlflow/current)").rsplit("-", 1)[0]


def copies(postgresql: Any) -> list[str]:
    """The names of the copies, oldest first."""
    return sorted(postgresql.check_output("find /var/backups -path '*/mlflow/*' -prune -printf '%f\n'").split())


@pytest.fixture(name="broken")
def fixture_broken(hosts: dict[str, Any]) -> Iterator[Any]:
    """The first host, where MLflow's migrations end with one that cannot be finished."""
    host, *_others = hosts.values()
    versions = host.check_output(f"dirname $(find /opt/mlflow/{MIDDLE}-* -path '*store/db_migrations/versions/*' -name '*.py' | head -1)")
    known = f"/opt/mlflow/{MIDDLE}-*/schema-revisions.json"
    text = BROKEN.read_text(encoding="utf-8").replace("@HEAD@", MIDDLE_HEAD)
    host.check_output(f"rm -f {known} && printf %s {shlex.quote(text)} > {versions}/broken.py")
    yield host
    host.check_output(f"rm -f {versions}/broken.py {known} /run/mlops-test-fails")


def upgrade(playbook: Playbook, version: str = MIDDLE, **variables: Any) -> Any:
    """Run what site.yml does for a version."""
    return playbook("playbooks/site.yml", *TAGS, variables={"mlflow_version": version, **variables})


def meanwhile(until: Callable[[], bool], action: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as something else is so."""

    def wait() -> None:
        for _attempt in range(600):
            if until():
                action()
                return
            time.sleep(0.3)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def is_half_done(sql: Callable[[str], str]) -> Callable[[], bool]:
    """Whether the broken migration has begun to sleep: its lock is on the table that it has changed."""
    query = "SELECT count(*) FROM pg_locks WHERE relation = 'runs'::regclass AND mode = 'AccessExclusiveLock' AND granted"
    return lambda: sql(query) == "1"


def test_a_version_that_is_there_beside_the_other_changes_nothing(playbook: Playbook, hosts: dict[str, Any], unharmed: None) -> None:
    """Its environment is built while the old one serves."""
    result = playbook("playbooks/site.yml", "--tags", "install", variables={"mlflow_version": MIDDLE})
    assert result.returncode == 0, result.stdout
    assert all(host.file(host.check_output(f"ls -d /opt/mlflow/{MIDDLE}-*")).is_directory for host in hosts.values())


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("fault", ["error", "killed", "database"])
def test_a_migration_that_fails(playbook: Playbook, broken: Any, sql: Callable[[str], str], postgresql: Any, fault: str) -> None:
    """By itself, because somebody kills it, or because the database restarts under it."""
    action = {
        "error": lambda: broken.check_output("touch /run/mlops-test-fails"),
        # The Python of the new version, which has the module on its standard input.
        "killed": lambda: broken.check_output("pkill --signal KILL --full '^/opt/mlflow/[^ ]*/bin/python$'"),
        "database": lambda: postgresql.check_output("systemctl restart postgresql@*"),
    }[fault]
    thread = meanwhile(is_half_done(sql), action)
    result = upgrade(playbook)
    thread.join()
    assert result.returncode != 0
    output = " ".join((result.stdout + result.stderr).split())
    assert "MLflow runs as before, with the tables and the configuration that it had." in output
    said = {"error": "this migration cannot be done", "killed": "", "database": "The migration of the tracking database from"}[fault]
    assert said in output


@pytest.mark.usefixtures("unharmed")
def test_a_server_that_does_not_start(playbook: Playbook, postgresql: Any) -> None:
    """When it shows, the tables are new already, so they come back from the copy."""
    before = copies(postgresql)
    result = upgrade(playbook, mlflow_environment={"MLFLOW_AUTH_CONFIG_PATH": "/nowhere"})
    assert result.returncode != 0
    assert "MLflow runs as before" in " ".join((result.stdout + result.stderr).split())
    assert len(set(copies(postgresql)) - set(before)) == 1


@pytest.mark.usefixtures("unharmed")
def test_a_host_that_is_lost_on_the_way(site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], sql: Callable[[str], str]) -> None:
    """The others go back without it, and it follows as soon as it is there again."""
    (name, first), *others = hosts.items()

    def cut() -> None:
        command = "systemd-run --quiet --on-active=60 --timer-property=AccuracySec=1s systemctl start ssh; systemctl stop ssh; pkill --full 'sshd: admin'"
        # The connection that says so is cut too.
        with contextlib.suppress(RuntimeError):
            first.run(command)

    thread = meanwhile(lambda: sql("SELECT version_num FROM alembic_version") == MIDDLE_HEAD, cut)
    result = upgrade(playbook)
    thread.join()
    assert result.returncode != 0
    assert "MLflow runs as before, with the tables and the configuration that it had." in " ".join((result.stdout + result.stderr).split())
    assert served(site) == OLD and {current(host) for _name, host in others} == {OLD}
    for _attempt in range(60):
        with contextlib.suppress(OSError), socket.create_connection((site["mlflow_hosts"][name], 22), timeout=5):
            break
        time.sleep(2)
    result = upgrade(playbook, OLD)
    assert result.returncode == 0, result.stdout


@pytest.mark.usefixtures("unharmed")
def test_no_room_for_the_copy(playbook: Playbook, postgresql: Any) -> None:
    """Nothing goes on without one, and nothing is left of it."""
    postgresql.check_output("mount -t tmpfs -o size=64k,mode=0700,uid=postgres tmpfs /var/backups/mlflow")
    try:
        result = upgrade(playbook)
        assert postgresql.check_output("ls -A /var/backups/mlflow") == ""
    finally:
        postgresql.check_output("umount /var/backups/mlflow")
    assert result.returncode != 0
    assert "The databases could not be copied, so nothing was changed: " in " ".join((result.stdout + result.stderr).split())


STEPS = [
    "mlops.mlflow.mlflow : stop | Stop the server",
    "mlops.mlflow.mlflow_schema : backup | Copy the databases",
    "mlops.mlflow.mlflow_schema : migrate | Bring tables",
    "mlops.mlflow.mlflow : switch | Make this version the current one",
    "mlops.mlflow.mlflow : service | Run the server",
    "mlops.mlflow.mlflow_schema : settle | Remember",
]


def killed_at(site: dict[str, Any], step: str, variables: Path) -> bool:
    """Run site.yml, and kill the controller with all it has started as soon as a step begins; False when it never did."""
    command = ["ansible-playbook", "--inventory", site["inventory"], "--extra-vars", f"@{variables}", *TAGS, "playbooks/site.yml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as run:
        for line in run.stdout or ():
            if line.startswith(f"TASK [{step}"):
                # Some are killed before the step, some in the middle of it.
                time.sleep(STEPS.index(step) % 3 * 0.4)
                # Its workers have process groups of their own, and would wait for it for ever.
                workers = subprocess.run(["pgrep", "--parent", str(run.pid)], capture_output=True, text=True, check=False).stdout.split()
                for process in [run.pid, *map(int, workers)]:
                    # One may have ended by itself since.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                return True
    return False


def test_a_controller_that_is_killed_again_and_again(
    site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], tables: Callable[[], dict[str, str]], before: dict[str, Any], tmp_path: Path
) -> None:
    """At one step after the other; the last run completes what all of them have left."""
    variables = tmp_path / "variables.json"
    variables.write_text(json.dumps({"mlflow_version": MIDDLE}), encoding="utf-8")
    reached = [step for step in STEPS if killed_at(site, step, variables)]
    assert len(reached) >= len(STEPS) - 2, "steps that were never begun are no test"
    result = upgrade(playbook)
    assert result.returncode == 0, result.stdout
    assert {current(host) for host in hosts.values()} == {MIDDLE} and served(site) == MIDDLE
    assert tables() == before["tables"]
    assert client(site, NEW, "read", HISTORY) == before["said"] == client(site, OLD, "read", HISTORY)


def test_a_rolling_restart(site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], postgresql: Any) -> None:
    """Between versions with the same tables no request fails, read or written, and there is no copy."""
    had = copies(postgresql)
    experiment = json.loads(answer(site, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={HISTORY}")[1])["experiment"]["experiment_id"]
    done, answers = threading.Event(), []

    # Each has keys of its own: two that make the same tag at the same moment get 400 from MLflow at any time.
    def keep_asking(who: int, write: bool) -> None:
        number = 0
        while not done.wait(0.02):
            number += 1
            values = {"experiment_id": experiment, "key": f"k{who}-{number % 10}", "value": str(number)}
            body = json.dumps(values).encode() if write else None
            path = "/api/2.0/mlflow/experiments/set-experiment-tag" if write else EXPERIMENT
            headers = {"Authorization": basic("admin", site["admin_password"]), "Content-Type": "application/json"}
            request = urllib.request.Request(site["url"] + path, body, headers)
            try:
                with opener(site).open(request, timeout=60) as reply:
                    answers.append(reply.status)
            except OSError as error:
                answers.append(str(error))

    threads = [threading.Thread(target=keep_asking, args=each) for each in enumerate((False, False, True, True))]
    for each in threads:
        each.start()
    result = upgrade(playbook, NEW)
    done.set()
    for each in threads:
        each.join()
    assert result.returncode == 0, result.stdout
    assert {current(host) for host in hosts.values()} == {NEW} and served(site) == NEW
    assert len(answers) > 100 and [each for each in answers if each != 200] == []
    assert copies(postgresql) == had


def test_nothing_is_left_to_do(playbook: Playbook) -> None:
    """And nothing stops for that, in the whole of site.yml."""
    result = playbook("playbooks/site.yml", variables={"mlflow_version": NEW})
    assert result.returncode == 0, result.stdout
    assert {int(changed) for changed in re.findall(r"changed=(\d+)", result.stdout)} == {0}


def test_an_older_version_is_refused(playbook: Playbook, hosts: dict[str, Any]) -> None:
    """Before anything stops, with the way back."""
    result = upgrade(playbook, OLD)
    assert result.returncode != 0
    output = " ".join((result.stdout + result.stderr).split())
    assert "its tables are those of a newer MLflow" in output and "playbooks/rollback.yml" in output
    assert {current(host) for host in hosts.values()} == {NEW}
    assert {host.check_output("systemctl is-active mlflow") for host in hosts.values()} == {"active"}


def test_the_way_back(site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], tables: Callable[[], dict[str, str]], before: dict[str, Any]) -> None:
    """It says what would be lost, and does it when exactly that is confirmed."""
    client(site, NEW, "write", f"{HISTORY}-later")
    asked = playbook("playbooks/rollback.yml", variables={"mlflow_version": OLD})
    assert asked.returncode != 0
    output = asked.stdout + asked.stderr
    assert "Runs that began since then: 4" in output and re.search(r"tracking.runs: \d+ rows\s+now", output)
    (name,) = set(re.findall(r"-e\s+confirm=(\S+)", output))
    assert served(site) == NEW
    result = playbook("playbooks/rollback.yml", variables={"mlflow_version": OLD, "confirm": name})
    assert result.returncode == 0, result.stdout
    assert {current(host) for host in hosts.values()} == {OLD} and served(site) == OLD
    assert tables() == before["tables"]
    assert client(site, OLD, "read", HISTORY) == before["said"]


def test_two_controllers_at_once(
    site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], postgresql: Any, tables: Callable[[], dict[str, str]], before: dict[str, Any]
) -> None:
    """One migration, whoever of them does it; and both end well."""
    had, results = copies(postgresql), []
    threads = [threading.Thread(target=lambda: results.append(upgrade(playbook, EARLY))) for _controller in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [result.returncode for result in results] == [0, 0], "\n".join(result.stdout + result.stderr for result in results)
    assert len(set(copies(postgresql)) - set(had)) == 1
    assert {current(host) for host in hosts.values()} == {EARLY} and served(site) == EARLY
    assert tables() == before["tables"]
    assert client(site, OLD, "read", HISTORY) == before["said"]


def test_the_proof_with_an_early_release(playbook: Playbook, tables: Callable[[], dict[str, str]], before: dict[str, Any], sql: Callable[[str], str]) -> None:
    """Nothing stays of what it makes, in tables that the old version had not either."""
    result = playbook("playbooks/verify.yml")
    assert result.returncode == 0, result.stdout
    # That a model came from a run is what MLflow itself never forgets.
    sql("DELETE FROM inputs")
    assert tables() == before["tables"] and sql("SELECT count(*) FROM logged_models") == "0"


def test_a_database_of_another_program(site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], sql: Callable[[str], str], postgresql: Any) -> None:
    """It has a version table of its own, and keeps it; nobody stops for that."""
    sql("CREATE DATABASE foreign_program OWNER mlflow_owner")
    foreign = "cd / && runuser -u postgres -- psql -XAtd foreign_program -c %s"
    try:
        postgresql.check_output(foreign, "CREATE TABLE dag (id int); CREATE TABLE alembic_version (version_num) AS SELECT 'b9'")
        for said in ("its table alembic_version belongs to the role postgres", "its revision b9 is no revision of MLflow"):
            options = ("--tags", "postgresql,mlflow,mlflow_schema")
            result = playbook("playbooks/site.yml", *options, variables={"mlflow_version": NEW, "mlflow_database_name": "foreign_program"})
            assert result.returncode != 0 and said in " ".join((result.stdout + result.stderr).split()), result.stdout
            postgresql.check_output(foreign, "ALTER TABLE alembic_version OWNER TO mlflow_owner")
        assert postgresql.check_output(foreign, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "2"
    finally:
        sql("DROP DATABASE foreign_program WITH (FORCE)")
    assert {current(host) for host in hosts.values()} == {EARLY} and served(site) == EARLY


def test_an_early_release_to_the_newest(
    site: dict[str, Any], playbook: Playbook, hosts: dict[str, Any], tables: Callable[[], dict[str, str]], before: dict[str, Any], sql: Callable[[str], str]
) -> None:
    """With what the last MLflow 2 has logged, for both clients; and MLflow's migrations leave the index as it is."""
    index = "SELECT indexrelid, indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.mlops_latest_metrics')"
    had = sql(index)
    assert had.strip().endswith("|t")
    result = playbook("playbooks/site.yml", variables={"mlflow_version": NEW})
    assert result.returncode == 0, result.stdout
    assert {current(host) for host in hosts.values()} == {NEW} and served(site) == NEW
    assert tables() == before["tables"]
    assert client(site, NEW, "read", HISTORY) == before["said"] == client(site, OLD, "read", HISTORY)
    assert sql(index) == had
