# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""A store of MLflow's in SQLite or files, and the copy of it that an import works on."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

from ansible_collections.mlops.mlflow.plugins.module_utils import schema, store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_files import files_of, is_artifacts

# What SQLite finds in rows and not in its file; the scan finds it too, and can say what to do.
OF_ROWS = re.compile(r"NULL value in|NUMERIC value in|TEXT value in|CHECK constraint failed|non-unique entry in index|non-\w+ value in")
# SQLite ends after so many faults, also where most are of rows.
EVERYTHING = (1 << 31) - 1
RUN = re.compile(r"[0-9a-f]{32}")
EXPERIMENT = re.compile(r"\d+")


class Refused(Exception):
    """Nothing has been written to the target; the message says why."""


class Uncertain(Exception):
    """All has been written to the target, or nothing; the message says why nobody knows."""


def snapshot(source: str, target: str) -> None:
    """Copy a store that somebody may still write to, with what stands in its log.

    Args:
        source: SQLite's file.
        target: a file, which is replaced.

    Raises:
        Refused: it is no store, or damaged.
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise Refused(f"{source} is where the copy of the store is made: have the store somewhere else")
    if not os.path.isfile(source):
        raise Refused(f"{source} is not there, or no file")
    if os.path.exists(target):
        os.remove(target)
    try:
        with store_tables.opened(source) as original, closing(sqlite3.connect(target)) as copy:
            original.backup(copy, pages=-1)
            said = (row[0] for row in copy.execute(f"PRAGMA integrity_check({EVERYTHING})"))
            faults = list(itertools.islice((line for line in said if line != "ok" and not OF_ROWS.search(line)), 5))
    except sqlite3.Error as error:
        raise Refused(f"{source} cannot be read as SQLite: {error}") from None
    if faults:
        raise Refused(f"{source} is damaged, SQLite says: {'; '.join(faults)}. A copy of it from before, or sqlite3's .recover, may help")


def content(path: str) -> str:
    """Return what tells a file from others: of the copies of a store that is as it was, it is the same."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(folder: str) -> str:
    """Return what tells the files of a file store from others, by names, sizes and times; but for artifacts."""
    found = hashlib.sha256()
    for path in files_of(folder, is_artifacts):
        status = os.stat(path)
        found.update(f"{path}\0{status.st_size}\0{int(status.st_mtime)}\0".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def mlflow(*arguments: str) -> str:
    """Run MLflow's own program, which needs more memory than the rest; return what it wrote.

    Raises:
        Refused: it failed.
    """
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ASYNC_LOGGING": "false"}
    command = [os.path.join(os.path.dirname(sys.executable), "mlflow"), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Refused(f"MLflow's own {' '.join(arguments[:2])} failed: {result.stderr.strip()[-2000:]}")
    return result.stdout + result.stderr


def upgrade(path: str, source: str, revision: str) -> None:
    """Bring the copy of a store to the schema of the installed MLflow.

    Args:
        path: of the copy.
        source: the store's name for a person.
        revision: that it has.

    Raises:
        Refused: MLflow cannot.
    """
    try:
        mlflow("db", "upgrade", f"sqlite:///{path}")
    except Refused as refused:
        if "Can't locate revision" not in str(refused):
            raise
        raise Refused(
            f"{source} is at the revision {revision} (table alembic_version), which the installed MLflow does not know: it is another program's, or of a "
            "newer MLflow; then upgrade the site first (mlflow_version)"
        ) from None


def runs_in(folder: str) -> Iterator[str]:
    """Yield the runs of a file store, removed ones too, by the names of their folders."""
    for parent in (folder, os.path.join(folder, ".trash")):
        if not os.path.isdir(parent):
            continue
        for experiment in sorted(os.listdir(parent)):
            path = os.path.join(parent, experiment)
            if EXPERIMENT.fullmatch(experiment) and os.path.isdir(path):
                yield from (name for name in sorted(os.listdir(path)) if RUN.fullmatch(name) and os.path.isdir(os.path.join(path, name)))


def converted(source: str, target: str) -> list[str]:
    """Make a store in SQLite of one in files.

    Args:
        source: the folder mlruns.
        target: a file, which is replaced.

    Returns:
        What of it MLflow has left out.

    Raises:
        Refused: MLflow could not.
    """
    if os.path.exists(target):
        os.remove(target)
    folder = source.rstrip("/")
    if os.path.basename(folder) != "mlruns":
        raise Refused(f"{source} is no folder mlruns")
    said = mlflow("migrate-filestore", "--no-progress", "--source", os.path.dirname(folder), "--target", f"sqlite:///{target}")
    with store_tables.opened(target) as made:
        there = {row[0] for row in made.execute("SELECT run_uuid FROM runs")}
    lost = [f"the run {run} has not been read" for run in runs_in(folder) if run not in there]
    warnings = [line.split("WARNING", 1)[1].strip(" :") for line in said.splitlines() if "WARNING" in line]
    return lost + warnings


def revision(source: sqlite3.Connection, path: str) -> str:
    """Return the revision of a store.

    Args:
        source: SQLite's.
        path: its name for a person.

    Raises:
        Refused: MLflow made no such store.
    """
    has = store_tables.source_columns(source)
    if not schema.CORE["tracking"] <= set(has):
        raise Refused(f"{path} has no tables of MLflow's")
    found = [row[0] for row in source.execute("SELECT version_num FROM alembic_version")] if "alembic_version" in has else []
    if len(found) != 1:
        raise Refused(f"{path} has {len(found)} revisions in alembic_version, and a store of MLflow's has one")
    return str(found[0])
