"""The parts of the modules that need no server: host_report, mlflow_verify and mlflow_schema."""

from __future__ import annotations

import configparser
import importlib.machinery
import importlib.util
import json
import os
import pwd
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import client, server, sockets
from ansible_collections.mlops.mlflow.plugins.modules import host_report, mlflow_schema, mlflow_verify
from hypothesis import given
from hypothesis import strategies as st

PASSWORD = "p@s:s/w%o'r\"d $x\\"
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.one_of(st.characters(codec="utf-8", exclude_characters="\0"), st.sampled_from("\n\\\"'`$%# =A")), min_size=1)


@pytest.mark.parametrize(
    ("listing", "installed", "unfinished"),
    [
        ("", [], False),
        ("installed acl\ninstalled nginx\n", ["acl", "nginx"], False),
        ("installed acl\nconfig-files nginx\nnot-installed ceph\n", ["acl"], False),
        ("installed acl\nhalf-configured nginx\n", ["acl"], True),
        ("unpacked acl\n", [], True),
    ],
)
def test_packages_count_when_they_are_installed(listing: str, installed: list[str], unfinished: bool) -> None:
    """One that was removed left its configuration; one that was interrupted has to be completed."""
    assert host_report.packages(listing) == (installed, unfinished)


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/mlflow.service\n", "mlflow.service"),
        ("0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n", "postgresql@17-main.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/dev.service\n", "dev.service"),
        ("0::/system.slice/docker.service/child\n", "docker.service"),
        ("12:cpu:/\n1:name=systemd:/system.slice/mlflow.service\n", "mlflow.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", ""),
        ("0::/init.scope\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process(cgroup: str, unit: str) -> None:
    """The innermost service, by both versions of cgroups."""
    assert sockets.unit_of(cgroup) == unit


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_listening_socket_is_seen(family: int, address: str) -> None:
    """With its port, user and program; the port of a client, or of a socket that was closed, is not."""
    with socket.socket(family) as listening, socket.socket(family) as client:
        try:
            listening.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        listening.listen()
        client.connect(listening.getsockname())
        port, other = listening.getsockname()[1], client.getsockname()[1]
        found = {each["port"]: each for each in sockets.listeners()}
        program = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
        assert found[port] == {
            "protocol": "tcp",
            "address": address,
            "port": port,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "unit": found[port]["unit"],
            "program": program,
        }
        assert other not in found
    assert port not in {each["port"] for each in sockets.listeners()}


def test_a_udp_socket_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits on a port of its own; not one that waits for an answer, nor one that has its peer."""
    with socket.socket(type=socket.SOCK_DGRAM) as waiting, socket.socket(type=socket.SOCK_DGRAM) as client:
        waiting.bind(("127.0.0.1", 0))
        client.connect(waiting.getsockname())
        port, other = waiting.getsockname()[1], client.getsockname()[1]
        monkeypatch.setattr(sockets, "PORT_RANGE", "/nowhere")
        assert ("udp", port) not in {(each["protocol"], each["port"]) for each in sockets.listeners()}
        real = sockets.text
        monkeypatch.setattr(sockets, "text", lambda path: "65000\t65001" if path == "/nowhere" else real(path))
        seen = {(each["protocol"], each["port"]) for each in sockets.listeners()}
        assert ("udp", port) in seen and ("udp", other) not in seen


@pytest.mark.skipif(sys.byteorder != "little", reason="the examples are from a little-endian machine")
@pytest.mark.parametrize(
    ("digits", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000000000000", "::"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("B80D0120000000000000000001000000", "2001:db8::1"),
    ],
)
def test_addresses_of_the_kernel(digits: str, address: str) -> None:
    """Both versions of IP; an IPv4 address in a socket of IPv6 is one."""
    assert sockets.address_of(digits) == address


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    """A process that has gone, and a user that the host does not know."""
    assert sockets.text(str(tmp_path / "gone")) == ""
    assert sockets.user_name(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert sockets.user_name(3_999_999_999) == "3999999999"


def test_what_mlflow_is_configured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers alone, as the role mlflow writes them; nothing when there is no file."""
    variables = {"MLFLOW_WORKERS": "4", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": 40, "MLFLOW_WORKERS_X": "9", "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    written = server.environment_file(variables | {"MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "$(id)"})
    monkeypatch.setattr(host_report, "text", lambda path: written if path == "/etc/mlflow/mlflow.env" else "")
    assert host_report.mlflow() == {"MLFLOW_WORKERS": "4", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "40"}
    written = ""
    assert host_report.mlflow() == {}


def answering(rc: int, stdout: str = "") -> Any:
    """Return as much of a module as runs one command, and what it was asked to run."""
    asked: list[list[str]] = []

    def run_command(command: list[str], **dummy: Any) -> tuple[int, str, str]:
        asked.append(command)
        return rc, stdout, ""

    return types.SimpleNamespace(run_command=run_command, asked=asked)


def test_the_settings_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked through its own socket; a server that does not run, or lets nobody in, has none to tell."""
    pid = f"1\n/data\n0\n5433\n{tmp_path}\n"
    monkeypatch.setattr(host_report, "text", lambda path: pid if path == "/var/lib/postgresql/17/main/postmaster.pid" else "")
    running = answering(0, '{"port": {"setting": "5433"}}')
    assert host_report.settings(running, "17", "main") == {}, "without the socket the file is a left-over"
    (tmp_path / ".s.PGSQL.5433").touch()
    assert host_report.settings(running, "17", "main") == {"port": {"setting": "5433"}}
    (command,) = running.asked
    assert command[:5] == ["runuser", "-u", "postgres", "--", "/usr/lib/postgresql/17/bin/psql"]
    assert (command[command.index("-h") + 1], command[command.index("-p") + 1]) == (str(tmp_path), "5433")
    assert host_report.settings(answering(2), "17", "main") == {}
    assert host_report.settings(running, "17", "other") == {}
    pid = "1\n/data\n"
    assert host_report.settings(running, "17", "main") == {}, "a server that starts has written half of it"
    assert len(running.asked) == 1


@pytest.mark.parametrize(("virtual", "hard", "kind"), [(1, True, "hdd"), (1, False, "ssd"), (0, True, "ssd")])
def test_the_disk_of_the_database(monkeypatch: pytest.MonkeyPatch, virtual: int, hard: bool, kind: str) -> None:
    """A virtual disk says that it rotates, whatever it is; the size is that of the whole file system."""
    monkeypatch.setattr(host_report, "text", lambda path: "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(host_report, "is_hard_disk", lambda device: hard and device == "sda1")
    monkeypatch.setattr(os.path, "ismount", lambda path: path == "/")
    disk = host_report.database_disk(answering(virtual))
    assert disk["kind"] == kind and disk["size_mib"] > 0


@pytest.mark.parametrize(("name", "expected"), [("127.0.0.1", ["127.0.0.1"]), ("a..b", []), ("x" * 70, [])])
def test_names_resolve_or_do_not(name: str, expected: list[str]) -> None:
    """A name that nobody can ask for is one that does not resolve, and no traceback."""
    assert host_report.addresses(name) == expected


def read(folder: Path, variables: dict[str, Any]) -> dict[str, str]:
    """Return what mlflow_verify reads from the file that the role mlflow would write."""
    path = folder / "mlflow.env"
    header = "# Written by a role; what's after a \"#\" does not count.\n# OLD=\"1\"\n"
    path.write_text(header + server.environment_file(variables), encoding="utf-8", newline="")
    return mlflow_verify.read_environment(str(path))


@pytest.mark.parametrize(
    "value",
    [PASSWORD, "\\", '"', "'", "$HOME", "`id`", "a\nb", 'a\nB="c"\nd', "a\\\nb", "a\r\nb", "\\n", "\\$", " padded ", "# no comment", "x=y", "%h", "é"],
)
def test_awkward_values_are_read_as_they_were_written(tmp_path: Path, value: str) -> None:
    """The store is looked into with the server's own key, whatever is in it."""
    assert read(tmp_path, {"BEFORE": "1", "NAME": value, "ZLAST": "2"}) == {"BEFORE": "1", "NAME": value, "ZLAST": "2"}


@given(variables=st.dictionaries(NAMES, VALUES))
def test_any_value_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> None:
    """The reader and the writer agree."""
    assert read(tmp_path_factory.mktemp("environment"), variables) == variables


def test_an_environment_without_variables(tmp_path: Path) -> None:
    """Comments only."""
    assert read(tmp_path, {}) == {}


def test_the_table_of_checks() -> None:
    """Aligned, with times; a step that fails says so; why is in the module's message."""
    checks = mlflow_verify.Checks()
    assert checks.table() == []
    with checks.step("log"):
        pass
    with pytest.raises(RuntimeError, match="no route"), checks.step("load the model"):
        raise RuntimeError("no route")
    assert [(row["check"], row.get("failed")) for row in checks.rows] == [("log", None), ("load the model", "failed")]
    for row, milliseconds in zip(checks.rows, (7, 1234)):
        row["ms"] = milliseconds
    assert checks.table() == [
        "log                  7 ms  ok",
        "load the model    1234 ms  failed",
    ]


def test_the_clients_settings() -> None:
    """Credentials and CA only where there are some: an empty user would be sent, an empty CA file would not be found."""
    params = {"tracking_uri": "http://h:5000", "token": "", "username": "", "password": "", "ca_file": "", "server_ca_file": "", "multipart": False}
    bare = client.client_environment(params)
    assert bare["MLFLOW_TRACKING_URI"] == "http://h:5000" and bare["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] == "false"
    assert not {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH"} & set(bare)
    params |= {"username": "admin", "password": PASSWORD, "ca_file": "/ca.pem", "server_ca_file": "/other.pem"}
    full = client.client_environment(params)
    assert (full["MLFLOW_TRACKING_USERNAME"], full["MLFLOW_TRACKING_PASSWORD"]) == ("admin", PASSWORD)
    assert full["REQUESTS_CA_BUNDLE"] == full["AWS_CA_BUNDLE"] == "/ca.pem" and full["MLFLOW_TRACKING_SERVER_CERT_PATH"] == "/other.pem"


def test_the_newest_revision_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each store's own migrations, asked once; the other store's answer stays in the file."""
    asked = []

    class Config:
        """As much of Alembic's configuration as is used, kept as Alembic keeps it."""

        def set_main_option(self, name: str, value: str) -> None:
            """Remember the folder."""
            parser = configparser.ConfigParser()
            parser["alembic"] = {name: value}
            self.folder = parser["alembic"]["script_location"]

    def from_config(config: Config) -> Any:
        asked.append(config.folder)
        revisions = [types.SimpleNamespace(revision=f"{name} of {config.folder}") for name in ("head", "base")]
        return types.SimpleNamespace(walk_revisions=lambda: iter(revisions))

    spec = importlib.machinery.ModuleSpec("mlflow", None, origin=str(tmp_path / "100%/mlflow/__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setitem(sys.modules, "alembic", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "alembic.config", types.SimpleNamespace(Config=Config))
    directory = types.SimpleNamespace(from_config=from_config)
    monkeypatch.setitem(sys.modules, "alembic.script", types.SimpleNamespace(ScriptDirectory=directory))
    cache = tmp_path / "heads.json"
    package = f"{tmp_path}/100%/mlflow"
    folders = {"tracking": f"{package}/store/db_migrations", "auth": f"{package}/server/auth/db/migrations"}
    known = {store: [f"head of {folder}", f"base of {folder}"] for store, folder in folders.items()}
    for dummy in range(2):
        assert {store: mlflow_schema.history(store, str(cache), True) for store in known} == known
    assert len(asked) == 2
    assert json.loads(cache.read_text(encoding="utf-8")) == known
    assert os.listdir(tmp_path) == ["heads.json"], "no draft stays"


@pytest.mark.parametrize("models", [None, ["m-1"]])
def test_the_proof_cleans_up_in_mlflow_2_too(monkeypatch: pytest.MonkeyPatch, models: list[str] | None) -> None:
    """Whose client knows no logged models: they are artifacts of their runs."""
    done: list[tuple[str, str]] = []
    methods: dict[str, Any] = {
        "search_registered_models": lambda **_filter: [],
        "search_runs": lambda _experiments: [],
        "delete_experiment": lambda experiment: done.append(("experiment", experiment)),
    }
    if models is not None:
        methods["search_logged_models"] = lambda _experiments: [types.SimpleNamespace(model_id=each) for each in models]
        methods["delete_logged_model"] = lambda model: done.append(("model", model))
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", types.SimpleNamespace(MlflowClient=lambda: types.SimpleNamespace(**methods)))
    mlflow_verify.clean(mlflow_verify.Checks(), None, {}, {"name": "proof", "experiment": "7"})
    assert done == [("model", each) for each in models or []] + [("experiment", "7")]
