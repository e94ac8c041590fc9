# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Where the artifacts of a store are, and what their addresses become when they move. No Ansible."""

from __future__ import annotations

import dataclasses
import hashlib
import posixpath
import re
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils.store_copy import quoted

# Tables and columns with addresses of artifacts, and which of their rows have one; experiments first, as others are in their folders.
PLACES = (
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("logged_models", "artifact_location", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("trace_tags", "value", "key IN ('mlflow.artifactLocation', 'mlflow.trace.archiveLocation')"),
    ("workspaces", "default_artifact_root", ""),
    ("workspaces", "trace_archival_location", ""),
)
COLUMNS = frozenset((table, column) for table, column, _condition in PLACES)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
FILE = re.compile(r"file:(?://[^/]*)?(.*)", re.IGNORECASE | re.DOTALL)
# Of another machine for sure.
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
# What MLflow writes where a version is a prompt, or is removed, and has no artifacts.
PLACEHOLDERS = frozenset({"REDACTED-SOURCE-PATH", "dummy-source", "prompt-template"})
# Runs with one of these tags, and these tables, have artifacts for sure.
TAGS = ("mlflow.log-model.history", "mlflow.loggedArtifacts", "mlflow.loggedImages")
SURE = frozenset({"logged_models", "model_versions"})
# Addresses that lead to other rows of the store, whose own address counts.
INSIDE = frozenset({"runs", "models"})
SERVED = "mlflow-artifacts"


@dataclasses.dataclass(frozen=True)
class Place:
    """What an address leads to.

    Attributes:
        kind: local for a folder of the source's machine, wide for one that holds much else, served for what the old server had behind itself, inside for
            another row, remote for a store.
        path: of a folder without a slash at the end; else the address.
    """

    kind: str
    path: str


def place(uri: str, folder: str, served: str) -> Place:
    """Tell what an address leads to.

    Args:
        uri: as it stands in the store.
        folder: where the program that wrote it was started, from which relative paths count.
        served: the folder that the old server had as its artifact store; empty when nobody knows.
    """
    if WINDOWS.match(uri):
        return _local("/" + uri.replace("\\", "/"))
    found = SCHEME.match(uri)
    scheme = found[1].lower() if found else "file"
    if scheme in INSIDE or uri in PLACEHOLDERS:
        return Place("inside", uri)
    if scheme == SERVED:
        parts = urllib.parse.urlsplit(uri)
        # With a host it is a server that may be there for ever.
        if parts.netloc:
            return Place("remote", uri)
        return _local(posixpath.join(served, parts.path.strip("/"))) if served else Place("served", uri)
    if scheme != "file":
        return Place("remote", uri)
    as_uri = FILE.fullmatch(uri)
    return _local(posixpath.join(folder, urllib.parse.unquote(as_uri[1]) if as_uri else uri))


def _local(path: str) -> Place:
    path = posixpath.normpath(path)
    # Nobody means to keep artifacts in / or /home itself.
    return Place("wide" if path.count("/") < 2 else "local", path)


def above(path: str) -> Iterator[str]:
    """Yield a path and the folders that it is in, the nearest first."""
    while True:
        yield path
        parent = posixpath.dirname(path)
        if parent == path:
            return
        path = parent


class Roots:
    """The folders that artifacts are in, and where each of them goes below the artifact store."""

    def __init__(self, experiments: Iterable[tuple[int, str]], token: str) -> None:
        """Begin with the folder of each experiment, which goes to the folder that MLflow would give it now.

        Args:
            experiments: number in the target, and local path.
            token: what tells this import from others: another machine may have the same paths.
        """
        self.token = token
        self.targets: dict[str, str] = {}
        # Those that have artifacts for sure.
        self.expected: set[str] = set()
        for number, path in experiments:
            self.targets.setdefault(path, str(number))

    def root_of(self, path: str) -> str | None:
        """Return the nearest root that a path is in."""
        return next((folder for folder in above(path) if folder in self.targets), None)

    def add(self, path: str) -> str:
        """Have a root for a path that is in none; return the root that it is in."""
        root = self.root_of(path)
        if root is None:
            self.targets[path] = f"imported/{hashlib.sha256(f'{self.token} {path}'.encode()).hexdigest()[:12]}"
        return root or path

    def moved(self, path: str) -> str:
        """Return where a local path goes.

        Raises:
            KeyError: it is in no root.
        """
        root = self.root_of(path)
        if root is None:
            raise KeyError(path)
        return posixpath.normpath(posixpath.join(self.targets[root], posixpath.relpath(path, root)))


def addresses(source: sqlite3.Connection, has: Mapping[str, Iterable[str]], what: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yield the addresses of a store: table, column, rowid (the number of an experiment) and address.

    Args:
        source: SQLite's.
        has: its tables, with their columns.
        what: only those of this table.
    """
    for table, column, condition in PLACES:
        if column not in has.get(table, ()) or what not in ("", table):
            continue
        number = "experiment_id" if table == "experiments" else "rowid"
        where = f"typeof({quoted(column)}) = 'text' AND {quoted(column)} <> ''" + (f" AND {condition}" if condition else "")
        for row, uri in source.execute(f"SELECT {number}, {quoted(column)} FROM {quoted(table)} WHERE {where}"):
            if isinstance(uri, str):
                yield table, column, row, uri


def look(source: sqlite3.Connection, has: Mapping[str, Iterable[str]], folder: str, served: str, token: str) -> tuple[Roots, dict[str, int]]:
    """Find where the artifacts are.

    Args:
        source: SQLite's, in which experiments have the numbers of the target.
        has: its tables, with their columns.
        folder: see place().
        served: see place().
        token: see Roots.

    Returns:
        The roots; and how many addresses there are of each kind.
    """
    counts: dict[str, int] = {}
    found = ((number, place(uri, folder, served)) for _table, _column, number, uri in addresses(source, has, "experiments"))
    roots = Roots(((number, each.path) for number, each in found if each.kind == "local"), token)
    tagged = _tagged(source, has)
    for table, _column, row, uri in addresses(source, has):
        each = place(uri, folder, served)
        counts[each.kind] = counts.get(each.kind, 0) + 1
        if each.kind == "local":
            root = roots.add(each.path)
            if table in SURE or (table == "runs" and row in tagged):
                roots.expected.add(root)
    return roots, counts


def _tagged(source: sqlite3.Connection, has: Mapping[str, Iterable[str]]) -> set[int]:
    """Return the rows of runs whose tags say that they have artifacts."""
    if "tags" not in has:
        return set()
    query = f"SELECT r.rowid FROM runs r JOIN tags t USING (run_uuid) WHERE t.key IN ({', '.join('?' * len(TAGS))})"
    return {row for (row,) in source.execute(query, TAGS)}


def move(source: sqlite3.Connection, has: Mapping[str, Iterable[str]], folder: str, served: str, roots: Roots, destination: str) -> None:
    """Give artifacts their new addresses in the copy.

    Args:
        source: SQLite's.
        has: its tables, with their columns.
        folder: see place().
        served: see place().
        roots: where they go.
        destination: address of the new artifact store, such as mlflow-artifacts:/.
    """

    def anew(raw: bytes) -> str | None:
        try:
            old = place(raw.decode(), folder, served)
        except UnicodeDecodeError:
            # It is found among the values that are no text.
            return None
        if old.kind != "local":
            return None
        return f"{destination.rstrip('/')}/{roots.moved(old.path)}"

    source.create_function("mlops_moved", 1, anew, deterministic=True)
    source.execute("BEGIN")
    for table, column, condition in PLACES:
        if column in has.get(table, ()):
            name = quoted(column)
            where = f"typeof({name}) = 'text' AND {name} <> '' AND mlops_moved(CAST({name} AS BLOB)) IS NOT NULL" + (f" AND {condition}" if condition else "")
            source.execute(f"UPDATE {quoted(table)} SET {name} = mlops_moved(CAST({name} AS BLOB)) WHERE {where}")
    source.execute("COMMIT")
