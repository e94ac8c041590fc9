#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Looks at what the checks before an installation need and facts do not tell."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_report
short_description: What a host has running, resolves and has room for
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Returns the listening TCP sockets with the user, unit and program behind each, the names that do not resolve, the free disk and the time.
  - Changes nothing. Where it may not look into other users' processes, a socket has its user, but no unit and no program.
options:
  names:
    description: Names to resolve, each with the variable that it comes from.
    type: list
    elements: dict
    default: []
    suboptions:
      variable:
        description: The variable.
        type: str
        required: true
      name:
        description: The name.
        type: str
        required: true
  markers:
    description: Paths of which at least one exists once the host has been set up.
    type: list
    elements: path
    required: true
  controller_time:
    description: The controller's clock, in seconds since the epoch.
    type: float
    required: true
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Look at the host
  mlops.mlflow.host_report:
    markers: [/opt/mlflow/current]
    controller_time: "{{ now().timestamp() }}"
    names:
      - {variable: mlflow_database_host, name: db.example.org}
  become: true
"""

RETURN = r"""
report:
  description: What was seen.
  returned: always
  type: dict
  contains:
    listeners:
      description: Port, user, unit and program of each listening TCP socket.
      type: list
      elements: dict
    unresolved:
      description: Variable and name of each name that does not resolve.
      type: list
      elements: list
    free_mib:
      description: Free disk at /, in MiB.
      type: int
    installed:
      description: Whether one of the markers exists.
      type: bool
    clusters:
      description: Version and name of each PostgreSQL cluster, and whether this collection made it.
      type: list
      elements: dict
    foreign_unit:
      description: Whether there is a unit mlflow.service that this collection did not write.
      type: bool
    clock_skew:
      description: Seconds that the host's clock is ahead of the controller's.
      type: float
"""

import glob
import os
import pwd
import socket
import time

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"


def user_name(uid: int) -> str:
    """Return the name of a user, or the number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def listening_inodes() -> dict[str, tuple[int, str]]:
    """Return the inode, the port and the user of each listening TCP socket."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table, encoding="ascii") as file:
            next(file)
            for line in file:
                fields = line.split()
                if fields[3] == LISTEN:
                    inodes[fields[9]] = (int(fields[1].rpartition(":")[2], 16), user_name(int(fields[7])))
    return inodes


def text(path: str) -> str:
    """Return a file of /proc, empty when the process has gone or is not ours to see."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def unit_of(cgroup: str) -> str:
    """Return the service in the lines of /proc/PID/cgroup, empty when there is none."""
    for line in cgroup.splitlines():
        for part in reversed(line.split("/")):
            if part.endswith(".service"):
                return part
    return ""


def listeners() -> list[dict]:
    """Return port, user, unit and program of each listening TCP socket."""
    inodes = listening_inodes()
    owners: dict[str, tuple[str, str]] = {}
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        inode = target[8:-1] if target.startswith("socket:[") else ""
        if inode in inodes and inode not in owners:
            process = link.split("/")[2]
            owners[inode] = (unit_of(text(f"/proc/{process}/cgroup")), text(f"/proc/{process}/comm").strip())
    found = []
    for inode, (port, user) in inodes.items():
        unit, program = owners.get(inode, ("", ""))
        found.append({"port": port, "user": user, "unit": unit, "program": program})
    return found


def clusters() -> list[dict]:
    """Return version and name of each PostgreSQL cluster, and whether this collection made it."""
    found = []
    for folder in sorted(glob.glob("/etc/postgresql/*/*")):
        version, name = folder.split("/")[-2:]
        # The second: a run that was interrupted before it wrote the first.
        ours = os.path.exists(f"{folder}/conf.d/mlops.conf") or os.path.exists("/etc/postgresql-common/createcluster.d/mlops.conf")
        found.append({"version": version, "name": name, "ours": ours})
    return found


def foreign_unit() -> bool:
    """Tell whether there is a unit mlflow.service that this collection did not write."""
    unit = text("/etc/systemd/system/mlflow.service")
    return unit != "" and "mlops.mlflow" not in unit


def resolves(name: str) -> bool:
    """Tell whether the host finds an address for a name."""
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        # UnicodeError: a label is empty or too long to ask for.
        return False
    return True


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "names": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"variable": {"type": "str", "required": True}, "name": {"type": "str", "required": True}},
            },
            "markers": {"type": "list", "elements": "path", "required": True},
            "controller_time": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    disk = os.statvfs("/")
    module.exit_json(
        changed=False,
        report={
            "listeners": listeners(),
            "unresolved": [[each["variable"], each["name"]] for each in module.params["names"] if not resolves(each["name"])],
            "free_mib": disk.f_bavail * disk.f_frsize // (1024 * 1024),
            "installed": any(os.path.exists(path) for path in module.params["markers"]),
            "clusters": clusters(),
            "foreign_unit": foreign_unit(),
            "clock_skew": time.time() - module.params["controller_time"],
        },
    )


if __name__ == "__main__":
    main()
