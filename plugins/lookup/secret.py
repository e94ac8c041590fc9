# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Secrets that the user did not give: made once per inventory, kept beside it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret
short_description: A secret of the site, made when it is first asked for
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Returns the secret with that name from a folder on the controller, and makes it first if it is not there.
  - The folder gets mode 0700 and a C(.gitignore) of its own, a secret is a file with mode 0600.
  - A half-written secret cannot be seen. Several controllers or forks that ask for the same one get the same one.
options:
  _terms:
    description: Names of secrets; each is a file name.
    required: true
  folder:
    description: The folder on the controller.
    type: path
    required: true
  length:
    description: Length of a new secret, in letters and digits.
    type: int
    default: 32
"""

EXAMPLES = r"""
- name: Show where a password comes from
  ansible.builtin.set_fact:
    database_password: "{{ lookup('mlops.mlflow.secret', 'mlflow_database_password', folder=inventory_dir ~ '/.secrets') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The secrets.
  type: list
  elements: str
"""

import os
import re
import secrets
import string
import tempfile

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def read_or_make(folder: str, name: str, length: int) -> str:
    """Return the secret ``name`` of ``folder``; make both if they are missing.

    Args:
        folder: path on this machine.
        name: letters, digits, dot, dash and underscore.
        length: characters of a new secret.

    Returns:
        The secret without a line feed.

    Raises:
        ValueError: the name is no file name, or the file is empty.
        OSError: the folder or the file cannot be read or made.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise ValueError(f"the secret's name {name!r} is no plain file name")
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
        ignore = os.path.join(folder, ".gitignore")
        if not os.path.exists(ignore):
            with open(ignore, "w", encoding="utf-8") as file:
                file.write("*\n")
        value = "".join(secrets.choice(string.ascii_letters + string.digits) for dummy in range(length))
        # mkstemp makes the file with mode 0600; link() fails when another process was faster, and then its secret counts.
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".draft-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    with open(path, encoding="utf-8") as file:
        value = file.read().rstrip("\n")
    if not value:
        raise ValueError(f"{path} is empty; write the secret into it, or remove it to have a new one made")
    return value


class LookupModule(LookupBase):
    """The lookup plugin."""

    def run(self, terms, variables=None, **kwargs):
        """See ``read_or_make``."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [read_or_make(self.get_option("folder"), str(term), self.get_option("length")) for term in terms]
        except (OSError, ValueError) as error:
            raise AnsibleLookupError(str(error)) from error
