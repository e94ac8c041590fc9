# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The files that a folder has, for those who bring them somewhere else. No Ansible."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator


def nothing(_path: str) -> bool:
    """Leave nothing out."""
    return False


def is_artifacts(path: str) -> bool:
    """Tell whether a folder of a file store has artifacts that MLflow's conversion of the store does not read."""
    folder = os.path.dirname(path)
    return os.path.basename(path) == "artifacts" and os.path.isfile(os.path.join(folder, "meta.yaml"))


def files_of(path: str, skips: Callable[[str], bool] = nothing) -> Iterator[str]:
    """Yield a file, or the files of a folder, those behind links too; none where there is nothing.

    Args:
        path: of a file or folder.
        skips: tells which folders are left out.

    Raises:
        OSError: something cannot be read.
    """
    if os.path.isfile(path):
        yield path
        return

    def refuse(error: OSError) -> None:
        raise error

    # A link to a folder that it is in would have no end.
    inside = {path: {os.path.realpath(path)}}
    for root, folders, files in os.walk(path, onerror=refuse, followlinks=True) if os.path.isdir(path) else ():
        around = inside.pop(root)
        folders[:] = sorted(name for name in folders if not skips(os.path.join(root, name)) and os.path.realpath(os.path.join(root, name)) not in around)
        inside |= {os.path.join(root, name): around | {os.path.realpath(os.path.join(root, name))} for name in folders}
        yield from (os.path.join(root, name) for name in sorted(files))


def absent(paths: Collection[str], expected: Collection[str], base: str = "") -> tuple[list[str], list[str]]:
    """Return the folders that cannot be reached, and those that nobody has made yet: MLflow makes one when it has something to keep in it.

    Args:
        paths: of files and folders.
        expected: those of them that have files for sure.
        base: folder below which they are.

    Raises:
        OSError: something cannot be read.
    """
    lost, new, sure = [], [], set(expected)
    for path in paths:
        if next(files_of(base + path), None) is None:
            if path in sure or not (os.path.isdir(base + path) or os.path.isdir(os.path.dirname(base + path))):
                lost.append(path)
            elif not os.path.isdir(base + path):
                new.append(path)
    return lost, new
