"""The lookup of secrets: made once, kept closed, the same for all who ask at once."""

from __future__ import annotations

import multiprocessing
import stat
import string
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.lookup.secret import read_or_make

ROOT = Path(__file__).resolve().parents[2]
ASKERS = 12


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def ask(folder: str, barrier: threading.Barrier, results: multiprocessing.Queue) -> None:
    """Ask for a secret at the same moment as the others."""
    barrier.wait(30)
    results.put(read_or_make(folder, "password", 32))


def test_a_new_secret_is_letters_and_digits_of_the_length_asked_for(tmp_path: Path) -> None:
    """Characters that need no quoting anywhere; two of them differ."""
    first, second = (read_or_make(str(tmp_path / "s"), name, 40) for name in ("a", "b"))
    assert len(first) == len(second) == 40
    assert first != second
    assert set(first + second) <= set(string.ascii_letters + string.digits)


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    """Another length does not make another one either."""
    first = read_or_make(str(tmp_path), "password", 32)
    assert read_or_make(str(tmp_path), "password", 8) == first
    assert (tmp_path / "password").read_text(encoding="utf-8") == first + "\n"


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Folder, file and Git; and no draft is left. The umask of the test is the usual one."""
    folder = tmp_path / "deep" / "secrets"
    read_or_make(str(folder), "password", 32)
    assert mode(folder) == 0o700
    assert mode(folder / "password") == 0o600
    assert (folder / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "password"]


def test_a_gitignore_of_the_users_own_stays(tmp_path: Path) -> None:
    """They may want to commit a file beside the secrets."""
    (tmp_path / ".gitignore").write_text("*\n!README\n", encoding="utf-8")
    read_or_make(str(tmp_path), "password", 32)
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "*\n!README\n"


@pytest.mark.parametrize("text", ["p@s:s/w%o'r\"d $x\\", " blanks count "])
def test_a_secret_of_the_users_own_is_used(tmp_path: Path, text: str) -> None:
    """With or without the line feed of their editor."""
    for ending in ("", "\n"):
        (tmp_path / "password").write_text(text + ending, encoding="utf-8")
        assert read_or_make(str(tmp_path), "password", 32) == text


@pytest.mark.parametrize("start", ["thread", "fork", "spawn"])
def test_all_who_ask_at_once_get_the_same(tmp_path: Path, start: str) -> None:
    """Threads of one process, forks of Ansible, and controllers of their own."""
    context = multiprocessing.get_context("fork" if start == "thread" else start)
    barrier, results = (threading.Barrier(ASKERS) if start == "thread" else context.Barrier(ASKERS)), context.Queue()
    maker = threading.Thread if start == "thread" else context.Process
    askers = [maker(target=ask, args=(str(tmp_path / "s"), barrier, results)) for dummy in range(ASKERS)]
    for asker in askers:
        asker.start()
    answers = [results.get(timeout=60) for dummy in askers]
    for asker in askers:
        asker.join()
    assert answers == [(tmp_path / "s" / "password").read_text(encoding="utf-8").rstrip("\n")] * ASKERS
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [".gitignore", "password"]


def test_who_is_slower_takes_the_secret_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race, without the luck: somebody makes the file between the look and the link."""

    def choose(_letters: str) -> str:
        (tmp_path / "password").write_text("the winner's secret\n", encoding="utf-8")
        return "x"

    monkeypatch.setattr("secrets.choice", choose)
    assert read_or_make(str(tmp_path), "password", 32) == "the winner's secret"
    assert not list(tmp_path.glob(".draft-*"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "-x", "a b", "a\n", "a\0", "ä"])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    """Refused before anything is made."""
    with pytest.raises(ValueError, match="no plain file name"):
        read_or_make(str(tmp_path / "s"), name, 32)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_secret_is_refused(tmp_path: Path, content: str) -> None:
    """It would be a password that everybody knows; the message says what to do."""
    (tmp_path / "password").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="password is empty; write the secret into it, or remove it"):
        read_or_make(str(tmp_path), "password", 32)


def template(text: str) -> subprocess.CompletedProcess[str]:
    """Have Ansible evaluate a template on the controller."""
    command = [Path(sys.executable).parent / "ansible", "localhost", "-i", "localhost,", "-m", "ansible.builtin.debug", "-a", f"msg={text}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_lookup_as_ansible_calls_it(tmp_path: Path) -> None:
    """Several names at once, in their order, and the length as an option."""
    result = template("{{ query('mlops.mlflow.secret', 'b', 'a', folder='%s', length=20) | join('+') }}" % tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = ((tmp_path / name).read_text(encoding="utf-8").rstrip("\n") for name in ("b", "a"))
    assert (len(first), len(second)) == (20, 20)
    assert f"{first}+{second}" in result.stdout


def test_an_error_of_the_lookup_is_ansibles(tmp_path: Path) -> None:
    """The user reads what is wrong, without a traceback."""
    result = template("{{ lookup('mlops.mlflow.secret', '../a', folder='%s') }}" % tmp_path)
    assert result.returncode != 0
    assert "the secret's name '../a' is no plain file name" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
