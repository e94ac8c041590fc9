"""The configuration files of the MLflow server, read back by the rules of those who read them."""

from __future__ import annotations

import configparser

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import server
from hypothesis import given
from hypothesis import strategies as st

PASSWORD = "p@s:s/w%o'r\"d $x\\"
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)
# systemd drops variables with control characters other than tab and line feed.
VALUES = st.text(st.one_of(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), st.sampled_from("\n\t\\\"'`$%# =")), min_size=1)


def read_environment_file(text: str) -> dict[str, str]:
    """Read an environment file as systemd does, as far as assignments in double quotes and comments go; see systemd.exec(5)."""
    values, place = {}, 0
    while place < len(text):
        if text[place] in "#;":
            place = text.index("\n", place) + 1
            continue
        equals = text.index("=", place)
        name, place, value = text[place:equals], equals + 1, ""
        assert name.isidentifier() and text[place] == '"', text[equals:]
        place += 1
        while text[place] != '"':
            if text[place] == "\\":
                following = text[place + 1]
                if following in '"\\`$':
                    value += following
                elif following != "\n":
                    value += "\\" + following
                place += 2
            else:
                value += text[place]
                place += 1
        assert text[place + 1] == "\n", "nothing follows the closing quote"
        values[name] = value
        place += 2
    return values


@pytest.mark.parametrize(
    "value",
    [PASSWORD, "\\", '"', "'", "$HOME", "${HOME}", "%h%%", "`id`", "a\nb", "a\\\nb", "\\n", " padded ", "# no comment", "x=y", "ü€", "0"],
)
def test_awkward_values_survive_the_environment_file(value: str) -> None:
    """No expansion, no escape, no comment."""
    assert read_environment_file("# header\n" + server.environment_file({"BEFORE": "1", "NAME": value, "ZLAST": "2"})) == {
        "BEFORE": "1",
        "NAME": value,
        "ZLAST": "2",
    }


@given(st.dictionaries(NAMES, VALUES))
def test_any_value_survives_the_environment_file(variables: dict[str, str]) -> None:
    """And the file is sorted, so the order of a dict restarts nothing."""
    text = server.environment_file(variables)
    assert read_environment_file(text) == variables
    assert list(read_environment_file(text)) == sorted(variables)


def test_the_environment_file_byte_for_byte() -> None:
    """The reader above could share a mistake with the writer; these lines were tried with systemd."""
    assert server.environment_file({"A": 'x"y\\z`$%'}) == 'A="x\\"y\\\\z\\`\\$%"\n'


def test_environment_types() -> None:
    """Booleans in MLflow's words; what is empty is not set, and zero is not empty."""
    variables = {"ON": True, "OFF": False, "NOTHING": None, "EMPTY": "", "ZERO": 0, "PORT": 5000}
    assert read_environment_file(server.environment_file(variables)) == {"ON": "true", "OFF": "false", "ZERO": "0", "PORT": "5000"}


def test_allowed_hosts_come_with_and_without_the_port() -> None:
    """MLflow compares the whole header."""
    assert server.allowed_hosts(["localhost", "10.0.0.7"], 5000) == ["localhost", "localhost:5000", "10.0.0.7", "10.0.0.7:5000"]


def test_allowed_hosts_take_a_name_in_capitals_and_in_lower_case() -> None:
    """Some clients send the name as the user wrote it, others in lower case."""
    assert server.allowed_hosts(["MLflow.Example.ORG"], 80) == [
        "MLflow.Example.ORG",
        "MLflow.Example.ORG:80",
        "mlflow.example.org",
        "mlflow.example.org:80",
    ]


def test_allowed_hosts_write_ipv6_as_urls_do() -> None:
    """With brackets, and not twice."""
    assert server.allowed_hosts(["fd00::7", "[::1]"], 5000) == ["[fd00::7]", "[fd00::7]:5000", "[::1]", "[::1]:5000"]


def test_allowed_hosts_drop_doubles_and_blanks_and_keep_the_order() -> None:
    """The first mention counts; an empty name would allow requests without a host."""
    assert server.allowed_hosts(["b", "", "a", "b", "a"], 1) == ["b", "b:1", "a", "a:1"]
    assert server.allowed_hosts([], 1) == []


@given(st.lists(st.one_of(st.just(""), st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9.-]{0,30}", fullmatch=True))))
def test_allowed_hosts_are_complete(names: list[str]) -> None:
    """Every name is there twice and nothing else is, and no entry repeats."""
    entries = server.allowed_hosts(names, 5000)
    assert len(entries) == len(set(entries)) == 2 * len({name for name in names if name})
    assert {entry.removesuffix(":5000").strip("[]") for entry in entries} == {name for name in names if name}


def read_ini(text: str) -> dict[str, str]:
    """Read the file as MLflow does, interpolation included."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert parser.sections() == ["mlflow"]
    return dict(parser["mlflow"])


def test_auth_ini_types_and_order() -> None:
    """Sorted, and booleans that getboolean() reads."""
    text = server.auth_ini({"default_permission": "READ", "admin_username": "admin", "flag": False})
    assert text == "[mlflow]\nadmin_username = admin\ndefault_permission = READ\nflag = false\n"


@pytest.mark.parametrize(
    "value", [PASSWORD, "100%", "%(admin_username)s", "%%", "a = b", "a: b", "# x", "; x", "[x]", "postgresql+psycopg2://u:p%40%2F@h/d?a=b"]
)
def test_awkward_values_survive_the_ini_file(value: str) -> None:
    """No interpolation, no comment, no section."""
    assert read_ini("# header\n" + server.auth_ini({"admin_username": "admin", "database_uri": value})) == {"admin_username": "admin", "database_uri": value}


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"])))
def test_any_word_survives_the_ini_file(value: str) -> None:
    """Every text without blanks, which no user name and no URL has."""
    assert read_ini(server.auth_ini({"database_uri": value})) == ({"database_uri": value} if value else {})
