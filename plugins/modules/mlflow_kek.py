#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Brings the secrets that MLflow keeps in its database under another passphrase."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_kek
short_description: The passphrase of the secrets that MLflow stores
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - MLflow encrypts stored API keys with a key that it derives from a passphrase and a version. This module finds out which version the
    stored ones have, and whether the passphrase opens them.
  - If it does not, and the one in the server's environment file does, it runs MLflow's own C(crypto rotate-kek), which changes all of them or
    none and makes a new version. The servers must not run meanwhile, as nobody could open what they encrypt then.
  - Runs with the Python of the MLflow environment (C(ansible_python_interpreter)).
options:
  database_url:
    description: SQLAlchemy URL of the tracking database with the server's credentials.
    type: str
    required: true
  passphrase:
    description: The passphrase that the server is to run with.
    type: str
    required: true
  environment_file:
    description: The environment file that the server runs with at present; it need not exist.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether they would be encrypted anew.
  diff_mode:
    support: none
    description: What changes is secret.
requirements:
  - mlflow
  - psycopg2
"""

EXAMPLES = r"""
- name: Keep the stored secrets under the passphrase of the inventory
  mlops.mlflow.mlflow_kek:
    database_url: "{{ server_url }}"
    passphrase: "{{ mlflow_kek_passphrase }}"
    environment_file: /etc/mlflow/mlflow.env
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
  no_log: true
"""

RETURN = r"""
differs:
  description: Whether they had to be encrypted anew. Check mode leaves it at that.
  returned: always
  type: bool
version:
  description: The version that belongs to the passphrase (MLFLOW_CRYPTO_KEK_VERSION).
  returned: always
  type: int
"""

import os
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import server

try:
    import psycopg2

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()


def stored(url: str) -> list[tuple[int, bytes]]:
    """Return the version and the wrapped key of each stored secret; none before the tables are there."""
    connection = psycopg2.connect(url.replace("postgresql+psycopg2://", "postgresql://", 1))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.secrets')")
            if cursor.fetchone()[0] is None:
                return []
            cursor.execute("SELECT kek_version, wrapped_dek FROM public.secrets")
            return [(version, bytes(wrapped)) for version, wrapped in cursor.fetchall()]
    finally:
        connection.close()


def opens(passphrase: str, rows: list[tuple[int, bytes]]) -> bool:
    """Tell whether a passphrase opens all of them."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.crypto import KEKManager, unwrap_dek

    keys = {version: KEKManager(passphrase, version).get_kek() for version in {version for version, dummy in rows}}
    try:
        for version, wrapped in rows:
            unwrap_dek(wrapped, keys[version])
    except MlflowException:
        return False
    return True


def rotate(url: str, old: str, new: str, version: int) -> str:
    """Run MLflow's own command in this process, where no command line shows the passphrases; return what it said if it failed."""
    from click.testing import CliRunner
    from mlflow.cli.crypto import rotate_kek

    environment = {"MLFLOW_CRYPTO_KEK_PASSPHRASE": old, "MLFLOW_CRYPTO_KEK_VERSION": str(version)}
    result = CliRunner().invoke(rotate_kek, ["--new-passphrase", new, "--backend-store-uri", url, "--yes"], env=environment)
    return "" if result.exit_code == 0 else f"{result.output[-500:]} {result.exception}"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "database_url": {"type": "str", "required": True, "no_log": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "environment_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    if PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    url, wanted, path = (module.params[name] for name in ("database_url", "passphrase", "environment_file"))
    current = server.read_environment(path) if os.path.exists(path) else {}
    old = current.get("MLFLOW_CRYPTO_KEK_PASSPHRASE", "")
    known = int(current.get("MLFLOW_CRYPTO_KEK_VERSION", "1"))
    try:
        rows = stored(url)
    except psycopg2.Error as error:
        module.fail_json(msg=f"Cannot read the stored secrets: {str(error).strip()}")
    version = max((each for each, dummy in rows), default=known)
    # Loading MLflow takes seconds, and the server runs with it.
    if not rows or (old == wanted and known == version) or opens(wanted, rows):
        module.exit_json(changed=False, differs=False, version=version)
    if not old or not opens(old, rows):
        module.fail_json(
            msg="Neither mlflow_kek_passphrase nor the passphrase in "
            f"{path} opens the API keys that MLflow has stored: set mlflow_kek_passphrase to the one that they were encrypted with. Nothing has been changed."
        )
    if not module.check_mode:
        fault = rotate(url, old, wanted, version)
        if fault:
            module.fail_json(msg=f"MLflow could not encrypt its stored API keys anew, and changed none: {fault}")
    module.exit_json(changed=True, differs=True, version=version + 1)


if __name__ == "__main__":
    main()
