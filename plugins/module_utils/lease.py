# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Who holds the lease of a site: a process of some controller."""

from __future__ import annotations

import os
import re

# A process's number means something within one such space only, and containers of one name may have several.
NAMESPACE = "/proc/self/ns/pid"
HOLDER = re.compile(r"process (?P<process>\d+) \(started at (?P<started>\d*)\) on (?P<machine>\S+)")


def holder(machine: str, process: int, start: str) -> str:
    """Return the name of a holder.

    Args:
        machine: name of the controller's host.
        process: id of its ansible-playbook.
        start: when that began, in whatever unit; ids come again.
    """
    return f"process {process} (started at {start}) on {machine}"


def machine(name: str) -> str:
    """Return what tells where a process's number counts.

    Args:
        name: of the host; a container may have another's.
    """
    return name + re.sub(r"\D+", "-", os.readlink(NAMESPACE)).rstrip("-") if os.path.islink(NAMESPACE) else name


def started(process: int) -> str:
    """Return when a process of this machine began, in the kernel's clock ticks; empty when there is none, or no /proc."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            # The second field is the program's name, which may have spaces and parentheses.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    # One that has ended, and whose parent has not asked how yet, does nothing any more.
    return "" if fields[0] in "ZX" else fields[19]


def is_gone(name: str, machine: str) -> bool:
    """Tell whether a holder is known to have ended.

    Args:
        name: of the holder.
        machine: this one; of another's processes nothing is known.
    """
    match = HOLDER.fullmatch(name)
    if match is None or match["machine"] != machine or not os.path.isdir("/proc/self"):
        return False
    return started(int(match["process"])) != match["started"]


def refusal(name: str, age: int, place: str) -> str:
    """Say that somebody else holds it still.

    Args:
        name: of the holder.
        age: seconds since it last said so.
        place: the file that says so, and its host.
    """
    return (
        f"Another run changes this site: {name}, which said so {age} s ago. Wait for it to end and run this again; "
        f"if that machine is gone for good, remove {place} first."
    )
