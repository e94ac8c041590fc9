"""Other numbers for the experiments of a store, and the keys that two stores may both have."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import store_experiments, store_findings, store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_findings import Findings
from ansible_collections.mlops.mlflow.plugins.module_utils.store_tables import Reference, Table
from ansible_collections.mlops.mlflow.plugins.module_utils.store_values import Column
from hypothesis import given
from hypothesis import strategies as st

NUMBER = Column("experiment_id", "int4")
EXPERIMENTS = Table("experiments", (NUMBER, Column("name", "varchar", 256)), keys=(("experiment_id",), ("name",)))
RUN = Column("run_uuid", "varchar", 32)
OF_EXPERIMENT = Reference(("experiment_id",), "experiments", ("experiment_id",))
OF_RUN = Reference(("run_uuid",), "runs", ("run_uuid",))
RUNS = Table("runs", (RUN, NUMBER), keys=(("run_uuid",),), references=(OF_EXPERIMENT,))
TAGS = Table("tags", (Column("key", "text"), RUN), keys=(("key", "run_uuid"),), references=(OF_RUN,))
ROLLUPS = Table("rollups", (Column("id", "int4"), NUMBER), keys=(("id",),), references=(OF_EXPERIMENT,), sequences={"id": "rollups_id_seq"})
LINKS = Table("entity_associations", tuple(Column(name, "text") for name in ("source_type", "source_id", "destination_type", "destination_id")))
ALL = {table.name: table for table in (EXPERIMENTS, RUNS, TAGS, ROLLUPS, LINKS)}


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Three experiments with a run each, and what leads to them."""
    path = str(tmp_path / "store.db")
    sqlite3.connect(path).executescript(
        """
        CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT UNIQUE);
        CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, experiment_id INTEGER);
        CREATE TABLE rollups (id INTEGER PRIMARY KEY, experiment_id INTEGER);
        CREATE TABLE entity_associations (source_type TEXT, source_id TEXT, destination_type TEXT, destination_id TEXT);
        INSERT INTO experiments VALUES (0, 'Default'), (1, 'a'), (2, 'b');
        INSERT INTO runs VALUES ('r0', 0), ('r1', 1), ('r2', 2), ('r', NULL);
        INSERT INTO rollups VALUES (1, 1), (2, 2);
        INSERT INTO entity_associations VALUES ('evaluation_dataset', '1', 'experiment', '1'), ('experiment', '2', 'run', '2');
        """
    )
    with store_tables.opened(path, write=True) as store:
        yield store


def test_new_numbers_everywhere(store: sqlite3.Connection) -> None:
    """Also where a new one is another's old one; what is no number of an experiment stays."""
    store_experiments.renumber(store, {name: ALL[name] for name in ("experiments", "runs", "rollups", "entity_associations")}, {1: 2, 2: 3})
    assert store.execute("SELECT * FROM experiments ORDER BY 1").fetchall() == [(0, "Default"), (2, "a"), (3, "b")]
    assert store.execute("SELECT * FROM runs ORDER BY 1").fetchall() == [("r", None), ("r0", 0), ("r1", 2), ("r2", 3)]
    assert store.execute("SELECT experiment_id FROM rollups ORDER BY id").fetchall() == [(2,), (3,)]
    assert store.execute("SELECT source_id, destination_id FROM entity_associations").fetchall() == [("1", "2"), ("3", "2")]


@given(st.data())
def test_any_new_numbers(data: st.DataObject) -> None:
    """Each run stays with its experiment."""
    old = data.draw(st.lists(st.integers(0, 20), unique=True, min_size=1))
    new = data.draw(st.lists(st.integers(0, 20), unique=True, min_size=len(old), max_size=len(old)))
    store = sqlite3.connect(":memory:", isolation_level=None)
    store.executescript("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER);")
    store.executemany("INSERT INTO experiments VALUES (?, ?)", [(number, str(number)) for number in old])
    store.executemany("INSERT INTO runs VALUES (?, ?)", [(str(number), number) for number in old])
    store_experiments.renumber(store, {"experiments": EXPERIMENTS, "runs": RUNS}, dict(zip(old, new)))
    query = "SELECT run_uuid, name, experiment_id FROM runs JOIN experiments USING (experiment_id)"
    assert sorted(store.execute(query).fetchall()) == sorted((str(before), str(before), after) for before, after in zip(old, new))
    store.close()


def test_numbers_of_a_file_store(store: sqlite3.Connection) -> None:
    """Go on after those that fit."""
    store.execute("INSERT INTO experiments VALUES (946413376415532999, 'c'), (946413376415532998, 'd')")
    assert store_experiments.too_big(store) == {946413376415532998: 3, 946413376415532999: 4}


def test_a_table_is_counted_anew(store: sqlite3.Connection) -> None:
    """In its order, also where the column is SQLite's own number of the row."""
    store_experiments.count_anew(store, ROLLUPS, "id", [2, 7])
    assert store.execute("SELECT * FROM rollups ORDER BY 1").fetchall() == [(2, 1), (7, 2)]


def test_what_is_compared() -> None:
    """Keys of rows that belong to a run are those of the run."""
    assert store_experiments.compared(RUNS) == [("run_uuid",)]
    assert store_experiments.compared(TAGS) == []
    assert store_experiments.compared(EXPERIMENTS) == [("experiment_id",), ("name",)]


def test_values_of_a_key(store: sqlite3.Connection) -> None:
    """Without those that are like no other."""
    found = [row for rows in store_experiments.key_values(store, RUNS, ("experiment_id",)) for row in rows]
    assert sorted(found) == [(0,), (1,), (2,)]


def test_numbers_in_texts(store: sqlite3.Connection) -> None:
    """The list by which prompts are found; what is none stays."""
    assert store_experiments.listed_anew(",1,2,", {1: 2, 2: 30}) == ",2,30,"
    assert store_experiments.listed_anew(",,x,7,", {1: 2}) == ",,x,7,"
    tags = Table("registered_model_tags", tuple(Column(name, "text") for name in ("name", "key", "value")))
    store.execute("CREATE TABLE registered_model_tags (name TEXT, key TEXT, value TEXT)")
    store.execute("INSERT INTO registered_model_tags VALUES ('p', '_mlflow_experiment_ids', ',1,'), ('p', 'mine', ',1,')")
    store_experiments.renumber(store, {"registered_model_tags": tags}, {1: 5})
    assert store.execute("SELECT key, value FROM registered_model_tags ORDER BY 1").fetchall() == [("_mlflow_experiment_ids", ",5,"), ("mine", ",1,")]


def test_numbers_where_the_highest_is_taken(store: sqlite3.Connection) -> None:
    """Free ones are looked for."""
    store.execute("INSERT INTO experiments VALUES (2147483647, 'last'), (2147483648, 'beyond'), (-2147483649, 'below')")
    assert store_experiments.too_big(store) == {-2147483649: 3, 2147483648: 4}


def test_a_store_without_default() -> None:
    """Gets one, under a name that nobody has; one that has it stays as it is."""
    store = sqlite3.connect(":memory:", isolation_level=None)
    columns = "experiment_id INTEGER PRIMARY KEY, name TEXT UNIQUE, artifact_location, lifecycle_stage, creation_time, last_update_time"
    store.execute(f"CREATE TABLE experiments ({columns})")
    store.execute("INSERT INTO experiments (experiment_id, name) VALUES (3, 'Default')")
    assert store_experiments.have_default(store, 7)
    assert store.execute("SELECT * FROM experiments ORDER BY 1").fetchone() == (0, "Default 2", "mlflow-artifacts:/0", "active", 7, 7)
    assert not store_experiments.have_default(store, 7)
    store.close()


def test_nothing_of_an_experiment_that_is_gone_comes_to_another(store: sqlite3.Connection, tmp_path: Path) -> None:
    """Whoever gets its number; what leads there is found first, and then not again."""
    prompts = Table("registered_model_tags", tuple(Column(name, "text") for name in ("name", "key", "value")), keys=(("key", "name"),))
    store.executescript(
        """
        INSERT INTO rollups VALUES (3, 7);
        INSERT INTO runs VALUES ('gone', 5000000007);
        INSERT INTO entity_associations VALUES ('evaluation_dataset', '3', 'experiment', '7');
        CREATE TABLE registered_model_tags (name TEXT, key TEXT, value TEXT);
        INSERT INTO registered_model_tags VALUES ('p', '_mlflow_experiment_ids', ',1,7,'), ('p', 'mine', ',7,');
        """
    )
    order, findings = [EXPERIMENTS, RUNS, ROLLUPS, LINKS, prompts], Findings(str(tmp_path / "findings.db"))
    store_findings.scan_experiments(store, order, findings, repairs=True)
    store_experiments.renumber(store, {table.name: table for table in order}, {1: 7, 2: 8})
    store_findings.scan(store, order, findings, repairs=True)
    assert [(each["table"], each["key"], each["what"][-20:], each["remedy"]) for each in findings.first(9)] == [
        ("runs", "run_uuid = 'gone'", "ment_id = 5000000007", "is left out"),
        ("rollups", "id = 3", "th experiment_id = 7", "is left out"),
        ("entity_associations", "", "th experiment_id = 7", "is left out"),
        ("registered_model_tags", "key = '_mlflow_experiment_ids', name = 'p'", "th experiment_id = 7", "becomes ',1,'"),
    ]
    assert store.execute("SELECT * FROM rollups").fetchall() == [(1, 7), (2, 8)]
    assert store.execute("SELECT run_uuid FROM runs ORDER BY 1").fetchall() == [("r",), ("r0",), ("r1",), ("r2",)]
    assert store.execute("SELECT destination_id FROM entity_associations").fetchall() == [("7",), ("2",)]
    assert store.execute("SELECT value FROM registered_model_tags ORDER BY key").fetchall() == [(",7,",), (",7,",)]
