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
  - Returns the listening sockets with the user, unit and program behind each, the names that do not resolve, the disks, the time, and what
    servers that are there already run with.
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
      description: Protocol, address, port, user, unit and program of each TCP socket that listens, and each UDP socket that waits on a port of its own.
      type: list
      elements: dict
    ssh_connection:
      description: Address and port of the client, then of the host, of the SSH session that looked; empty when it came in another way.
      type: str
    ssh_ports:
      description: TCP ports by which SSH comes in.
      type: list
      elements: int
    unresolved:
      description: Variable and name of each name that does not resolve.
      type: list
      elements: list
    resolved:
      description: The addresses of each name.
      type: dict
    free_mib:
      description: Free disk at /, in MiB.
      type: int
    packages:
      description: Names of the packages that are installed, on Debian and its like.
      type: list
      elements: str
    users:
      description: Names of the host's own users.
      type: list
      elements: str
    packages_unfinished:
      description: Whether an installation of packages was interrupted.
      type: bool
    installed:
      description: Whether one of the markers exists.
      type: bool
    clusters:
      description: Version and name of each PostgreSQL cluster, whether this collection made it, whether it stands aside of the one with the data, for the
        way back from an upgrade, and the rows of C(pg_settings) by name where it runs.
      type: list
      elements: dict
    database_disk:
      description: Size in MiB and kind (ssd, hdd) of the file system that has or will have PostgreSQL's data.
      type: dict
    mlflow:
      description: Worker processes and sizes of the pools that MLflow is configured with.
      type: dict
    foreign_unit:
      description: Whether there is a unit mlflow.service that this collection did not write.
      type: bool
    clock_skew:
      description: Seconds that the host's clock is ahead of the controller's.
      type: float
"""

import glob
import json
import os
import re
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import postgresql_upgrade
from ansible_collections.mlops.mlflow.plugins.module_utils.sockets import listeners, ssh_connection, ssh_ports, text

# Through the local socket, TCP's settings read as 0 whatever the file says.
SETTINGS = """
SELECT json_object_agg(name, json_build_object('setting', CASE WHEN name LIKE 'tcp%' THEN coalesce(written, setting) ELSE setting END, 'unit', unit,
  'vartype', vartype, 'context', context, 'min_val', min_val, 'max_val', max_val, 'enumvals', enumvals, 'pending_restart', pending_restart,
  'source', source, 'boot_val', boot_val, 'ours', coalesce(sourcefile, '') LIKE '%/conf.d/mlops.conf'))
FROM pg_settings LEFT JOIN LATERAL (
  SELECT f.setting AS written FROM pg_file_settings f WHERE f.name = pg_settings.name AND f.applied ORDER BY seqno DESC LIMIT 1) f ON true
"""

MLFLOW_VARIABLES = ("MLFLOW_WORKERS", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW")


def settings(module: AnsibleModule, version: str, name: str) -> dict:
    """Return the rows of pg_settings of a cluster that runs, by name; empty when it does not, or lets nobody in."""
    lines = text(f"/var/lib/postgresql/{version}/{name}/postmaster.pid").splitlines()
    # Lines 4 and 5 are the port and the socket's folder.
    if len(lines) < 5 or not os.path.exists(f"{lines[4]}/.s.PGSQL.{lines[3]}"):
        return {}
    psql = ["runuser", "-u", "postgres", "--", f"/usr/lib/postgresql/{version}/bin/psql", "-XAtq", "-h", lines[4], "-p", lines[3], "-c", SETTINGS]
    rc, stdout, dummy = module.run_command(psql, cwd="/", environ_update={"PGCONNECT_TIMEOUT": "10"})
    return json.loads(stdout) if rc == 0 else {}


def is_hard_disk(device: str) -> bool:
    """Tell whether a block device, or one below it, rotates; those of a virtual machine say so whatever they are."""
    base = os.path.realpath(f"/sys/class/block/{device}")
    if os.path.exists(f"{base}/partition"):
        base = os.path.dirname(base)
    below = os.listdir(f"{base}/slaves") if os.path.isdir(f"{base}/slaves") else []
    return any(map(is_hard_disk, below)) if below else text(f"{base}/queue/rotational").strip() == "1"


def database_disk(module: AnsibleModule) -> dict:
    """Return size and kind of the file system that has or will have PostgreSQL's data."""
    path = "/var/lib/postgresql"
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status, mount = os.statvfs(path), os.path.realpath(path)
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    sources = [line.split(" - ")[1].split()[1] for line in text("/proc/self/mountinfo").splitlines() if line.split()[4] == mount]
    device = os.path.basename(os.path.realpath(sources[-1])) if sources and sources[-1].startswith("/dev/") else ""
    virtual = module.run_command(["systemd-detect-virt", "--quiet"])[0] == 0
    kind = "hdd" if device and not virtual and is_hard_disk(device) else "ssd"
    return {"size_mib": status.f_blocks * status.f_frsize // (1024 * 1024), "kind": kind}


def mlflow() -> dict:
    """Return what MLflow is configured with, by the names of its variables; nothing of it is secret."""
    environment = text("/etc/mlflow/mlflow.env")
    found = {name: re.search(f'^{name}="?([0-9]+)"?$', environment, re.MULTILINE) for name in MLFLOW_VARIABLES}
    return {name: match.group(1) for name, match in found.items() if match}


def clusters(module: AnsibleModule) -> list[dict]:
    """Return version and name of each PostgreSQL cluster, whether this collection made it, and its settings."""
    found = []
    # pg_dropcluster leaves the folder where it has files of ours.
    for folder in sorted(map(os.path.dirname, glob.glob("/etc/postgresql/*/*/postgresql.conf"))):
        version, name = folder.split("/")[-2:]
        # The second: a run that was interrupted before it wrote the first.
        ours = os.path.exists(f"{folder}/conf.d/mlops.conf") or os.path.exists("/etc/postgresql-common/createcluster.d/mlops.conf")
        aside = postgresql_upgrade.aside(postgresql_upgrade.read_journal(name)) == version
        found.append({"version": version, "name": name, "ours": ours, "aside": aside, "settings": settings(module, version, name) if ours else {}})
    return found


def foreign_unit() -> bool:
    """Tell whether there is a unit mlflow.service that this collection did not write."""
    unit = text("/etc/systemd/system/mlflow.service")
    return unit != "" and "mlops.mlflow" not in unit


def packages(listing: str) -> tuple[list[str], bool]:
    """Tell what is installed.

    Args:
        listing: a line for each package, with its status and its name, as dpkg-query shows it.

    Returns:
        The names of those that are installed, and whether the installation of any was interrupted.
    """
    lines = [line.split() for line in listing.splitlines()]
    unfinished = {status for status, dummy_name in lines} - {"installed", "not-installed", "config-files"}
    return [name for status, name in lines if status == "installed"], bool(unfinished)


def addresses(name: str) -> list[str]:
    """Return the addresses that the host finds for a name; none when it does not resolve."""
    try:
        found = socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        # UnicodeError: a label is empty or too long to ask for.
        return []
    return sorted({address[0] for dummy_family, dummy_kind, dummy_protocol, dummy_canonical, address in found})


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
    dpkg = module.get_bin_path("dpkg-query")
    installed, unfinished = packages(module.run_command([dpkg, "--show", "--showformat", "${db:Status-Status} ${Package}\n"])[1] if dpkg else "")
    resolved = {each["name"]: addresses(each["name"]) for each in module.params["names"]}
    module.exit_json(
        changed=False,
        report={
            "listeners": listeners(),
            "ssh_connection": ssh_connection(),
            "ssh_ports": ssh_ports(module),
            "unresolved": [[each["variable"], each["name"]] for each in module.params["names"] if not resolved[each["name"]]],
            "resolved": resolved,
            "free_mib": disk.f_bavail * disk.f_frsize // (1024 * 1024),
            "packages": installed,
            "users": sorted(line.split(":")[0] for line in text("/etc/passwd").splitlines()),
            # The folder has files where dpkg was killed in its work.
            "packages_unfinished": unfinished or bool(glob.glob("/var/lib/dpkg/updates/[0-9]*")),
            "installed": any(os.path.exists(path) for path in module.params["markers"]),
            "clusters": clusters(module),
            "database_disk": database_disk(module),
            "mlflow": mlflow(),
            "foreign_unit": foreign_unit(),
            "clock_skew": time.time() - module.params["controller_time"],
        },
    )


if __name__ == "__main__":
    main()
