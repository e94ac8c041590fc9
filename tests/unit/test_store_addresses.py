"""Where the artifacts of a store are, and where they go."""

from __future__ import annotations

import sqlite3

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import store_addresses, store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_addresses import Place, Roots
from hypothesis import given
from hypothesis import strategies as st

HERE, SERVED = "/home/u", "/home/u/mlartifacts"


@pytest.mark.parametrize(
    ("uri", "kind", "path"),
    [
        ("file:///home/u/mlruns/1", "local", "/home/u/mlruns/1"),
        ("file://localhost/home/u/mlruns/1", "local", "/home/u/mlruns/1"),
        ("file:/home/u/my%20runs/", "local", "/home/u/my runs"),
        ("file:///home/u/a#b?c", "local", "/home/u/a#b?c"),
        ("/home/u/100%25 #1", "local", "/home/u/100%25 #1"),
        ("./mlruns/1/abc/artifacts", "local", "/home/u/mlruns/1/abc/artifacts"),
        ("mlruns/../other", "local", "/home/u/other"),
        ("FILE:///data/a", "local", "/data/a"),
        ("/", "wide", "/"),
        ("file:///home", "wide", "/home"),
        (".", "local", "/home/u"),
        ("mlflow-artifacts:/1/abc/artifacts", "local", "/home/u/mlartifacts/1/abc/artifacts"),
        ("mlflow-artifacts://host:5000/1/abc", "remote", "mlflow-artifacts://host:5000/1/abc"),
        ("s3://bucket/prefix/1", "remote", "s3://bucket/prefix/1"),
        ("dbfs:/x", "remote", "dbfs:/x"),
        ("runs:/abc/model", "inside", "runs:/abc/model"),
        ("models:/m-abc", "inside", "models:/m-abc"),
        ("dummy-source", "inside", "dummy-source"),
        ("prompt-template", "inside", "prompt-template"),
        ("REDACTED-SOURCE-PATH", "inside", "REDACTED-SOURCE-PATH"),
        ("C:\\Users\\ada\\mlruns\\1", "local", "/C:/Users/ada/mlruns/1"),
        ("c:/mlruns/1", "local", "/c:/mlruns/1"),
        ("file:///C:/Users/ada/mlruns/1", "local", "/C:/Users/ada/mlruns/1"),
        ("\\\\disk\\mlruns\\1", "local", "/disk/mlruns/1"),
    ],
)
def test_an_address(uri: str, kind: str, path: str) -> None:
    """As MLflow's releases and people write it."""
    assert store_addresses.place(uri, HERE, SERVED) == Place(kind, path)


def test_what_the_old_server_had() -> None:
    """Nobody knows where, unless it is said."""
    assert store_addresses.place("mlflow-artifacts:/1", HERE, "") == Place("served", "mlflow-artifacts:/1")


def test_the_folder_of_an_experiment_goes_where_mlflow_would_have_it() -> None:
    """By its number in the target; what is in no such folder has one of its own."""
    roots = Roots([(7, "/home/u/mlruns/1"), (8, "/data/mine"), (9, "/data/mine/deeper")], "t")
    for path in ("/home/u/mlruns/1/abc/artifacts", "/elsewhere/model", "/elsewhere/model/inside"):
        roots.add(path)
    assert roots.moved("/home/u/mlruns/1/abc/artifacts") == "7/abc/artifacts"
    assert roots.moved("/data/mine") == "8" and roots.moved("/data/mine/deeper/x") == "9/x"
    assert roots.moved("/elsewhere/model/inside") == f"{roots.moved('/elsewhere/model')}/inside"
    assert roots.moved("/elsewhere/model").startswith("imported/") and len(roots.targets) == 4
    # Another machine has other files under the same path.
    other = Roots([], "other")
    other.add("/elsewhere/model")
    assert other.moved("/elsewhere/model") != roots.moved("/elsewhere/model")
    with pytest.raises(KeyError):
        roots.moved("/home/u/mlruns/11")


TABLES = """
CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT);
CREATE TABLE runs (run_uuid TEXT, artifact_uri TEXT);
CREATE TABLE tags (run_uuid TEXT, key TEXT);
CREATE TABLE logged_models (artifact_location TEXT);
CREATE TABLE model_versions (source TEXT, storage_location TEXT);
CREATE TABLE trace_tags (key TEXT, value TEXT);
INSERT INTO experiments VALUES (0, '/u/mlruns/0'), (5, 'file:///u/mlruns/1'), (2, 's3://theirs/2'), (3, x'ff');
INSERT INTO runs VALUES ('r0', 'mlruns/0/r0/artifacts'), ('r1', 'mlruns/1/r1/artifacts'), ('r2', 's3://theirs/2/r2/artifacts'), ('r3', NULL), ('r4', ''),
  ('r5', '/'), ('r6', '/u/far/r6/artifacts'), ('r7', CAST(x'2f75ff' AS TEXT));
INSERT INTO tags VALUES ('r6', 'mlflow.log-model.history'), ('r0', 'mlflow.user');
INSERT INTO logged_models VALUES ('/u/mlruns/1/models/m-1/artifacts');
INSERT INTO model_versions VALUES ('models:/m-1', '/u/mlruns/1/models/m-1/artifacts'), ('/u/elsewhere/model', NULL);
INSERT INTO trace_tags VALUES ('mlflow.artifactLocation', '/u/mlruns/1/traces/t/artifacts'), ('mlflow.trace.archiveLocation', '/u/old/t'),
  ('note', '/u/mlruns/1');
"""


def test_addresses_move_with_the_artifacts() -> None:
    """Those that lead to the machine, and no others."""
    source = sqlite3.connect(":memory:", isolation_level=None)
    source.text_factory = store_tables.text_of
    source.executescript(TABLES)
    names = [row[0] for row in source.execute("SELECT name FROM sqlite_master")]
    has = {name: [row[1] for row in source.execute(f"PRAGMA table_info({name})")] for name in names}
    roots, counts = store_addresses.look(source, has, "/u", "", "t")
    assert counts == {"local": 10, "remote": 2, "inside": 1, "wide": 1}
    assert {path: target for path, target in roots.targets.items() if target.isdigit()} == {"/u/mlruns/0": "0", "/u/mlruns/1": "5"}
    # Runs may have artifacts; those with a model have.
    assert sorted(roots.expected) == ["/u/elsewhere/model", "/u/far/r6/artifacts", "/u/mlruns/1"]
    store_addresses.move(source, has, "/u", "", roots, "mlflow-artifacts:/")
    other = roots.targets["/u/elsewhere/model"]
    assert [row[1] for row in source.execute("SELECT * FROM experiments")] == ["mlflow-artifacts:/0", "mlflow-artifacts:/5", "s3://theirs/2", b"\xff"]
    assert [row[1] for row in source.execute("SELECT * FROM runs")] == [
        "mlflow-artifacts:/0/r0/artifacts",
        "mlflow-artifacts:/5/r1/artifacts",
        "s3://theirs/2/r2/artifacts",
        None,
        "",
        "/",
        f"mlflow-artifacts:/{roots.targets['/u/far/r6/artifacts']}",
        b"/u\xff",
    ]
    assert source.execute("SELECT * FROM model_versions").fetchall() == [
        ("models:/m-1", "mlflow-artifacts:/5/models/m-1/artifacts"),
        (f"mlflow-artifacts:/{other}", None),
    ]
    assert [row[1] for row in source.execute("SELECT * FROM trace_tags")] == [
        "mlflow-artifacts:/5/traces/t/artifacts",
        f"mlflow-artifacts:/{roots.targets['/u/old/t']}",
        "/u/mlruns/1",
    ]
    source.close()


NAMES = st.from_regex(r"[a-z0-9 ]{1,3}", fullmatch=True).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=2, max_size=4).map(lambda names: "/" + "/".join(names))


@given(st.lists(st.tuples(st.integers(0, 99), PATHS), unique_by=lambda pair: pair[0]), st.lists(PATHS))
def test_everything_local_has_one_place(experiments: list[tuple[int, str]], others: list[str]) -> None:
    """Whatever the folders are: no two get the same address."""
    roots = Roots(experiments, "t")
    everything = {path for _number, path in experiments} | set(others)
    for path in sorted(everything):
        roots.add(path)
    # A folder in one of an experiment may have the name that another one gets.
    found = [roots.moved(path) for path in everything]
    assert len(set(found)) == len(everything)
