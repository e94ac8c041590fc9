#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gives MLflow's databases back what a copy has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_restore
short_description: MLflow's databases as a copy has them
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Replaces the tables in the schema public of each database by those of a copy that M(mlops.mlflow.database_backup) made, in one transaction for each
    database. Whoever interrupts it leaves the database as it was.
  - The copy is checked first.
options:
  name:
    description: Which of them. Without it, the newest for O(version). For O(unfinished) it is the copy that this run has made, since which nobody has
      written.
    type: str
    default: ""
  version:
    description: The MLflow version whose tables are wanted. For O(unfinished) the version that is to run again.
    type: str
    default: ""
  unfinished:
    description: Only the newest copy, if its upgrade has changed the tables, and no server has been started with them in another run than the one that made
      the copy; otherwise nothing is done.
    type: bool
    default: false
  server_role:
    description: The role of the server, whose connections must have ended. For O(unfinished) those that are left are ended, if the connection may do that.
    type: str
    required: true
extends_documentation_fragment:
  - mlops.mlflow.copies
attributes:
  check_mode:
    support: full
    description: Says what would be lost; the servers may run.
  diff_mode:
    support: none
    description: RV(lost) says what goes.
requirements:
  - psycopg2
"""

EXAMPLES = r"""
- name: Go back to the tables of the version before
  mlops.mlflow.database_restore:
    databases:
      - {store: tracking, url: "postgresql:///mlflow?host=/var/run/postgresql"}
    folder: /var/backups/mlflow
    version: 3.16.1
    server_role: mlflow
  become: true
  become_user: postgres
"""

RETURN = r"""
name:
  description: Name of the copy; empty where there is none that was asked for.
  returned: always
  type: str
path:
  description: Its folder.
  returned: always
  type: str
version:
  description: The MLflow version that its tables are for.
  returned: always
  type: str
lost:
  description: For each store, the tables with another number of rows than in the copy, as C(then) and C(now).
  returned: always
  type: dict
fits:
  description: Whether the tables are those of O(version), as far as the copies tell.
  returned: always
  type: bool
runs:
  description: Up to 100 runs that began after the copy, the newest first, with C(id), C(name) and C(start).
  returned: always
  type: list
"""

import datetime
import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import backups, database

RUNS = "SELECT run_uuid, name, start_time FROM public.runs WHERE start_time > %s ORDER BY start_time DESC LIMIT 100"


def chosen(folder: str, name: str, version: str) -> str:
    """Return the name of the copy that is asked for; empty when there is none."""
    names = backups.complete(folder)
    return next((each for each in reversed(names) if name in ("", each) and version in ("", backups.manifest(folder, each)["version"])), "")


def runs_since(connection, moment: datetime.datetime) -> list[dict]:
    """Return the runs that began after a moment, the latest first."""
    return [
        {"id": key, "name": title, "start": f"{datetime.datetime.fromtimestamp(start / 1000, datetime.timezone.utc):%Y-%m-%d %H:%M:%S}Z"}
        for key, title, start in database.rows(connection, RUNS, (int(moment.timestamp() * 1000),))
    ]


class Copy:
    """One copy, and the databases that it is of."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        """Connect to the databases.

        Args:
            module: for its parameters, and its way to fail.
            name: of the copy.
        """
        self.module, self.name = module, name
        self.path = os.path.join(module.params["folder"], name)
        self.about = backups.manifest(module.params["folder"], name)
        self.connections = {}
        for each in module.params["databases"]:
            if each["store"] in self.about["stores"]:
                try:
                    self.connections[each["store"]] = database.connect(each["url"])
                except database.psycopg2.OperationalError as error:
                    module.fail_json(msg=f"Cannot connect to the {each['store']} database to restore it: {str(error).strip()}")

    def lock(self) -> None:
        """Wait for whoever migrates."""
        timeout = self.module.params["lock_timeout"]
        for store, connection in self.connections.items():
            if not database.lock(connection, timeout):
                self.module.fail_json(msg=f"A migration of the {store} database still runs after {timeout} s; run this again when it is done.")

    @property
    def is_current(self) -> bool:
        """Whether the databases are at the revisions of the copy."""
        return all(database.revisions(connection, store) == [self.about["stores"][store]["revision"]] for store, connection in self.connections.items())

    def lost(self) -> dict[str, dict]:
        """Return the tables with another number of rows, by store."""
        found = {}
        for store, connection in self.connections.items():
            then, now = self.about["stores"][store]["rows"], database.exact_rows(connection)
            found[store] = {
                table: {"then": then.get(table, 0), "now": now.get(table, 0)} for table in sorted(then | now) if then.get(table, 0) != now.get(table, 0)
            }
        return found

    def programs(self, store: str) -> dict[str, str]:
        """Return PostgreSQL's programs for a database."""
        version = self.about["stores"][store]["server_version"]
        found = {program: backups.program(program, version) for program in ("pg_restore", "psql")}
        if None in found.values():
            self.module.fail_json(msg=f"There is no pg_restore here for the copy {self.path}: install postgresql-client-{version // 10000}.")
        return found

    def silence(self, end: bool) -> None:
        """Wait until nobody writes any more.

        Args:
            end: whether to end the connections that are left, of a host that was lost with its server for instance.
        """
        writers = [self.module.params["server_role"], *self.module.params["writers"]]
        for store, connection in self.connections.items():
            left = database.quiet(connection, writers, self.module.params["quiet_timeout"])
            if left and end and database.end_sessions(connection, writers):
                left = database.quiet(connection, writers, 10)
            if left:
                self.module.fail_json(msg=f"Somebody still uses the {store} database as {' and '.join(left)}; end that first.")

    def restore(self) -> None:
        """Replace what the databases have."""
        fault = backups.damage(self.path)
        if fault:
            self.module.fail_json(msg=f"The copy {self.path} is damaged, and nothing was changed: {fault}.")
        for store, connection in self.connections.items():
            fault = backups.restore(os.path.join(self.path, store), backups.environment(connection), self.programs(store))
            if fault:
                self.module.fail_json(msg=f"The {store} database could not be restored from {self.path}, and is as it was: {fault}")
        self.settle()

    def settle(self) -> None:
        """Remember that its upgrade has ended."""
        backups.settle(self.module.params["folder"], self.name)


def undo(module: AnsibleModule) -> None:
    """Go back to the newest copy, if its upgrade has changed the tables and nobody can have used them since."""
    folder, version = module.params["folder"], module.params["version"]
    names = backups.complete(folder)
    if not names:
        module.exit_json(changed=False, name="", path="", version="", lost={}, runs=[], fits=True)
    copy = Copy(module, names[-1])
    answer = {"name": copy.name, "path": copy.path, "version": copy.about["version"], "lost": {}, "runs": []}
    if not module.check_mode:
        copy.lock()
    current, own = copy.is_current, copy.name == module.params["name"]
    due = not current and (own or not backups.is_settled(folder, copy.name))
    if due and not own:
        answer["lost"] = copy.lost()
        due = not backups.grown(answer["lost"].get("tracking", {}))
    if module.check_mode or not due:
        if current and not module.check_mode:
            # It failed before the tables changed, or by changing them, which PostgreSQL rolled back.
            copy.settle()
        module.exit_json(changed=due, fits=backups.fits(copy.about, version, current), **answer)
    copy.silence(end=True)
    copy.restore()
    module.exit_json(changed=True, fits=backups.fits(copy.about, version, True), **answer)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **database.COPIES,
            "name": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "unfinished": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if database.PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=database.PSYCOPG2_ERROR)
    if module.params["unfinished"]:
        undo(module)
    folder = module.params["folder"]
    name = chosen(folder, module.params["name"], module.params["version"])
    if not name:
        wanted = module.params["name"] or f"for MLflow {module.params['version']}"
        module.fail_json(msg=f"There is no copy {wanted} in {folder}; there are: {', '.join(backups.complete(folder)) or 'none'}.")
    copy = Copy(module, name)
    runs = runs_since(copy.connections["tracking"], backups.taken_at(name)) if "tracking" in copy.connections else []
    answer = {"name": name, "path": copy.path, "version": copy.about["version"], "lost": copy.lost(), "runs": runs, "fits": True}
    if not module.check_mode:
        copy.lock()
        copy.silence(end=False)
        copy.restore()
    module.exit_json(changed=True, **answer)


if __name__ == "__main__":
    main()
