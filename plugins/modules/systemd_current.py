#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keeps a systemd service running with the files that it was configured with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_current
short_description: A systemd service that runs with its current files
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Enables and starts a service, restarts it only when one of its files is newer than its process, and reloads it when one of those that it
    takes up by a reload is newer than its last reload.
  - A handler forgets what a run that was interrupted had still to restart; the age of the process does not.
options:
  name:
    description: The unit.
    type: str
    required: true
  files:
    description: Files and links that the process reads at its start, the unit's own file included.
    type: list
    elements: path
    required: true
  reload_files:
    description: Files that a reload is enough for.
    type: list
    elements: path
    default: []
  follow_program:
    description: Restart the service also when its program, or a library that it has loaded, was replaced under it, as an upgrade of packages does.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: none
    description: There is nothing to show beyond the message.
"""

EXAMPLES = r"""
- name: Run the server with its current configuration
  mlops.mlflow.systemd_current:
    name: mlflow.service
    files:
      - /etc/systemd/system/mlflow.service
      - /etc/mlflow/mlflow.env
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
"""

import os
import re
import time

from ansible.module_utils.basic import AnsibleModule

# What the kernel adds to the path of a file that is open and has no name any longer.
GONE = " (deleted)"


def actions_for(
    state: dict[str, str], newest: float, started: float, newest_reload: float = 0.0, loaded: float = 0.0, replaced: bool = False
) -> list[str]:
    """Decide what a service needs.

    Args:
        state: properties of the unit: ActiveState, UnitFileState, NeedDaemonReload.
        newest: when the newest of its files was written, in seconds since the epoch.
        started: when its process started, in the same unit; anything when it does not run.
        newest_reload: when the newest of the files was written that a reload is enough for.
        loaded: when it was reloaded or started last.
        replaced: whether it runs a program or a library that is no longer there.

    Returns:
        Words of systemctl, in the order to run them.
    """
    actions = []
    if state.get("NeedDaemonReload") == "yes" or state.get("LoadState") == "not-found":
        actions.append("daemon-reload")
    if state.get("UnitFileState") != "enabled":
        actions.append("enable")
    if state.get("ActiveState") in ("active", "activating", "reloading") and (newest > started or replaced):
        actions.append("restart")
    elif state.get("ActiveState") not in ("active", "reloading"):
        # Of a service that is about to start anyway, this waits for the end.
        actions.append("start")
    elif newest_reload > loaded:
        actions.append("reload")
    return actions


def newest(paths: list[str]) -> float:
    """Return when the newest of some files was written, in seconds since the epoch."""
    return max((os.lstat(path).st_mtime for path in paths if os.path.lexists(path)), default=0.0)


def is_replaced(process: str | None) -> bool:
    """Tell whether a process, by its number, runs a program or a library that is no longer there."""
    folder = f"/proc/{int(process or 0)}"
    try:
        with open(f"{folder}/maps", encoding="utf-8", errors="replace") as file:
            mapped = [line.rstrip("\n") for line in file]
        return os.readlink(f"{folder}/exe").endswith(GONE) or any(is_library(line) and line.endswith(GONE) for line in mapped)
    except OSError:
        return False


def is_library(line: str) -> bool:
    """Tell whether a line of a process's memory map is a library's code."""
    fields = line.split(None, 5)
    return len(fields) == 6 and "x" in fields[1] and re.search(r"\.so\b", fields[5]) is not None


def wall_clock(monotonic: str | None) -> float:
    """Return one of systemd's monotonic times, in microseconds, as seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + int(monotonic or 0) / 1e6


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "reload_files": {"type": "list", "elements": "path", "default": []},
            "follow_program": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    properties = "LoadState,MainPID,ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestampMonotonic,StateChangeTimestampMonotonic"
    dummy, stdout, dummy = module.run_command(["systemctl", "show", name, f"--property={properties}"], check_rc=True)
    state = dict(line.split("=", 1) for line in stdout.splitlines() if "=" in line)
    started = wall_clock(state.get("ExecMainStartTimestampMonotonic"))
    # Of a service that runs, the last change of state is its start or its last reload.
    loaded = wall_clock(state.get("StateChangeTimestampMonotonic"))
    replaced = module.params["follow_program"] and is_replaced(state.get("MainPID"))
    actions = actions_for(state, newest(module.params["files"]), started, newest(module.params["reload_files"]), loaded, replaced)
    for action in [] if module.check_mode else actions:
        command = ["systemctl", action] + ([] if action == "daemon-reload" else [name])
        rc, dummy, stderr = module.run_command(command)
        if rc != 0:
            # A reload that failed changed the state too; the next run is to see that it is still to be done.
            for path in [path for path in module.params["reload_files"] if action == "reload" and os.path.exists(path)][:1]:
                os.utime(path)
            dummy, log, dummy = module.run_command(["journalctl", "--unit", name, "--lines", "20", "--no-pager", "--output", "cat"])
            module.fail_json(msg=f"{' '.join(command)} failed: {stderr.strip()}", rc=rc, journal=log.splitlines())
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
