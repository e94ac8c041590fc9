# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The files that a folder has, for those who bring them somewhere else. No Ansible."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator


def files_of(path: str, skipped: Container[str] = ()) -> Iterator[str]:
    """Yield a file, or the files of a folder, those behind links too; none where there is nothing.

    Args:
        path: of a file or folder.
        skipped: folders that are left out.

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
        folders[:] = sorted(name for name in folders if os.path.join(root, name) not in skipped and os.path.realpath(os.path.join(root, name)) not in around)
        inside |= {os.path.join(root, name): around | {os.path.realpath(os.path.join(root, name))} for name in folders}
        yield from (os.path.join(root, name) for name in sorted(files))


def unreachable(paths: list[str], base: str = "") -> list[str]:
    """Return those that are not there, and whose folder is not there either. MLflow makes a run's folder when it has something to keep in it.

    Args:
        paths: of files and folders.
        base: folder below which they are.
    """
    return [path for path in paths if not os.path.exists(base + path) and not os.path.isdir(os.path.dirname(base + path))]
