"""What a service needs to run with its current files."""

from __future__ import annotations

import _ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.modules.systemd_current import actions_for, is_library, is_replaced

STEADY = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
START = 1_700_000_000.0


@pytest.mark.parametrize(
    ("state", "newest", "actions"),
    [
        ({}, START - 60, []),
        ({}, START, []),
        ({}, 0.0, []),
        ({}, START + 0.5, ["restart"]),
        ({"NeedDaemonReload": "yes"}, START - 60, ["daemon-reload"]),
        ({"NeedDaemonReload": "yes"}, START + 60, ["daemon-reload", "restart"]),
        ({"UnitFileState": "disabled"}, START - 60, ["enable"]),
        ({"UnitFileState": "disabled"}, START + 60, ["enable", "restart"]),
        ({"ActiveState": "activating"}, START - 60, ["start"]),
        ({"ActiveState": "activating"}, START + 60, ["restart"]),
        ({"ActiveState": "reloading"}, START + 60, ["restart"]),
        ({"ActiveState": "inactive"}, START - 60, ["start"]),
        ({"ActiveState": "inactive"}, START + 60, ["start"]),
        ({"ActiveState": "failed"}, START + 60, ["start"]),
        ({"ActiveState": "deactivating"}, START - 60, ["start"]),
        ({"ActiveState": "failed", "NeedDaemonReload": "yes", "UnitFileState": "disabled"}, START, ["daemon-reload", "enable", "start"]),
        ({"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}, START, ["daemon-reload", "enable", "start"]),
    ],
)
def test_actions(state: dict[str, str], newest: float, actions: list[str]) -> None:
    """As little as possible, in an order that works: systemd must know the unit before it enables it, and its text before it starts it."""
    assert actions_for(STEADY | state, newest, START) == actions


@pytest.mark.parametrize(
    ("state", "newest", "newest_reload", "actions"),
    [
        ({}, START - 60, START + 60, []),
        ({}, START - 60, START + 61, ["reload"]),
        ({"NeedDaemonReload": "yes"}, START - 60, START + 61, ["daemon-reload", "reload"]),
        ({}, START + 1, START + 61, ["restart"]),
        ({"ActiveState": "inactive"}, START - 60, START + 61, ["start"]),
    ],
)
def test_a_reload_is_enough(state: dict[str, str], newest: float, newest_reload: float, actions: list[str]) -> None:
    """Of a service that started a minute before its last reload; a start or a restart reads everything anyway."""
    assert actions_for(STEADY | state, newest, START, newest_reload, START + 60) == actions


@pytest.mark.parametrize(("state", "actions"), [({}, ["restart"]), ({"ActiveState": "activating"}, ["restart"]), ({"ActiveState": "failed"}, ["start"])])
def test_a_program_that_was_replaced(state: dict[str, str], actions: list[str]) -> None:
    """Whatever its files say, the service runs what is no longer there."""
    assert actions_for(STEADY | state, START - 60, START, replaced=True) == actions


def test_who_has_loaded_a_library_that_is_no_longer_there(tmp_path: Path) -> None:
    """An update of OpenSSL replaces no program."""
    library = shutil.copy(_ctypes.__file__, tmp_path / "libown.so.3")
    load = f"import ctypes; ctypes.CDLL({library.as_posix()!r}); print('loaded', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", load], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"loaded\n"
            assert not is_replaced(str(process.pid))
            os.replace(shutil.copy(_ctypes.__file__, tmp_path / "new"), library)
            assert is_replaced(str(process.pid))
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7f00-7f01 r-xp 00001000 fe:00 17   /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", True),
        ("7f00-7f01 r-xp 00001000 fe:00 17   /opt/x/_speedups.cpython-313-x86_64-linux-gnu.so (deleted)", True),
        ("7f00-7f01 r--p 00001000 fe:00 17   /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", False),
        ("7f00-7f01 rw-s 00000000 00:01 17   /dev/zero (deleted)", False),
        ("7f00-7f01 r-xp 00000000 00:01 17   /tmp/ffiX81 (deleted)", False),
        ("7f00-7f01 r-xp 00000000 00:00 0", False),
    ],
)
def test_what_a_library_is(line: str, expected: bool) -> None:
    """Code that was loaded from a file, and neither shared memory nor data."""
    assert is_library(line) is expected


def test_who_runs_what_is_no_longer_there(tmp_path: Path) -> None:
    """As dpkg does it: the new program takes the old one's name."""
    program = shutil.copy("/bin/sleep", tmp_path / "program")
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert not is_replaced(str(process.pid))
            os.replace(shutil.copy("/bin/sleep", tmp_path / "new"), program)
            assert is_replaced(str(process.pid))
        finally:
            process.kill()
    assert not is_replaced("0") and not is_replaced(None)


def test_a_unit_that_was_just_written_on_a_host_that_never_saw_it() -> None:
    """The first run: systemctl show knows nothing, and the process never started."""
    assert actions_for({}, START, 0.0) == ["enable", "start"]
