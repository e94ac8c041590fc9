# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's part of the module site_lease: who it is, and whether another one on this machine has ended."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils import lease

display = Display()


class ActionModule(ActionBase):
    """Runs the module until it has the lease, or the time is up."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take or release it; see the module for the arguments."""
        result = super().run(tmp, task_vars)
        # A task runs in a child of the controller's process.
        machine, process = lease.machine(socket.gethostname()), os.getppid()
        mine = lease.holder(machine, process, lease.started(process))
        arguments = {**self._task.args, "holder": mine, "gone": ""}
        deadline, told = time.monotonic() + int(arguments.get("wait", 900)), False
        while True:
            answer = self._execute_module(module_name="mlops.mlflow.site_lease", module_args=arguments, task_vars=task_vars)
            other = answer.get("holder", mine)
            if answer.get("failed") or arguments.get("state") == "released" or other == mine:
                return {**result, **answer}
            if lease.is_gone(other, machine):
                arguments["gone"] = other
                continue
            if time.monotonic() > deadline:
                where = f"{answer['path']} on {self._task.delegate_to or (task_vars or {}).get('inventory_hostname')}"
                return {**result, "failed": True, "msg": lease.refusal(other, answer["age"], where)}
            if not told:
                display.display(f"Waiting for another run on this site: {other}")
                told = True
            time.sleep(2)
