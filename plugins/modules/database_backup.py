#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Copies MLflow's databases before their tables change."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_backup
short_description: A copy of MLflow's databases
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Copies the schema public of each database with C(pg_dump), into a folder of its own, and checks the copy.
  - Waits until the server's role has no connection any more, so that nothing is written after the copy, and holds the lock that migrations take.
  - Where an upgrade was interrupted between the databases, the copy that it has made is still the one to go back to, and no other is made.
  - A copy appears complete or not at all. Older ones are removed by count and age, but never the newest.
options:
  state:
    description: V(settled) remembers that a server is going to use the tables that the copies were made before, so that no other run goes back to them
      by itself.
    type: str
    choices: [present, settled]
    default: present
  version:
    description: The MLflow version that the tables are for.
    type: str
    required: true
  target_version:
    description: The one that they are to be for.
    type: str
    required: true
  target_revisions:
    description: For each store, the revision that the tables are to have. Where all of them have it by the time that the lock is had, somebody else has
      done the upgrade, and there is no copy.
    type: dict
    default: {}
  jobs:
    description: Tables that are copied at a time.
    type: int
    default: 2
  keep:
    description: Copies to keep.
    type: int
    default: 5
  keep_days:
    description: Days after which the others go; V(0) for never.
    type: int
    default: 0
extends_documentation_fragment:
  - mlops.mlflow.copies
attributes:
  check_mode:
    support: full
    description: Says whether there are programs and room for a copy; the servers may run.
  diff_mode:
    support: none
    description: A copy changes nothing in the databases.
requirements:
  - psycopg2
"""

EXAMPLES = r"""
- name: Copy the databases
  mlops.mlflow.database_backup:
    databases:
      - {store: tracking, url: "postgresql:///mlflow?host=/var/run/postgresql"}
      - {store: auth, url: "postgresql:///mlflow_auth?host=/var/run/postgresql"}
    folder: /var/backups/mlflow
    version: 3.16.1
    target_version: 3.17.2
    server_role: mlflow
  become: true
  become_user: postgres
"""

RETURN = r"""
path:
  description: The folder of the copy; empty in check mode, and where somebody else has changed the tables meanwhile.
  returned: always
  type: str
needed_mib:
  description: What the copy takes at most.
  returned: always
  type: int
free_mib:
  description: What is free where it goes.
  returned: always
  type: int
removed:
  description: Names of the older copies that were removed.
  returned: always
  type: list
"""

import datetime
import json
import os
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import backups, database

# Tables without their indexes, which a copy does not have; what it has is compressed besides.
SIZE = "SELECT coalesce(sum(pg_table_size(oid)), 0)::bigint FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'm')"


class Refused(Exception):
    """There will be no copy; the message says why."""


def existing(path: str) -> str:
    """Return the nearest folder above a path that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run one of PostgreSQL's programs.

    Raises:
        Refused: it failed.
    """
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Refused(f"{os.path.basename(command[0])} failed: {result.stderr.strip()[-1000:]}")
    return result.stdout


def copy(module: AnsibleModule, name: str, connections: dict, programs: dict) -> dict:
    """Make one copy of all databases, check it, and give it its name.

    Args:
        module: for its parameters.
        name: of the copy.
        connections: by store.
        programs: paths of pg_dump and pg_restore, by store.

    Returns:
        Its manifest.
    """
    folder = module.params["folder"]
    draft = os.path.join(folder, name + backups.DRAFT)
    about = {"version": module.params["version"], "target_version": module.params["target_version"], "stores": {}}
    os.mkdir(draft, 0o700)
    for store, connection in connections.items():
        environment = backups.environment(connection)
        place = os.path.join(draft, store)
        # One job has one connection, and several have one more.
        left = database.connections_left(connection, len(connections) - 1)
        jobs = module.params["jobs"] if left is None else max(1, min(module.params["jobs"], left - 1))
        run([programs[store]["pg_dump"], "--format=directory", "--schema=public", f"--jobs={jobs}", f"--file={place}"], environment)
        rows = database.exact_rows(connection)
        listed = run([programs[store]["pg_restore"], "--list", place], environment).count(" TABLE DATA ")
        if listed != len(rows):
            raise Refused(f"the copy of the {store} database has {listed} tables, and the database {len(rows)}")
        about["stores"][store] = {
            "database": connection.info.dbname,
            "revision": "".join(database.revisions(connection, store)),
            "server_version": connection.server_version,
            "rows": rows,
        }
    for file, text in ((backups.SUMS, backups.sums_text(backups.sums(draft))), (backups.MANIFEST, json.dumps(about, indent=2) + "\n")):
        with open(os.path.join(draft, file), "w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
    os.rename(draft, os.path.join(folder, name))
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return about


def half_done(folder: str, version: str, connections: dict) -> str:
    """Return the name of the copy of an upgrade that has changed some of the tables, and was interrupted; empty when there is none.

    Args:
        folder: of the copies.
        version: that the tables were for.
        connections: by store.
    """
    name = (backups.complete(folder) or [""])[-1]
    if not name or backups.is_settled(folder, name):
        return ""
    about = backups.manifest(folder, name)
    same = all(database.revisions(connection, store) == [about["stores"].get(store, {}).get("revision")] for store, connection in connections.items())
    return name if about["version"] == version and not same else ""


def remove(draft: str) -> str:
    """Remove what there is of a copy; return what a message has to say where that fails too."""
    try:
        if os.path.isdir(draft):
            shutil.rmtree(draft)
    except OSError as error:
        return f" What there is of the copy takes room in {draft} until the next one is made: {error}"
    return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **database.COPIES,
            "state": {"type": "str", "choices": ["present", "settled"], "default": "present"},
            "version": {"type": "str", "required": True},
            "target_version": {"type": "str", "required": True},
            "target_revisions": {"type": "dict", "default": {}},
            "jobs": {"type": "int", "default": 2},
            "keep": {"type": "int", "default": 5},
            "keep_days": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    if database.PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=database.PSYCOPG2_ERROR)
    folder = module.params["folder"]
    if module.params["state"] == "settled":
        left = [name for name in backups.complete(folder) if not backups.is_settled(folder, name)]
        for name in [] if module.check_mode else left:
            backups.settle(folder, name)
        module.exit_json(changed=bool(left), path="", needed_mib=0, free_mib=0, removed=[])
    connections, programs = {}, {}
    for each in module.params["databases"]:
        try:
            connections[each["store"]] = database.connect(each["url"])
        except database.psycopg2.OperationalError as error:
            module.fail_json(msg=f"Cannot connect to the {each['store']} database to copy it: {str(error).strip()}")
    for store, connection in connections.items():
        programs[store] = {name: backups.program(name, connection.server_version) for name in ("pg_dump", "pg_restore")}
        if None in programs[store].values():
            major = connection.server_version // 10000
            missing = f"There is no pg_dump of PostgreSQL {major} or newer here, to copy the {store} database: install postgresql-client-{major}."
            if not module.check_mode:
                module.fail_json(msg=missing)
            # It may come with a package that check mode does not install.
            module.warn(missing)
    needed = sum(database.rows(connection, SIZE)[0][0] for connection in connections.values()) >> 20
    free = shutil.disk_usage(existing(folder)).free >> 20
    answer = {"needed_mib": needed, "free_mib": free, "path": "", "removed": []}
    if free < needed:
        module.fail_json(
            msg=f"A copy of the databases takes up to {needed} MiB, and {folder} has {free} MiB left: make room, or name another folder in "
            "mlflow_schema_backup_folder.",
            **answer,
        )
    if module.check_mode:
        module.exit_json(changed=True, **answer)
    for store, connection in connections.items():
        if not database.lock(connection, module.params["lock_timeout"]):
            module.fail_json(msg=f"A migration of the {store} database still runs after {module.params['lock_timeout']} s; run this again when it is done.")
    done = module.params["target_revisions"]
    if done and all(database.revisions(connection, store) == [done.get(store)] for store, connection in connections.items()):
        module.exit_json(changed=False, **answer)
    for store, connection in connections.items():
        left = database.quiet(connection, [module.params["server_role"], *module.params["writers"]], module.params["quiet_timeout"])
        if left:
            module.fail_json(
                msg=f"Somebody who is no host of this site uses the {store} database as {' and '.join(left)}: end that, or what it writes now would be lost "
                "if the upgrade fails."
            )
    half = half_done(folder, module.params["version"], connections)
    if half:
        module.exit_json(changed=False, **{**answer, "path": os.path.join(folder, half)})
    now = datetime.datetime.now(datetime.timezone.utc)
    name = backups.name_of(now, module.params["version"])
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for left in [entry for entry in os.listdir(folder) if entry.endswith(backups.DRAFT)]:
        shutil.rmtree(os.path.join(folder, left))
    try:
        about = copy(module, name, connections, programs)
    except (Refused, OSError) as error:
        left = remove(os.path.join(folder, name + backups.DRAFT))
        module.fail_json(msg=f"The databases could not be copied, so nothing was changed: {error}{left}", **answer)
    answer["removed"] = backups.outdated(backups.complete(folder), now, module.params["keep"], module.params["keep_days"])
    for old in answer["removed"]:
        shutil.rmtree(os.path.join(folder, old))
    module.exit_json(changed=True, **{**answer, "path": os.path.join(folder, name)}, stores=about["stores"])


if __name__ == "__main__":
    main()
