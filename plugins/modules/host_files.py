#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Writes all files of a role in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Several files and folders at once
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Brings files and folders to what they should be, in the order of the list, each file in one step. A task for each of them would cost a connection and a
    Python each, also where nothing changes.
options:
  files:
    description: What there should be.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where.
        type: path
        required: true
      state:
        description: V(file) has O(files[].content) or what O(secrets) has for it, V(directory) is a folder, V(absent) is not there.
        type: str
        choices: [file, directory, absent]
        default: file
      content:
        description: All of the text of a file.
        type: str
      mode:
        description: Mode in octal, as a string; 0644 for files and 0755 for folders if it is not given.
        type: str
      owner:
        description: User that owns it.
        type: str
        default: root
      group:
        description: Group of it.
        type: str
        default: root
      validate:
        description: Command that ends with 0 if the content is right; C(%s) stands for a file that has it. Files before it in the list are there already.
        type: str
      marker:
        description: With V(absent), remove the file only if it has this text, as there may be one of somebody else's.
        type: str
  secrets:
    description: Texts of files that are in no output, no log and no diff, by the path that O(files) has too.
    type: dict
    default: {}
  folders:
    description: Folders in which nothing else is to be than what O(files) names.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: full
    description: Shows each file, but for those that are secret.
"""

EXAMPLES = r"""
- name: Write the configuration
  mlops.mlflow.host_files:
    files:
      - {path: /etc/mlflow, state: directory, group: mlflow, mode: "0750"}
      - {path: /etc/mlflow/mlflow.env, mode: "0600"}
    secrets:
      /etc/mlflow/mlflow.env: "{{ mlflow_environment | mlops.mlflow.environment_file }}"
  become: true
"""

RETURN = r"""
changed_paths:
  description: What was changed, or would be in check mode.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def strays(folder: str, wanted: list[str]) -> list[str]:
    """Return the files and links that are in a folder and not wanted there.

    Args:
        folder: may not be there.
        wanted: whole paths.

    Returns:
        Whole paths, in order.
    """
    there = [entry.path for entry in os.scandir(folder) if not entry.is_dir(follow_symlinks=False)] if os.path.isdir(folder) else []
    return sorted(set(there) - set(wanted))


def read(path: str) -> bytes | None:
    """Return what a file has; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError):
        return None


class Writer:
    """Writes, or says what would be written."""

    def __init__(self, module: AnsibleModule) -> None:
        """Start with nothing changed.

        Args:
            module: for its way to write, its check mode and its way to fail.
        """
        self.module = module
        self.changed: list[str] = []
        self.diff: list[dict[str, str]] = []

    def check(self, entry: dict[str, Any]) -> None:
        """Fail where a content is wrong."""
        handle, path = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(handle, "wb") as file:
            file.write(entry["content"].encode())
        code, stdout, stderr = self.module.run_command(entry["validate"].replace("%s", path))
        os.unlink(path)
        if code != 0:
            self.module.fail_json(msg=f"{entry['path']} would be wrong, and was not written: {(stderr or stdout).strip()}", changed_paths=self.changed)

    def note(self, entry: dict[str, Any], before: str, after: str) -> None:
        """Remember a change, for the answer and the diff."""
        if entry["path"] not in self.changed:
            self.changed.append(entry["path"])
        hidden = {"before": "(secret)\n", "after": "(another secret)\n"}
        shown = hidden if entry["secret"] else {"before": before, "after": after}
        self.diff.append({"before_header": entry["path"], "after_header": entry["path"], **shown})

    def own(self, path: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Give a file or folder the owner, group and mode of an entry; return what differed, before and after."""
        mode = entry["mode"] or ("0755" if entry["state"] == "directory" else "0644")
        wanted = {"path": path, "owner": entry["owner"], "group": entry["group"], "mode": mode, "attributes": None, "secontext": [None, None, None]}
        diff: dict[str, Any] = {}
        return diff if self.module.set_fs_attributes_if_different(wanted, False, diff=diff) else {}

    def attributes(self, entry: dict[str, Any]) -> None:
        """Give what is there its owner, group and mode."""
        if not os.path.lexists(entry["path"]):
            return
        diff = self.own(entry["path"], entry)
        if diff:
            sides = {side: "".join(f"{name}: {value}\n" for name, value in diff[side].items() if name != "path") for side in ("before", "after")}
            self.note(entry | {"secret": False}, **sides)

    def bring(self, entry: dict[str, Any]) -> None:
        """Bring one of them to what it should be."""
        getattr(self, entry["state"])(entry)

    def absent(self, entry: dict[str, Any]) -> None:
        """Remove a file or a link."""
        path = entry["path"]
        if not os.path.lexists(path) or (entry["marker"] and entry["marker"].encode() not in (read(path) or b"")):
            return
        self.note(entry, (read(path) or b"").decode("utf-8", "replace"), "")
        if not self.module.check_mode:
            os.unlink(path)

    def directory(self, entry: dict[str, Any]) -> None:
        """Make a folder, and those above it that are missing, for the same owner. A link to a folder counts as the folder."""
        entry = entry | {"path": os.path.realpath(entry["path"])}
        path = entry["path"]
        if not os.path.isdir(path):
            self.note(entry, "", "a folder\n")
            if not self.module.check_mode:
                self.make(entry)
        self.attributes(entry)

    def make(self, entry: dict[str, Any]) -> None:
        """Make a folder and those above it."""
        above = os.path.dirname(entry["path"])
        if not os.path.isdir(above):
            self.make(entry | {"path": above})
        os.mkdir(entry["path"], 0o700)
        self.own(entry["path"], entry)

    def file(self, entry: dict[str, Any]) -> None:
        """Write a file, in one step."""
        path, content = entry["path"], entry["content"].encode()
        before = read(path)
        if before != content:
            if entry["validate"] and not self.module.check_mode:
                self.check(entry)
            self.note(entry, (before or b"").decode("utf-8", "replace"), entry["content"])
            if not self.module.check_mode:
                self.replace(entry, content)
        self.attributes(entry)

    def replace(self, entry: dict[str, Any], content: bytes) -> None:
        """Write it beside its place, where nobody reads it before it has its owner and mode, and move it there."""
        handle, beside = tempfile.mkstemp(dir=os.path.dirname(entry["path"]), prefix=".ansible-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(handle)
            self.own(beside, entry)
            os.replace(beside, entry["path"])
        finally:
            if os.path.exists(beside):
                os.unlink(beside)


def main() -> None:
    """Entry point."""
    suboptions = {
        "path": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
        "content": {"type": "str"},
        "mode": {"type": "str"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "validate": {"type": "str"},
        "marker": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": suboptions},
            # Not in the entries: Ansible would look for the secrets in the text that it logs of them, where line feeds are written otherwise.
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "folders": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    entries = module.params["files"]
    wanted = [entry["path"] for entry in entries if entry["state"] != "absent"]
    nothing = dict.fromkeys(suboptions) | {"state": "absent"}
    entries = entries + [nothing | {"path": path} for folder in module.params["folders"] for path in strays(folder, wanted)]
    # Everything below knows one text, and whether it may be shown.
    secrets = module.params["secrets"]
    entries = [entry | {"secret": entry["path"] in secrets, "content": secrets.get(entry["path"], entry["content"])} for entry in entries]
    for entry in entries:
        if entry["state"] == "file" and entry["content"] is None:
            module.fail_json(msg=f"{entry['path']} has no content")
    writer = Writer(module)
    for entry in entries:
        writer.bring(entry)
    module.exit_json(changed=bool(writer.changed), changed_paths=writer.changed, diff=writer.diff)


if __name__ == "__main__":
    main()
