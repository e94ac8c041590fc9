#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Makes a PostgreSQL cluster the way Debian does, wholly or not at all."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster
short_description: A cluster with data checksums, in UTF-8
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Runs C(pg_createcluster) where there is no such cluster yet. It is not started.
  - While it is being made a mark says so. What a run that lost its power leaves behind is known by the mark, removed, and made again; without the
    mark nothing is ever removed.
options:
  version:
    description: Major version.
    type: str
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  port:
    description: Its first TCP port.
    type: int
    required: true
  locale:
    description: Its locale.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether it would make the cluster.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Make the cluster
  mlops.mlflow.postgresql_cluster:
    version: "17"
    cluster: main
    port: 5432
    locale: C.UTF-8
  become: true
"""

RETURN = r""" # """

import fcntl
import os
import shutil

from ansible.module_utils.basic import AnsibleModule

STATE = "/var/lib/mlops-postgresql"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "cluster": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "locale": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    version, cluster = module.params["version"], module.params["cluster"]
    data, conf = f"/var/lib/postgresql/{version}/{cluster}", f"/etc/postgresql/{version}/{cluster}"
    mark = os.path.join(STATE, f"making-{version}-{cluster}")
    if os.path.exists(f"{data}/PG_VERSION") and not os.path.exists(mark):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)

    os.makedirs(STATE, mode=0o700, exist_ok=True)
    with open(os.path.join(STATE, "lock"), "w", encoding="utf-8") as lock:
        # A run that was killed goes on here for a while.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(f"{data}/PG_VERSION") and not os.path.exists(mark):
            module.exit_json(changed=False)
        if os.path.exists(mark):
            for folder in (data, conf):
                if os.path.isdir(folder):
                    shutil.rmtree(folder)
        with open(mark, "w", encoding="utf-8") as file:
            os.fsync(file.fileno())
        os.sync()
        command = ["pg_createcluster", version, cluster, f"--port={module.params['port']}", "--"]
        module.run_command([*command, "--data-checksums", "--encoding=UTF8", f"--locale={module.params['locale']}"], check_rc=True)
        os.sync()
        os.unlink(mark)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
