"""PostgreSQL's settings: numbers, problems, comparison and effect, as a PostgreSQL 17 answered when it was asked the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import guc
from hypothesis import given
from hypothesis import strategies as st


def row(setting: str | None, vartype: str, unit: str | None = None, **other: Any) -> dict[str, Any]:
    """Return a row as pg_settings has it."""
    present = {"setting": setting, "vartype": vartype, "unit": unit, "context": "user", "min_val": None, "max_val": None, "enumvals": None}
    return {**present, "pending_restart": False, "source": "default", **other}


def integer(setting: str, unit: str | None, low: int, high: int, **other: Any) -> dict[str, Any]:
    """Return the row of an integer."""
    return row(setting, "integer", unit, min_val=str(low), max_val=str(high), **other)


def real(setting: str, unit: str | None, low: str, high: str) -> dict[str, Any]:
    """Return the row of a real."""
    return row(setting, "real", unit, min_val=low, max_val=high)


MAX = 2**31 - 1
KNOWN = {
    "shared_buffers": integer("16384", "8kB", 16, 1073741823, context="postmaster"),
    "wal_buffers": integer("512", "8kB", -1, 262143, context="postmaster", boot_val="-1"),
    "transaction_buffers": integer("32", "8kB", 0, 131072, context="postmaster"),
    "vacuum_buffer_usage_limit": integer("2048", "kB", 0, 16777216),
    "max_connections": integer("100", None, 1, 262143, context="postmaster", source="configuration file", boot_val="100"),
    "work_mem": integer("4096", "kB", 64, MAX),
    "max_wal_size": integer("1024", "MB", 2, MAX, context="sighup"),
    "wal_decode_buffer_size": integer("524288", "B", 65536, 1073741823, context="postmaster"),
    "checkpoint_timeout": integer("900", "s", 30, 86400, context="sighup"),
    "log_min_duration_statement": integer("-1", "ms", -1, MAX, context="superuser"),
    "log_rotation_age": integer("1440", "min", 0, 35791394, context="sighup"),
    "log_file_mode": integer("0600", None, 0, 511, context="sighup"),
    "vacuum_cost_delay": real("0.1", "ms", "0", "100"),
    "random_page_cost": real("1.1", None, "0", "1.79769e+308"),
    "geqo_selection_bias": real("2", None, "1.5", "2"),
    "jit": row("on", "bool"),
    "wal_level": row("replica", "enum", context="postmaster", enumvals=["minimal", "replica", "logical"]),
    "wal_compression": row("pglz", "enum", context="superuser", enumvals=["pglz", "lz4", "zstd", "on", "off"]),
    "synchronous_commit": row("on", "enum", enumvals=["local", "remote_write", "remote_apply", "on", "off"]),
    "client_min_messages": row("notice", "enum", enumvals=["debug2", "debug1", "log", "notice", "warning", "error"]),
    "session_replication_role": row("origin", "enum", enumvals=["origin", "replica", "local"]),
    "ssl_max_protocol_version": row("", "enum", enumvals=["", "TLSv1.2", "TLSv1.3"]),
    "transaction_isolation": row("read committed", "enum", enumvals=["serializable", "read committed"], source="override"),
    "default_transaction_isolation": row("read committed", "enum", enumvals=["serializable", "read committed"]),
    "listen_addresses": row("localhost,10.0.0.1", "string", context="postmaster"),
    "search_path": row('"$user", public', "string"),
    "log_line_prefix": row("%m [%p] ", "string", context="sighup"),
    "archive_command": row("", "string", context="sighup"),
    "unix_socket_group": row(None, "string", context="postmaster"),
    "TimeZone": row("Etc/UTC", "string"),
    "server_version": row("17.12", "string", context="internal"),
}


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("4GB", "kB", 4194304),
        ("4GB", "8kB", 524288),
        ("4GB", "MB", 4096),
        ("32MB", "16MB", 2),
        ("64kB", "B", 65536),
        ("1TB", "B", 2**40),
        ("8192B", "8kB", 1),
        ("1.5GB", "kB", 1572864),
        # A fraction counts in whole numbers of the next smaller unit: 30.1 GB are 30822 MB.
        ("30.1GB", "kB", 30822 * 1024),
        ("1.2kB", "B", 1229),
        ("1.7MB", "8kB", 218),
        (" 4 MB ", "kB", 4096),
        ("4\tMB", "kB", 4096),
        ("0x10MB", "kB", 16384),
        ("0100kB", "kB", 64),
        ("1e3kB", "kB", 1000),
        ("15min", "s", 900),
        ("1.5min", "ms", 90000),
        ("1h", "min", 60),
        ("7d", "min", 10080),
        ("500us", "ms", 0),
        ("1500us", "ms", 2),
        ("90s", "min", 2),
        ("-1", "ms", -1),
        (-1, "kB", -1),
        (200, "s", 200),
        ("1.5", None, 2),
        ("2.5", None, 2),
        (2.0, None, 2),
        (".5", None, 0),
        ("5.", None, 5),
        ("+5", None, 5),
        ("1e3", None, 1000),
        ("0x1F", None, 31),
        ("0640", None, 416),
        ("010", None, 8),
        ("0x1.8", None, 2),
        ("99999999999999999999", None, 1e20),
    ],
)
def test_integers_are_read_as_the_server_reads_them(value: Any, unit: str | None, expected: float) -> None:
    """Units, fractions, blanks, and the notations of C."""
    assert guc.number(value, unit, "integer") == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("0.9", None, 0.9),
        (0.9, None, 0.9),
        (1e-05, None, 1e-05),
        ("010", None, 10),
        ("0x10", None, 16),
        ("inf", None, float("inf")),
        ("100us", "ms", 0.1),
        ("1.5ms", "ms", 1.5),
        ("0.3s", "ms", 300),
        (" 2 ms", "ms", 2),
    ],
)
def test_reals_are_read_as_the_server_reads_them(value: Any, unit: str | None, expected: float) -> None:
    """No rounding, and a leading zero means nothing."""
    assert guc.number(value, unit, "real") == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["integer", "real"])
@pytest.mark.parametrize(
    "value",
    ["", " ", "abc", "++5", "nan", "1_000", "1,5", "1 000", "0x", "1e", "5 5", "1e400", "4 MB x", "4\u00a0MB", True, [], [1, 2], "9" * 400],
)
def test_what_is_no_number(value: Any, kind: str) -> None:
    """Python would read some of these."""
    with pytest.raises(ValueError, match=r"\w"):
        guc.number(value, "MB", kind)


@pytest.mark.parametrize("value", ["inf", "09"])
def test_what_is_no_integer(value: str) -> None:
    """No integer is endless, and 9 is no octal digit."""
    with pytest.raises(ValueError, match=r"\w"):
        guc.number(value, None, "integer")


@pytest.mark.parametrize(
    ("value", "unit", "sentence"),
    [
        ("4mb", "kB", "unit 'mb' is unknown here; write MB (case matters)"),
        ("4K", "kB", "unit 'K' is unknown here; use B, kB, MB, GB or TB (case matters)"),
        ("4min", "kB", "unit 'min' is unknown here; use B, kB, MB, GB or TB (case matters)"),
        ("4MB", "ms", "unit 'MB' is unknown here; use us, ms, s, min, h or d (case matters)"),
        ("4MB", None, "takes a number without a unit; leave the unit out"),
        ("50%", None, "takes a number without a unit; leave the unit out"),
        ("big", "kB", "is no number; write one such as 64MB"),
        ("soon", "s", "is no number; write one such as 5min"),
        ("1 GB or so", "kB", "is more than a number and a unit; write a value such as 64MB"),
    ],
)
def test_sentences_of_numbers(value: str, unit: str | None, sentence: str) -> None:
    """What is wrong, and what would be right."""
    with pytest.raises(ValueError, match=r"^\D") as caught:
        guc.number(value, unit, "integer")
    assert str(caught.value) == sentence


def test_numbers_that_cannot_be_asked_for() -> None:
    """The caller mixed up the types, or has a unit that PostgreSQL does not have today."""
    with pytest.raises(ValueError, match="'pages' is no unit of PostgreSQL's settings"):
        guc.number("1kB", "pages", "integer")
    with pytest.raises(ValueError, match="a setting of type enum is no number"):
        guc.number("1", None, "enum")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_buffers", "4GB"),
        ("SHARED_BUFFERS", 16),
        ("sort_mem", "4MB"),
        ("timezone", "UTC"),
        ("work_mem", None),
        ("server_version", None),
        ("no_such_setting", None),
        ("jit", True),
        ("jit", "TRUE"),
        ("jit", "of"),
        ("jit", 0),
        ("wal_level", "Logical"),
        ("wal_level", "hot_standby"),
        ("synchronous_commit", False),
        ("synchronous_commit", "yes"),
        ("synchronous_commit", "remote_apply"),
        ("client_min_messages", "debug"),
        ("client_min_messages", "info"),
        ("ssl_max_protocol_version", ""),
        ("log_min_duration_statement", -1),
        ("log_file_mode", "0640"),
        ("random_page_cost", 1.1),
        ("listen_addresses", ["localhost", "10.0.0.7"]),
        ("archive_command", 'cp "%p" \'/a b/%f\''),
        ("pg_stat_statements.max", 10000),
        ("auto_explain.log_analyze", True),
        ("transaction_buffers", "1MB"),
        ("vacuum_buffer_usage_limit", 0),
    ],
)
def test_values_that_the_server_takes(name: str, value: Any) -> None:
    """Nothing to say."""
    assert guc.problem(name, value, KNOWN) is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("wrok_mem", "4MB", "this server has no such setting; did you mean work_mem?"),
        ("TIMEZON", "UTC", "this server has no such setting; did you mean TimeZone?"),
        ("zzz", 1, "this server has no such setting; leave it out"),
        ("a.b.c", 1, "an extension's setting has a name of two words of letters, digits and _, with one dot between them; rename it"),
        ("a.1b", 1, "an extension's setting has a name of two words of letters, digits and _, with one dot between them; rename it"),
        ("server_version", "18", "is fixed when the server is built or its data folder is made; leave it out"),
        ("transaction_isolation", "serializable", "belongs to one transaction; use default_transaction_isolation"),
        ("shared_buffers", 4, "is out of range; use 128kB to 8191GB (without a unit it counts in 8kB)"),
        ("shared_buffers", "64kB", "is out of range; use 128kB to 8191GB"),
        ("shared_buffers", "4gb", "unit 'gb' is unknown here; write GB (case matters)"),
        ("work_mem", "4TB", "is out of range; use 64kB to 2047GB"),
        ("wal_decode_buffer_size", "1GB", "is out of range; use 64kB to 1023MB"),
        ("checkpoint_timeout", "2d", "is out of range; use 30s to 1d"),
        ("log_min_duration_statement", "25d", "is out of range; use -1 to 24d"),
        ("max_connections", 0, "is out of range; use 1 to 262143"),
        ("max_connections", "100MB", "takes a number without a unit; leave the unit out"),
        ("log_file_mode", "1000", "is out of range; use 0000 to 0777, in quotes"),
        ("random_page_cost", -1, "is out of range; use 0 or more"),
        ("random_page_cost", "inf", "is out of range; use 0 or more"),
        ("geqo_selection_bias", 3, "is out of range; use 1.5 to 2"),
        ("vacuum_cost_delay", "1s", "is out of range; use 0 to 100ms"),
        ("work_mem", True, "is no number; write one such as 64MB"),
        ("transaction_buffers", "64kB", "is not a whole number of banks; use a multiple of 128kB"),
        ("vacuum_buffer_usage_limit", "64kB", "is out of range; use 0, or 128kB to 16GB"),
        ("jit", "enabled", "is neither on nor off; use one of them"),
        ("jit", "o", "is neither on nor off; use one of them"),
        ("jit", " on", "is neither on nor off; use one of them"),
        ("jit", 2, "is neither on nor off; use one of them"),
        ("wal_level", "high", "is unknown; use one of minimal, replica, logical"),
        ("wal_level", True, "is unknown; use one of minimal, replica, logical"),
        ("session_replication_role", "archive", "is unknown; use one of origin, replica, local"),
        ("ssl_max_protocol_version", "on", "is unknown; use one of '', TLSv1.2, TLSv1.3"),
        ("archive_command", "a\nb", "holds a line break or a zero byte, which PostgreSQL's configuration file cannot; use one line"),
        ("x.y", "a\0b", "holds a line break or a zero byte, which PostgreSQL's configuration file cannot; use one line"),
        ("listen_addresses", {"a": 1}, "is neither a plain value nor a list of them; use one of these"),
        ("listen_addresses", ["a", None], "is neither a plain value nor a list of them; use one of these"),
    ],
)
def test_problems_say_what_would_be_right(name: str, value: Any, sentence: str) -> None:
    """The caller writes the name and the value before."""
    assert guc.problem(name, value, KNOWN) == sentence


def test_a_unit_from_the_future_is_left_to_the_server() -> None:
    """A check that does not know must not refuse."""
    known = {"x": integer("1", "pages", 1, 9)}
    assert guc.problem("x", "12pages", known) is None
    assert guc.show(known["x"]) == "1"


def test_find_returns_the_servers_spelling() -> None:
    """The key with which the caller gets the row."""
    assert [guc.find(name, KNOWN) for name in ("timezone", "work_mem", "SORT_MEM", "vacuum_mem", "a.b")] == ["TimeZone", "work_mem", "work_mem", None, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_buffers", "128MB"),
        ("shared_buffers", 16384),
        ("checkpoint_timeout", "0.25h"),
        ("log_file_mode", "0600"),
        ("log_file_mode", 384),
        ("random_page_cost", "1.10"),
        # pg_settings shows six digits.
        ("random_page_cost", 1.1000001),
        ("vacuum_cost_delay", "100us"),
        ("wal_buffers", -1),
        ("jit", True),
        ("jit", "YES"),
        ("wal_level", "REPLICA"),
        ("wal_level", "archive"),
        ("wal_compression", True),
        ("synchronous_commit", "1"),
        ("ssl_max_protocol_version", ""),
        ("transaction_isolation", "READ COMMITTED"),
        ("listen_addresses", ["localhost", "10.0.0.1"]),
        ("listen_addresses", "localhost, 10.0.0.1"),
        ("search_path", '"$user",public'),
        ("unix_socket_group", ""),
        ("work_mem", None),
        ("max_connections", None),
    ],
)
def test_the_same_in_other_words(name: str, value: Any) -> None:
    """Spelling is no change."""
    assert guc.same(value, KNOWN[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_buffers", "129MB"),
        ("shared_buffers", "much"),
        ("random_page_cost", 1.2),
        ("jit", "off"),
        ("jit", "enabled"),
        ("wal_level", "logical"),
        ("wal_compression", "lz4"),
        ("listen_addresses", "10.0.0.1, localhost"),
        # Blanks in anything but a list of words count.
        ("log_line_prefix", "%m [%p]"),
        ("archive_command", " "),
        ("TimeZone", "UTC"),
    ],
)
def test_what_is_not_the_same(name: str, value: Any) -> None:
    """A change that nobody announces is worse than one announced in vain."""
    assert not guc.same(value, KNOWN[name])


def test_blanks_of_a_command_count() -> None:
    """Only lists of plain words are compared without them."""
    assert not guc.same("cp a,b %p", row("cp a, b %p", "string"))
    assert not guc.same("'a,b'", row("'a, b'", "string"))
    assert not guc.same(None, {**KNOWN["max_connections"], "setting": "200"})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("shared_buffers", "128MB"),
        ("work_mem", "4MB"),
        ("max_wal_size", "1GB"),
        ("wal_decode_buffer_size", "512kB"),
        ("checkpoint_timeout", "15min"),
        ("log_rotation_age", "1d"),
        ("log_min_duration_statement", "-1"),
        ("vacuum_cost_delay", "100us"),
        ("max_connections", "100"),
        ("random_page_cost", "1.1"),
        ("log_file_mode", "0600"),
        ("jit", "on"),
        ("TimeZone", "Etc/UTC"),
        ("archive_command", "''"),
        ("unix_socket_group", "''"),
    ],
)
def test_values_are_shown_as_people_write_them(name: str, shown: str) -> None:
    """The same as SHOW, but for the empty text."""
    assert guc.show(KNOWN[name]) == shown


def test_the_largest_integer_keeps_its_last_digit() -> None:
    """A tolerance meant for reals would make 2 TB of it."""
    assert guc.show(integer(str(MAX), "kB", 64, MAX)) == "2147483647kB"
    assert guc.show(integer("0", "kB", 0, MAX)) == "0"
    assert guc.show(real("0.0001", "ms", "0", "1")) == "0.1us"


@pytest.mark.parametrize(
    ("name", "value", "pending", "expected"),
    [
        ("work_mem", "4MB", False, "nothing"),
        ("work_mem", "8MB", False, "reload"),
        ("checkpoint_timeout", "5min", False, "reload"),
        ("shared_buffers", "4GB", False, "restart"),
        ("shared_buffers", "128MB", False, "nothing"),
        # Another value waits for a restart; the present one, written again, takes it back.
        ("shared_buffers", "128MB", True, "reload"),
        ("shared_buffers", "4GB", True, "restart"),
        ("listen_addresses", "localhost,10.0.0.1", False, "nothing"),
        # The server compares the letters, and marks it as waiting for a restart.
        ("listen_addresses", "localhost, 10.0.0.1", False, "restart"),
        ("listen_addresses", None, False, "nothing"),
        ("search_path", '"$user",public', False, "nothing"),
        ("wal_buffers", "-1", False, "nothing"),
    ],
)
def test_effect_on_a_running_server(name: str, value: Any, pending: bool, expected: str) -> None:
    """What the server itself reports after a reload."""
    assert guc.effect(value, {**KNOWN[name], "pending_restart": pending}, True) == expected


def test_effect_without_a_server_or_a_row() -> None:
    """A first start takes everything; an extension's setting is new to the server."""
    assert guc.effect("4GB", None, False) == "first start"
    assert guc.effect("4GB", KNOWN["shared_buffers"], False) == "first start"
    assert guc.effect(1, None, True) == "reload"
    assert guc.effect(None, None, True) == "nothing"


NUMBERS = sorted(name for name, current in KNOWN.items() if current["vartype"] == "integer" and name != "log_file_mode")


@given(st.sampled_from(NUMBERS), st.integers(min_value=-1, max_value=MAX))
def test_what_is_shown_reads_back(name: str, setting: int) -> None:
    """Showing a value loses nothing."""
    current = {**KNOWN[name], "setting": str(setting)}
    assert guc.number(guc.show(current), current["unit"], "integer") == setting
    assert guc.same(guc.show(current), current)


@given(st.sampled_from(NUMBERS))
def test_the_range_in_the_sentence_is_within_the_range(name: str) -> None:
    """Who follows the advice is not refused again."""
    current = KNOWN[name]
    sentence = guc.problem(name, str(int(current["max_val"]) + 1), KNOWN) or ""
    low, high = sentence.split(";")[1].split("(")[0].replace(" use ", "").split(" to ")
    for end in (low, high):
        value = guc.number(end, current["unit"], "integer")
        assert int(current["min_val"]) <= value <= int(current["max_val"])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4
)


@given(st.sampled_from(sorted(KNOWN)) | st.text(), ANY)
def test_whatever_a_user_writes_gets_an_answer(name: str, value: Any) -> None:
    """A sentence or None, never an exception; what is refused is one line."""
    sentence = guc.problem(name, value, KNOWN)
    assert sentence is None or (sentence and "\n" not in sentence)
    if name in KNOWN:
        assert guc.effect(value, KNOWN[name], True) in ("nothing", "reload", "restart")
        json.dumps(guc.show(KNOWN[name]))
