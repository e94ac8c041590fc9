# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Users of MLflow and their permissions: what is wrong with them, and what there is to change. Pure functions, no Ansible."""

from __future__ import annotations

import re
from typing import Any

# MLflow asks for it whenever a password is set (mlflow.utils.validation).
PASSWORD_LENGTH = 12
# The password of the administrator in older releases, which everybody knows; the server lets no administrator in with it.
PUBLISHED_PASSWORD = "password1234"

# MLflow decodes the header of its newer routes as ASCII, such as those of traces (_authenticate_fastapi_request).
BEYOND_ASCII = "with which some routes of MLflow let nobody in; leave them out"

# What can be given on a resource. The default for all others (mlflow_default_permission) may also be NO_PERMISSIONS.
PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "DENY")
# MLflow gives this one to whoever makes an experiment, a model or a prompt.
OWNER = "MANAGE"

# Keys of a user, and what MLflow calls what is in them.
KINDS = {"experiments": "experiment", "registered_models": "registered_model", "prompts": "prompt"}
# In place of a name.
EVERYTHING = "*"

STATES = ("present", "absent")
_KEYS = {"name", "password", "admin", "state", "exact_permissions", *KINDS}
_BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")


def password_problem(password: Any) -> str | None:
    """Say why MLflow does not take a password, without showing it; None when it does."""
    if password is None or not str(password):
        return "the password is empty; give it a value"
    if len(str(password)) < PASSWORD_LENGTH:
        return f"MLflow wants {PASSWORD_LENGTH} characters or more"
    if not str(password).isascii():
        return f"it has characters beyond ASCII, {BEYOND_ASCII}"
    if str(password) == PUBLISHED_PASSWORD:
        return "that one stood in older releases of MLflow, so that everybody knows it; use another"
    return None


def name_problem(name: Any) -> str | None:
    """Say why something is no name of a user; None when it is one."""
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not str(name).strip():
        return "the name is missing"
    if ":" in str(name):
        return f"the name {str(name)!r} has a colon, which ends the name in HTTP's basic authentication; choose another"
    if not str(name).isascii():
        return f"the name {str(name)!r} has characters beyond ASCII, {BEYOND_ASCII}"
    if not str(name).isprintable() or str(name) != str(name).strip():
        return f"the name {str(name)!r} has characters that cannot be seen; leave them out"
    return None


def permission_problem(permission: Any) -> str | None:
    """Say why something is no permission on a resource; None when it is one."""
    if permission in PERMISSIONS:
        return None
    choices = f"use one of {', '.join(PERMISSIONS)}"
    if permission == "NO_PERMISSIONS":
        return f"MLflow takes NO_PERMISSIONS as mlflow_default_permission only; to shut somebody out of one resource, use DENY ({choices})"
    return f"the permission {permission!r} is unknown; {choices}"


def permissions_problem(key: str, permissions: Any) -> str | None:
    """Say what is wrong with the permissions of a user on one kind of resource.

    Args:
        key: one of ``KINDS``.
        permissions: by the name of the resource.

    Returns:
        A sentence with the remedy, or None when they are valid.
    """
    if not isinstance(permissions, dict):
        return f"{key} is a mapping of names and permissions, such as {{churn: EDIT}}"
    for name, permission in permissions.items():
        if not str(name).strip() or name is None:
            return f"{key} has a permission for an empty name"
        fault = permission_problem(permission)
        if fault:
            return f"{key}.{name}: {fault}"
    return None


def user_problem(user: Any, admin_user: str) -> str | None:
    """Say what is wrong with one entry of ``mlflow_users``.

    Args:
        user: a mapping with ``name``, and ``password``, ``admin``, ``state``, ``experiments``, ``registered_models``, ``prompts`` and
            ``exact_permissions`` if need be.
        admin_user: ``mlflow_admin_user``.

    Returns:
        A sentence with the remedy and without the password, or None when the entry is valid.
    """
    if not isinstance(user, dict) or user.get("name") in (None, ""):
        return "an entry is a mapping with a name, such as {name: alice, experiments: {churn: EDIT}}"
    unknown = sorted((str(key) for key in set(user) - _KEYS))
    if unknown:
        return f"unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}"
    fault = name_problem(user["name"])
    if fault:
        return fault
    name = str(user["name"])
    if name == str(admin_user):
        return f"{name!r} is the administrator of mlflow_admin_user, with mlflow_admin_password; leave the entry out"
    if user.get("state", "present") not in STATES:
        return f"the state of {name!r} is {user['state']!r}; use one of {', '.join(STATES)}"
    for key in ("admin", "exact_permissions"):
        if str(user.get(key, False)).lower() not in _BOOLEANS:
            return f"{key} of {name!r} is {user[key]!r}; use true or false"
    if user.get("state", "present") == "present":
        if "password" not in user and not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            return f"the password of {name!r} cannot be made, as its file would have that name; give it a password, or a name of letters, digits, _, . and -"
        fault = password_problem(user["password"]) if "password" in user else None
        if fault:
            return f"the password of {name!r} is not shown; {fault}"
    return next((f"{name!r}: {fault}" for key in KINDS if key in user and (fault := permissions_problem(key, user[key]))), None)


def user_problems(users: list[Any], admin_user: str) -> list[str]:
    """Say what is wrong with ``mlflow_users``.

    Args:
        users: the entries.
        admin_user: ``mlflow_admin_user``.

    Returns:
        One line for each entry that is not valid, and for each name that stands there twice.
    """
    found = [f"mlflow_users[{index}]: {fault}" for index, user in enumerate(users) if (fault := user_problem(user, admin_user)) is not None]
    names = [str(user["name"]) for user in users if isinstance(user, dict) and user.get("name") not in (None, "")]
    return found + [f"mlflow_users: {name!r} stands there twice; leave one" for name in sorted({each for each in names if names.count(each) > 1})]


def to_revoke(present: dict[tuple[str, str], str], wanted: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """List what an exact set of permissions takes away.

    ``OWNER`` stays: there is no telling a permission that was given from the one that MLflow gave to whoever made the resource.

    Args:
        present: permissions by kind of resource, and id or name.
        wanted: the kinds, and ids or names, that are in the set.

    Returns:
        Those of ``KINDS`` that have to go, in order.
    """
    return sorted(key for key, permission in present.items() if key[0] in KINDS.values() and key not in wanted and permission != OWNER)
