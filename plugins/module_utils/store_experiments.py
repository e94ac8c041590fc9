# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Other numbers for the experiments of a store, and what it has in common with one that it comes to. Works on the copy in SQLite."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections.abc import Iterator

from ansible_collections.mlops.mlflow.plugins.module_utils import store_tables, store_values
from ansible_collections.mlops.mlflow.plugins.module_utils.store_copy import quoted
from ansible_collections.mlops.mlflow.plugins.module_utils.store_tables import EXPERIMENT, Finding, Table

# Every store has it, under the same number and name.
DEFAULT = 0
ROOM = store_values.BOUNDS["int4"]
# Where numbers are while others still have theirs.
ASIDE = -(1 << 62)
# Texts that are numbers of experiments where another column says so.
WORDED = (("entity_associations", "source_type", "source_id"), ("entity_associations", "destination_type", "destination_id"))
# Prompts are found by it: numbers with a comma on each side.
LISTED = ("registered_model_tags", "_mlflow_experiment_ids")


def have_default(source: sqlite3.Connection, now: int) -> bool:
    """Add the experiment that every server has, where somebody has removed it for good.

    Args:
        source: the copy, whose addresses have moved already.
        now: milliseconds since 1970.

    Returns:
        Whether it was missing.
    """
    if source.execute("SELECT 1 FROM experiments WHERE experiment_id = ?", (DEFAULT,)).fetchone():
        return False
    taken = {row[0] for row in source.execute("SELECT name FROM experiments")}
    names = itertools.chain(["Default"], (f"Default {number}" for number in itertools.count(2)))
    values = (DEFAULT, next(name for name in names if name not in taken), f"mlflow-artifacts:/{DEFAULT}", "active", now, now)
    columns = "experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time"
    source.execute(f"INSERT INTO experiments ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
    return True


def too_big(source: sqlite3.Connection) -> dict[int, int]:
    """Return numbers for the experiments whose own PostgreSQL has no room for. Those of a file store have 18 digits.

    Args:
        source: the copy.

    Returns:
        New ones by old ones: the first that nobody has, after the highest that fits where there are enough.
    """
    inside = f"typeof(experiment_id) = 'integer' AND experiment_id >= {-ROOM} AND experiment_id < {ROOM}"
    taken = {row[0] for row in source.execute(f"SELECT experiment_id FROM experiments WHERE {inside}")}
    old = [row[0] for row in source.execute(f"SELECT experiment_id FROM experiments WHERE typeof(experiment_id) = 'integer' AND NOT ({inside}) ORDER BY 1")]
    first = max([0, *taken]) + 1
    free = (number for number in itertools.count(first if first + len(old) < ROOM else 1) if number not in taken)
    return dict(zip(old, free))


def numbered(table: Table) -> Table:
    """Return of a table what tells experiments, with room for any number."""
    columns = tuple(dataclasses.replace(column, type="int8") for column in table.columns if column.name == EXPERIMENT)
    return dataclasses.replace(table, columns=columns, references=tuple(each for each in table.references if each.parent == "experiments"))


def unnumbered(table: Table) -> Table:
    """Return the rest of it."""
    columns = tuple(column for column in table.columns if column.name != EXPERIMENT)
    return dataclasses.replace(table, columns=columns, references=tuple(each for each in table.references if each.parent != "experiments"))


def strays(source: sqlite3.Connection, table: Table) -> Iterator[Finding]:
    """Find texts of a table that are numbers of experiments which are not there."""
    key = list(table.keys[0]) if table.keys else []
    for name, kind, number in WORDED:
        if name == table.name:
            wanted = ", ".join(map(quoted, [*key, number]))
            query = f"SELECT rowid, {wanted} FROM {name} WHERE {kind} = 'experiment' AND {number} NOT IN (SELECT CAST(experiment_id AS TEXT) FROM experiments)"
            for row in source.execute(query):
                what = f"there is no row of experiments with experiment_id = {row[-1]}"
                yield Finding(name, number, store_tables.shown_key(key, row[1:]), what, "is left out", row[0], drops=True)
    name, tag = LISTED
    if name == table.name:
        there = {str(number) for (number,) in source.execute("SELECT experiment_id FROM experiments")}
        for row in source.execute(f"SELECT rowid, value, {', '.join(map(quoted, key))} FROM {name} WHERE key = ?", (tag,)):
            parts = row[1].split(",") if isinstance(row[1], str) else []
            gone = [part for part in parts if part.strip().isdecimal() and part.strip() not in there]
            if gone:
                better = ",".join(part for part in parts if part not in gone)
                what = f"there is no row of experiments with experiment_id = {', '.join(gone)}"
                yield Finding(name, "value", store_tables.shown_key(key, row[2:]), what, f"becomes {better!r}", row[0], better)


def renumber(source: sqlite3.Connection, tables: dict[str, Table], numbers: dict[int, int]) -> None:
    """Give experiments other numbers, wherever they stand.

    Args:
        source: the copy.
        tables: by name.
        numbers: new ones by old ones; whoever is not in it keeps his.
    """
    source.execute("CREATE TEMP TABLE numbers (old INTEGER PRIMARY KEY, new INTEGER)")
    source.executemany("INSERT INTO temp.numbers VALUES (?, ?)", numbers.items())
    source.execute("BEGIN")
    for name, table in tables.items():
        if EXPERIMENT in {column.name for column in table.columns}:
            # In two steps: a new number may be an old one of another row.
            source.execute(
                f"UPDATE {quoted(name)} SET {EXPERIMENT} = (SELECT {ASIDE} + new FROM temp.numbers WHERE old = {EXPERIMENT}) "
                f"WHERE {EXPERIMENT} IN (SELECT old FROM temp.numbers)"
            )
            source.execute(f"UPDATE {quoted(name)} SET {EXPERIMENT} = {EXPERIMENT} - ({ASIDE}) WHERE {EXPERIMENT} BETWEEN {ASIDE} AND {ASIDE + ROOM}")
    for name, kind, number in WORDED:
        if name in tables:
            source.execute(
                f"UPDATE {quoted(name)} SET {number} = (SELECT '#' || new FROM temp.numbers WHERE CAST(old AS TEXT) = {number}) "
                f"WHERE {kind} = 'experiment' AND {number} IN (SELECT CAST(old AS TEXT) FROM temp.numbers)"
            )
            source.execute(f"UPDATE {quoted(name)} SET {number} = substr({number}, 2) WHERE {kind} = 'experiment' AND {number} LIKE '#%'")
    name, key = LISTED
    if name in tables:
        for row, value in source.execute(f"SELECT rowid, value FROM {quoted(name)} WHERE key = ?", (key,)).fetchall():
            source.execute(f"UPDATE {quoted(name)} SET value = ? WHERE rowid = ?", (listed_anew(value, numbers), row))
    source.execute("COMMIT")
    source.execute("DROP TABLE temp.numbers")


def listed_anew(text: str, numbers: dict[int, int]) -> str:
    """Return a list of experiments with their new numbers.

    Args:
        text: such as ``,1,2,``.
        numbers: new ones by old ones.
    """
    if not isinstance(text, str):
        return text
    return ",".join(str(numbers.get(int(part), part)) if part.strip().isdecimal() else part for part in text.split(","))


def count_anew(source: sqlite3.Connection, table: Table, column: str, numbers: list[int]) -> None:
    """Give the rows of a table that nothing leads to other numbers.

    Args:
        source: the copy.
        table: the table.
        column: that its sequence counts for.
        numbers: as many as it has rows.
    """
    rows = [row for (row,) in source.execute(f"SELECT rowid FROM {quoted(table.name)} ORDER BY {quoted(column)}")]
    source.execute("BEGIN")
    # The column may be SQLite's own number of the row.
    pairs = [(ASIDE + new, old) for old, new in zip(rows, numbers, strict=True)]
    source.executemany(f"UPDATE {quoted(table.name)} SET {quoted(column)} = ? WHERE rowid = ?", pairs)
    source.execute(f"UPDATE {quoted(table.name)} SET {quoted(column)} = {quoted(column)} - ({ASIDE})")
    source.execute("COMMIT")


def compared(table: Table) -> list[tuple[str, ...]]:
    """Return the keys of a table by which a row of the source may be one of the target's.

    Who belongs to a row that only the source has is no row of the target's.
    """
    own = [set(reference.columns) for reference in table.references if reference.parent != "experiments"]
    return [key for key in table.keys if not any(columns <= set(key) for columns in own)]


def key_values(source: sqlite3.Connection, table: Table, key: tuple[str, ...]) -> Iterator[list[tuple]]:
    """Return the values of a key, some at a time; without those that have a gap, which are like no other."""
    for rows in store_tables.batches(source, table, key):
        whole = [row for row in rows if None not in row]
        if whole:
            yield whole
