#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Goes from one installed MLflow version to another, and back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_switch
short_description: The installed MLflow version that a host runs
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Versions are complete virtual environments side by side, and a link says which one is current.
  - Before the files of the configuration are written for another version, those of the current one are kept beside it, until the new
    version has proved that it works. So the way back needs nothing but the host itself.
options:
  state:
    description:
      - V(kept) keeps the configuration of the current version when O(version) is another one, and does nothing when it is kept already.
      - V(current) makes O(version) the current one.
      - V(back) puts the kept configuration back and makes its version the current one; nothing when none is kept.
      - V(settled) forgets what was kept.
    type: str
    choices: [kept, current, back, settled]
    required: true
  version:
    description: Folder of the environment that the host is to run.
    type: path
    required: true
  link:
    description: The link to the current one.
    type: path
    default: /opt/mlflow/current
  files:
    description: The files of the configuration.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: none
    description: The files have secrets.
"""

EXAMPLES = r"""
- name: Keep what the current version runs with
  mlops.mlflow.mlflow_switch:
    state: kept
    version: /opt/mlflow/3.17.2-8f6c1d
    files: [/etc/mlflow/mlflow.env, /etc/mlflow/basic_auth.ini, /etc/systemd/system/mlflow.service]
"""

RETURN = r"""
current:
  description: Folder of the version that is current now; empty when there is none.
  returned: always
  type: str
switches:
  description: Whether the current version is another one than O(version).
  returned: always
  type: bool
unsettled:
  description: Whether the configuration of another version is kept.
  returned: always
  type: bool
interrupted:
  description: Whether it was kept before, by a run that did not come to its end.
  returned: always
  type: bool
before:
  description: Folder of the version whose configuration is kept, or else of the current one.
  returned: always
  type: str
leaves:
  description: Whether the host leaves that version for O(version).
  returned: always
  type: bool
"""

import fcntl
import glob
import json
import os
import shutil

from ansible.module_utils.basic import AnsibleModule

FOLDER = "kept"
# What was kept, and where each file belongs; written last.
INDEX = "index.json"


def current(link: str) -> str:
    """Return what the link leads to, empty when it is not there."""
    return os.readlink(link) if os.path.islink(link) else ""


def kept(link: str) -> list[str]:
    """Return the complete folders of kept files beside the versions, the latest last."""
    found = glob.glob(os.path.join(os.path.dirname(link), "*", FOLDER, INDEX))
    # The link is no version of its own.
    return [os.path.dirname(path) for path in sorted(found, key=os.path.getmtime) if not os.path.islink(os.path.dirname(os.path.dirname(path)))]


def point(link: str, version: str) -> None:
    """Have the link lead to a version; it is there at every moment."""
    draft = f"{link}.{os.getpid()}"
    os.symlink(version, draft)
    os.replace(draft, link)


def copy(source: str, target: str) -> None:
    """Copy a file with its owner and mode; it is there whole or not at all."""
    draft = f"{target}.{os.getpid()}"
    shutil.copy2(source, draft)
    status = os.stat(source)
    os.chown(draft, status.st_uid, status.st_gid)
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
    os.replace(draft, target)


def keep(folder: str, files: list[str]) -> None:
    """Keep those of the files that are there. Two controllers may come at the same moment: the second finds it done."""
    lock = os.open(os.path.dirname(folder), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(folder, INDEX)):
            write(folder, files)
    finally:
        os.close(lock)


def write(folder: str, files: list[str]) -> None:
    """Copy the files into a new folder, and then its index."""
    if os.path.isdir(folder):
        shutil.rmtree(folder)
    os.mkdir(folder, 0o700)
    index = {os.path.basename(path): path for path in files if os.path.exists(path)}
    for name, path in index.items():
        copy(path, os.path.join(folder, name))
    draft = os.path.join(folder, INDEX + ".draft")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump({"files": index, "absent": sorted(set(files) - set(index.values()))}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, os.path.join(folder, INDEX))


def put_back(folder: str) -> None:
    """Put the files where they were; those that were not there then go."""
    with open(os.path.join(folder, INDEX), encoding="utf-8") as file:
        index = json.load(file)
    for name, path in index["files"].items():
        # As old as it was: a server that still runs with it is not to be restarted.
        copy(os.path.join(folder, name), path)
    for path in index["absent"]:
        if os.path.exists(path):
            os.remove(path)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "current", "back", "settled"], "required": True},
            "version": {"type": "path", "required": True},
            "link": {"type": "path", "default": "/opt/mlflow/current"},
            "files": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    state, version, link = module.params["state"], module.params["version"], module.params["link"]
    now, folders = current(link), kept(link)
    switches, interrupted, changed = now != version, bool(folders), False
    if state == "kept":
        folder = os.path.join(now, FOLDER)
        changed = switches and os.path.isdir(now) and folder not in folders
        if changed and not module.check_mode:
            keep(folder, module.params["files"])
        if not switches and folder in folders and not module.check_mode:
            # Another version was wanted and no longer is; what was written for it is written over in this run.
            shutil.rmtree(folder)
            interrupted = False
    elif state == "current":
        changed = switches
        if changed and not module.check_mode:
            point(link, version)
            now = version
    elif state == "back":
        changed = bool(folders)
        if changed and not module.check_mode:
            put_back(folders[-1])
            if now != os.path.dirname(folders[-1]):
                now = os.path.dirname(folders[-1])
                point(link, now)
            shutil.rmtree(folders[-1])
    elif state == "settled":
        changed = bool(folders)
        for folder in [] if module.check_mode else folders:
            shutil.rmtree(folder)
    left = kept(link)
    before = os.path.dirname(left[-1]) if left else now
    module.exit_json(
        changed=changed, current=now, switches=now != version, unsettled=bool(left), interrupted=interrupted, before=before, leaves=before not in ("", version)
    )


if __name__ == "__main__":
    main()
