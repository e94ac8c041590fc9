"""What a store in SQLite has that PostgreSQL does not take, how rows are written for COPY, and the checksums of both sides."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import (
    store_copy,
    store_findings,
    store_report,
    store_source,
    store_tables,
    store_target,
    store_values,
)
from ansible_collections.mlops.mlflow.plugins.module_utils.store_findings import Findings
from ansible_collections.mlops.mlflow.plugins.module_utils.store_values import Column
from ansible_collections.mlops.mlflow.plugins.modules import store_import
from hypothesis import given
from hypothesis import strategies as st

TEXT, SHORT, JSON = Column("value", "text"), Column("key", "varchar", 8), Column("inputs", "json")
SMALL, BIG, TIME = Column("version", "int4"), Column("step", "int8"), Column("start_time", "int8")
NUMBER, YES, BLOB, DAY = Column("value", "float8", nullable=False), Column("is_nan", "bool"), Column("wrapped_dek", "bytea"), Column("rollup_day", "date")
NAME, LINKED = Column("key", "varchar", 8, names=True), Column("run_uuid", "varchar", 8, linked=True)
ALL = (TEXT, SHORT, JSON, SMALL, BIG, TIME, NUMBER, YES, BLOB, DAY, NAME, LINKED)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (TEXT, "täglich 漢字 \t\n\\"),
        (SHORT, "12345678"),
        (JSON, '{"NaN": "Infinity"}'),
        (SMALL, -(1 << 31)),
        (BIG, (1 << 63) - 1),
        (TIME, 1_700_000_000_000),
        (TIME, 1_700_000_000_000_000_000),
        (JSON, 42),
        (JSON, "1" * 5000),
        (NUMBER, math.inf),
        (NUMBER, 3),
        (YES, 1),
        (BLOB, b"\0\xff"),
        (DAY, "2026-02-28"),
        (TEXT, None),
    ],
)
def test_what_fits(column: Column, value: Any) -> None:
    """Is left as it is."""
    assert store_values.problem(column, value) is None


@pytest.mark.parametrize(
    ("column", "value", "what", "better"),
    [
        (TEXT, "a\0b", "has a NUL byte", "ab"),
        (TEXT, b"a\xff", "is no text in UTF-8", "a\ufffd"),
        (TEXT, 7, "is the number 7, not a text", "7"),
        (SHORT, "123456789", "has 9 characters, and there is room for 8", "12345678"),
        (JSON, '{"a": [NaN, -Infinity, "NaN \\" Infinity"]}', "has NaN, which is no JSON", '{"a": [null, null, "NaN \\" Infinity"]}'),
        (SMALL, "7", "is '7', not an integer", 7),
        (TIME, "2026-01-02 03:04:05", "is '2026-01-02 03:04:05', not a time in milliseconds", 1_767_323_045_000),
        (TIME, 1.7e12, "is 1700000000000.0, not a time in milliseconds", 1_700_000_000_000),
        (NUMBER, "0.5", "is '0.5', not a number", 0.5),
        (YES, "true", "is 'true', neither 0 nor 1", 1),
        (BLOB, "a", "is 'a', not bytes", b"a"),
        (DAY, "2026-02-28 00:00:00", "is '2026-02-28 00:00:00', not a day", "2026-02-28"),
    ],
)
def test_what_does_not(column: Column, value: Any, what: str, better: Any) -> None:
    """Is named, and a repair would make the nearest of it that fits."""
    assert store_values.problem(column, value) == what
    assert store_values.repaired(column, value) == better


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (JSON, "{"),
        (JSON, math.inf),
        (LINKED, "a\0b"),
        (NAME, "123456789"),
        (DAY, "20260228"),
        (SMALL, 1 << 31),
        (BIG, 1 << 63),
        (SMALL, "seven"),
        (TIME, math.nan),
        (NUMBER, None),
        (NUMBER, "much"),
        (YES, 2),
        (DAY, "today"),
    ],
)
def test_what_nobody_can_repair(column: Column, value: Any) -> None:
    """It takes a person who knows what was meant."""
    assert store_values.problem(column, value) is not None
    with pytest.raises(ValueError, match=r".*"):
        store_values.repaired(column, value)


ANYTHING = st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), st.text(), st.binary())


@given(st.sampled_from(ALL), ANYTHING)
def test_a_repair_is_whole_or_not_at_all(column: Column, value: Any) -> None:
    """Whatever SQLite has in a column."""
    if store_values.problem(column, value) is None:
        return
    try:
        better = store_values.repaired(column, value)
    except ValueError:
        return
    assert store_values.problem(column, better) is None


def read_back(field: str) -> str | None:
    """Read a field as COPY does."""
    if field == "\\N":
        return None
    return field.replace("\\\\", "\0").replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_texts_come_back(texts: list[str]) -> None:
    """One line for each row, whatever is in it."""
    written = store_copy.copy_text([TEXT], [(text,) for text in texts])
    assert written.endswith("\n")
    assert [read_back(line) for line in written[:-1].split("\n")] == texts


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_numbers_come_back(numbers: list[float]) -> None:
    """To the last bit."""
    written = store_copy.copy_text([NUMBER], [(number,) for number in numbers])
    assert [float(line) for line in written.split()] == numbers


def test_other_values() -> None:
    """As PostgreSQL's functions for input read them."""
    columns = [BIG, YES, BLOB, DAY, JSON, TEXT]
    assert store_copy.copy_text(columns, [(7, 1, b"\0\xff", "2026-02-28", '{"a": "\\n"}', None)]) == '7\t1\t\\\\x00ff\t2026-02-28\t{"a": "\\\\n"}\t\\N\n'


@given(st.lists(st.tuples(st.text(), st.none() | st.integers(0, 9), st.floats(allow_nan=False)), min_size=1), st.randoms())
def test_the_order_of_rows_does_not_count(rows: list[tuple], random: Any) -> None:
    """And everything else does."""
    columns = [TEXT, BIG, NUMBER]
    other = list(rows)
    random.shuffle(other)
    assert store_copy.digest(columns, other) == store_copy.digest(columns, rows)
    assert store_copy.digest(columns, rows[1:]) != store_copy.digest(columns, rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "b"), ("ab", "")), (("", None), (None, "")), (("1:a|1:b", ""), ("a", "b")), (("a", "b"), ("b", "a")), (("a", ""), ("a", None))],
)
def test_other_rows_have_other_digests(one: tuple, other: tuple) -> None:
    """Also where their texts together are the same."""
    assert store_copy.digest([TEXT, TEXT], [one]) != store_copy.digest([TEXT, TEXT], [other])


def test_a_stream_holds_little() -> None:
    """It reads the next batch when the last one is gone, and ends."""
    counts: list[int] = []
    stream = store_copy.Stream([BIG], iter([[(1,), (2,)], [(3,)]]), counts.append)
    parts = list(iter(lambda: stream.read(3), b""))
    assert b"".join(parts) == b"1\n2\n3\n" and max(map(len, parts)) <= 3 and counts == [2, 1]


def test_words_of_a_check() -> None:
    """As PostgreSQL 15 to 17 write it."""
    definition = "CHECK (((status)::text = ANY ((ARRAY['a'::character varying, 'it''s'::character varying])::text[])))"
    assert store_tables.choices(definition) == ("status", frozenset({"a", "it's"}))
    assert store_tables.choices("CHECK ((version > 0))") is None


RUNS = store_tables.Table(
    "runs",
    (Column("run_uuid", "varchar", 4, nullable=False), Column("name", "varchar", 8), Column("status", "varchar", 9)),
    keys=(("run_uuid",),),
    choices={"status": frozenset({"RUNNING", "FAILED"})},
)
METRICS = store_tables.Table(
    "metrics",
    (Column("key", "varchar", 8, nullable=False), Column("value", "float8", nullable=False), Column("run_uuid", "varchar", 4, nullable=False)),
    keys=(("key", "run_uuid"),),
    references=(store_tables.Reference(("run_uuid",), "runs", ("run_uuid",)),),
)


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> str:
    """A store with something of everything that is wrong."""
    path = str(tmp_path / "a store?.db")
    with sqlite3.connect(path) as source:
        source.executescript(
            """
            CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT);
            CREATE TABLE metrics (key TEXT, value, run_uuid TEXT);
            CREATE TABLE alembic_version (version_num TEXT);
            CREATE TABLE mine (x INTEGER, y INTEGER);
            INSERT INTO alembic_version VALUES ('a');
            INSERT INTO runs VALUES ('r1', 'a' || char(0) || 'b', 'RUNNING'), ('r2', 'much too long', 'LOST'), ('r3', NULL, 'FAILED'), ('r3', NULL, 'FAILED');
            INSERT INTO metrics VALUES ('a', 0.5, 'r1'), ('a', 0.5, 'gone'), ('b', 1, 'r2'), ('b', 2, 'r2'), ('c', 'x', 'r3');
            """
        )
    return path


def everything(source: sqlite3.Connection) -> Iterator[store_tables.Finding]:
    """All that is wrong with both tables."""
    for table in (RUNS, METRICS):
        for look in (store_tables.bad_values, store_tables.orphans, store_tables.duplicates):
            yield from look(source, table)


def test_everything_is_found(path: str) -> None:
    """With table, column and key, and what an import would do."""
    with store_tables.opened(path) as source:
        found = list(everything(source))
    assert [(each.table, each.column, each.key, each.what, each.remedy) for each in found] == [
        ("runs", "name", "run_uuid = 'r1'", "has a NUL byte", "becomes 'ab'"),
        ("runs", "name", "run_uuid = 'r2'", "has 13 characters, and there is room for 8", "becomes 'much too'"),
        ("runs", "status", "run_uuid = 'r2'", "is 'LOST', none of FAILED, RUNNING", ""),
        ("runs", "run_uuid", "run_uuid = 'r3'", "2 rows have this key", "is left out, as it is the same"),
        ("metrics", "value", "key = 'c', run_uuid = 'r3'", "is 'x', not a number", ""),
        ("metrics", "run_uuid", "key = 'a', run_uuid = 'gone'", "there is no row of runs with run_uuid = 'gone'", "is left out"),
        ("metrics", "key, run_uuid", "key = 'b', run_uuid = 'r2'", "2 rows have this key", ""),
    ]


def test_what_can_be_repaired_is(path: str) -> None:
    """And is not found again."""
    with store_tables.opened(path, write=True) as source:
        for each in list(everything(source)):
            if each.remedy:
                store_tables.repair(source, each)
        assert [each.what for each in everything(source)] == ["is 'LOST', none of FAILED, RUNNING", "is 'x', not a number", "2 rows have this key"]
        assert source.execute("SELECT run_uuid, name FROM runs ORDER BY 1").fetchall() == [("r1", "ab"), ("r2", "much too"), ("r3", None)]


def test_what_has_no_place(path: str) -> None:
    """Tables and columns with rows, which only SQLite has; not the version table."""
    with store_tables.opened(path, write=True) as source:
        found = {"runs": store_tables.Table("runs", RUNS.columns[:2]), "metrics": METRICS}
        has = store_tables.source_columns(source)
        assert store_tables.misplaced(found, has, source) == ["runs.status"]
        source.execute("INSERT INTO mine VALUES (1, 2)")
        assert store_tables.misplaced(found, has, source) == ["mine", "runs.status"]


def test_parents_come_first() -> None:
    """A table that leads to itself is no circle."""
    own = store_tables.Table("experiments", (), references=(store_tables.Reference(("parent",), "experiments", ("id",)),))
    names = [table.name for table in store_tables.in_order({"metrics": METRICS, "experiments": own, "runs": RUNS})]
    assert sorted(names) == ["experiments", "metrics", "runs"] and names.index("runs") < names.index("metrics")


def test_json_of_python_is_read_as_it_is_written() -> None:
    """What json.dumps makes of numbers that are none."""
    text = json.dumps({"a": math.nan, "b": [math.inf, -math.inf], "c": "NaN"})
    assert json.loads(store_values.repaired(JSON, text)) == {"a": None, "b": [None, None], "c": "NaN"}


def test_a_store_in_use_is_copied_whole(tmp_path: Path) -> None:
    """With what stands in its log only."""
    path, copy = str(tmp_path / "store.db"), str(tmp_path / "copy.db")
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = wal")
    writer.execute("CREATE TABLE runs (run_uuid TEXT)")
    writer.execute("INSERT INTO runs VALUES ('r1')")
    writer.commit()
    assert (tmp_path / "store.db-wal").stat().st_size > 0
    for _again in range(2):
        store_source.snapshot(path, copy)
        with store_tables.opened(copy) as source:
            assert source.execute("SELECT * FROM runs").fetchall() == [("r1",)]
    writer.close()


@pytest.mark.parametrize("content", [b"", b"no store of anybody's", None])
def test_no_store(tmp_path: Path, content: bytes | None) -> None:
    """Is refused with the file's name."""
    path = tmp_path / "store.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(store_source.Refused, match="store.db"):
        store_source.snapshot(str(path), str(tmp_path / "copy.db"))
        with store_tables.opened(str(tmp_path / "copy.db")) as source:
            store_source.revision(source, str(path))


def test_a_damaged_store(tmp_path: Path) -> None:
    """Is refused, and not imported as far as it can be read."""
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as source:
        source.execute("CREATE TABLE runs (run_uuid TEXT PRIMARY KEY)")
        source.executemany("INSERT INTO runs VALUES (?)", [(f"{number:0200}",) for number in range(1000)])
    source.close()
    content = bytearray(path.read_bytes())
    content[9000:12000] = bytes(3000)
    path.write_bytes(content)
    with pytest.raises(store_source.Refused, match=r"store\.db (is damaged|cannot be read)"):
        store_source.snapshot(str(path), str(tmp_path / "copy.db"))


def test_a_store_with_much_that_is_bad_may_be_damaged_too(tmp_path: Path) -> None:
    """What SQLite finds in rows does not hide what it finds in the file."""
    path = tmp_path / "store.db"
    statements = (
        "CREATE TABLE b (x TEXT); CREATE INDEX of_b ON b (x); CREATE TABLE a (run_uuid TEXT)",
        "CREATE TABLE index_of_b AS SELECT * FROM sqlite_master WHERE name = 'of_b'; DELETE FROM sqlite_master WHERE name = 'of_b'",
        "INSERT INTO b VALUES ('not in the index'); INSERT INTO a SELECT NULL FROM (WITH RECURSIVE n (x) AS (SELECT 1 UNION SELECT x + 1 FROM n) "
        "SELECT x FROM n LIMIT 2000); INSERT INTO sqlite_master SELECT * FROM index_of_b",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE a (run_uuid TEXT NOT NULL)' WHERE name = 'a'",
    )
    for statement in statements:
        with sqlite3.connect(path) as source:
            source.executescript(f"PRAGMA writable_schema = on; {statement}")
        source.close()
    with pytest.raises(store_source.Refused, match=r"store\.db is damaged"):
        store_source.snapshot(str(path), str(tmp_path / "copy.db"))


def test_a_store_that_is_as_it_was(tmp_path: Path) -> None:
    """Is known again, by any copy of it, and in files too."""
    path, seen = tmp_path / "store.db", set()
    writer = sqlite3.connect(path)
    writer.executescript("PRAGMA journal_mode = wal; CREATE TABLE runs (run_uuid TEXT); INSERT INTO runs VALUES ('r1')")
    for name in ("a.db", "b.db", "c.db"):
        store_source.snapshot(str(path), str(tmp_path / name))
        store_source.snapshot(str(tmp_path / name), str(tmp_path / "again.db"))
        seen |= {store_source.content(str(tmp_path / name)), store_source.content(str(tmp_path / "again.db"))}
        if name == "b.db":
            assert len(seen) <= 2
            writer.executescript("INSERT INTO runs VALUES ('r2')")
            seen.clear()
    writer.close()
    (tmp_path / "mlruns/1/r/artifacts").mkdir(parents=True)
    for name in ("meta.yaml", "artifacts/a"):
        (tmp_path / "mlruns/1/r" / name).write_text("x", encoding="utf-8")
    state = store_source.state(str(tmp_path / "mlruns"))
    (tmp_path / "mlruns/1/r/artifacts/b").write_text("x", encoding="utf-8")
    assert store_source.state(str(tmp_path / "mlruns")) == state
    (tmp_path / "mlruns/1/r/meta.yaml").write_text("xx", encoding="utf-8")
    assert store_source.state(str(tmp_path / "mlruns")) != state


def test_no_file_store(tmp_path: Path) -> None:
    """A folder that is none is refused."""
    with pytest.raises(store_source.Refused, match="is no folder mlruns"):
        store_source.converted(str(tmp_path), str(tmp_path / "copy.db"))


def test_differences() -> None:
    """Beside what was there before, exactly the source has to have come."""
    source, before = {"runs": (2, 70), "tags": (0, 0)}, {"runs": (1, 30), "tags": (5, 50)}
    assert store_target.differences(source, before, {"runs": (3, 100), "tags": (5, 50)}) == []
    assert store_target.differences(source, before, {"runs": (2, 100), "tags": (5, 50)}) == ["runs has got 1 rows of 2"]
    assert store_target.differences(source, before, {"runs": (3, 101), "tags": (5, 51)}) == [
        "runs has got 2 rows, and not all of them are those of the source",
        "tags has got 0 rows, and not all of them are those of the source",
    ]


def look(source: sqlite3.Connection, folder: Path, repairs: bool) -> Findings:
    """Look for everything, and repair it if that is wanted."""
    findings = Findings(str(folder / "findings.db"))
    store_findings.scan(source, [RUNS, METRICS], findings, repairs)
    return findings


def test_what_a_repair_leaves_alone_is_repaired_too(path: str, tmp_path: Path) -> None:
    """A row that goes may be what others lead to."""
    with store_tables.opened(path, write=True) as source:
        source.execute("DELETE FROM runs WHERE run_uuid = 'r2' OR rowid = 4")
        source.execute("DELETE FROM metrics WHERE value = 'x'")
        findings = look(source, tmp_path, repairs=True)
        assert [(each["table"], each["what"]) for each in findings.first(9)] == [
            ("runs", "has a NUL byte"),
            ("metrics", "there is no row of runs with run_uuid = 'gone'"),
            ("metrics", "there is no row of runs with run_uuid = 'r2'"),
            ("metrics", "there is no row of runs with run_uuid = 'r2'"),
        ]
        assert findings.count(left=True) == 0 and source.execute("SELECT * FROM metrics").fetchall() == [("a", 0.5, "r1")]
        assert look(source, tmp_path, repairs=True).count() == 0


def test_a_repair_that_would_be_another_row(tmp_path: Path) -> None:
    """Is left to a person."""
    path = str(tmp_path / "store.db")
    with sqlite3.connect(path) as source:
        source.execute("CREATE TABLE runs (run_uuid TEXT, name TEXT UNIQUE, status TEXT)")
        source.execute("CREATE TABLE metrics (key TEXT, value, run_uuid TEXT)")
        source.execute("INSERT INTO runs VALUES ('r1', 'ab', 'FAILED'), ('r2', 'a' || char(0) || 'b', 'FAILED')")
    source.close()
    with store_tables.opened(path, write=True) as source:
        findings = look(source, tmp_path, repairs=True)
        assert findings.first(9) == [
            {"table": "runs", "column": "name", "key": "run_uuid = 'r2'", "what": "has a NUL byte; what it would become is another row's already", "remedy": ""}
        ]
        assert findings.count(left=True) == 1


def test_a_table_for_spreadsheets(path: str, tmp_path: Path) -> None:
    """Has everything, whatever is in it."""
    with store_tables.opened(path, write=True) as source:
        look(source, tmp_path, repairs=False).write(str(tmp_path / "findings.csv"))
    with (tmp_path / "findings.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 7 and found[2] == {
        "table": "runs",
        "column": "status",
        "key": "run_uuid = 'r2'",
        "what": "is 'LOST', none of FAILED, RUNNING",
        "remedy": "",
    }


def test_rows_that_stay_when_others_go(tmp_path: Path) -> None:
    """As PostgreSQL's ON DELETE SET NULL has it."""
    endpoints = store_tables.Table(
        "endpoints",
        (Column("id", "text"), Column("experiment_id", "int4")),
        keys=(("id",),),
        references=(store_tables.Reference(("experiment_id",), "experiments", ("experiment_id",), frees=True),),
    )
    path = str(tmp_path / "store.db")
    with sqlite3.connect(path) as source:
        source.executescript("CREATE TABLE experiments (experiment_id INTEGER); CREATE TABLE endpoints (id TEXT, experiment_id INTEGER)")
        source.execute("INSERT INTO endpoints VALUES ('a', 7)")
    source.close()
    with store_tables.opened(path, write=True) as source:
        findings = Findings(str(tmp_path / "findings.db"))
        store_findings.scan_experiments(source, [endpoints], findings, repairs=True)
        assert [each["remedy"] for each in findings.first(9)] == ["becomes None"]
        assert source.execute("SELECT * FROM endpoints").fetchall() == [("a", None)]


def test_what_is_computed_from_others(tmp_path: Path) -> None:
    """May have no room where they have: SQLite then makes a fraction of it."""
    path, times = str(tmp_path / "store.db"), (Column("start", "int8"), Column("end", "int8"))
    spans = store_tables.Table("spans", (Column("id", "text"), *times), keys=(("id",),), computed=(Column("duration", "int8"), Column("other", "int8")))
    with sqlite3.connect(path) as source:
        source.execute('CREATE TABLE spans (id TEXT, start BIGINT, "end" BIGINT, duration BIGINT GENERATED ALWAYS AS ("end" - start) STORED)')
        source.execute('INSERT INTO spans (id, start, "end") VALUES (?, ?, ?), (?, ?, ?)', ("a", -5, (1 << 63) - 1, "b", 1, None))
    source.close()
    with store_tables.opened(path) as source:
        found = list(store_tables.bad_results(source, spans))
    assert [(each.column, each.key, each.remedy) for each in found] == [("duration", "id = 'a'", "")]


def test_the_catalog() -> None:
    """Columns know what may be done with them; what belongs to an experiment without a foreign key is taken as if it had one."""
    columns = [("runs", "run_uuid", "varchar", 32, False, "", False), ("runs", "artifact_uri", "varchar", 200, True, "", False)]
    columns += [("tags", "run_uuid", "varchar", 32, True, "", False), ("rollups", "experiment_id", "int4", None, True, "", False)]
    columns += [("jobs", "id", "text", None, True, "", False), ("runs", "duration", "int8", None, True, "", True), ("runs", "x", "point", None, True, "", True)]
    found = store_tables.tables(columns, [("runs", ["run_uuid"])], [("tags", ["run_uuid"], "runs", ["run_uuid"], True)], [], {("runs", "artifact_uri")})
    assert sorted(found) == ["rollups", "runs", "tags"]
    assert [(each.names, each.linked) for each in (*found["runs"].columns, *found["tags"].columns)] == [(True, True), (True, False), (False, True)]
    assert [column.name for column in found["runs"].computed] == ["duration"]
    assert found["tags"].references[0].frees and found["rollups"].references[0].parent == "experiments"
    with pytest.raises(ValueError, match=r"runs\.geo has the type point"):
        store_tables.tables([("runs", "geo", "point", None, True, "", False)], [], [], [])


def test_a_row_of_a_hundred_megabytes_is_read_by_itself(tmp_path: Path) -> None:
    """And the others many at a time."""
    path = str(tmp_path / "store.db")
    table = store_tables.Table("spans", (Column("content", "text"),))
    with sqlite3.connect(path) as source:
        source.execute("CREATE TABLE spans (content TEXT)")
        source.executemany("INSERT INTO spans VALUES (?)", [("x" * 5_000_000,), *[("y",)] * 1000])
    source.close()
    with store_tables.opened(path) as source:
        assert sorted(len(rows) for rows in store_tables.batches(source, table, ["content"])) == [1, 200, 200, 200, 200, 200]


def test_a_store_is_not_its_own_copy(tmp_path: Path) -> None:
    """It would be gone."""
    path = tmp_path / "store.db"
    sqlite3.connect(path).executescript("CREATE TABLE runs (run_uuid TEXT)")
    (tmp_path / "link.db").symlink_to(path)
    with pytest.raises(store_source.Refused, match="where the copy"):
        store_source.snapshot(str(tmp_path / "link.db"), str(path))
    assert path.stat().st_size > 0


def test_columns_that_only_one_side_has(path: str) -> None:
    """SQLite would take the name of one that it lacks for a text."""
    with store_tables.opened(path) as source:
        wider = store_tables.Table("runs", (*RUNS.columns, Column("user_id", "varchar", 256)))
        assert store_tables.misplaced({"runs": wider, "metrics": METRICS}, store_tables.source_columns(source), source) == ["runs.user_id"]


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (
            {"step": "copying", "place": "metrics", "done": 600_000, "total": 1_000_000, "unit": "rows", "seconds": 2.4},
            "copying [##################------------] 60% of 1,000,000 rows, 250,000 rows/s, 2 s left (metrics)",
        ),
        ({"step": "copying the source", "place": "", "done": 0, "total": 0, "unit": "rows", "seconds": 1}, "copying the source …"),
        (
            {"step": "uploading", "place": "/u/1/a", "done": 20, "total": 10, "unit": "files", "seconds": 0},
            f"uploading [{'#' * 30}] 100% of 10 files, 20,000 files/s, 0 s left (/u/1/a)",
        ),
    ],
)
def test_a_bar(progress: dict[str, Any], line: str) -> None:
    """Says how far it is."""
    assert store_report.line_of(progress) == line


SCAN = {"brought": False, "refusals": ["it is not"], "addresses": {"served": 2}, "rows": {"runs": 2, "tags": 3}, "found": 1}


def test_what_stands_in_the_way() -> None:
    """Of the store, and of its artifacts where they are to come; nothing where the tables have come."""
    lost = [f"/lost/{number}" for number in range(12)]
    found = store_report.refusals(SCAN, lost, "controller", "copy", "refuse")
    assert [line.partition(" ")[0] for line in found] == ["it", "2", "import_missing_artifacts"]
    assert "on the controller: /lost/0, " in found[2] and "/lost/9 and 2 more. Have" in found[2]
    assert store_report.refusals(SCAN, lost, "host", "copy", "accept") == found[:2]
    assert store_report.refusals(SCAN, lost, "host", "keep", "refuse") == found[:1]
    assert store_report.refusals({**SCAN, "brought": True}, lost, "host", "copy", "refuse") == []


def test_how_an_import_is() -> None:
    """In a few lines, the outcome first."""
    assert store_report.summary(SCAN, ["no"], {}, {}) == [
        "It cannot be imported as it is.",
        "5 rows in 2 tables, 1 values or rows that PostgreSQL does not take",
    ]
    assert store_report.summary(SCAN, [], {"skipped": True}, {"skipped": True})[0] == "Nothing stands in the way of the import."
    assert store_report.summary({**SCAN, "brought": True}, [], {}, {})[0].startswith("An interrupted run has brought the tables")
    assert store_report.summary(SCAN, [], {"files": 7, "mib": 1}, {"checked": {"run": 2, "experiment": 1}}) == [
        "The import is done.",
        "5 rows in 2 tables, 1 values or rows that PostgreSQL does not take",
        "Artifacts: 7 files, 1 MiB, each with the checksum of its file",
        "Compared by MLflow's client: experiment 1, run 2",
    ]


def test_artifacts_of_a_removed_experiment(tmp_path: Path) -> None:
    """Are in the trash of a file store, while their addresses are as before; those of others are where they were."""
    source = tmp_path / "files/home/ada/mlruns"
    for name in (".trash/7", ".trash/8", "8", "9"):
        (source / name).mkdir(parents=True)
    scan = store_import.Scan.__new__(store_import.Scan)
    scan.options = {"source": str(source)}
    roots = [f"/home/ada/mlruns/{number}" for number in (7, 8, 9, 10)] + ["/elsewhere/7"]
    assert [scan.kept(root) for root in roots] == ["/home/ada/mlruns/.trash/7", *roots[1:]]
