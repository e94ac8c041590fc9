"""Stores of laptops come to a site: all of it or nothing, as their own clients see it, and with what is wrong with them named first."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

PROJECT = Path(__file__).resolve().parents[2]
OLD, NEW = ".venv-client-2.22.5", ".venv-client"
# Files, so that uploading them takes some time.
MANY = 1500
Playbook = Callable[..., subprocess.CompletedProcess[str]]
Laptop = Callable[..., Any]


@pytest.fixture(scope="session", name="laptop")
def fixture_laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A function that uses MLflow on a laptop: by which client, in which folder, against which store."""

    def use(client: str, folder: Path, uri: str, action: str, name: str, **environment: str) -> Any:
        folder.mkdir(exist_ok=True)
        command = [str(PROJECT / client / "bin/python"), "-W", "ignore", str(PROJECT / "tests/integration/laptop.py"), action, name]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_TRACKING_URI": uri}
        result = subprocess.run(command, cwd=folder, env={**os.environ, **quiet, **environment}, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1]) if action == "read" else None

    return use


@pytest.fixture(scope="session", name="stores")
def fixture_stores(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path, Any]]:
    """Stores that real clients have made: client, path, and what they see in it."""
    made = {}
    kinds = [("three", NEW, "sqlite:///mlflow.db", "mlflow.db"), ("two", OLD, "sqlite:///mlflow.db", "mlflow.db"), ("files", OLD, "./mlruns", "mlruns")]
    for name, client, uri, path in kinds:
        folder = tmp_path_factory.mktemp(name)
        laptop(client, folder, uri, "write", f"laptop {name}")
        many = next(folder.glob("mlruns/*/*/artifacts")) / "many"
        many.mkdir()
        for number in range(MANY):
            (many / f"{number}.txt").write_text(f"{number}\n" * 100, encoding="utf-8")
        made[name] = client, folder / path, laptop(client, folder, uri, "read", f"laptop {name}")
    return made


@pytest.fixture(name="server")
def fixture_server(site: dict[str, Any], laptop: Laptop, tmp_path: Path) -> Callable[[str, str], Any]:
    """A function that reads what the server has of a laptop's experiment, by the laptop's client."""
    way = {
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": site["admin_password"],
        "REQUESTS_CA_BUNDLE": site["ca_file"],
    }
    return lambda client, name: laptop(client, tmp_path / "elsewhere", site["url"], "read", name, **way)


@pytest.fixture(name="bring")
def fixture_bring(playbook: Playbook, tmp_path: Path) -> Callable[..., Any]:
    """A function that imports a store, and returns what was printed, with the report."""

    def run(source: Path, *options: str, **variables: Any) -> Any:
        given = {"import_source": str(source), "import_report_folder": str(tmp_path / "report"), **variables}
        return playbook("playbooks/import_store.yml", *options, variables=given)

    return run


@pytest.fixture(name="rows")
def fixture_rows(postgresql: Any) -> Callable[[], dict[str, int]]:
    """A function that counts the target's rows by table, those left out that servers write by themselves."""
    query = """SELECT table_name, (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM public.%I', table_name), false, true, '')))[1]
      FROM information_schema.tables WHERE table_schema = 'public' AND table_name NOT IN ('inputs', 'jobs', 'job_locks', 'scheduler_leases') ORDER BY 1"""

    def count() -> dict[str, int]:
        lines = postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s", query).splitlines()
        return {name: int(number) for name, number in (line.split("|") for line in lines) if number != "0"}

    return count


@pytest.fixture(name="spoiled")
def fixture_spoiled(tmp_path: Path) -> Path:
    """A store of the newest schema, with one of each kind of what PostgreSQL does not take."""
    path = tmp_path / "spoiled.db"
    subprocess.run([str(PROJECT / NEW / "bin/mlflow"), "db", "upgrade", f"sqlite:///{path}"], capture_output=True, check=True)
    with sqlite3.connect(path) as source:
        source.executescript(
            """
            INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)
              VALUES (7, 'spoiled', 's3://theirs/7', 'active', 'default'), (5000000000, 'far away', 's3://theirs/8', 'active', 'default');
            INSERT INTO runs (run_uuid, name, source_type, status, user_id, start_time, lifecycle_stage, experiment_id)
              VALUES ('5001', 'in text', 'LOCAL', 'FINISHED', 'ada', '2026-01-02 03:04:05', 'active', 7),
              ('5002', 'far', 'LOCAL', 'FINISHED', 'ada', 1767322800000, 'active', 5000000000),
              ('5003', 'of nobody', 'LOCAL', 'FINISHED', 'ada', 1767322800000, 'active', 9);
            CREATE TABLE other AS SELECT * FROM tags;
            DROP TABLE tags;
            ALTER TABLE other RENAME TO tags;
            INSERT INTO tags (run_uuid, key, value) VALUES ('5001', 'nul', 'a' || char(0) || 'b'), ('5001', 'long', printf('%.9000c', 'x')),
              ('5001', 'bytes', CAST(x'61ff' AS TEXT)), ('5001', 'twice', 'same'), ('5001', 'twice', 'same');
            INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES ('loss', 0.5, 1, '5001', 0, 0), ('loss', 0.5, 1, 'gone', 0, 0);
            INSERT INTO evaluation_datasets (dataset_id, name, created_time, last_update_time, workspace) VALUES ('d-5', 'spoiled', 1, 1, 'default');
            INSERT INTO evaluation_dataset_records (dataset_record_id, dataset_id, inputs, input_hash, created_time, last_update_time)
              VALUES ('r-5', 'd-5', '{"loss": NaN, "name": "NaN"}', 'x', 1, 1);
            """
        )
    source.close()
    return path


SPOILED = {
    ("experiments", "experiment_id", "is 5000000000, beyond the int4 that its column is"),
    ("runs", "experiment_id", "there is no row of experiments with experiment_id = 9"),
    ("runs", "start_time", "is '2026-01-02 03:04:05', not a time in milliseconds"),
    ("tags", "value", "has a NUL byte"),
    ("tags", "value", "has 9000 characters, and there is room for 8000"),
    ("tags", "value", "is no text in UTF-8"),
    ("tags", "key, run_uuid", "2 rows have this key"),
    ("metrics", "run_uuid", "there is no row of runs with run_uuid = 'gone'"),
    ("evaluation_dataset_records", "inputs", "has NaN, which is no JSON"),
}


def found_in(report: Path) -> set[tuple[str, str, str]]:
    """Return what the report's table has."""
    with (report / "findings.csv").open(encoding="utf-8", newline="") as file:
        return {(row["table"], row["column"], row["what"]) for row in csv.DictReader(file)}


# Who has ended by himself in this moment is not there to be killed.
KILL = r"""
process=$(sed 's/.*"process": \([0-9]*\).*/\1/' $(ls -t /var/lib/mlops-import/*/progress.json | head -1))
kill -KILL $process; tail --pid=$process -f /dev/null
"""
# After the end of the transaction the module may end by itself at any moment.
COMMITTED = "until [ $(cd / && runuser -u postgres -- psql -XAt -d mlflow -c \"SELECT count(*) FROM runs WHERE run_uuid = '{run}'\") = 1 ]; do sleep 0.1; done"


@pytest.fixture(name="interrupted")
def fixture_interrupted(site: dict[str, Any], mlflow: Any, postgresql: Any, tmp_path: Path) -> Callable[..., None]:
    """A function that begins an import, and kills it at a moment of a step, or after the transaction that brings a run."""

    def run(source: Path, step: str = "", after: str = "", **variables: str) -> None:
        given = {"import_source": str(source), "import_report_folder": str(tmp_path / "report"), **variables}
        command = ["ansible-playbook", "-i", site["inventory"], "playbooks/import_store.yml", "-e", json.dumps(given)]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as running:
            if step:
                waiting = f"until grep -qs '\"step\": \"{step}' /var/lib/mlops-import/*/progress.json; do sleep 0.1; done"
                mlflow.check_output(f"timeout 150 sh -c %s && sleep {random.uniform(0, 0.3):.2f} && sh -c %s", waiting, KILL)
            else:
                postgresql.check_output("timeout 150 sh -c %s", COMMITTED.format(run=after))
            os.killpg(running.pid, signal.SIGKILL)

    return run


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"import_source": "/nowhere/mlflow.db"}, "import_source = '/nowhere/mlflow.db': there is no such file or folder on the controller"),
        ({"import_mod": "merge"}, "import_mod: there is no such variable; did you mean import_mode?"),
        ({"import_source": "/etc/hostname"}, "/etc/hostname cannot be read as SQLite"),
    ],
)
def test_what_is_mistyped(bring: Callable[..., Any], stores: dict[str, Any], rows: Callable[[], dict[str, int]], variables: dict[str, str], line: str) -> None:
    """Is named, and nothing is changed."""
    before = rows()
    result = bring(stores["three"][1], **variables)
    assert result.returncode != 0 and line in " ".join(result.stdout.split()), result.stdout
    assert rows() == before


def test_what_postgresql_does_not_take_is_named(bring: Callable[..., Any], spoiled: Path, rows: Callable[[], dict[str, int]], tmp_path: Path) -> None:
    """All of it, with what an import would do; nothing is written, neither by a look nor by an import."""
    before = rows()
    for options in (["--check"], []):
        result = bring(spoiled, *options)
        assert result.returncode != 0 and "it has 9 values or rows that PostgreSQL does not take, 0 of which nobody but you" in " ".join(result.stdout.split())
        assert found_in(tmp_path / "report") == SPOILED
    report = (tmp_path / "report/import.md").read_text(encoding="utf-8")
    assert "It cannot be imported as it is." in report and "becomes '{\"loss\": null, \"name\": \"NaN\"}'" in report
    assert "<td>is no text in UTF-8</td>" in (tmp_path / "report/import.html").read_text(encoding="utf-8")
    assert rows() == before


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        (
            "UPDATE alembic_version SET version_num = 'deadbeef'",
            "is at the revision deadbeef (table alembic_version), which the installed MLflow does not know",
        ),
        ("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)", "do not have the same tables, or columns: mine"),
    ],
)
def test_no_store_of_mlflows(bring: Callable[..., Any], spoiled: Path, statement: str, line: str) -> None:
    """Is refused as such."""
    with sqlite3.connect(spoiled) as source:
        source.executescript(statement)
    source.close()
    result = bring(spoiled)
    assert result.returncode != 0 and line in " ".join(result.stdout.split()), result.stdout


def test_killed_at_any_moment(
    bring: Callable[..., Any], interrupted: Callable[..., None], stores: dict[str, Any], rows: Callable[[], dict[str, int]], mlflow: Any
) -> None:
    """The target has all of it or nothing, and the next run completes it; then a second import is refused."""
    path = stores["three"][1]
    with sqlite3.connect(path) as source:
        run = source.execute("SELECT run_uuid FROM runs WHERE name = 'parent'").fetchone()[0]
        points = ((f"many {number % 10}", number / 7, 1_767_322_800_000 + number, run, number, 0) for number in range(300_000))
        source.executemany("INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", points)
    source.close()
    nothing, found = rows(), []
    for step in ("looking", "uploading", "copying", "comparing"):
        interrupted(path, step)
        found.append(rows())
        assert found[-1] == nothing or found[-1]["metrics"] == 300_000 + 157
    assert found[0] == found[1] == found[2] == nothing
    interrupted(path, after=run)
    result = bring(path)
    assert result.returncode == 0 and "An interrupted run has brought the tables" in " ".join(result.stdout.split()), result.stdout
    assert rows()["metrics"] == 300_000 + 157 and rows()["runs"] == 6
    assert not mlflow.check_output("ls /var/lib/mlops-import")
    result = bring(path)
    assert result.returncode != 0 and "the target is not empty, it has rows in" in " ".join(result.stdout.split())


def test_a_laptop_finds_what_it_had(stores: dict[str, Any], server: Callable[[str, str], Any]) -> None:
    """By its own client: runs, histories, models, prompts, traces, assessments and files."""
    client, _path, before = stores["three"]
    assert server(client, "laptop three") == before


@pytest.mark.parametrize("name", ["two", "files"])
def test_beside_what_is_there(
    bring: Callable[..., Any],
    interrupted: Callable[..., None],
    stores: dict[str, Any],
    server: Callable[[str, str], Any],
    rows: Callable[[], dict[str, int]],
    mlflow: Any,
    site: dict[str, Any],
    tmp_path: Path,
    name: str,
) -> None:
    """Stores of an older client come under new numbers; what was there stays as it was, and nobody can bring them twice.

    Whoever is interrupted keeps his numbers, under which there are artifacts already, also when somebody only looks meanwhile. No secret is shown.
    """
    client, path, before = stores[name]
    interrupted(path, "uploading", import_mode="merge")
    numbers = json.loads(mlflow.check_output("cat /var/lib/mlops-import/*/numbers.json"))
    result = bring(path, "--check", import_mode="merge")
    assert result.returncode == 0 and "Nothing stands in the way" in result.stdout, result.stdout
    result = bring(path, "-vvv", import_mode="merge")
    assert result.returncode == 0, result.stdout
    shown = result.stdout + result.stderr
    assert "store_compare" in shown and [secret for secret in site["secrets"] if secret and secret in shown] == []
    assert all(f"| {old} | {new} |" in (tmp_path / "report/import.md").read_text(encoding="utf-8") for old, new in numbers.items())
    assert server(client, f"laptop {name}") == before
    assert server(stores["three"][0], "laptop three") == stores["three"][2]
    assert not mlflow.check_output("ls /var/lib/mlops-import")
    there = rows()
    result = bring(path, import_mode="merge")
    run = before["runs"][0][0]
    assert result.returncode != 0 and f"runs with run_uuid = '{run}'" in " ".join(result.stdout.split()), result.stdout
    assert rows() == there


def test_what_can_be_repaired_is(bring: Callable[..., Any], spoiled: Path, postgresql: Any, tmp_path: Path) -> None:
    """As it was said, and with all of it in the report."""
    result = bring(spoiled, import_mode="merge", import_on_bad_value="repair", import_default_as="Default of the spoiled")
    assert result.returncode == 0, result.stdout
    assert {each for each in found_in(tmp_path / "report") if each[0] != "experiments"} == {each for each in SPOILED if each[0] != "experiments"}

    def ask(query: str) -> str:
        return postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s", query)

    assert ask("SELECT count(*) FROM runs WHERE run_uuid = '5003'") == "0"
    assert ask("SELECT start_time FROM runs WHERE run_uuid = '5001'") == "1767323045000"
    assert ask("SELECT key, length(value) FROM tags WHERE run_uuid = '5001' ORDER BY 1") == "bytes|2\nlong|8000\nnul|2\ntwice|4"
    assert ask("SELECT inputs FROM evaluation_dataset_records WHERE dataset_record_id = 'r-5'") == '{"loss": null, "name": "NaN"}'
    assert ask("SELECT e.name FROM runs r JOIN experiments e USING (experiment_id) WHERE run_uuid = '5002'") == "far away"


def test_tables_of_2_0(bring: Callable[..., Any], postgresql: Any, tmp_path: Path) -> None:
    """Come, whatever has been added since; addresses stay where that is wanted."""
    path = tmp_path / "old.db"
    command = [str(PROJECT / NEW / "bin/python"), str(PROJECT / "tests/integration/old_store.py"), f"sqlite:///{path}", "97727af70f4d"]
    subprocess.run(command, capture_output=True, check=True)
    with sqlite3.connect(path) as source:
        source.executescript(
            """
            INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (1, 'of 2.0', '/home/ada/mlruns/1', 'active');
            INSERT INTO runs (run_uuid, name, source_type, status, user_id, start_time, lifecycle_stage, artifact_uri, experiment_id)
              VALUES ('2001', 'old', 'LOCAL', 'FINISHED', 'ada', 1669000000000, 'active', '/home/ada/mlruns/1/2001/artifacts', 1);
            INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES ('loss', 0.25, 1669000000001, '2001', 1, 0);
            INSERT INTO params (key, value, run_uuid) VALUES ('depth', '7', '2001');
            INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES ('model of 2.0', 1669000000002, 1669000000003);
            INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source, run_id, status)
              VALUES ('model of 2.0', 1, 1669000000002, 1669000000003, 'Production', 's3://theirs/1/m', '2001', 'READY');
            """
        )
    source.close()
    result = bring(path, import_mode="merge", import_artifacts="keep")
    assert result.returncode == 0, result.stdout
    query = """SELECT e.name, e.experiment_id > 1, e.artifact_location, r.artifact_uri, r.start_time, m.value, p.value, v.current_stage
      FROM runs r JOIN experiments e USING (experiment_id) JOIN metrics m USING (run_uuid) JOIN params p USING (run_uuid)
      JOIN model_versions v ON v.run_id = r.run_uuid WHERE run_uuid = '2001'"""
    found = postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s", query)
    assert found == "of 2.0|t|/home/ada/mlruns/1|/home/ada/mlruns/1/2001/artifacts|1669000000000|0.25|7|Production"


TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=50)
RUNS = st.lists(
    st.fixed_dictionaries(
        {
            "name": TEXTS,
            "tags": st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=5),
            "params": st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=5),
            "metrics": st.lists(st.tuples(TEXTS.filter(bool), st.floats(allow_nan=False), st.integers(-(1 << 63), (1 << 63) - 1)), unique=True, max_size=5),
        }
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(runs=RUNS, number=st.integers(0, 1 << 60))
def test_a_store_of_anything(runs: list[dict[str, Any]], number: int, bring: Callable[..., Any], postgresql: Any, tmp_path: Path) -> None:
    """Whatever PostgreSQL takes comes back as it was: the import itself compares it, and here PostgreSQL writes all of it as JSON."""
    path, name = tmp_path / f"{uuid.uuid4()}.db", f"any {uuid.uuid4()}"
    subprocess.run([str(PROJECT / NEW / "bin/mlflow"), "db", "upgrade", f"sqlite:///{path}"], capture_output=True, check=True)
    wanted = []
    with sqlite3.connect(path) as source:
        columns = "experiment_id, name, artifact_location, lifecycle_stage, workspace"
        source.execute(f"INSERT INTO experiments ({columns}) VALUES (?, ?, 's3://theirs/7', 'active', 'default')", (number, name))
        for run in runs:
            # Not random's, which hypothesis has begin anew.
            run_id = uuid.uuid4().hex
            source.execute(
                "INSERT INTO runs (run_uuid, name, source_type, status, user_id, lifecycle_stage, experiment_id, artifact_uri) "
                "VALUES (?, ?, 'LOCAL', 'FINISHED', '', 'active', ?, 's3://theirs/7')",
                (run_id, run["name"], number),
            )
            source.executemany("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", [(run_id, *pair) for pair in run["tags"].items()])
            source.executemany("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", [(run_id, *pair) for pair in run["params"].items()])
            source.executemany("INSERT OR IGNORE INTO metrics VALUES (?, ?, 1, ?, ?, 0)", [(key, value, run_id, step) for key, value, step in run["metrics"]])
            points = source.execute("SELECT key, value, step FROM metrics WHERE run_uuid = ?", (run_id,)).fetchall()
            wanted.append([run["name"], run["tags"], run["params"], sorted([key, repr(value), step] for key, value, step in points)])
    source.close()
    result = bring(path, import_mode="merge", import_on_bad_value="repair" if number >= 1 << 31 else "refuse")
    assert result.returncode == 0, result.stdout
    query = f"""SELECT json_build_array(r.name,
        coalesce((SELECT json_object_agg(key, value) FROM tags WHERE run_uuid = r.run_uuid), '{{}}'),
        coalesce((SELECT json_object_agg(key, value) FROM params WHERE run_uuid = r.run_uuid), '{{}}'),
        coalesce((SELECT json_agg(json_build_array(key, value::text, step)) FROM metrics WHERE run_uuid = r.run_uuid), '[]'))
      FROM runs r JOIN experiments e USING (experiment_id) WHERE e.name = '{name}'"""
    # There are more ends of lines than that of psql.
    lines = postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s", query).split("\n")
    found = [json.loads(line) for line in lines if line]
    for run in found:
        run[3] = sorted([key, repr(float(value)), step] for key, value, step in run[3])
    assert sorted(json.dumps(run, sort_keys=True) for run in found) == sorted(json.dumps(run, sort_keys=True) for run in wanted)


def emptied(path: Path, name: str) -> None:
    """Leave of a spoiled store one good experiment with this name."""
    with sqlite3.connect(path) as source:
        for table in ("runs", "tags", "metrics", "evaluation_dataset_records", "evaluation_datasets"):
            source.execute(f"DELETE FROM {table}")
        source.execute("DELETE FROM experiments WHERE experiment_id > 7")
        source.execute("UPDATE experiments SET name = ? WHERE experiment_id = 7", (name,))
    source.close()


def test_a_source_that_goes_on(
    bring: Callable[..., Any], interrupted: Callable[..., None], spoiled: Path, rows: Callable[[], dict[str, int]], postgresql: Any
) -> None:
    """After an interrupted import it is another one, and not taken for what has come. Here its runs are in Default, and so they are in the target's."""
    emptied(spoiled, "to go on")
    run = "INSERT INTO runs (run_uuid, name, source_type, status, user_id, lifecycle_stage, experiment_id) VALUES (?, '', 'LOCAL', 'FINISHED', '', 'active', 0)"
    columns = "experiment_id, name, artifact_location, lifecycle_stage, workspace"
    with sqlite3.connect(spoiled) as source:
        source.execute(f"INSERT INTO experiments ({columns}) VALUES (0, 'Default', 's3://theirs/0', 'active', 'default')")
        source.execute(run, ("6001",))
    source.close()
    interrupted(spoiled, after="6001", import_mode="merge")
    with sqlite3.connect(spoiled) as source:
        source.execute(run, ("6002",))
    source.close()
    before = rows()
    result = bring(spoiled, import_mode="merge")
    words = " ".join(result.stdout.split())
    assert result.returncode != 0 and "runs with run_uuid = '6001'" in words and "since then the source has changed" in words, result.stdout
    assert rows() == before
    query = "SELECT experiment_id FROM runs WHERE run_uuid LIKE '600%'"
    assert postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s", query) == "0"


def test_what_does_not_come_as_it_was(bring: Callable[..., Any], spoiled: Path, rows: Callable[[], dict[str, int]], postgresql: Any) -> None:
    """Is named, and nothing stays of the rest: here something in PostgreSQL changes one value of one row."""

    def ask(query: str) -> None:
        postgresql.check_output("cd / && runuser -u postgres -- psql -XAt -d mlflow -c %s", query)

    emptied(spoiled, "to be changed")
    ask(
        """CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.lifecycle_stage := ''deleted''; RETURN NEW; END';
        CREATE TRIGGER spoil BEFORE INSERT ON experiments FOR EACH ROW WHEN (NEW.name = 'to be changed') EXECUTE FUNCTION spoil()"""
    )
    before = rows()
    try:
        result = bring(spoiled, import_mode="merge")
    finally:
        ask("DROP TRIGGER spoil ON experiments; DROP FUNCTION spoil()")
    words = " ".join(result.stdout.split())
    assert result.returncode != 0 and "after copying, experiments has got 1 rows, and not all of them are those of the source" in words, result.stdout
    assert rows() == before


def test_a_store_on_the_host(
    bring: Callable[..., Any], mlflow: Any, site: dict[str, Any], tmp_path: Path, laptop: Laptop, server: Callable[[str, str], Any]
) -> None:
    """With artifacts that its own server had, some of which are not there any more: only whoever says so gives them up."""
    folder = tmp_path / "there"
    laptop(NEW, folder, "sqlite:///mlflow.db", "write", "there")
    before = laptop(NEW, folder, "sqlite:///mlflow.db", "read", "there")
    with sqlite3.connect(folder / "mlflow.db") as source:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            source.execute(f"UPDATE {table} SET {column} = replace({column}, ?, 'mlflow-artifacts:')", (f"{folder}/mlruns",))
        source.execute("UPDATE model_versions SET source = replace(source, ?, 'mlflow-artifacts:')", (f"{folder}/mlruns",))
        source.execute("UPDATE trace_tags SET value = replace(value, ?, 'mlflow-artifacts:')", (f"{folder}/mlruns",))
        source.execute("UPDATE experiments SET artifact_location = '/lost/long ago/1' WHERE name = 'there removed'")
        source.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'Default'", (r"C:\Users\ada\mlruns\0",))
    source.close()
    shutil.move(folder / "mlruns", folder / "served")
    subprocess.run(["tar", "-cf", tmp_path / "there.tar", "-C", folder, "."], check=True)
    key = ["-i", site["ssh_key"], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    subprocess.run(["scp", "-q", *key, tmp_path / "there.tar", f"admin@{site['mlflow']}:/tmp/there.tar"], check=True)
    mlflow.check_output("mkdir -p /srv/there && tar -xf /tmp/there.tar -C /srv/there")
    options = {"import_from": "host", "import_mode": "merge", "import_default_as": "Default of the host"}
    result = bring(Path("/srv/there/mlflow.db"), **options)
    words = " ".join(result.stdout.split())
    assert result.returncode != 0 and "name it in import_served_artifacts" in words and "/C:/Users/ada/mlruns/0, /lost/long ago/1" in words, result.stdout
    options |= {"import_served_artifacts": "/srv/there/served", "import_missing_artifacts": "accept"}
    result = bring(Path("/srv/there/mlflow.db"), **options)
    assert result.returncode == 0, result.stdout
    assert server(NEW, "there") == before
