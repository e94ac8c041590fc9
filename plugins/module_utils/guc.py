# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's settings as the server itself describes them in pg_settings: pure functions, no Ansible.

``current`` is one row of pg_settings, a mapping with ``setting``, ``unit``, ``vartype``, ``context``, ``min_val``, ``max_val``,
``enumvals``, ``pending_restart``, ``source`` and, when the caller asks for it, ``boot_val``. ``known`` has all rows by their name.
The rules of the values are those of PostgreSQL's guc.c (parse_int, parse_real, parse_bool, convert_to_base_unit).
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

_MEMORY = {"TB": 1024**4, "GB": 1024**3, "MB": 1024**2, "kB": 1024, "B": 1}
_TIME = {"d": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1}

# What C's isspace takes; the digits are ASCII ones too.
_SPACE = "[ \t\n\v\f\r]*"
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_UNIT = re.compile(rf"{_SPACE}([^ \t\n\v\f\r]*){_SPACE}")

# The words of the configuration file's own grammar: one dot, no dollar sign.
_NAME = "[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*"
_CUSTOM_NAME = re.compile(rf"{_NAME}\.{_NAME}")
_LIST_ITEM = re.compile(r"[\w.$*/:@+-]+|\"[^\"]*\"")

# Names and words that the server takes, but does not list.
_OLD_NAMES = {"sort_mem": "work_mem", "vacuum_mem": "maintenance_work_mem", "ssl_ecdh_curve": "ssl_groups"}
_OLD_WORDS = {
    "true": "on",
    "yes": "on",
    "1": "on",
    "false": "off",
    "no": "off",
    "0": "off",
    "debug": "debug2",
    "info": "info",
}
_OLD_WAL_LEVELS = {"archive": "replica", "hot_standby": "replica"}

# Buffers that the server keeps in banks of 16 blocks.
_BANKED = {
    "commit_timestamp_buffers",
    "multixact_member_buffers",
    "multixact_offset_buffers",
    "notify_buffers",
    "serializable_buffers",
    "subtransaction_buffers",
    "transaction_buffers",
}


def text(value: Any) -> str:
    """Write a value of ``postgresql_settings`` as the server will read it: booleans as on and off, lists separated by commas."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return str(value)


def find(name: str, known: dict[str, dict[str, Any]]) -> str | None:
    """Return the server's own spelling of a setting's name.

    Args:
        name: in any case, or a former name that the server still takes.
        known: all rows of pg_settings by their name.

    Returns:
        A key of ``known``, or None when the server has no such setting.
    """
    if name in known:
        return name
    names = {key.lower(): key for key in known}
    lower = name.lower()
    return names.get(lower) or names.get(_OLD_NAMES.get(lower, ""))


def _units(unit: str | None) -> tuple[dict[str, int], int]:
    """Return the units that a setting takes, and its own one in the smallest of them (bytes, microseconds); ({}, 1) for a plain number."""
    if not unit:
        return {}, 1
    if unit in _TIME:
        return _TIME, _TIME[unit]
    match = re.fullmatch(r"([0-9]*)(B|kB|MB|GB|TB)", unit)
    if match is None:
        raise ValueError(f"{unit!r} is no unit of PostgreSQL's settings; use one such as kB, 8kB or ms")
    return _MEMORY, int(match.group(1) or 1) * _MEMORY[match.group(2)]


def _example(unit: str | None, vartype: str) -> str:
    """Return a value of the right form."""
    if unit:
        return "5min" if unit in _TIME else "64MB"
    return "0.5" if vartype == "real" else "10"


def _real(written: str) -> tuple[float | None, int]:
    """Read the number at the start of a text as C's strtod does; return it and where it ends, None when there is none."""
    for pattern, convert in ((_HEXADECIMAL, float.fromhex), (_DECIMAL, float), (_INFINITE, float)):
        match = pattern.match(written)
        if match is None:
            continue
        try:
            result = convert(match.group())
        except OverflowError:
            return None, 0
        return (None, 0) if pattern is _DECIMAL and math.isinf(result) else (result, match.end())
    return None, 0


def _integer(written: str) -> tuple[float | None, int]:
    """Read the number at the start of a text as PostgreSQL's parse_int does: strtol, then strtod for a fraction or very many digits."""
    match = _INTEGER.match(written)
    if written[match.end() if match else 0 :][:1] in (".", "e", "E"):
        return _real(written)
    if match is None:
        return None, 0
    digits = match.group().lstrip("+-")
    if len(digits) > 18:
        return _real(written)
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    return float(int(digits, base) * (-1 if match.group()[0] == "-" else 1)), match.end()


def _convert(value: float, written: str, unit: str | None) -> float:
    """Convert a number from the unit it was written with to the setting's own one.

    Args:
        value: the number.
        written: the unit as it was written.
        unit: the setting's own unit, None for a plain number.

    Returns:
        The number in the setting's own unit; a fraction counts in whole numbers of the next smaller unit, as it does in PostgreSQL.

    Raises:
        ValueError: the setting takes no unit, or not this one.
    """
    units, base = _units(unit)
    if not units:
        raise ValueError("takes a number without a unit; leave the unit out")
    if written not in units:
        near = [name for name in units if name.lower() == written.lower()]
        remedy = f"write {near[0]}" if near else f"use {', '.join(list(units)[:0:-1])} or {next(iter(units))}"
        raise ValueError(f"unit {written!r} is unknown here; {remedy} (case matters)")
    smaller = [factor for factor in units.values() if factor < units[written]]
    result = value * units[written] / base
    if smaller and math.isfinite(result):
        result = round(value * units[written] / smaller[0]) * smaller[0] / base
    return result


def number(value: Any, unit: str | None, vartype: str) -> float:
    """Read a number as PostgreSQL reads it.

    Args:
        value: as a user writes it, for example ``4GB``, ``15min``, ``0.9``, ``0x10`` or 200.
        unit: the setting's own unit (B, kB, MB, a block such as 8kB or 16MB, ms, s, min), None for a plain number.
        vartype: ``integer``, which is rounded half to even, or ``real``.

    Returns:
        The number in the setting's own unit. It may be beyond the setting's range.

    Raises:
        ValueError: it is no number, or its unit is not one of the setting's. The sentence does not repeat the value.
    """
    if vartype not in ("integer", "real"):
        raise ValueError(f"a setting of type {vartype} is no number")
    written = text(value).lstrip(" \t\n\v\f\r")
    result, end = _integer(written) if vartype == "integer" else _real(written)
    if result is None:
        raise ValueError(f"is no number; write one such as {_example(unit, vartype)}")
    match = _UNIT.fullmatch(written, end)
    if match is None:
        raise ValueError(f"is more than a number and a unit; write a value such as {_example(unit, vartype)}")
    if match.group(1):
        result = _convert(result, match.group(1), unit)
    return float(round(result)) if vartype == "integer" and math.isfinite(result) else result


def _bool(value: Any) -> bool | None:
    """Read a boolean: on, off, true, false, yes, no or an unambiguous start of them in any case, 1, 0; None when it is none."""
    word = text(value).lower()
    if word in ("1", "0"):
        return word == "1"
    for whole, least, result in (("true", 1, True), ("false", 1, False), ("yes", 1, True), ("no", 1, False), ("on", 2, True), ("off", 2, False)):
        if len(word) >= least and whole.startswith(word):
            return result
    return None


def _word(value: Any, choices: list[str]) -> str | None:
    """Return which of an enum's values is meant, in lower case; None when it is none of them."""
    lower = [choice.lower() for choice in choices]
    if "notice" in lower:
        lower.append("info")
    word = text(value).lower()
    if word not in lower:
        word = (_OLD_WAL_LEVELS if "logical" in lower else _OLD_WORDS).get(word, word)
    if word not in lower:
        return None
    # wal_compression: the server answers with the method that on stands for.
    return "pglz" if word == "on" and "pglz" in lower else word


def _bound(value: float, current: dict[str, Any], upwards: bool) -> str:
    """Write an end of a range for people: as it is when that is short, else rounded into the range in a unit that keeps two digits."""
    units, base = _units(current["unit"])
    exact = show({**current, "setting": f"{value:.15g}"})
    if value <= 0 or not units or re.fullmatch(r"[0-9.]{1,4}[A-Za-z]+", exact):
        return exact
    unit, factor = next((item for item in units.items() if value * base / item[1] >= 10), ("", base))
    return f"{(math.ceil if upwards else math.floor)(value * base / factor)}{unit or current['unit']}"


def _range_problem(value: Any, current: dict[str, Any]) -> str | None:
    """Say what is wrong with a number; a unit that is not among PostgreSQL's is left to the server."""
    try:
        _units(current["unit"])
    except ValueError:
        return None
    try:
        result = number(value, current["unit"], current["vartype"])
    except ValueError as error:
        return str(error)
    low, high = float(current["min_val"] or "-inf"), float(current["max_val"] or "inf")
    if low <= result <= high:
        return None
    if _octal(current):
        return f"is out of range; use {int(low):04o} to {int(high):04o}, in quotes"
    at_least = _bound(low, current, True)
    span = f"{at_least} or more" if high > 1e300 else f"{at_least} to {_bound(high, current, False)}"
    bare = current["unit"] and re.fullmatch(rf"{_SPACE}[+-]?[0-9.]+{_SPACE}", text(value))
    return f"is out of range; use {span}" + (f" (without a unit it counts in {current['unit']})" if bare else "")


def _octal(current: dict[str, Any]) -> bool:
    """Whether a setting is a file mode, which the server shows in octal."""
    return current["vartype"] == "integer" and re.fullmatch(r"0[0-7]+", str(current["setting"])) is not None


def _name_problem(name: str, known: dict[str, dict[str, Any]]) -> str | None:
    """Say what is wrong with a name that the server does not know."""
    if _CUSTOM_NAME.fullmatch(name):
        return None
    if "." in name:
        return "an extension's setting has a name of two words of letters, digits and _, with one dot between them; rename it"
    names = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return "this server has no such setting; " + (f"did you mean {names[near[0]]}?" if near else "leave it out")


def problem(name: str, value: Any, known: dict[str, dict[str, Any]]) -> str | None:
    """Say what is wrong with one entry of ``postgresql_settings`` on this server.

    Args:
        name: the setting's name, in any case.
        value: as the user gave it; None stands for the server's default and is always fine.
        known: all rows of pg_settings by their name.

    Returns:
        A sentence with the remedy, without the name and the value; or None when the server will take it. What a string may hold is
        known to the server alone, so of strings only the form is checked.
    """
    if value is None:
        return None
    items = value if isinstance(value, (list, tuple)) else [value]
    if any(item is None or isinstance(item, (dict, list, tuple)) for item in items):
        return "is neither a plain value nor a list of them; use one of these"
    found = find(name, known)
    if found is None:
        unknown = _name_problem(name, known)
        return unknown or _text_problem(value)
    current = known[found]
    if current["context"] == "internal":
        return "is fixed when the server is built or its data folder is made; leave it out"
    if found.startswith("transaction_") and f"default_{found}" in known:
        return f"belongs to one transaction; use default_{found}"
    return _value_problem(value, current) or _rule_problem(found, value, current)


def _rule_problem(name: str, value: Any, current: dict[str, Any]) -> str | None:
    """Say what is wrong with a value within the range, by the rules of single settings that pg_settings does not tell."""
    if name in _BANKED and number(value, current["unit"], current["vartype"]) % 16:
        return "is not a whole number of banks; use a multiple of 128kB"
    if name == "vacuum_buffer_usage_limit" and 0 < number(value, current["unit"], current["vartype"]) < 128:
        return "is out of range; use 0, or 128kB to 16GB"
    return None


def _text_problem(value: Any) -> str | None:
    """Say what is wrong with a text."""
    written = text(value)
    if "\n" in written or "\0" in written:
        return "holds a line break or a zero byte, which PostgreSQL's configuration file cannot; use one line"
    return None


def _value_problem(value: Any, current: dict[str, Any]) -> str | None:
    """Say what is wrong with a value, by the type of its setting."""
    if _text_problem(value):
        return _text_problem(value)
    kind = current["vartype"]
    if kind in ("integer", "real"):
        return _range_problem(value, current)
    if kind == "bool":
        return "is neither on nor off; use one of them" if _bool(value) is None else None
    if kind == "enum" and _word(value, current["enumvals"] or []) is None:
        return f"is unknown; use one of {', '.join(choice or repr('') for choice in current['enumvals'] or [])}"
    return None


def _items(written: str) -> list[str] | None:
    """Split a list of plain words at its commas; None when it is anything else, where a blank may matter."""
    items = [item.strip(" ") for item in written.split(",")]
    return items if len(items) > 1 and all(_LIST_ITEM.fullmatch(item) for item in items) else None


def _same_number(value: Any, current: dict[str, Any]) -> bool:
    """Whether a planned number is the one that the server has, as far as pg_settings shows it."""
    try:
        planned, present = (number(item, current["unit"], current["vartype"]) for item in (value, current["setting"]))
    except ValueError:
        return False
    # wal_buffers: -1 lets the server choose, and pg_settings then has the choice.
    if planned == -1 and current.get("boot_val") == "-1" and current["source"] in ("default", "override"):
        return True
    return planned == present if current["vartype"] == "integer" else f"{planned:g}" == f"{present:g}"


def same(value: Any, current: dict[str, Any]) -> bool:
    """Whether a planned value is the one that the server has.

    Args:
        value: as the user gave it; None, the default, is the same when nothing has changed the server's default.
        current: the setting's row of pg_settings.

    Returns:
        True when the server would not act differently: units, spellings of booleans, the case of enums and the blanks of lists do not
        count, and reals are compared with the six digits that pg_settings shows.
    """
    present, kind = current["setting"], current["vartype"]
    if value is None:
        return current["source"] == "default" or (current.get("boot_val") is not None and same(current["boot_val"], current))
    if present is None:
        return text(value) == ""
    if kind == "bool":
        return _bool(value) is not None and _bool(value) == _bool(present)
    if kind == "enum":
        return text(value).lower() == present.lower() or _word(value, current["enumvals"] or []) == present.lower()
    if kind in ("integer", "real"):
        return _same_number(value, current)
    written = text(value)
    return written == present or (_items(written) is not None and _items(written) == _items(present))


def show(current: dict[str, Any]) -> str:
    """Write the server's present value as people do, and as SHOW does: in the largest unit that divides it.

    Args:
        current: the setting's row of pg_settings.

    Returns:
        For example ``128MB`` or ``15min``; numbers up to 0, which have a meaning of their own, without a unit; an empty text as ``''``.
    """
    present = "" if current["setting"] is None else str(current["setting"])
    if current["vartype"] not in ("integer", "real") or not current["unit"]:
        return present or "''"
    try:
        units, base = _units(current["unit"])
        value = number(present, current["unit"], current["vartype"])
    except ValueError:
        return present
    if value <= 0:
        return present
    # Reals with PostgreSQL's own tolerance.
    tolerance = 1e-8 if current["vartype"] == "real" else 0
    for unit, factor in units.items():
        count = value * base / factor
        if round(count) and abs(round(count) / count - 1) <= tolerance:
            return f"{round(count)}{unit}"
    return f"{value * base:g}{list(units)[-1]}"


def effect(value: Any, current: dict[str, Any] | None, running: bool) -> str:
    """Say what it takes for a planned value to count.

    Args:
        value: as the user gave it; None is the server's default.
        current: the setting's row of pg_settings, None when the server does not know the setting (yet).
        running: whether there is a server that runs.

    Returns:
        ``first start`` when no server runs, ``restart``, ``reload`` or ``nothing``. A value that the server has but that another one
        waits to replace needs a reload, which takes the waiting one back.
    """
    if not running:
        return "first start"
    if current is None:
        return "nothing" if value is None else "reload"
    equal = same(value, current)
    if current["context"] == "postmaster" and current["vartype"] == "string" and value is not None:
        # The server compares these letter by letter, and waits for a restart for the sake of a blank.
        equal = text(value) == current["setting"]
    if equal:
        return "reload" if current["pending_restart"] else "nothing"
    return "restart" if current["context"] == "postmaster" or current["pending_restart"] else "reload"
