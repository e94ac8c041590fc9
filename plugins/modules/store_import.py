#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Copies a store of MLflow's from SQLite or files into PostgreSQL, all of it or nothing, and proves it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store_import
short_description: A store of MLflow's from SQLite or files into PostgreSQL
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Works on a copy in SQLite, which it brings to the schema of the installed MLflow. The source itself is only read.
  - V(scan) finds everything in it that PostgreSQL does not take, or would give back as something else, and everything that the target has already.
  - V(import) copies all tables in one transaction, and ends it only if PostgreSQL then has exactly the rows of the copy, by their number and by a sum over
    all columns that both sides compute by themselves. Whatever happens before that leaves the target as it was.
  - The action of the same name shows how far it is. Runs with the Python of the MLflow environment (C(ansible_python_interpreter)).
options:
  action:
    description: V(scan) makes the copy, says what is wrong with it and mends it. V(import) brings the copy that V(scan) has left.
    type: str
    choices: [scan, import]
    required: true
  source:
    description: The SQLite file, or the folder C(mlruns) of a file store, on the host.
    type: path
    required: true
  folder:
    description: Where the copy is made, with what is known of it. It is there, and nobody else reads it.
    type: path
    required: true
  url:
    description: SQLAlchemy URL of the tracking database with the owner's credentials.
    type: str
    required: true
  mode:
    description: V(empty) wants a target that nobody uses yet. V(merge) brings the store beside what is there, under new numbers of experiments; runs,
      experiments or registered models that both have are named, and nothing is brought.
    type: str
    choices: [empty, merge]
    default: empty
  on_bad_value:
    description: V(refuse) leaves it at saying what PostgreSQL does not take. V(repair) makes the nearest value of it that PostgreSQL takes, and leaves out
      what leads to nothing.
    type: str
    choices: [refuse, repair]
    default: refuse
  default_as:
    description: With O(mode=merge), the name that the source's experiment V(Default) gets. Without one its runs come into that of the target.
    type: str
    default: ""
  working_folder:
    description: Folder in which the programs were started that wrote relative paths of artifacts into the store.
    type: path
    default: /
  served_folder:
    description: Folder that the old server had as its artifact store (C(--artifacts-destination)), where it served artifacts itself. Empty when it did not.
    type: str
    default: ""
  destination:
    description: Address of the new artifact store. Local addresses of artifacts become addresses there. Empty to leave all of them.
    type: str
    default: ""
  lock_timeout:
    description: Seconds to wait for another host or controller that changes the same database.
    type: int
    default: 600
attributes:
  action:
    support: full
    description: It shows how far the module is.
  check_mode:
    support: full
    description: V(scan) takes no numbers of the target's; V(import) does nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
requirements:
  - mlflow
  - psycopg2
"""

EXAMPLES = r"""
- name: See whether PostgreSQL would take it
  mlops.mlflow.store_import:
    action: scan
    source: /home/ada/mlflow.db
    folder: /var/lib/mlops-import/mlflow
    url: "{{ owner_url }}"
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
  no_log: true
"""

RETURN = r"""
findings:
  description: What PostgreSQL does not take, up to a hundred, those first that only a person can mend, each with its table, column and key, what is wrong,
    and what a repair does. All of them are in C(findings.csv) in O(folder).
  returned: for O(action=scan)
  type: list
  elements: dict
found:
  description: How many there are in all.
  returned: for O(action=scan)
  type: int
left:
  description: How many of them only a person can mend.
  returned: for O(action=scan)
  type: int
refusals:
  description: Why nothing can be brought, in sentences.
  returned: for O(action=scan)
  type: list
  elements: str
notes:
  description: What else is good to know.
  returned: for O(action=scan)
  type: list
  elements: str
rows:
  description: Rows of the copy by table, without empty tables; for O(action=import), those that came.
  returned: always
  type: dict
revisions:
  description: Revision of the source, and the one that its copy was brought to.
  returned: for O(action=scan)
  type: dict
renumbered:
  description: Experiments that get another number, up to a hundred, with the new one.
  returned: for O(action=scan)
  type: dict
roots:
  description: Folders with artifacts, each with where it goes below the artifact store.
  returned: for O(action=scan)
  type: dict
expected:
  description: Those of them of which the store says that they have artifacts.
  returned: for O(action=scan)
  type: list
  elements: str
fingerprint:
  description: What tells this import from others.
  returned: for O(action=scan)
  type: str
addresses:
  description: How many addresses of artifacts there are of each kind.
  returned: for O(action=scan)
  type: dict
brought:
  description: Whether an interrupted run has brought the tables already, so that they need not come again.
  returned: for O(action=scan)
  type: bool
seconds:
  description: How long copying and comparing took.
  returned: for O(action=import)
  type: dict
memory_mib:
  description: How much memory that took at most.
  returned: for O(action=import)
  type: int
"""

import json
import os
import resource
import secrets
import sqlite3
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import (
    database,
    store_addresses,
    store_experiments,
    store_findings,
    store_source,
    store_tables,
    store_target,
)
from ansible_collections.mlops.mlflow.plugins.module_utils.store_copy import quoted
from ansible_collections.mlops.mlflow.plugins.module_utils.store_findings import Findings
from ansible_collections.mlops.mlflow.plugins.module_utils.store_progress import Progress
from ansible_collections.mlops.mlflow.plugins.module_utils.store_source import Refused, Uncertain
from ansible_collections.mlops.mlflow.plugins.module_utils.store_tables import Finding, Table

SHOWN = 100
# Options that decide what comes, and where.
DECIDING = ("mode", "on_bad_value", "default_as", "working_folder", "served_folder", "destination")
# Rows whose secrets only the old server's passphrases open.
ENCRYPTED = {"secrets": "mlflow_kek_passphrase", "webhooks": "mlflow_webhook_secret_key"}


class Scan:
    """The copy of a store, made ready to be brought."""

    def __init__(self, module: AnsibleModule, connection: Any, progress: Progress) -> None:
        """Begin.

        Args:
            module: with the options.
            connection: of the owner of the target's tables.
            progress: told of each step.
        """
        self.module, self.options, self.connection, self.progress = module, module.params, connection, progress
        self.folder = module.params["folder"]
        self.path = os.path.join(self.folder, "store.db")
        self.findings = Findings(os.path.join(self.folder, "findings.db"))
        self.tables: dict[str, Table] = {}
        self.order: list[Table] = []
        self.notes: list[str] = []
        self.refusals: list[str] = []
        self.shares_default = False

    @property
    def repairs(self) -> bool:
        """Whether the copy is repaired."""
        return self.options["on_bad_value"] == "repair"

    @property
    def merges(self) -> bool:
        """Whether the store comes beside another."""
        return self.options["mode"] == "merge"

    def run(self) -> dict[str, Any]:
        """Make the copy ready; return the answer.

        Raises:
            Refused: it cannot be brought, whatever is repaired.
        """
        fingerprint, revisions = self.make()
        with store_tables.opened(self.path, write=True) as source:
            has = store_tables.source_columns(source)
            numbers = self.number(source)
            roots, counts = store_addresses.look(source, has, self.options["working_folder"], self.options["served_folder"], self.token())
            if self.options["destination"]:
                store_addresses.move(source, has, self.options["working_folder"], self.options["served_folder"], roots, self.options["destination"])
            if self.shares_default:
                # Not before: it says where its artifacts are.
                source.execute("DELETE FROM experiments WHERE experiment_id = ?", (store_experiments.DEFAULT,))
            if not self.merges and store_experiments.have_default(source, round(time.time() * 1000)):
                self.notes.append("The store has no experiment of the number 0, by which a server is asked whether it works: an empty one is added.")
            self.progress.begin("looking for what PostgreSQL does not take")
            store_findings.scan(source, self.order, self.findings, self.repairs)
            rows = {table.name: source.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()[0] for table in self.order if table.name in has}
            self.compare(source)
            self.note(source, rows, counts)
        self.findings.write(os.path.join(self.folder, "findings.csv"))
        return {
            "findings": self.findings.first(SHOWN),
            "found": self.findings.count(),
            "left": self.findings.count(left=True),
            "refusals": self.refusals,
            "notes": self.notes,
            "rows": {name: count for name, count in rows.items() if count},
            "revisions": revisions,
            "renumbered": {str(old): new for old, new in list(numbers.items())[:SHOWN] if old != new},
            "roots": {self.kept(root): target for root, target in roots.targets.items()},
            "expected": sorted(map(self.kept, roots.expected)),
            "addresses": counts,
            "fingerprint": fingerprint,
        }

    def token(self) -> str:
        """Return what tells this import from others, also after an interruption."""
        path = os.path.join(self.folder, "token")
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as file:
                file.write(secrets.token_hex())
        with open(path, encoding="utf-8") as file:
            return file.read()

    def kept(self, root: str) -> str:
        """Return where a folder of artifacts is: that of an experiment that is removed is in the trash of a file store, and its addresses are as before."""
        parent, name = os.path.split(root)
        source = self.options["source"].rstrip("/")
        if os.path.isdir(source) and source.endswith(parent) and not os.path.exists(f"{source}/{name}") and os.path.isdir(f"{source}/.trash/{name}"):
            return f"{parent}/.trash/{name}"
        return root

    def make(self) -> tuple[str, dict[str, str]]:
        """Make the copy and bring it to the target's schema; return what tells it from others, and the revisions.

        Raises:
            Refused: that cannot be done.
        """
        original = self.options["source"]
        self.progress.begin("copying the source")
        if os.path.isdir(original):
            fingerprint = asked(self.options, store_source.state(original))
            lost = store_source.converted(original, self.path)
            self.findings.add(Finding("files", "", "", what, "is left out", 0) for what in lost)
        else:
            store_source.snapshot(original, self.path)
            fingerprint = asked(self.options, store_source.content(self.path))
        with store_tables.opened(self.path) as source:
            before = store_source.revision(source, original)
        wanted = "".join(database.revisions(self.connection, "tracking"))
        if before != wanted:
            self.progress.begin("bringing the copy to the newest schema")
            store_source.upgrade(self.path, original, before)
        self.tables = store_target.catalog(self.connection)
        with store_tables.opened(self.path) as source:
            after = store_source.revision(source, original)
            if after != wanted:
                raise Refused(f"{original} is at the revision {after} and the target at {wanted}: bring the target to the installed MLflow by site.yml first")
            has = store_tables.source_columns(source)
            misplaced = store_tables.misplaced(self.tables, has, source)
        if misplaced:
            raise Refused(f"{original} and the target do not have the same tables, or columns: {', '.join(misplaced)}")
        # Tables that only the target has are none of MLflow's.
        self.order = [table for table in store_tables.in_order(self.tables) if table.name in has]
        return fingerprint, {"before": before, "after": after}

    def number(self, source: sqlite3.Connection) -> dict[int, int]:
        """Give experiments the numbers that they will have; return the new ones by the old ones."""
        self.progress.begin("looking for what leads to experiments that are gone")
        store_findings.scan_experiments(source, self.order, self.findings, self.repairs)
        big = store_experiments.too_big(source)
        if not os.path.isdir(self.options["source"]) and not self.merges:
            # In a file store all of them are, and nobody chose them.
            self.findings.add(
                Finding("experiments", "experiment_id", f"experiment_id = {old}", f"is {old}, beyond the int4 that its column is", f"becomes {new}", 0)
                for old, new in big.items()
            )
        numbers = self.join(source) if self.merges else big
        store_experiments.renumber(source, {table.name: table for table in self.order}, numbers)
        return numbers

    def join(self, source: sqlite3.Connection) -> dict[int, int]:
        """Make the copy one that can come beside what is there; return new numbers by old ones."""
        default, reserve = store_experiments.DEFAULT, not self.module.check_mode
        if "workspaces" in self.tables:
            for (name,) in database.rows(self.connection, "SELECT name FROM public.workspaces"):
                source.execute("DELETE FROM workspaces WHERE name = ?", (name,))
        theirs = source.execute("SELECT name, lifecycle_stage FROM experiments WHERE experiment_id = ?", (default,)).fetchone()
        ours = database.rows(self.connection, "SELECT name, lifecycle_stage FROM public.experiments WHERE experiment_id = %s", (default,))
        if theirs and self.options["default_as"]:
            source.execute("UPDATE experiments SET name = ? WHERE experiment_id = ?", (self.options["default_as"], default))
        elif theirs and ours and tuple(theirs) == tuple(ours[0]) == ("Default", "active"):
            self.shares_default = True
            dropped = 0
            for (key,) in database.rows(self.connection, "SELECT key FROM public.experiment_tags WHERE experiment_id = %s", (default,)):
                dropped += source.execute("DELETE FROM experiment_tags WHERE experiment_id = ? AND key = ?", (default, key)).rowcount
            self.notes.append(
                f"What was in Default comes into the target's Default, whose location and tags stay; {dropped} tags of the source's are left out."
            )
        old = [row[0] for row in source.execute("SELECT experiment_id FROM experiments WHERE typeof(experiment_id) = 'integer' ORDER BY 1")]
        old = [number for number in old if number != default or not self.shares_default]
        numbers = self.reserved(self.tables["experiments"].sequences["experiment_id"], old, reserve)
        for table in self.order:
            for column, sequence in table.sequences.items():
                if column != store_tables.EXPERIMENT:
                    count = source.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()[0]
                    store_experiments.count_anew(source, table, column, store_target.numbers(self.connection, sequence, count, reserve))
        return numbers

    def reserved(self, sequence: str, old: list[int], reserve: bool) -> dict[int, int]:
        """Return numbers for experiments: those that an interrupted run has taken already, as its artifacts are there."""
        path = os.path.join(self.folder, "numbers.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                known = {int(key): value for key, value in json.load(file).items()}
            if list(known) == old and store_target.are_ours(self.connection, sequence, list(known.values())):
                return known
        numbers = dict(zip(old, store_target.numbers(self.connection, sequence, len(old), reserve)))
        if reserve:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(numbers, file)
        return numbers

    def compare(self, source: sqlite3.Connection) -> None:
        """Add why the store cannot be brought as it is."""
        found, left = self.findings.count(), self.findings.count(left=True)
        if found and not self.repairs:
            self.refusals.append(
                f"it has {found} values or rows that PostgreSQL does not take, {left} of which nobody but you can mend; the first: "
                f"{sentence(self.findings.first(1)[0])}. import_on_bad_value = 'repair' does with the others what is said of each"
            )
        elif left:
            self.refusals.append(f"it has {left} values or rows that nobody but you can mend; the first: {sentence(self.findings.first(1, left=True)[0])}")
        if not self.merges:
            taken = store_target.occupied(self.connection, self.order)
            self.refusals += [store_target.not_empty(taken)] if taken else []
        elif not left and (self.repairs or not found):
            # Bad values cannot be asked for.
            both = store_target.same(self.connection, source, self.order)
            self.refusals += [f"the target has the same already: {'; '.join(both)}"] if both else []

    def note(self, source: sqlite3.Connection, rows: dict[str, int], counts: dict[str, int]) -> None:
        """Add what is good to know."""
        for table, variable in ENCRYPTED.items():
            if rows.get(table):
                self.notes.append(f"{rows[table]} rows of {table} have secrets that only the old server's passphrase opens: see {variable}.")
        jobs = source.execute("SELECT count(*) FROM jobs").fetchone()[0] if "jobs" in store_tables.source_columns(source) else 0
        if jobs:
            self.notes.append(f"{jobs} rows of jobs are not brought: the work of the old server's jobs is not to be done again.")
        if counts.get("wide"):
            self.notes.append(f"{counts['wide']} addresses of artifacts are folders such as / or /home, and stay as they are.")


def sentence(finding: dict[str, str]) -> str:
    """Write a finding in words."""
    where = f"in {finding['table']}, {finding['column']} of the row with {finding['key']}: " if finding["key"] else ""
    return f"{where}{finding['what']}"


def asked(options: dict[str, Any], source: str) -> str:
    """Return what tells an import from others: its source, and what decides what of it comes, and where."""
    return f"{source} {json.dumps([options[name] for name in DECIDING])}"


class Brought:
    """What an import that was interrupted at its very end has left."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Begin.

        Args:
            options: of the module.
        """
        self.options, self.folder = options, options["folder"]
        self.path, self.scanned = os.path.join(self.folder, "brought.json"), os.path.join(self.folder, "scan.json")

    def note(self, answer: dict[str, Any]) -> None:
        """Write down what will be answered; whether the transaction has ended, its rows tell."""
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(answer, file)
            file.flush()
            os.fsync(file.fileno())

    def answer(self, connection: Any) -> dict[str, Any] | None:
        """Return what was noted, if the target has it."""
        copy = os.path.join(self.folder, "store.db")
        # Who was interrupted while he removed the folder has left some of it.
        if not all(map(os.path.exists, (self.path, self.scanned, copy))):
            return None
        with store_tables.opened(copy) as source:
            names = store_tables.source_columns(source)
            order = [table for table in store_tables.in_order(store_target.catalog(connection)) if table.name in names]
            there = store_target.has(connection, source, order)
        return read(self.path) if there else None

    def scan(self) -> dict[str, Any]:
        """Return what the scan of it has found."""
        return read(self.scanned)

    def is_asked_for(self) -> bool:
        """Tell whether it is what is asked for now, of a source that is as it was."""
        again, source = os.path.join(self.folder, "again.db"), self.options["source"]
        if os.path.isdir(source):
            state = store_source.state(source)
        else:
            store_source.snapshot(source, again)
            state = store_source.content(again)
            os.remove(again)
        return self.scan()["fingerprint"] == asked(self.options, state)


def read(path: str) -> dict[str, Any]:
    """Read what was written down."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def bring(module: AnsibleModule, connection: Any, progress: Progress) -> dict[str, Any]:
    """Bring the copy that a scan has left; return the answer.

    Raises:
        Refused: the target is as it was.
    """
    left = Brought(module.params)
    path, before = os.path.join(module.params["folder"], "store.db"), left.scan()
    if before["refusals"]:
        raise Refused("; ".join(before["refusals"]))
    found = store_target.catalog(connection)
    with store_tables.opened(path) as source:
        has = store_tables.source_columns(source)
        store = store_source.revision(source, module.params["source"])
    if [store] != database.revisions(connection, "tracking"):
        raise Refused("the target's tables have changed since the scan: run this again")
    order = [table for table in store_tables.in_order(found) if table.name in has]
    progress.begin("copying", sum(before["rows"].values()))

    def proved(answer: dict[str, Any]) -> None:
        answer["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        left.note(answer)

    return store_target.bring(connection, path, order, module.params["mode"] == "empty", progress.told, proved)


def scan(module: AnsibleModule, connection: Any, progress: Progress) -> dict[str, Any]:
    """Make the copy ready, unless an interrupted run has brought it already; return the answer.

    Raises:
        Refused: the target is as it was.
    """
    left, changed = Brought(module.params), False
    if left.answer(connection) is not None:
        if left.is_asked_for():
            return {**left.scan(), "refusals": [], "brought": True}
        changed = True
    if os.path.exists(left.path):
        os.remove(left.path)
    answer = Scan(module, connection, progress).run()
    if changed and answer["refusals"]:
        answer["refusals"].append(
            "an interrupted run has brought the tables from here, and since then the source has changed, or what is asked for: "
            "what it had then is in the target"
        )
    with open(left.scanned, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    return {**answer, "brought": False}


def run(module: AnsibleModule, connection: Any) -> dict[str, Any]:
    """Do what is asked for; return the answer.

    Raises:
        Refused: the target is as it was.
        Uncertain: nobody knows.
    """
    progress = Progress(module.params["folder"], "rows")
    if module.params["action"] == "scan":
        return {"changed": False, **scan(module, connection, progress)}
    done = Brought(module.params).answer(connection)
    if done is not None:
        return {"changed": False, **done}
    if module.check_mode:
        return {"changed": True}
    if not database.lock(connection, module.params["lock_timeout"]):
        raise Refused(f"another host or controller has been changing the database for {module.params['lock_timeout']} s")
    answer = bring(module, connection, progress)
    try:
        progress.begin("gathering statistics")
        for name in answer["rows"]:
            with connection.cursor() as cursor:
                cursor.execute(f"ANALYZE public.{quoted(name)}")
    except (OSError, database.psycopg2.Error) as error:
        # The tables are there, and autovacuum does the same.
        module.warn(f"The tables have come, and no statistics of them were gathered: {str(error).strip()}")
    return {"changed": True, **answer}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": ["scan", "import"], "required": True},
            "source": {"type": "path", "required": True},
            "folder": {"type": "path", "required": True},
            "url": {"type": "str", "required": True, "no_log": True},
            "mode": {"type": "str", "choices": ["empty", "merge"], "default": "empty"},
            "on_bad_value": {"type": "str", "choices": ["refuse", "repair"], "default": "refuse"},
            "default_as": {"type": "str", "default": ""},
            "working_folder": {"type": "path", "default": "/"},
            "served_folder": {"type": "str", "default": ""},
            "destination": {"type": "str", "default": ""},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    if database.PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=database.PSYCOPG2_ERROR)
    try:
        connection = database.connect(module.params["url"])
    except database.psycopg2.OperationalError as error:
        module.fail_json(msg=f"Cannot connect to the tracking database as its owner: {str(error).strip()}")
    try:
        answer = run(module, connection)
    except Uncertain as error:
        module.fail_json(msg=f"{error}.")
    except (Refused, OSError, sqlite3.Error, database.psycopg2.Error) as error:
        module.fail_json(msg=f"Nothing has been imported: {str(error).strip()}.")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
