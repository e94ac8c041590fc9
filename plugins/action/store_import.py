# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's part of the module store_import: it shows how far the module is."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor, TimeoutError as StillRunning
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils.store_progress import NAME
from ansible_collections.mlops.mlflow.plugins.module_utils.store_report import line_of

display = Display()

INTERVAL_S = 3


class ActionModule(ActionBase):
    """Runs the module, and reads what it writes of its progress meanwhile."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module for the arguments."""
        result = super().run(tmp, task_vars)
        path = f"{self._task.args['folder']}/{NAME}"
        with ThreadPoolExecutor(1) as other:
            running = other.submit(self._execute_module, task_vars=task_vars)
            shown = ""
            while True:
                try:
                    return {**result, **running.result(INTERVAL_S)}
                except StillRunning:
                    line = self._line(path)
                    if line not in ("", shown):
                        display.display(line)
                        shown = line

    def _line(self, path: str) -> str:
        """Return how far the module says that it is; nothing where it cannot be read, as that says nothing of the module."""
        try:
            answer = self._low_level_execute_command(f"cat {shlex.quote(path)}")
            return line_of(json.loads(answer["stdout"])) if answer["rc"] == 0 else ""
        except (AnsibleConnectionFailure, KeyError, ValueError):
            return ""
