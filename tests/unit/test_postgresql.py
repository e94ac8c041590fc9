"""PostgreSQL's configuration files and MLflow's database URL."""

from __future__ import annotations

import ast
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import postgresql
from hypothesis import given
from hypothesis import strategies as st

PASSWORD = "p@s:s/w%o'r\"d $x\\"

# One line of text; a NUL or half of a surrogate pair is in no password.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"))


def read_conf(text: str) -> dict[str, str]:
    """Read lines as postgresql.conf's own lexer does: in quotes '' is a quote, and a backslash makes the next character plain."""
    values = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([\w.]+) = (?:'((?:[^'\\]|\\.|'')*)'|([\w.+-]+))", line)
        assert match, line
        quoted = match.group(2)
        values[match.group(1)] = match.group(3) if quoted is None else re.sub(r"''|\\(.)", lambda found: found.group(1) or "'", quoted)
    return values


def read_hba_line(line: str) -> list[str]:
    """Split a line of pg_hba.conf into its fields, quotes kept: a quoted part may hold anything, "" stands for one quote in it."""
    return re.findall(r"(?:\"(?:[^\"]|\"\")*\"|[^\s\"])+", line)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "on"),
        (False, "off"),
        (0, "0"),
        (1.1, "'1.1'"),
        (1e-05, "'1e-05'"),
        (-1, "-1"),
        ("8MB", "'8MB'"),
        ("", "''"),
        ("it's", "'it''s'"),
        ("C:\\x", "'C:\\\\x'"),
        ("cp %p '/a b/%f'", "'cp %p ''/a b/%f'''"),
    ],
)
def test_conf_values(value: Any, written: str) -> None:
    """Booleans in PostgreSQL's words, whole numbers bare, the rest quoted: its lexer does not take 1e-05 without quotes."""
    assert postgresql.quote_conf_value(value) == written


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_any_number_survives_the_conf_file(number: float) -> None:
    """However Python writes it."""
    written = read_conf(postgresql.render_conf({"seed": number}))["seed"]
    assert type(number)(written) == number


@given(TEXT)
def test_any_text_survives_the_conf_file(text: str) -> None:
    """What the server reads is what the user wrote."""
    line = postgresql.render_conf({"application_name": text})
    assert line.endswith("\n")
    match = re.fullmatch(r"application_name = '(.*)'\n", line)
    assert match
    assert not re.search(r"(?<!')(?:'')*'(?!')", match.group(1).replace("\\\\", "")), "a single quote would end the value"
    assert re.sub(r"''|\\(.)", lambda found: found.group(1) or "'", match.group(1)) == text


def test_conf_is_sorted_and_leaves_out_what_is_none() -> None:
    """The order of a dict must not change a file, and None goes back to the server's default."""
    text = postgresql.render_conf({"work_mem": "8MB", "listen_addresses": ["localhost", "10.0.0.1"], "jit": False, "ssl": None, "port": 5432})
    assert list(read_conf(text)) == ["jit", "listen_addresses", "port", "work_mem"]
    assert read_conf(text) == {"jit": "off", "listen_addresses": "localhost, 10.0.0.1", "port": "5432", "work_mem": "8MB"}
    assert postgresql.render_conf({}) == ""


def test_hba_without_entries_lets_in_only_the_superuser_on_the_host() -> None:
    """Closed unless opened."""
    assert postgresql.render_hba([]) == "local all,replication postgres peer\n"


def test_hba_keeps_the_order_and_fills_in_the_safe_defaults() -> None:
    """The first line that fits decides, so the order is the user's; TLS and SCRAM unless they say otherwise."""
    entries = [
        {"type": "local", "databases": ["mlflow"], "users": ["mlflow"], "method": "peer", "options": "map=admins"},
        {"type": "host", "databases": ["a", "b"], "users": ["u"], "address": "127.0.0.1/32", "method": "reject"},
        {"address": "10.0.0.0/8"},
    ]
    assert postgresql.render_hba(entries).splitlines() == [
        "local all,replication postgres peer",
        'local "mlflow" "mlflow" peer map=admins',
        'host "a","b" "u" 127.0.0.1/32 reject',
        "hostssl all all 10.0.0.0/8 scram-sha-256",
    ]


@pytest.mark.parametrize("word", ["all", "sameuser", "samerole", "replication"])
def test_hba_words_keep_their_meaning(word: str) -> None:
    """In quotes they would be the names of databases."""
    assert read_hba_line(postgresql.render_hba([{"databases": [word], "address": "samenet"}]).splitlines()[1])[1] == word


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("fd00::1", "fd00::1/128"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("samehost", "samehost"),
    ],
)
def test_hba_addresses_get_their_mask(address: str, written: str) -> None:
    """PostgreSQL refuses a single address without one; what the check accepts must load."""
    entry = {"address": address}
    assert postgresql.hba_problem(entry) is None
    assert read_hba_line(postgresql.render_hba([entry]).splitlines()[1])[3] == written


@given(TEXT.filter(bool), TEXT.filter(bool))
def test_hba_names_stay_one_field(database: str, user: str) -> None:
    """A blank, a comma, a hash sign or a quote in a name opens nothing else."""
    text = postgresql.render_hba([{"databases": [database], "users": [user], "address": "10.0.0.0/8"}])
    fields = read_hba_line(text[len("local all,replication postgres peer\n") : -1])
    assert len(fields) == 5
    for field, name in ((fields[1], database), (fields[2], user)):
        assert field == name or field == '"' + name.replace('"', '""') + '"'
    assert fields[3:] == ["10.0.0.0/8", "scram-sha-256"]


@pytest.mark.parametrize(
    "entry",
    [
        {"address": "10.0.0.0/8"},
        {"type": "local"},
        {"type": "local", "method": "peer", "options": "map=x"},
        {"type": "host", "databases": ["all"], "users": ["all"], "address": "fd00::/8", "method": "reject"},
        {"address": "samehost"},
        {"type": "hostssl", "address": "samenet", "method": "cert"},
    ],
)
def test_valid_hba_entries(entry: dict[str, Any]) -> None:
    """Nothing to say."""
    assert postgresql.hba_problem(entry) is None


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("hostssl all all 10.0.0.0/8 scram-sha-256", "an entry is a mapping such as"),
        (None, "an entry is a mapping such as"),
        ({"database": ["x"], "address": "samenet"}, "unknown key 'database'; the keys are address, databases, method, options, type, users"),
        ({"type": "tcp", "address": "samenet"}, "type 'tcp' is unknown; use one of local, host,"),
        ({"type": "host", "address": "10.0.0.0/8", "method": "trust"}, "method 'trust' lets anybody in without a password; use scram-sha-256"),
        ({"type": "local", "method": "trust"}, "method 'trust' lets anybody in"),
        ({"address": "10.0.0.0/8", "method": "password"}, "method 'password' is unknown; use one of scram-sha-256,"),
        ({"type": "local", "address": "10.0.0.0/8"}, "a local entry has no address; leave it out"),
        ({"type": "host", "address": "10.0.0.0/8", "method": "peer"}, "method 'peer' is for type local only; use scram-sha-256"),
        ({"type": "host"}, "address is missing; use a network such as 10.0.0.0/8"),
        ({"type": "host", "address": ""}, "address is missing"),
        ({"address": "db.example.org"}, "address 'db.example.org' is no network in CIDR form"),
        ({"address": "10.0.0.1/8"}, "address '10.0.0.1/8' is no network in CIDR form such as 10.0.0.0/8 (10.0.0.1/8 has host bits set)"),
        ({"address": 10}, "address 10 is no network in CIDR form such as 10.0.0.0/8 (put it in quotes)"),
        ({"databases": [], "address": "samenet"}, "databases is []; use a list of names, or leave it out for all"),
        ({"databases": "mlflow", "address": "samenet"}, "databases is 'mlflow'; use a list of names, or leave it out for all"),
        ({"type": "local", "users": "all"}, "users is 'all'; use a list of names"),
        ({"address": "0.0.0.0/0"}, "address '0.0.0.0/0' is the whole world; name the networks of the clients"),
        ({"address": "::/0"}, "address '::/0' is the whole world"),
    ],
)
def test_hba_problems_say_what_would_be_right(entry: Any, problem: str) -> None:
    """Each sentence names what was seen and the remedy."""
    assert (postgresql.hba_problem(entry) or "").startswith(problem)


@pytest.mark.parametrize(
    "user",
    [
        {"name": "reader"},
        {"name": "reader.2-x", "grants": "read", "addresses": [], "databases": []},
        {"name": "Ana Müller", "password": "p@s:s/w%o'r x", "grants": "write", "addresses": ["10.0.0.0/8", "fd00::7"], "databases": ["a"], "connections": "20"},
        {"name": 5, "connections": 1},
    ],
)
def test_valid_users(user: dict[str, Any]) -> None:
    """Nothing to say."""
    assert postgresql.user_problem(user, ["mlflow"]) is None


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("reader", "an entry is a mapping with a name, such as {name: mlflow_reader, grants: read, addresses: [10.0.0.0/8]}"),
        (None, "an entry is a mapping with a name"),
        ({"grants": "read"}, "an entry is a mapping with a name"),
        ({"name": ""}, "an entry is a mapping with a name"),
        ({"name": "a", "adresses": []}, "unknown key 'adresses'; the keys are addresses, connections, databases, grants, name, password"),
        ({"name": "a", "z": 1, 1: 2}, "unknown key 1; the keys are"),
        ({"name": "mlflow"}, "the name 'mlflow' is taken by MLflow or PostgreSQL itself; choose another"),
        ({"name": "postgres"}, "the name 'postgres' is taken by MLflow or PostgreSQL itself; choose another"),
        ({"name": "all"}, "the name 'all' has a meaning of its own in PostgreSQL; choose another"),
        ({"name": "sameuser", "password": "x"}, "the name 'sameuser' has a meaning of its own in PostgreSQL; choose another"),
        ({"name": "pg_monitor"}, "the name 'pg_monitor' has a meaning of its own in PostgreSQL; choose another"),
        ({"name": "a", "grants": "admin"}, "grants 'admin' are unknown; use one of read, write"),
        ({"name": "a", "grants": ["read"]}, "grants ['read'] are unknown; use one of read, write"),
        ({"name": "a", "connections": 0}, "connections is 0; use a number from 1 on, or leave it out for 5"),
        ({"name": "a", "connections": "many"}, "connections is 'many'; use a number from 1 on, or leave it out for 5"),
        ({"name": "a", "connections": None}, "connections is None; use a number from 1 on, or leave it out for 5"),
        ({"name": "a", "connections": "²"}, "connections is '²'; use a number from 1 on, or leave it out for 5"),
        ({"name": "a", "connections": True}, "connections is True; use a number from 1 on, or leave it out for 5"),
        ({"name": "a", "addresses": "10.0.0.0/8"}, "addresses and databases are lists"),
        ({"name": "a", "databases": "mlflow"}, "addresses and databases are lists"),
        ({"name": "a", "addresses": ["10.0.0.0/8", "db.example.org"]}, "address 'db.example.org' is no network in CIDR form"),
        ({"name": "a", "addresses": ["0.0.0.0/0"]}, "address '0.0.0.0/0' is the whole world; name the networks of the clients"),
    ],
)
def test_user_problems_say_what_would_be_right(user: Any, problem: str) -> None:
    """Each sentence names what was seen and the remedy."""
    assert (postgresql.user_problem(user, ["mlflow", "mlflow_owner"]) or "").startswith(problem)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ({"name": "a"}, None),
        ({"name": "../a", "password": "x"}, None),
        ("reader", None),
        ({"password": ""}, None),
        (
            {"name": "../a"},
            "the password of '../a' cannot be made, as its file would have that name; give it a password, or a name of letters, digits, _ and -",
        ),
        ({"name": "a", "password": ""}, "the password of 'a' is empty; give it a value, or leave it out to have one made"),
        ({"name": "a", "password": None}, "the password of 'a' is empty; give it a value, or leave it out to have one made"),
    ],
)
def test_passwords_that_are_missing_or_cannot_be_made(user: Any, problem: str | None) -> None:
    """What is wrong with the rest has a sentence of its own."""
    assert postgresql.password_problem(user) == problem


@given(st.dictionaries(st.sampled_from(["name", "grants", "addresses", "databases", "connections", "x"]), st.none() | st.integers() | TEXT | st.lists(TEXT)))
def test_no_user_shows_its_password_or_breaks_the_check(user: dict[str, Any]) -> None:
    """Whatever is wrong with the rest of it; and who passes has an entry that the server reads as that name alone."""
    fault = postgresql.user_problem(user | {"password": "ЖЯШ"}, [])
    assert "ЖЯШ" not in (fault or "")
    if fault is None:
        assert postgresql.user_connections(user) >= 1
        line = postgresql.render_hba([{"users": [user["name"]], "address": "10.0.0.7"}])[len("local all,replication postgres peer\n") : -1]
        assert read_hba_line(line)[2] == '"' + str(user["name"]).replace('"', '""') + '"'


@pytest.mark.parametrize(("value", "share"), [(1, 1), ("30", 30), ("many", 5), ("²", 5), (None, 5)])
def test_the_share_of_a_user(value: Any, share: int) -> None:
    """The default also counts for what is wrong, which has a line of its own."""
    assert postgresql.user_connections({"connections": value}) == share
    assert postgresql.user_connections({}) == 5


@pytest.mark.parametrize(
    ("host", "place", "query"),
    [
        ("db.example.org", "db.example.org:5432", {}),
        ("10.0.0.7", "10.0.0.7:5432", {}),
        ("fd00::7", "[fd00::7]:5432", {}),
        ("[::1]", "[::1]:5432", {}),
        ("/var/run/postgresql", ":5432", {"host": ["/var/run/postgresql"]}),
    ],
)
def test_database_url_places(host: str, place: str, query: dict[str, list[str]]) -> None:
    """Names, addresses of both kinds, and the folder of a socket."""
    url = urlsplit(postgresql.database_url(host, 5432, "mlflow", "mlflow", PASSWORD))
    assert url.scheme == "postgresql+psycopg2"
    assert url.netloc.rpartition("@")[2] == place
    assert (unquote(url.username or ""), unquote(url.password or ""), url.port, url.path) == ("mlflow", PASSWORD, 5432, "/mlflow")
    assert parse_qs(url.query) == query


@given(TEXT, TEXT, TEXT)
def test_any_name_and_password_survives_the_url(user: str, password: str, name: str) -> None:
    """Whatever a password holds, it ends neither itself nor the host."""
    text = postgresql.database_url("db.example.org", 5433, name, user, password, {"sslmode": "verify-full"})
    url = urlsplit(text)
    assert (unquote(url.username or ""), unquote(url.password or ""), unquote(url.path[1:])) == (user, password, name)
    assert (url.hostname, url.port, url.query) == ("db.example.org", 5433, "sslmode=verify-full")
    assert text.isascii()
    # Alembic reads the URL from an ini file, where only %% would be a percent sign; a lone one must be the start of a code.
    assert not re.search(r"%(?![0-9A-F]{2})", text)


def test_database_url_parameters_are_sorted_and_encoded() -> None:
    """The order of a dict must not restart the server, and a value may hold what ends a value."""
    parameters = {"sslrootcert": "/etc/ssl/a b.pem", "connect_timeout": 10, "options": "-c search_path=a&b"}
    url = postgresql.database_url("db", 5432, "mlflow", "u", "p", parameters)
    assert url.partition("?")[2] == "connect_timeout=10&options=-c%20search_path%3Da%26b&sslrootcert=/etc/ssl/a%20b.pem"
    assert postgresql.database_url("db", 5432, "mlflow", "u", "p", dict(reversed(parameters.items()))) == url


def test_database_url_leaves_the_callers_parameters_alone() -> None:
    """One host's socket folder must not turn up in another one's URL."""
    parameters = {"connect_timeout": 10}
    assert postgresql.database_url("/run/postgresql", 5432, "mlflow", "u", "p", parameters).endswith("?connect_timeout=10&host=/run/postgresql")
    assert parameters == {"connect_timeout": 10}


def test_the_awkward_password_is_as_awkward_as_it_looks() -> None:
    """Python's own escapes must not have made it a tame one."""
    assert ast.literal_eval(repr(PASSWORD)) == PASSWORD and len(PASSWORD) == 17
    assert set("@:/%'\"$ \\") <= set(PASSWORD)
