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

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils import store_tables
from ansible_collections.mlops.mlflow.plugins.module_utils.store_files import files_of, unreachable

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


class ActionModule(ActionBase):
    """Brings files and folders where they are not there yet."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module for the arguments."""
        result = super().run(tmp, task_vars)
        arguments, name, brought = dict(self._task.args), "mlops.mlflow.store_place", 0
        missing = unreachable(arguments["paths"])
        if arguments.get("only_look") or self._task.check_mode:
            return {**result, "changed": False, "missing": missing, "mib": 0}
        answer = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        if answer.get("failed"):
            return {**result, **answer}
        temporary = self._make_tmp_path()
        try:
            with tempfile.TemporaryDirectory() as folder:
                databases = {path for path in arguments["paths"] if os.path.isfile(path) and is_database(path)}
                for part, size in parts((each for path in arguments["paths"] for each in files_of(path)), databases, answer["files"], folder):
                    sent = self._transfer_file(part, self._connection._shell.join_path(temporary, "part.tar"))
                    answer = self._execute_module(module_name=name, module_args={**arguments, "part": sent, "sha256": digest(part)}, task_vars=task_vars)
                    if answer.get("failed"):
                        return {**result, **answer}
                    brought += size
                    display.display(f"{(task_vars or {}).get('inventory_hostname')}: {brought >> 20} MiB brought")
        except (OSError, sqlite3.Error) as error:
            return {**result, "failed": True, "msg": f"Cannot read what is to be imported: {error}."}
        finally:
            self._remove_tmp_path(temporary, force=True)
        return {**result, "changed": brought > 0, "missing": missing, "mib": brought >> 20}
