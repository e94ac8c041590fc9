# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rows of SQLite as PostgreSQL's COPY reads them, and checksums that both sides compute by themselves. Pure functions, no Ansible."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils.store_values import Column

ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
# Of the 128 bits of a row's digest these fit into PostgreSQL's bigint.
DIGITS = 15


def _float(value: float) -> str:
    # Python's shortest text comes back as the same number; its words for infinity are no words of PostgreSQL's.
    text = repr(float(value))
    return text if text[-1] != "f" else text.replace("inf", "Infinity")


def _json(value: Any) -> str:
    # SQLite makes a number of JSON that is nothing else.
    return value if isinstance(value, str) else repr(value)


# How COPY reads the values of a kind; those of a column are of one kind, but for those that are missing.
WRITERS: dict[str, Callable[[Any], str]] = {
    "text": lambda value: value.translate(ESCAPES),
    "json": lambda value: _json(value).translate(ESCAPES),
    "integer": str,
    "float": _float,
    "boolean": str,
    "bytes": lambda value: f"\\\\x{value.hex()}",
    "date": str,
}


def copy_text(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows in the text format of COPY.

    Args:
        columns: where the values go.
        rows: values without problems, in the order of the columns; at least one row.
    """
    written = []
    for column, values in zip(columns, zip(*rows)):
        write = WRITERS[column.kind]
        written.append([("\\N" if value is None else write(value)) for value in values] if column.nullable else list(map(write, values)))
    return "\n".join(map("\t".join, zip(*written))) + "\n"


class Stream:
    """A file that COPY reads, which never holds more than a few rows."""

    def __init__(self, columns: Sequence[Column], batches: Iterable[Sequence[Sequence[Any]]], count: Callable[[int], None]) -> None:
        """Begin.

        Args:
            columns: where the values go.
            batches: of rows, none of them empty.
            count: told of each batch how many rows it had.
        """
        self.part, self.place = b"", 0
        self.parts = self._encoded(columns, batches, count)

    @staticmethod
    def _encoded(columns: Sequence[Column], batches: Iterable[Sequence[Sequence[Any]]], count: Callable[[int], None]) -> Iterator[bytes]:
        for rows in batches:
            yield copy_text(columns, rows).encode()
            count(len(rows))

    def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes, and none at the end."""
        if self.place >= len(self.part):
            self.part, self.place = next(self.parts, b""), 0
        start = self.place
        self.place = len(self.part) if size < 0 else start + size
        return self.part[start : self.place]


# The same text of a value by Python and by PostgreSQL: numbers by their bits, texts with their length, so that no two rows have the same.
READERS: dict[str, Callable[[Any], str]] = {
    "text": lambda value: f"{len(value)}:{value}",
    "json": lambda value: f"{len(_json(value))}:{_json(value)}",
    "integer": str,
    "float": lambda value: struct.pack(">d", value).hex(),
    "boolean": str,
    "bytes": bytes.hex,
    "date": str,
}
EXPRESSIONS = {
    "text": "length({0}) || ':' || {0}",
    "json": "length({0}::text) || ':' || {0}::text",
    "integer": "{0}::text",
    "float": "encode(float8send({0}), 'hex')",
    "boolean": "{0}::int::text",
    "bytes": "encode({0}, 'hex')",
    "date": "to_char({0}, 'YYYY-MM-DD')",
}


def digest(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> int:
    """Return the sum of the digests of rows, which is the same in any order.

    Args:
        columns: of the values.
        rows: values as SQLite returns them.
    """
    readers = [READERS[column.kind] for column in columns]
    total = 0
    for row in rows:
        text = "|".join(["" if value is None else read(value) for read, value in zip(readers, row)])
        total += int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:DIGITS], 16)
    return total


def digest_query(table: str, columns: Sequence[Column]) -> str:
    """Return the query by which PostgreSQL computes the number of a table's rows, and the same sum.

    Args:
        table: its name, quoted.
        columns: in the order that Python has them in.
    """
    texts = [f"coalesce({EXPRESSIONS[column.kind].format(quoted(column.name))}, '')" for column in columns]
    row = " || '|' || ".join(texts)
    return f"SELECT count(*), coalesce(sum(('x' || left(md5({row}), {DIGITS}))::bit({DIGITS * 4})::bigint), 0) FROM {table}"


def quoted(name: str) -> str:
    """Return a name as SQL reads it, in SQLite and in PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'
