# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Who a user is, found out once instead of several times. What MLflow takes for right or wrong, and for how long, stays as it is."""

from __future__ import annotations

import threading
from typing import Any

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


def hash_once(auth: Any) -> None:
    """Have MLflow hash a password, which is slow by design, once when it has forgotten it, and not for each request that comes meanwhile.

    Args:
        auth: MLflow's module of basic-auth.
    """
    check, locks = auth._authenticate_cached, [threading.Lock() for _lock in range(64)]

    def authenticate_cached(username: str, password: str) -> Any:
        if auth._USER_AUTH_CACHE is None:
            return check(username, password)
        with auth._USER_AUTH_CACHE_LOCK:
            user = auth._USER_AUTH_CACHE.get(auth._auth_cache_key(username, password))
        if user is not None:
            return user
        # Others who come with the same one find it remembered after that.
        with locks[hash((username, password)) % len(locks)]:
            return check(username, password)

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
