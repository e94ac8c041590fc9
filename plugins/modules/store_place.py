#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Has files and folders of the controller on a host, under the same paths below a folder; the action of the same name brings them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store_place
short_description: Files and folders of the controller, on a host
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Brings what is not there yet, in parts of a bounded size, so that an interrupted run goes on where it was. A file is there when size and time are the
    same. Of a database of SQLite's a copy is brought that is whole, whoever writes to it meanwhile.
options:
  paths:
    description: Files and folders on the controller.
    type: list
    elements: str
    required: true
  expected:
    description: Those of them that have files for sure. Of the others nobody has made one yet that is not there, where the folder is that it would be in.
    type: list
    elements: str
    default: []
  artifacts:
    description: Whether the folders of artifacts in a file store come too.
    type: bool
    default: true
  folder:
    description: Folder on the host, below which they have the paths that they have on the controller.
    type: path
    required: true
  only_look:
    description: Whether to say only what is missing.
    type: bool
    default: false
  part:
    description: A tarball on the host. The action fills it in.
    type: path
  sha256:
    description: Of the tarball, in hexadecimal. The action fills it in.
    type: str
  gone:
    description: Files that the controller has no longer, by their paths there. The action fills it in.
    type: list
    elements: str
    default: []
attributes:
  action:
    support: full
    description: It reads the files on the controller.
  check_mode:
    support: full
    description: Nothing is brought.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Bring a store
  mlops.mlflow.store_place:
    paths: [/home/ada/mlflow.db]
    folder: /var/lib/mlops-import/files
"""

RETURN = r"""
missing:
  description: Paths that cannot be reached on the controller.
  returned: always
  type: list
  elements: str
unmade:
  description: Paths that are not there, as nobody has made them yet.
  returned: always
  type: list
  elements: str
mib:
  description: How much has been brought.
  returned: always
  type: int
files:
  description: Size and time of the files that are there, by path.
  returned: for the action
  type: dict
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.store_files import is_artifacts, nothing, files_of


def skips(options: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return what tells which folders do not come."""
    return nothing if options.get("artifacts", True) else is_artifacts


def there(folder: str, paths: list[str], skipped: Callable[[str], bool] = nothing) -> dict[str, list[int]]:
    """Return size and time of the files that are on the host, by their paths on the controller."""
    found = {}
    for path in paths:
        for name in files_of(folder + path, skipped):
            state = os.stat(name)
            found[name[len(folder) :]] = [state.st_size, int(state.st_mtime)]
    return found


def remove(paths: list[str], folder: str) -> None:
    """Remove files from the host, and folders that then have none.

    Args:
        paths: their paths on the controller.
        folder: see the module.
    """
    for path in map(folder.__add__, paths):
        if os.path.exists(path):
            os.remove(path)
        parent = os.path.dirname(path)
        if os.path.basename(path) == "meta.yaml" and os.path.isdir(f"{parent}/artifacts"):
            # A run that is gone: without it nobody would know that these are its artifacts.
            shutil.rmtree(f"{parent}/artifacts")
        while parent != folder.rstrip("/") and os.path.isdir(parent) and not os.listdir(parent):
            os.rmdir(parent)
            parent = os.path.dirname(parent)


def unpack(part: str, sha256: str, folder: str) -> None:
    """Unpack a tarball of files.

    Args:
        part: its path.
        sha256: what it is to have.
        folder: where the files go.

    Raises:
        ValueError: it is not what was sent.
    """
    with open(part, "rb") as file:
        digest = hashlib.sha256()
        while data := file.read(1 << 20):
            digest.update(data)
    if digest.hexdigest() != sha256:
        raise ValueError("it is not what was sent")
    with tarfile.open(part) as archive:
        for member in archive:
            path = os.path.normpath(os.path.join(folder, member.name))
            content = archive.extractfile(member) if member.isfile() and path.startswith(folder.rstrip("/") + "/") else None
            if content is None:
                raise ValueError(f"it has {member.name}, which is no file below the folder")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.mlops-part", "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            os.utime(f"{path}.mlops-part", (member.mtime, member.mtime))
            os.replace(f"{path}.mlops-part", path)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "expected": {"type": "list", "elements": "str", "default": []},
            "artifacts": {"type": "bool", "default": True},
            "only_look": {"type": "bool", "default": False},
            "part": {"type": "path"},
            "sha256": {"type": "str"},
            "gone": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    folder = module.params["folder"]
    if module.params["gone"]:
        try:
            remove(module.params["gone"], folder)
        except OSError as error:
            module.fail_json(msg=f"What the controller has no longer cannot be removed: {error}.")
        module.exit_json(changed=True, missing=[], unmade=[], mib=0)
    if not module.params["part"]:
        module.exit_json(changed=False, missing=[], unmade=[], mib=0, files=there(folder, module.params["paths"], skips(module.params)))
    try:
        unpack(module.params["part"], module.params["sha256"], folder)
    except (ValueError, OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"A part of the files did not arrive: {error}. Run this again; it goes on where it was.")
    module.exit_json(changed=True, missing=[], unmade=[], mib=0)


if __name__ == "__main__":
    main()
