# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a store, kept in a file of its own, as there may be more of it than memory has room for."""

from __future__ import annotations

import csv
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator

from ansible_collections.mlops.mlflow.plugins.module_utils import store_experiments, store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_tables import Finding, Table

FIELDS = ("table", "column", "key", "what", "remedy")
MAKE = "CREATE TABLE findings (number INTEGER PRIMARY KEY, name TEXT, place TEXT, key TEXT, what TEXT, remedy TEXT, row INTEGER, value, drops INTEGER)"
REPAIRS = "SELECT number, name, place, key, what, remedy, row, value, drops FROM findings WHERE number > ? AND remedy <> '' ORDER BY number"


class Findings:
    """Findings in the order in which they were found."""

    def __init__(self, path: str) -> None:
        """Begin with none.

        Args:
            path: of the file; replaced.
        """
        if os.path.exists(path):
            os.remove(path)
        self.file = sqlite3.connect(path, isolation_level=None)
        self.file.executescript(f"PRAGMA journal_mode = off; PRAGMA synchronous = off; {MAKE};")

    def add(self, findings: Iterable[Finding]) -> int:
        """Add some; return the number of the last one."""
        rows = ((each.table, each.column, each.key, each.what, each.remedy, each.row, each.value, each.drops) for each in findings)
        self.file.executemany("INSERT INTO findings (name, place, key, what, remedy, row, value, drops) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return self.last()

    def last(self) -> int:
        """Return the number of the last one."""
        return int(self.file.execute("SELECT coalesce(max(number), 0) FROM findings").fetchone()[0])

    def count(self, left: bool = False) -> int:
        """Return how many there are.

        Args:
            left: only those that a person has to decide.
        """
        return int(self.file.execute(f"SELECT count(*) FROM findings{' WHERE remedy = ?' if left else ''}", ("",) if left else ()).fetchone()[0])

    def first(self, count: int, left: bool = False) -> list[dict[str, str]]:
        """Return some of them for a person; those first that he has to decide.

        Args:
            count: at most so many.
            left: only those that a person has to decide.
        """
        condition = " WHERE remedy = ''" if left else ""
        found = self.file.execute(f"SELECT name, place, key, what, remedy FROM findings{condition} ORDER BY remedy <> '', number LIMIT ?", (count,))
        return [dict(zip(FIELDS, row)) for row in found]

    def since(self, number: int) -> Iterator[tuple[int, Finding]]:
        """Yield those after a number that can be repaired, with their numbers."""
        for row in self.file.execute(REPAIRS, (number,)):
            yield row[0], Finding(*row[1:8], drops=bool(row[8]))

    def leave(self, number: int, why: str) -> None:
        """Note of one that it could not be repaired."""
        self.file.execute("UPDATE findings SET remedy = '', what = what || ?2 WHERE number = ?1", (number, f"; {why}"))

    def write(self, path: str) -> None:
        """Write all of them as a table that every spreadsheet reads."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(FIELDS)
            writer.writerows(self.file.execute("SELECT name, place, key, what, remedy FROM findings ORDER BY number"))


# A function that finds what is wrong with a table.
Look = Callable[[sqlite3.Connection, Table], Iterator[Finding]]


def scan_experiments(source: sqlite3.Connection, order: list[Table], findings: Findings, repairs: bool) -> None:
    """Find what leads to experiments that are not there, before others get their numbers; whatever these are, as they will be other ones.

    Args:
        source: the copy.
        order: its tables, parents first.
        findings: where they go.
        repairs: whether the copy is repaired.
    """
    parts = [store_experiments.numbered(table) for table in order]
    _scan(source, parts, findings, repairs, (store_tables.bad_values, store_tables.orphans, store_experiments.strays))


def scan(source: sqlite3.Connection, order: list[Table], findings: Findings, repairs: bool) -> None:
    """Find everything else that PostgreSQL does not take, and repair what can be repaired.

    Values come first, as a row with a better one may lead to another row; then rows that lead nowhere, parents first, as one that goes leaves its children
    alone; then rows with the same key.

    Args:
        source: the copy, whose experiments have their new numbers.
        order: its tables, parents first.
        findings: where they go.
        repairs: whether the copy is repaired.
    """
    parts = [store_experiments.unnumbered(table) for table in order]
    _scan(source, parts, findings, repairs, (store_tables.bad_values, store_tables.orphans))
    _scan(source, order, findings, repairs, (store_tables.duplicates, store_tables.bad_results))


def _scan(source: sqlite3.Connection, order: list[Table], findings: Findings, repairs: bool, looks: tuple[Look, ...]) -> None:
    for look in looks:
        for table in order:
            while True:
                before = findings.last()
                if findings.add(look(source, table)) == before or not repairs:
                    break
                if not mend(source, findings, before) or look is not store_tables.orphans:
                    break


def mend(source: sqlite3.Connection, findings: Findings, number: int) -> int:
    """Repair what was found after a number; return how many rows are better now."""
    done, taken = 0, []
    source.execute("BEGIN")
    for place, finding in findings.since(number):
        try:
            store_tables.repair(source, finding)
            done += 1
        except sqlite3.IntegrityError:
            taken.append(place)
    source.execute("COMMIT")
    for place in taken:
        findings.leave(place, "what it would become is another row's already")
    return done
