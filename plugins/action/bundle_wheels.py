# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Downloads the wheels of locks for a kind of host, on the controller; see the module for the arguments."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle, sbom

display = Display()

# So many wheels at a time: what was downloaded before an interruption is not downloaded again, and progress can be seen.
AT_ONCE = 10


def download(where: bundle.Target, entries: list[str], path: Path) -> list[str]:
    """Have pip download wheels that another machine will install; it checks their hashes.

    Args:
        where: the kind of host.
        entries: lines of a lock, with hashes.
        path: the folder.

    Returns:
        The names of the files.
    """
    with tempfile.TemporaryDirectory(dir=path) as fresh:
        lock = Path(fresh) / "lock.txt"
        lock.write_text("\n".join(entries) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--progress-bar=off", "--no-input", f"--dest={fresh}"]
        command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={where.markers['python_version']}"]
        command += [part for tag in where.platforms for part in ("--platform", tag)]
        done = subprocess.run([*command, f"--requirement={lock}"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AnsibleActionFail(f"pip cannot download the wheels for {where.name}: {(done.stderr or done.stdout).strip()[-2000:]}")
        names = sorted(wheel.name for wheel in Path(fresh).glob("*.whl"))
        for name in names:
            (Path(fresh) / name).replace(path / name)
    return names


def described(wheel: Path) -> dict[str, str]:
    """Return name, version and licence of a wheel, by its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        inside = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(inside))
    return {"name": str(metadata["Name"]), "version": str(metadata["Version"]), **sbom.licence_of(metadata)}


class ActionModule(ActionBase):
    """Makes the folder of wheels."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module."""
        result = super().run(tmp, task_vars)
        dummy, options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "cache": {"type": "path", "required": True},
                "target": {"type": "str", "required": True},
                "locks": {"type": "list", "elements": "path", "required": True},
            }
        )
        where, path = bundle.target(options["target"]), Path(options["path"])
        # Each lock by itself: two of them may have one package in two versions.
        locks = [bundle.requirements(Path(lock).read_text(encoding="utf-8"), where) for lock in options["locks"]]
        chunks = [entries[start : start + AT_ONCE] for entries in locks for start in range(0, len(entries), AT_ONCE)]
        if self._task.check_mode:
            return {**result, "changed": True, "wheels": []}
        path.mkdir(parents=True, exist_ok=True)
        notes = Path(options["cache"]) / f"wheels-{where.name}.json"
        notes.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
        wheels, downloaded = set(), 0
        for number, chunk in enumerate(chunks, 1):
            key = hashlib.sha256("\n".join(chunk).encode()).hexdigest()
            names = known.get(key, [])
            # Whatever happened to the files since then, what goes into the bundle is what the lock has.
            if not names or not all((path / name).is_file() and bundle.digest(path / name) in "".join(chunk) for name in names):
                display.display(f"{where.name}: wheels, part {number} of {len(chunks)}")
                names = download(where, chunk, path)
                downloaded += len(names)
                known[key] = names
                notes.write_text(json.dumps(known), encoding="utf-8")
            wheels |= set(names)
        listed = [{"file": name, **described(path / name)} for name in sorted(wheels)]
        return {**result, "changed": downloaded > 0, "downloaded": downloaded, "wheels": listed}
