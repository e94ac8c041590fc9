# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's part of the module store_place: it looks what is there, and brings the rest in parts."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from ansible import constants as C
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils import store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_files import absent, files_of, is_artifacts, nothing

display = Display()

PART_BYTES = 256 << 20
DATABASE = b"SQLite format 3\0"


def is_database(path: str) -> bool:
    """Tell whether a file is one of SQLite's."""
    with open(path, "rb") as file:
        return file.read(len(DATABASE)) == DATABASE


def parts(paths: Iterator[str], databases: set[str], there: dict[str, list[int]], folder: str) -> Iterator[tuple[str, int]]:
    """Make tarballs of what is not there, each when the last one has been brought; yield their paths, and bytes.

    Args:
        paths: of files.
        databases: those of them that somebody may be writing to.
        there: size and time by path.
        folder: for what is made; what was yielded before is removed.
    """
    part = os.path.join(folder, "part.tar")
    archive, size = None, 0
    for path in paths:
        origin = path
        # A database among the files of a folder is somebody's artifact.
        if path in databases:
            origin = os.path.join(folder, "snapshot.db")
            with store_tables.opened(path) as original, closing(sqlite3.connect(origin)) as copy:
                original.backup(copy, pages=-1)
        else:
            state = os.stat(path)
            if there.get(path) == [state.st_size, int(state.st_mtime)]:
                continue
        archive = archive or tarfile.open(part, "w", dereference=True)
        archive.add(os.path.realpath(origin), arcname=path.lstrip("/"))
        size += os.path.getsize(origin)
        if origin != path:
            os.remove(origin)
        if size >= PART_BYTES:
            archive.close()
            yield part, size
            archive, size = None, 0
    if archive:
        archive.close()
        yield part, size


def digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Failed(Exception):
    """The module has failed on the host; with its answer."""


class ActionModule(ActionBase):
    """Brings files and folders where they are not there yet."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module for the arguments."""
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        try:
            missing, unmade = absent(arguments["paths"], arguments.get("expected", []))
            if arguments.get("only_look") or self._task.check_mode:
                return {**result, "changed": False, "missing": missing, "unmade": unmade, "mib": 0}
            brought = self._bring(task_vars or {})
        except Failed as failed:
            return {**result, **failed.args[0]}
        except (OSError, sqlite3.Error) as error:
            return {**result, "failed": True, "msg": f"Cannot read what is to be imported: {error}."}
        return {**result, "changed": brought > 0, "missing": missing, "unmade": unmade, "mib": brought >> 20}

    def _bring(self, task_vars: dict[str, Any]) -> int:
        """Bring what is not there, and remove what the controller has no longer; return how many bytes came."""
        paths, brought = self._task.args["paths"], 0
        skips = is_artifacts if boolean(self._task.args.get("artifacts", True)) is False else nothing
        there = self._ask(task_vars)["files"]
        gone = set(there) - {each for path in paths for each in files_of(path, skips)}
        if gone:
            self._ask(task_vars, gone=sorted(gone))
        temporary = self._make_tmp_path()
        try:
            with tempfile.TemporaryDirectory(dir=C.DEFAULT_LOCAL_TMP) as folder:
                databases = {path for path in paths if os.path.isfile(path) and is_database(path)}
                for part, size in parts((each for path in paths for each in files_of(path, skips)), databases, there, folder):
                    sent = self._transfer_file(part, self._connection._shell.join_path(temporary, "part.tar"))
                    self._ask(task_vars, part=sent, sha256=digest(part))
                    brought += size
                    display.display(f"{task_vars.get('inventory_hostname')}: {brought >> 20} MiB brought")
        finally:
            self._remove_tmp_path(temporary, force=True)
        return brought

    def _ask(self, task_vars: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Run the module on the host, with more arguments; return its answer."""
        answer = self._execute_module(module_name="mlops.mlflow.store_place", module_args={**self._task.args, **more}, task_vars=task_vars)
        if answer.get("failed"):
            raise Failed(answer)
        return answer
