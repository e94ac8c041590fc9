"""Who holds a site's lease, and whether he is still there."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.mlops.mlflow.plugins.module_utils import lease


def test_a_process_that_runs_is_there() -> None:
    """This one."""
    name = lease.holder("here", os.getpid(), lease.started(os.getpid()))
    assert lease.started(os.getpid()).isdigit() and not lease.is_gone(name, "here")


def test_another_process_with_the_same_id_is_another_one() -> None:
    """Ids come again; the time of the start does not."""
    assert lease.is_gone(lease.holder("here", os.getpid(), "1"), "here")


def test_a_process_that_ended_is_gone() -> None:
    """Also while nobody has asked yet how it ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = lease.holder("here", child.pid, lease.started(child.pid))
        assert not lease.is_gone(name, "here")
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert lease.is_gone(name, "here")
    assert lease.is_gone(name, "here")


def test_nothing_is_known_of_another_machine() -> None:
    """Nor of a holder that another release has written in another way."""
    assert not lease.is_gone(lease.holder("elsewhere", os.getpid(), "1"), "here")
    assert not lease.is_gone("somebody", "here")


def test_a_machine_is_one_space_of_processes() -> None:
    """Two containers of one name may have the same process twice."""
    assert lease.HOLDER.fullmatch(lease.holder(lease.machine("here"), 1, "2"))["machine"] == lease.machine("here")
    assert lease.machine("here") == "here" if sys.platform != "linux" else lease.machine("here").startswith("here-")


def test_the_refusal_says_who_and_what_to_do() -> None:
    """Word for word."""
    assert lease.refusal("process 7 (started at 1) on there", 40, "/run/mlops-site.lease on data") == (
        "Another run changes this site: process 7 (started at 1) on there, which said so 40 s ago. Wait for it to end and run this again; if that machine is "
        "gone for good, remove /run/mlops-site.lease on data first."
    )
