# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Who a user is, found out once instead of several times. What MLflow takes for right or wrong, and for how long, stays as it is."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

# Seconds; after them somebody hashes by himself.
LONGEST_WAIT = 1
REMEMBERS = ("_authenticate_cached", "_USER_AUTH_CACHE", "_USER_AUTH_CACHE_LOCK", "_auth_cache_key")


def ask_once(auth: Any) -> None:
    """Have MLflow look up whether the sender of a request is an administrator once, and not again for each part of the answer.

    Args:
        auth: MLflow's module of basic-auth.
    """
    from flask import g

    look_up = auth.sender_is_admin

    def sender_is_admin() -> bool:
        if "mlops_sender_is_admin" not in g:
            g.mlops_sender_is_admin = look_up()
        return g.mlops_sender_is_admin

    auth.sender_is_admin = sender_is_admin


def in_event_loop() -> bool:
    """Tell whether this thread has requests of others to go on with."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def hash_once(auth: Any) -> None:
    """Have MLflow hash a password, which is slow by design, once when it has forgotten it, and not for each request that comes meanwhile.

    Args:
        auth: MLflow's module of basic-auth.
    """
    check, guard, first = auth._authenticate_cached, threading.Lock(), {}

    def authenticate_cached(username: str, password: str) -> Any:
        if auth._USER_AUTH_CACHE is None:
            return check(username, password)
        key = auth._auth_cache_key(username, password)
        with auth._USER_AUTH_CACHE_LOCK:
            user = auth._USER_AUTH_CACHE.get(key)
        if user is not None:
            return user
        with guard:
            mine = key not in first
            known = first.setdefault(key, threading.Event())
        if not mine and not in_event_loop():
            known.wait(LONGEST_WAIT)
        # Where the first one was right, it is remembered now. Wrong ones are hashed one by one, as ever.
        try:
            return check(username, password)
        finally:
            if mine:
                with guard:
                    del first[key]
                known.set()

    auth._authenticate_cached = authenticate_cached


def install(auth: Any) -> None:
    """Do both, where this MLflow has what they stand before.

    Args:
        auth: MLflow's module of basic-auth.
    """
    if hasattr(auth, "sender_is_admin"):
        ask_once(auth)
    if all(hasattr(auth, name) for name in REMEMBERS):
        hash_once(auth)
