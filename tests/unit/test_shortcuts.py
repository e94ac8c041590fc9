"""What the server finds out once, and which metric is the latest; how it logs and searches is tested with MLflow itself, on hosts."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles" / "mlflow" / "files" / "app"))
login = importlib.import_module("mlops_login")
logging = importlib.import_module("mlops_logging")

ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 1.0, -1.0]), st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1)


@given(ROWS)
def test_newest(rows: list[tuple[str, float, int, int, bool]]) -> None:
    """One for each key, none of whose others is later; of equal ones the first."""
    latest = logging.newest(rows)
    assert sorted(row[0] for row in latest) == sorted({row[0] for row in rows})
    for key, value, timestamp, step, nan in latest:
        others = [row for row in rows if row[0] == key]
        assert (step, timestamp, value) == max((row[3], row[2], row[1]) for row in others)
        assert next(row[4] for row in others if (row[3], row[2], row[1]) == (step, timestamp, value)) == nan


def test_parameters() -> None:
    """Columns, not rows."""
    rows = [("a", 1.0, 10, 1, False), ("a", 2.0, 20, 2, False), ("b", 0.0, 10, 1, True)]
    assert logging.parameters("run", rows) == {
        "run": "run",
        "keys": ["a", "a", "b"],
        "values": [1.0, 2.0, 0.0],
        "timestamps": [10, 20, 10],
        "steps": [1, 2, 1],
        "nans": [False, False, True],
        "new_keys": ["a", "b"],
        "new_values": [2.0, 0.0],
        "new_timestamps": [20, 10],
        "new_steps": [2, 1],
        "new_nans": [False, True],
    }


def remembering(known: dict[str, str]) -> tuple[Any, list[str]]:
    """MLflow's module of basic-auth, as far as it matters: it remembers who had the right password, and looks slowly at the others."""
    looked: list[str] = []

    def check(username: str, password: str) -> str | None:
        key = f"{username} {password}"
        if auth._USER_AUTH_CACHE is not None and key in auth._USER_AUTH_CACHE:
            return auth._USER_AUTH_CACHE[key]
        looked.append(username)
        threading.Event().wait(0.05)
        if known.get(username) != password:
            return None
        if auth._USER_AUTH_CACHE is not None:
            auth._USER_AUTH_CACHE[key] = username
        return username

    auth = SimpleNamespace(
        _authenticate_cached=check,
        _USER_AUTH_CACHE={},
        _USER_AUTH_CACHE_LOCK=threading.Lock(),
        _auth_cache_key=lambda username, password: f"{username} {password}",
    )
    return auth, looked


def test_a_password_is_hashed_once() -> None:
    """However many come with it at the same time; a wrong one is wrong for everybody."""
    auth, looked = remembering({"alice": "right", "bob": "right"})
    login.install(auth)
    asked = [("alice", "right"), ("bob", "right"), ("alice", "wrong")] * 5
    with ThreadPoolExecutor(15) as pool:
        found = list(pool.map(lambda each: auth._authenticate_cached(*each), asked))
    assert found == ["alice", "bob", None] * 5
    # The wrong one is never remembered.
    assert (looked.count("bob"), looked.count("alice")) == (1, 1 + 5)


def test_wrong_passwords_keep_nobody_waiting() -> None:
    """Behind the first one they are hashed at the same time, and other requests of an event loop do not wait for any of them."""
    auth, looked = remembering({})
    login.install(auth)
    at_once = threading.Barrier(9, timeout=30)
    hashed = auth._authenticate_cached

    def ask(_number: int) -> Any:
        at_once.wait()
        return hashed("alice", "wrong")

    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(ask, range(9))) == [None] * 9
    assert len(looked) == 9

    async def ask_in_loop() -> Any:
        return hashed("alice", "wrong")

    waiting = threading.Thread(target=hashed, args=("alice", "wrong"))
    started = threading.Event()
    check = auth._auth_cache_key

    def key(username: str, password: str) -> str:
        started.set()
        return check(username, password)

    auth._auth_cache_key = key
    waiting.start()
    assert started.wait(30)
    assert login.in_event_loop() is False
    assert asyncio.run(ask_in_loop()) is None
    waiting.join()
    assert len(looked) == 11


def test_nothing_is_remembered_where_that_is_turned_off() -> None:
    """Then MLflow looks each time."""
    auth, looked = remembering({"alice": "right"})
    login.install(auth)
    auth._USER_AUTH_CACHE = None
    assert [auth._authenticate_cached("alice", "right") for _try in range(3)] == ["alice"] * 3
    assert looked == ["alice"] * 3


def test_an_mlflow_without_all_of_it() -> None:
    """Stays as it is."""
    auth = SimpleNamespace(_authenticate_cached=len)
    login.install(auth)
    assert vars(auth) == {"_authenticate_cached": len}


def test_the_sender_is_looked_up_once_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again for the next one; an error is not remembered."""

    class Context(dict):
        __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__

    flask = SimpleNamespace(g=Context())
    monkeypatch.setitem(sys.modules, "flask", flask)
    answers = itertools.chain([ValueError("no such user")], itertools.cycle([True, False]))

    def look_up() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    auth = SimpleNamespace(sender_is_admin=look_up)
    login.install(auth)
    with pytest.raises(ValueError, match="no such user"):
        auth.sender_is_admin()
    assert [auth.sender_is_admin(), auth.sender_is_admin()] == [True, True]
    flask.g.clear()
    assert [auth.sender_is_admin(), auth.sender_is_admin()] == [False, False]
