# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's part of the module bundle_place: it makes the tarball for a kind of host, and brings it."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle

display = Display()


def part_of(folder: Path, targets: list[str]) -> Path:
    """Return the tarball with what some kinds of hosts need; it is made once."""
    tarball = folder.with_name(f"{folder.name}-{'-'.join(sorted(targets))}.tar")
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            bundle.part(json.loads((folder / bundle.MANIFEST).read_bytes()), folder, targets, tarball)
    return tarball


class ActionModule(ActionBase):
    """Brings the part of a host where it is not there yet."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module for the arguments."""
        result = super().run(tmp, task_vars)
        folder = Path(self._task.args["folder"])
        name, arguments = "mlops.mlflow.bundle_place", {**self._task.args, "sha256": bundle.digest(folder / bundle.MANIFEST)}
        answer = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        # With a URL the host has got it by itself.
        if answer.get("failed") or answer["complete"] or self._task.check_mode:
            return {**result, **answer}
        tarball = part_of(folder, arguments["targets"])
        display.display(f"{(task_vars or {}).get('inventory_hostname')}: copying {tarball.stat().st_size >> 20} MiB")
        temporary = self._make_tmp_path()
        try:
            arguments["part"] = self._transfer_file(str(tarball), self._connection._shell.join_path(temporary, "part.tar"))
            return {**result, **self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)}
        finally:
            self._remove_tmp_path(temporary, force=True)
