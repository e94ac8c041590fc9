# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as an import sees it: its tables, what it has already, and the transaction that brings a store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import database, store_addresses, store_copy, store_experiments, store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_copy import quoted
from ansible_collections.mlops.mlflow.plugins.module_utils.store_source import Refused, Uncertain
from ansible_collections.mlops.mlflow.plugins.module_utils.store_tables import Table

# What is in a store that nobody has used yet: what the server makes by itself, and what MLflow leaves of a run that is removed for good.
FRESH = {"experiments": "experiment_id <> 0", "workspaces": "name <> 'default'", "inputs": "false"}
# A comparison may take longer than the server's limits for those who forget a transaction.
PATIENT = ("idle_in_transaction_session_timeout", "statement_timeout", "transaction_timeout")
LOCK_TIMEOUT_S = 60
SHOWN = 100

# Foreign keys, which PostgreSQL checks at once for a whole table faster than row by row.
FOREIGN_KEYS = """
SELECT c.relname, f.conname, pg_get_constraintdef(f.oid) FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND f.contype = 'f' AND c.relname = ANY(%s) ORDER BY 1, 2
"""

# Told of a table's rows as they are done.
Told = Callable[[str, str, int], None]


def catalog(connection: Any) -> dict[str, Table]:
    """Return the tables of the target.

    Raises:
        Refused: nobody knows how to copy one of them.
    """
    if database.rows(connection, "SHOW server_encoding")[0][0] != "UTF8":
        raise Refused("the target's encoding is not UTF8, in which MLflow's texts are")
    queries = (store_tables.COLUMNS, store_tables.KEYS, store_tables.REFERENCES, store_tables.CHECKS)
    try:
        return store_tables.tables(*(database.rows(connection, query) for query in queries), store_addresses.COLUMNS)
    except ValueError as error:
        raise Refused(str(error)) from None


def occupied(connection: Any, order: Iterable[Table]) -> list[str]:
    """Return the tables of the target that have more than a fresh server's."""
    found = []
    for table in order:
        condition = f" WHERE {FRESH[table.name]}" if table.name in FRESH else ""
        if database.rows(connection, f"SELECT 1 FROM public.{quoted(table.name)}{condition} LIMIT 1"):
            found.append(table.name)
    return found


def in_both(connection: Any, table: Table, key: tuple[str, ...], rows: list[tuple]) -> list[tuple]:
    """Return those values of a key that the target has too."""
    kinds = {column.name: column.type for column in table.columns}
    listed, arrays = ", ".join(map(quoted, key)), ", ".join(f"%s::{kinds[name]}[]" for name in key)
    query = f"SELECT {listed} FROM public.{quoted(table.name)} JOIN unnest({arrays}) AS their ({listed}) USING ({listed})"
    return database.rows(connection, query, [list(values) for values in zip(*rows)])


def same(connection: Any, source: sqlite3.Connection, order: Iterable[Table]) -> list[str]:
    """Return the rows of the source whose keys the target has too, up to a hundred."""
    found: list[str] = []
    for table in order:
        for key in store_experiments.compared(table):
            for rows in store_experiments.key_values(source, table, key):
                found += [f"{table.name} with {store_tables.shown_key(key, row)}" for row in in_both(connection, table, key, rows)]
                if len(found) >= SHOWN:
                    return found[:SHOWN]
    return found


def has(connection: Any, source: sqlite3.Connection, order: Iterable[Table]) -> bool:
    """Tell whether the target has what the source has, by some keys of each table; what every server has does not count."""
    looked = False
    for table in order:
        condition = f" WHERE {FRESH[table.name]}" if table.name in FRESH else ""
        for key in table.keys[:1]:
            rows = source.execute(f"SELECT {', '.join(map(quoted, key))} FROM {quoted(table.name)}{condition} LIMIT {SHOWN}").fetchall()
            if rows:
                looked = True
                if len(in_both(connection, table, key, rows)) < len(rows):
                    return False
    return looked


def numbers(connection: Any, sequence: str, count: int, reserve: bool) -> list[int]:
    """Return so many numbers of a sequence.

    Args:
        connection: of the owner of the tables.
        sequence: its name.
        count: how many.
        reserve: whether nobody else will get them.
    """
    if reserve:
        return [row[0] for row in database.rows(connection, "SELECT nextval(%s::regclass) FROM generate_series(1, %s)", (sequence, count))]
    last, used = database.rows(connection, f"SELECT last_value, is_called FROM {sequence}")[0]
    return list(range(last + used, last + used + count))


def are_ours(connection: Any, sequence: str, taken: list[int]) -> bool:
    """Tell whether numbers that were reserved before are still nobody else's: the target may have been restored, or made anew.

    Args:
        connection: of the owner of the tables.
        sequence: that they are of.
        taken: the numbers.
    """
    (last,) = database.rows(connection, f"SELECT last_value FROM {sequence}")[0]
    return max(taken, default=0) <= last and not database.rows(connection, "SELECT 1 FROM public.experiments WHERE experiment_id = ANY(%s)", (taken,))


def sums(connection: Any, order: Iterable[Table]) -> dict[str, tuple[int, int]]:
    """Return the number of rows and the sum of their digests of each table, as PostgreSQL has them."""
    queries = {table.name: store_copy.digest_query(f"public.{quoted(table.name)}", table.columns) for table in order}
    found = {}
    for name, query in queries.items():
        count, total = database.rows(connection, query)[0]
        found[name] = (int(count), int(total))
    return found


def sums_of_source(path: str, order: Iterable[Table], told: Told) -> dict[str, tuple[int, int]]:
    """Return the same of SQLite."""
    found = {}
    with store_tables.opened(path) as source:
        for table in order:
            count = total = 0
            for rows in store_tables.batches(source, table, [column.name for column in table.columns]):
                count += len(rows)
                total += store_copy.digest(table.columns, rows)
                told("comparing", table.name, len(rows))
            found[table.name] = (count, total)
    return found


def differences(source: dict[str, tuple[int, int]], before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Say which tables have not got exactly the rows of the source.

    Args:
        source: number and digests by table.
        before: of the target, before anything was copied.
        after: of the target.
    """
    found = []
    for name, (count, total) in source.items():
        more, digest = after[name][0] - before[name][0], after[name][1] - before[name][1]
        if more != count:
            found.append(f"{name} has got {more} rows of {count}")
        elif digest != total:
            found.append(f"{name} has got {count} rows, and not all of them are those of the source")
    return found


def bring(connection: Any, path: str, order: list[Table], alone: bool, told: Told, proved: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Copy a store in one transaction, and compare both before it ends.

    Args:
        connection: of the owner of the tables.
        path: of the copy, without anything that PostgreSQL does not take.
        order: tables, parents first.
        alone: whether the target has to be empty.
        told: of each step, and of rows that are done.
        proved: told the answer right before the end of the transaction.

    Returns:
        Rows by table, and seconds by step.

    Raises:
        Refused: the target is not empty, or did not get what the source has; it is as it was.
        Uncertain: the connection was lost at the end.
    """
    seconds = {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)", (list(PATIENT),))
        # What others write meanwhile is not seen, so that it is not taken for a difference.
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            # Somebody may have read a table, and forgotten to end his transaction.
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
            if alone:
                make_room(connection, cursor, order)
            before = {table.name: (0, 0) for table in order} if alone else sums(connection, order)
            start = time.monotonic()
            # Others may be reading a target that is in use.
            keys = without_keys(connection, cursor, order) if alone else []
            with store_tables.opened(path) as source:
                for table in order:
                    copy(cursor, source, table, told)
            for table, name, definition in keys:
                cursor.execute(f"ALTER TABLE public.{quoted(table)} ADD CONSTRAINT {quoted(name)} {definition}")
            seconds["copy"] = round(time.monotonic() - start, 1)
            start = time.monotonic()
            with ThreadPoolExecutor(1) as other:
                theirs = other.submit(sums, connection, order)
                ours = sums_of_source(path, order, told)
                wrong = differences(ours, before, theirs.result())
            seconds["parity"] = round(time.monotonic() - start, 1)
            if wrong:
                raise Refused(f"after copying, {'; '.join(wrong)}")
            for table in order if alone else []:
                for column, sequence in table.sequences.items():
                    count_on(cursor, table.name, column, sequence)
            answer = {"rows": {name: count for name, (count, _total) in ours.items() if count}, "seconds": seconds}
            proved(answer)
        except BaseException:
            if not connection.closed:
                cursor.execute("ROLLBACK")
            raise
        try:
            cursor.execute("COMMIT")
        except database.psycopg2.OperationalError as error:
            raise Uncertain(
                f"The connection to the database was lost at the very end ({str(error).strip()}), so the store has come whole, or nothing of it: run this "
                "again, which finds out"
            ) from None
    return answer


def make_room(connection: Any, cursor: Any, order: list[Table]) -> None:
    """See that the target is empty, keep others from filling it, and take away what the server has made by itself.

    Raises:
        Refused: it is not.
    """
    cursor.execute("LOCK TABLE public.experiments, public.runs, public.registered_models IN SHARE ROW EXCLUSIVE MODE")
    taken = occupied(connection, order)
    if taken:
        raise Refused(not_empty(taken))
    for table in order:
        if table.name in FRESH:
            cursor.execute(f"DELETE FROM public.{quoted(table.name)}")


def without_keys(connection: Any, cursor: Any, order: list[Table]) -> list[tuple[str, str, str]]:
    """Take away the foreign keys of tables, in the transaction that puts them back; return table, name and definition of each."""
    found = database.rows(connection, FOREIGN_KEYS, ([table.name for table in order],))
    for table, name, _definition in found:
        cursor.execute(f"ALTER TABLE public.{quoted(table)} DROP CONSTRAINT {quoted(name)}")
    return found


def not_empty(taken: list[str]) -> str:
    """Say that a target is in use, and what to do."""
    return f"the target is not empty, it has rows in {', '.join(taken)}: import_mode = 'merge' brings the store beside them"


def copy(cursor: Any, source: sqlite3.Connection, table: Table, told: Told) -> None:
    """Copy the rows of one table."""
    names = [column.name for column in table.columns]
    stream = store_copy.Stream(table.columns, store_tables.batches(source, table, names), lambda count: told("copying", table.name, count))
    cursor.copy_expert(f"COPY public.{quoted(table.name)} ({', '.join(map(quoted, names))}) FROM STDIN", stream, 1 << 18)


def count_on(cursor: Any, table: str, column: str, sequence: str) -> None:
    """Have a sequence go on after the highest number that is there."""
    highest = f"max({quoted(column)})"
    cursor.execute(f"SELECT setval(%s, greatest({highest}, 1), coalesce({highest}, 0) >= 1) FROM public.{quoted(table)}", (sequence,))
