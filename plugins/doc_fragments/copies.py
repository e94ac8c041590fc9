# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the modules about copies of the databases have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Their options, whose types are in module_utils/database.py."""

    DOCUMENTATION = r"""
options:
  databases:
    description: The databases.
    type: list
    elements: dict
    required: true
    suboptions:
      store:
        description: What is in it.
        type: str
        choices: [tracking, auth]
        required: true
      url:
        description: URL of the owner of the tables or a superuser. Without a password and with a folder as C(host), it goes through PostgreSQL's socket there.
        type: str
        required: true
  folder:
    description: Where the copies are; for their owner alone.
    type: path
    required: true
  server_role:
    description: The role of the server, whose connections must have ended.
    type: str
    required: true
  writers:
    description: Further roles that may write.
    type: list
    elements: str
    default: []
  quiet_timeout:
    description: Seconds to wait for that.
    type: int
    default: 30
  lock_timeout:
    description: Seconds to wait for a migration to end.
    type: int
    default: 600
"""
