# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What PostgreSQL does not take of what SQLite has let in, value by value. Pure functions, no Ansible."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from typing import Any, NoReturn

# By PostgreSQL's names of types.
KINDS = {
    "varchar": "text",
    "text": "text",
    "bpchar": "text",
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "float4": "float",
    "float8": "float",
    "bool": "boolean",
    "json": "json",
    "bytea": "bytes",
    "date": "date",
}
BOUNDS = {"int2": 1 << 15, "int4": 1 << 31, "int8": 1 << 63}
TIMES = re.compile(r"(^|_)(time|timestamp)(_ms)?$|_at$")
DAY = re.compile(r"\d{4}-\d\d-\d\d")

# The three words that Python writes into JSON and nobody else reads; and what tells whether one of them stands in a string.
WORDS = re.compile(r'\\.|"|-?Infinity|NaN', re.DOTALL)
BOOLEANS = {"0": 0, "1": 1, "false": 0, "true": 1, "f": 0, "t": 1, "no": 0, "yes": 1}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of PostgreSQL's.

    Attributes:
        name: its name.
        type: PostgreSQL's short name of its type.
        limit: characters that it has room for; None without a limit.
        nullable: whether it may be without a value.
        names: whether its values tell rows, or places, from each other, so that a shortened one would be another's.
        linked: whether rows of other tables have the same value, so that a repair of one would leave the others alone.
    """

    name: str
    type: str
    limit: int | None = None
    nullable: bool = True
    names: bool = False
    linked: bool = False

    @property
    def kind(self) -> str:
        """What its values are.

        Raises:
            KeyError: MLflow has had no column of this type.
        """
        return KINDS[self.type]

    @property
    def is_time(self) -> bool:
        """Whether it has milliseconds since 1970."""
        return self.type == "int8" and bool(TIMES.search(self.name))


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"has {word}, which is no JSON")


def problem(column: Column, value: Any) -> str | None:
    """Say why PostgreSQL does not take a value, or would give back another one; None when it does.

    Args:
        column: where it is to go.
        value: as SQLite returns it, with text as bytes where it is no UTF-8.
    """
    if value is None:
        return None if column.nullable else "has no value and needs one"
    return CHECKS[column.kind](column, value)


def _text(column: Column, value: Any) -> str | None:
    if not isinstance(value, str):
        return "is no text in UTF-8" if isinstance(value, bytes) else f"is the number {value}, not a text"
    if "\0" in value:
        return "has a NUL byte"
    if column.limit is not None and len(value) > column.limit:
        return f"has {len(value)} characters, and there is room for {column.limit}"
    return None


def _json(column: Column, value: Any) -> str | None:
    if isinstance(value, (int, float)):
        # SQLite makes a number of JSON that is nothing else.
        return None if math.isfinite(value) else f"is {value}, which is no JSON"
    fault = _text(column, value)
    if fault:
        return fault
    try:
        # As texts: Python reads no integer of more than some thousand digits.
        json.loads(value, parse_constant=_refuse, parse_int=str, parse_float=str)
    except ValueError as error:
        return str(error) if str(error).startswith("has ") else f"is no JSON: {error}"
    except RecursionError:
        return "is JSON that is nested too deeply"
    return None


def _integer(column: Column, value: Any) -> str | None:
    if not isinstance(value, int):
        return f"is {shown(value)}, not {'a time in milliseconds' if column.is_time else 'an integer'}"
    if not -BOUNDS[column.type] <= value < BOUNDS[column.type]:
        return f"is {value}, beyond the {column.type} that its column is"
    return None


def _float(_column: Column, value: Any) -> str | None:
    return None if isinstance(value, (int, float)) else f"is {shown(value)}, not a number"


def _boolean(_column: Column, value: Any) -> str | None:
    return None if isinstance(value, int) and value in (0, 1) else f"is {shown(value)}, neither 0 nor 1"


def _bytes(_column: Column, value: Any) -> str | None:
    return None if isinstance(value, bytes) else f"is {shown(value)}, not bytes"


def _date(_column: Column, value: Any) -> str | None:
    try:
        if DAY.fullmatch(value):
            datetime.date.fromisoformat(value)
            return None
    except (TypeError, ValueError):
        pass
    return f"is {shown(value)}, not a day"


CHECKS = {"text": _text, "json": _json, "integer": _integer, "float": _float, "boolean": _boolean, "bytes": _bytes, "date": _date}


def shown(value: Any) -> str:
    """Write a value for a person, shortened."""
    text = repr(value[:100] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def repaired(column: Column, value: Any) -> Any:
    """Return the nearest value that PostgreSQL takes.

    Args:
        column: where it is to go.
        value: one that has a problem.

    Returns:
        A value without a problem.

    Raises:
        ValueError: none is near; the row has to be mended, or left out, by a person.
    """
    found = None if column.linked else _nearest(column, value)
    if found is None or problem(column, found) is not None:
        raise ValueError(f"no value is near {shown(value)}")
    return found


def _nearest(column: Column, value: Any) -> Any:
    if column.kind in ("text", "json"):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        text = text.replace("\0", "")
        if column.kind == "json":
            return without_words(text)
        return text if column.limit is None or column.names else text[: column.limit]
    if column.kind == "boolean":
        return BOOLEANS.get(str(value).lower(), value)
    if column.kind == "integer":
        return _nearest_integer(column, value)
    if column.kind == "float" and isinstance(value, (str, bytes)):
        return float(value)
    if column.kind == "bytes" and isinstance(value, str):
        return value.encode()
    if column.kind == "date" and isinstance(value, str):
        return value[:10]
    return value


def without_words(text: str) -> str:
    """Return JSON with null where Python wrote NaN or Infinity; strings stay as they are."""
    parts, inside, done = [], False, 0
    for match in WORDS.finditer(text):
        if match[0] == '"':
            inside = not inside
        elif not inside and match[0][0] != "\\":
            parts += [text[done : match.start()], "null"]
            done = match.end()
    return "".join(parts) + text[done:]


def _nearest_integer(column: Column, value: Any) -> int:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and column.is_time:
        try:
            moment = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            value = float(value)
        else:
            value = moment.replace(tzinfo=moment.tzinfo or datetime.timezone.utc).timestamp() * 1000
    number = value if isinstance(value, int) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"no integer is near {shown(value)}")
    return round(number)
