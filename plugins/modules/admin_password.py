#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gives MLflow's administrator a password, past the server, on its host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: admin_password
short_description: The password of MLflow's administrator, without knowing the old one
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Sets the password in the database of users, with the code of the installed MLflow and the server's own configuration. For a password that
    changed in the inventory, or that nobody knows any more.
  - Makes the user when he is not there, and an administrator when he is none.
  - Runs on the server's host with the Python of the MLflow environment (C(ansible_python_interpreter)), as a user who may read O(config_file).
    The server need not run, and is not restarted.
options:
  config_file:
    description: The server's configuration of basic-auth, which has the URL of the database.
    type: path
    default: /etc/mlflow/basic_auth.ini
  name:
    description: Name of the administrator.
    type: str
    default: admin
  password:
    description: The password that he is to have, 12 characters or more.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Compares with what the database has, and says what it would do.
  diff_mode:
    support: full
    description: Shows what would change; never a password.
requirements:
  - mlflow[auth]
"""

EXAMPLES = r"""
- name: Give the administrator the password of the inventory
  mlops.mlflow.admin_password:
    password: "{{ mlflow_admin_password }}"
  become: true
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
"""

RETURN = r"""
changes:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: ["set the password"]
"""

import configparser
import os
import re
from typing import Any
from urllib.parse import unquote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import accounts


def database_uri(path: str) -> str:
    """Read the URL of the database of users, in the way MLflow does.

    Raises:
        ValueError: the file is not there, cannot be read, or has no such URL.
    """
    config = configparser.ConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            config.read_file(file)
        return config["mlflow"]["database_uri"]
    except OSError as error:
        raise ValueError(f"config_file {path} cannot be read: {error.strerror}. Run this on the server's host, with become.") from error
    except (configparser.Error, KeyError) as error:
        # Its own text may quote the line with the password.
        raise ValueError(f"config_file {path} has no database_uri in its section [mlflow] ({type(error).__name__}).") from None


def without_secrets(text: str, uri: str, *secrets: str) -> str:
    """Return text without secrets, and without a URL and its password, which may stand there as it is or percent-encoded."""
    encoded = re.findall(r"://[^:/@]*:([^@]*)@", uri)
    for secret in sorted(filter(None, [uri, *secrets, *encoded, *map(unquote, encoded)]), key=len, reverse=True):
        text = text.replace(secret, "(not shown)")
    return text


def changes_for(store: Any, name: str, password: str) -> list[str]:
    """List what there is to change.

    Args:
        store: MLflow's, open.
        name: of the administrator.
        password: that he is to have.

    Returns:
        What was found wrong, in words.
    """
    if not store.has_user(name):
        return ["made the administrator"]
    changes = [] if store.authenticate_user(name, password) else ["set the password"]
    return changes + ([] if store.get_user(name).is_admin else ["made the user an administrator"])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "config_file": {"type": "path", "default": "/etc/mlflow/basic_auth.ini"},
            "name": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    name, password = module.params["name"], module.params["password"]
    fault = accounts.name_problem(name) or accounts.password_problem(password)
    if fault:
        module.fail_json(msg=f"The administrator's name or password: {fault}.")
    try:
        uri = database_uri(module.params["config_file"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    # MLflow reads it when it is imported.
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = module.params["config_file"]
    try:
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    except ImportError as error:
        module.fail_json(msg=f"This Python has no MLflow with basic-auth ({error}); set ansible_python_interpreter to that of the server.")
    try:
        store = SqlAlchemyStore()
        store.init_db(uri)
        changes = changes_for(store, name, password)
        if changes and not module.check_mode:
            if "made the administrator" in changes:
                store.create_user(name, password, is_admin=True)
            else:
                store.update_user(name, password=password if "set the password" in changes else None, is_admin=True)
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        module.fail_json(msg=f"The database of users: {without_secrets(lines[0], uri, password)}")
    shown = {
        "made the administrator": ("user", None, name),
        "set the password": ("password", "(another one)", "(the wanted one)"),
        "made the user an administrator": ("admin", False, True),
    }
    rows = [shown[change] for change in changes]
    diff = {
        "before": {key: before for key, before, dummy in rows if before is not None},
        "after": {key: after for key, dummy, after in rows},
    }
    module.exit_json(changed=bool(changes), changes=changes, diff=diff)


if __name__ == "__main__":
    main()
