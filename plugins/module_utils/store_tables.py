# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tables of a store: what PostgreSQL has them be, what SQLite has in them, and what of that does not fit."""

from __future__ import annotations

import dataclasses
import graphlib
import re
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import store_values
from ansible_collections.mlops.mlflow.plugins.module_utils.store_copy import quoted
from ansible_collections.mlops.mlflow.plugins.module_utils.store_values import Column

# Not copied: the target has a revision of its own, and the work of the old server's jobs is not to be done again.
OWN = frozenset({"alembic_version", "job_locks", "jobs", "scheduler_leases"})
# Characters and rows that are in memory at a time, and a row that is read by itself.
BATCH_CHARACTERS, BATCH_ROWS, LONG = 4_000_000, 5000, 20_000
# By which everything of an experiment is found, where there is no foreign key too.
EXPERIMENT = "experiment_id"

COLUMNS = """
SELECT c.relname, a.attname, t.typname, CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
  NOT a.attnotnull, coalesce(pg_get_serial_sequence(format('public.%I', c.relname), a.attname), ''), a.attgenerated <> ''
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
# Unique where a value is there; those with conditions or expressions are left to PostgreSQL.
KEYS = """
SELECT c.relname, ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k (number, place)
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number ORDER BY k.place)
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY c.relname, NOT i.indisprimary, i.indexrelid
"""
REFERENCES = """
SELECT c.relname, ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY k (number, place)
    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place),
  p.relname, ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY k (number, place)
    JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place), f.confdeltype = 'n'
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_class p ON p.oid = f.confrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND f.contype = 'f' ORDER BY c.relname, f.conname
"""
CHECKS = """
SELECT c.relname, pg_get_constraintdef(f.oid) FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND f.contype = 'c' ORDER BY c.relname, f.conname
"""
# The one form that MLflow's have: a column that is one of some words.
CHOICE = re.compile(r"CHECK \(\(\((\w+)\)::text = ANY \(\(?ARRAY\[(.*?)\]\)?(?:::text\[\])?\)\)\)")
WORD = re.compile(r"'((?:[^']|'')*)'")


@dataclasses.dataclass(frozen=True)
class Reference:
    """A foreign key.

    Attributes:
        columns: of the table that has it.
        parent: the table that it leads to.
        parents: its columns, in the same order.
        frees: whether a row stays, and leads nowhere, when the other one goes.
    """

    columns: tuple[str, ...]
    parent: str
    parents: tuple[str, ...]
    frees: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of PostgreSQL's.

    Attributes:
        name: its name.
        columns: those with values of their own.
        keys: columns that are unique together, the primary key first.
        references: its foreign keys.
        choices: the words that a column may have.
        sequences: what counts for a column.
        computed: columns that both sides compute from others.
    """

    name: str
    columns: tuple[Column, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    references: tuple[Reference, ...] = ()
    choices: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    sequences: dict[str, str] = dataclasses.field(default_factory=dict)
    computed: tuple[Column, ...] = ()


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that PostgreSQL does not take.

    Attributes:
        table: where it is.
        column: where it is; several with commas between, or empty for a whole row.
        key: the row's primary key, as text.
        what: what is wrong with it.
        remedy: what a repair does; empty where a person has to decide.
        row: SQLite's number of the row.
        value: what the column gets, or each of several; not used where the row goes.
        drops: whether the row goes.
    """

    table: str
    column: str
    key: str
    what: str
    remedy: str
    row: int
    value: Any = None
    drops: bool = False


def choices(definition: str) -> tuple[str, frozenset[str]] | None:
    """Return the column of a check and the words that it allows; None for a check of another form.

    Args:
        definition: as PostgreSQL writes it.
    """
    found = CHOICE.fullmatch(definition)
    return (found[1], frozenset(word.replace("''", "'") for word in WORD.findall(found[2]))) if found else None


def tables(
    columns: Iterable[tuple], keys: Iterable[tuple], references: Iterable[tuple], checks: Iterable[tuple], addresses: Iterable[tuple[str, str]] = ()
) -> dict[str, Table]:
    """Return the tables by their names.

    Args:
        columns: what the query COLUMNS finds.
        keys: what KEYS finds.
        references: what REFERENCES finds.
        checks: what CHECKS finds.
        addresses: table and column of what may not be shortened, beside keys.

    Raises:
        ValueError: a column has a type that MLflow has never had.
    """
    unique, leads, words, names, linked = _grouped(keys), _grouped(references), _grouped(checks), set(addresses), set()
    for table, each in unique.items():
        names |= {(table, name) for (listed,) in each for name in listed}
    for table, each in leads.items():
        for listed, parent, parents, _frees in each:
            linked |= {(table, name) for name in listed} | {(parent, name) for name in parents}
    found = {}
    for table, each in _grouped(columns).items():
        if table in OWN:
            continue
        for name, kind, *_rest, computed in each:
            if kind not in store_values.KINDS and not computed:
                raise ValueError(f"the column {table}.{name} has the type {kind}, which this release of the collection cannot copy")
        made = [
            (Column(name, kind, limit, nullable, names=(table, name) in names, linked=(table, name) in linked), computed)
            for name, kind, limit, nullable, _sequence, computed in each
        ]
        own = [Reference(tuple(listed), parent, tuple(parents), bool(frees)) for listed, parent, parents, frees in leads.get(table, ())]
        if table != "experiments" and EXPERIMENT in {column.name for column, _computed in made} and not any(each.columns == (EXPERIMENT,) for each in own):
            own.append(Reference((EXPERIMENT,), "experiments", (EXPERIMENT,)))
        found[table] = Table(
            table,
            tuple(column for column, computed in made if not computed),
            tuple(tuple(listed) for (listed,) in unique.get(table, ())),
            tuple(own),
            dict(filter(None, (choices(definition) for (definition,) in words.get(table, ())))),
            {name: sequence for name, _kind, _limit, _nullable, sequence, _computed in each if sequence},
            tuple(column for column, computed in made if computed and column.type in store_values.KINDS),
        )
    return found


def _grouped(rows: Iterable[tuple]) -> dict[str, list[tuple]]:
    """Return rows by their first value, without it."""
    found: dict[str, list[tuple]] = {}
    for first, *rest in rows:
        found.setdefault(first, []).append(tuple(rest))
    return found


def in_order(found: dict[str, Table]) -> list[Table]:
    """Return tables so that each comes after those that it leads to."""
    graph = {name: {each.parent for each in table.references if each.parent != name and each.parent in found} for name, table in sorted(found.items())}
    return [found[name] for name in graphlib.TopologicalSorter(graph).static_order()]


def text_of(raw: bytes) -> str | bytes:
    """Return a text of SQLite's; as bytes where it is no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


@contextmanager
def opened(path: str, write: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a store, and close it again.

    Args:
        path: of the file.
        write: whether it will be changed.

    Raises:
        sqlite3.Error: it is none.
    """
    connection = sqlite3.connect(f"file:{urllib.parse.quote(path)}?mode={'rw' if write else 'ro'}", uri=True, isolation_level=None)
    connection.text_factory = text_of
    try:
        yield connection
    finally:
        connection.close()


def source_columns(source: sqlite3.Connection) -> dict[str, list[str]]:
    """Return SQLite's tables with their columns."""
    names = [name for (name,) in source.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1")]
    return {name: [row[1] for row in source.execute(f"PRAGMA table_info({quoted(name)})")] for name in names}


def batches(source: sqlite3.Connection, table: Table, names: Sequence[str]) -> Iterator[list[tuple]]:
    """Return the rows of a table, some at a time, so that long texts do not fill the memory.

    Args:
        source: SQLite's.
        table: the table.
        names: of the columns to read; rowid is one too.
    """
    texts = [f"t.{quoted(column.name)}" for column in table.columns if column.kind in ("text", "json", "bytes") and column.name in names]
    length = " + ".join(f"coalesce(length(CAST({text} AS BLOB)), 0)" for text in texts)
    longest = (source.execute(f"SELECT max({length}) FROM {quoted(table.name)} t").fetchone()[0] or 0) if texts else 0
    parts = [("", max(1, longest))] if longest <= LONG else [(f" WHERE {length} <= {LONG}", LONG), (f" WHERE {length} > {LONG}", BATCH_CHARACTERS)]
    listed = ", ".join(f"t.{quoted(name)}" for name in names)
    for condition, characters in parts:
        cursor = source.execute(f"SELECT {listed} FROM {quoted(table.name)} t{condition}")
        while rows := cursor.fetchmany(max(1, min(BATCH_ROWS, BATCH_CHARACTERS // characters))):
            yield rows


def shown_key(names: Sequence[str], values: Sequence[Any]) -> str:
    """Return a row's key for a person."""
    return ", ".join(f"{name} = {value!r}" for name, value in zip(names, values))


def misplaced(found: dict[str, Table], has: dict[str, list[str]], source: sqlite3.Connection) -> list[str]:
    """Return what only one side has, where there are rows: tables of SQLite's, and columns of either with a point between."""
    left = []
    for name, columns in has.items():
        if name in OWN or source.execute(f"SELECT 1 FROM {quoted(name)} LIMIT 1").fetchone() is None:
            continue
        if name not in found:
            left.append(name)
        else:
            left += [f"{name}.{column}" for column in sorted({each.name for each in found[name].columns} ^ set(columns))]
    return left


def bad_values(source: sqlite3.Connection, table: Table) -> Iterator[Finding]:
    """Find values of a table that PostgreSQL does not take."""
    if not table.columns:
        return
    key = list(table.keys[0]) if table.keys else []
    names = [column.name for column in table.columns]
    for rows in batches(source, table, ["rowid", *key, *names]):
        for column, values in zip(table.columns, list(zip(*rows))[1 + len(key) :]):
            allowed = table.choices.get(column.name)
            for row, value in zip(rows, values):
                fault = store_values.problem(column, value)
                if fault is None and allowed is not None and value is not None and value not in allowed:
                    fault = f"is {value!r}, none of {', '.join(sorted(allowed))}"
                if fault is None:
                    continue
                shown = shown_key(key, row[1 : 1 + len(key)])
                try:
                    better = store_values.repaired(column, value)
                    if allowed is not None and better not in allowed:
                        raise ValueError
                except ValueError:
                    yield Finding(table.name, column.name, shown, fault, "", row[0])
                else:
                    yield Finding(table.name, column.name, shown, fault, f"becomes {store_values.shown(better)}", row[0], better)


def bad_results(source: sqlite3.Connection, table: Table) -> Iterator[Finding]:
    """Find rows from which both sides compute a value that PostgreSQL has no room for."""
    key = list(table.keys[0]) if table.keys else []
    has = {row[1] for row in source.execute(f"PRAGMA table_xinfo({quoted(table.name)})")}
    for column in table.computed:
        if column.name in has:
            wanted = ", ".join(map(quoted, [*key, column.name]))
            for row in source.execute(f"SELECT rowid, {wanted} FROM {quoted(table.name)}"):
                fault = store_values.problem(column, row[-1])
                if fault is not None:
                    yield Finding(table.name, column.name, shown_key(key, row[1:-1]), f"{fault}; it is computed from others", "", row[0])


def orphans(source: sqlite3.Connection, table: Table) -> Iterator[Finding]:
    """Find rows of a table that lead to rows that are not there."""
    key = list(table.keys[0]) if table.keys else []
    for reference in table.references:
        pairs = list(zip(reference.columns, reference.parents))
        joined = " AND ".join(f"p.{quoted(parent)} = c.{quoted(child)}" for child, parent in pairs)
        there = " AND ".join(f"c.{quoted(child)} IS NOT NULL" for child in reference.columns)
        wanted = ", ".join(f"c.{quoted(name)}" for name in [*key, *reference.columns])
        query = (
            f"SELECT c.rowid, {wanted} FROM {quoted(table.name)} c WHERE {there} "
            f"AND NOT EXISTS (SELECT 1 FROM {quoted(reference.parent)} p WHERE {joined})"
        )
        for row in source.execute(query):
            missing = shown_key(reference.parents, row[1 + len(key) :])
            shown = shown_key(key, row[1 : 1 + len(key)])
            what = f"there is no row of {reference.parent} with {missing}"
            remedy = "becomes None" if reference.frees else "is left out"
            yield Finding(table.name, ", ".join(reference.columns), shown, what, remedy, row[0], drops=not reference.frees)


def is_unique(source: sqlite3.Connection, table: Table, key: tuple[str, ...]) -> bool:
    """Tell whether SQLite itself sees to it that no two rows have the same key."""
    for _number, name, unique, _origin, partial in source.execute(f"PRAGMA index_list({quoted(table.name)})").fetchall():
        if unique and not partial and {row[2] for row in source.execute(f"PRAGMA index_info({quoted(name)})")} == set(key):
            return True
    parts = [row[1:] for row in source.execute(f"PRAGMA table_info({quoted(table.name)})") if row[5]]
    # Its own number of the row.
    return len(parts) == 1 and (parts[0][0],) == key and parts[0][1].upper() == "INTEGER"


def duplicates(source: sqlite3.Connection, table: Table) -> Iterator[Finding]:
    """Find rows of a table with a key that another has. Where they are the same in all else, one stays."""
    names = ", ".join(quoted(column.name) for column in table.columns)
    for key in table.keys:
        if is_unique(source, table, key):
            continue
        listed = ", ".join(map(quoted, key))
        there = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in key)
        several = f"SELECT {listed}, count(*), min(rowid) FROM {quoted(table.name)} WHERE {there} GROUP BY {listed} HAVING count(*) > 1"
        for *values, count, first in source.execute(several).fetchall():
            same = " AND ".join(f"{quoted(name)} = ?" for name in key)
            rows = source.execute(f"SELECT rowid, {names} FROM {quoted(table.name)} WHERE {same} ORDER BY rowid", values).fetchall()
            what = f"{count} rows have this key"
            for row in rows:
                if row[0] != first:
                    equal = row[1:] == rows[0][1:]
                    remedy = "is left out, as it is the same" if equal else ""
                    yield Finding(table.name, ", ".join(key), shown_key(key, values), what, remedy, row[0], drops=equal)


def repair(source: sqlite3.Connection, finding: Finding) -> None:
    """Do what a finding says.

    Raises:
        sqlite3.IntegrityError: another row has what it would get.
    """
    if finding.drops:
        source.execute(f"DELETE FROM {quoted(finding.table)} WHERE rowid = ?", (finding.row,))
    else:
        names = ", ".join(f"{quoted(name)} = ?1" for name in finding.column.split(", "))
        source.execute(f"UPDATE {quoted(finding.table)} SET {names} WHERE rowid = ?2", (finding.value, finding.row))
