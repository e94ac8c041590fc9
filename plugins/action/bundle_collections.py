# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Packs collections that the controller has, on the controller; see the module for the arguments."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


def built(source: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yield path and content of each file that a release of a checkout has, and where it leads if it is a link."""
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    with tempfile.TemporaryDirectory() as folder:
        command = [galaxy, "collection", "build", source, "--output-path", folder]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AnsibleActionFail(f"ansible-galaxy cannot build {source}: {done.stderr.strip()[-2000:]}")
        with tarfile.open(sorted(Path(folder).glob("*.tar.gz"))[0]) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member) if member.isfile() else None
                if member.issym() or content is not None:
                    yield member.name, content.read() if content is not None else b"", member.linkname


def installed(source: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yield the same of an installed collection; what somebody has put beside its files is none of its."""
    listed = json.loads((source / "FILES.json").read_text(encoding="utf-8"))["files"]
    for name in ["FILES.json", "MANIFEST.json", *(entry["name"] for entry in listed)]:
        if (source / name).is_symlink():
            yield name, b"", os.readlink(source / name)
        elif (source / name).is_file():
            yield name, (source / name).read_bytes(), ""


def packed(collections: dict[str, Path]) -> bytes:
    """Return a tarball of collections; the same files make the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, source in sorted(collections.items()):
            for path, content, link in sorted(built(source) if (source / "galaxy.yml").exists() else installed(source)):
                member = tarfile.TarInfo(f"ansible_collections/{name.replace('.', '/')}/{path}")
                member.size, member.mode = len(content), 0o644
                if link:
                    member.type, member.linkname = tarfile.SYMTYPE, link
                archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


class ActionModule(ActionBase):
    """Makes the tarball."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module."""
        result = super().run(tmp, task_vars)
        dummy, options = self.validate_argument_spec(
            argument_spec={"path": {"type": "path", "required": True}, "collections": {"type": "list", "elements": "str", "required": True}}
        )
        sources = {}
        for name in options["collections"]:
            try:
                module = import_module(f"ansible_collections.{name}")
            except ImportError as error:
                raise AnsibleActionFail(f"The controller has no collection {name}, which the bundle needs: ansible-galaxy collection install {name}") from error
            # ansible-galaxy leaves out links that lead out of a folder which is a link itself.
            sources[name] = Path(next(iter(module.__path__))).resolve()
        content, path = packed(sources), Path(options["path"])
        changed = not path.exists() or path.read_bytes() != content
        if changed and not self._task.check_mode:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return {**result, "changed": changed}
