# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Downloads the closure of Debian packages for a kind of host, and makes a repository of it, on the controller; see the module for the arguments."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle

display = Display()

# So many packages at a time: what was downloaded before an interruption is not downloaded again, and progress can be seen.
AT_ONCE = 20


def run(*command: str | Path, **options: Any) -> str:
    """Return what a program prints; what it says when it fails is the error."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **options.pop("environment", {})}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AnsibleActionFail(f"{' '.join(map(str, command[:3]))} … failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


class Apt:
    """apt for another release and machine than this one, with folders of its own; it needs no root, and this machine's own apt sees nothing of it."""

    def __init__(self, folder: Path, where: bundle.Target, sources: list[str]) -> None:
        """Make its folders.

        Args:
            folder: for its state.
            where: the release and the architecture.
            sources: lines as in sources.list.
        """
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        written = folder / "sources.list"
        self.is_new = not written.exists() or written.read_text(encoding="utf-8") != "\n".join(sources) + "\n"
        written.write_text("\n".join(sources) + "\n", encoding="utf-8")
        self.archives = folder / "archives"
        settings = {
            "APT::Architecture": where.architecture,
            "APT::Architectures": where.architecture,
            "APT::Get::List-Cleanup": "false",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Dir::Cache": folder,
            "Dir::Cache::archives": self.archives,
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": written,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
        }
        self.options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        self.is_new = self.is_new or not any(each.is_file() and each.name != "lock" for each in (folder / "lists").iterdir())

    def get(self, *arguments: str) -> str:
        """Run apt-get."""
        return run("apt-get", "-qq", "--yes", *self.options, *arguments)

    def describe(self, packages: list[bundle.Package]) -> str:
        """Return the paragraphs of packages."""
        return run("apt-cache", *self.options, "show", *(f"{package.name}={package.version}" for package in packages))

    def date(self) -> str:
        """Return the newest date of the lists."""
        releases = [path.read_text(encoding="utf-8") for path in (self.archives.parent / "lists").glob("*Release")]
        dates = [fields["Date"] for text in releases for fields in bundle.stanzas(text.split("\nSHA256:")[0]) if "Date" in fields]
        return max(dates, key=bundle.seconds)


def licence(deb: Path, name: str) -> str:
    """Return the licences of a Debian package by its copyright file, empty where that is no list."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        try:
            file = archive.extractfile(f"./usr/share/doc/{name}/copyright")
        except KeyError:
            return ""
        return bundle.licences(file.read().decode("utf-8", "replace")) if file else ""


class ActionModule(ActionBase):
    """Makes the repository."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """See the module."""
        result = super().run(tmp, task_vars)
        dummy, options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "cache": {"type": "path", "required": True},
                "target": {"type": "str", "required": True},
                "packages": {"type": "list", "elements": "str", "required": True},
                "sources": {"type": "list", "elements": "str", "required": True},
                "key_home": {"type": "path", "required": True},
                "refresh": {"type": "bool", "default": False},
            }
        )
        where = bundle.target(options["target"])
        if self._task.check_mode:
            return {**result, "changed": True, "packages": []}
        apt = Apt(Path(options["cache"]), where, options["sources"])
        if apt.is_new or options["refresh"]:
            display.display(f"{where.name}: reading the lists of packages")
            apt.get("update")
        wanted = bundle.packages(apt.get("--print-uris", "--download-only", "install", *options["packages"]))
        path = Path(options["path"])
        path.mkdir(parents=True, exist_ok=True)
        missing = [package for package in wanted if not (path / package.file).exists() or (path / package.file).stat().st_size != package.size]
        self.download(apt, where, missing, path)
        for stray in {file.name for file in path.glob("*.deb")} - {package.file for package in wanted}:
            (path / stray).unlink()
        before = (path / "InRelease").read_bytes() if (path / "InRelease").exists() else b""
        self.index(apt, where, wanted, path, options["key_home"])
        licences = self.licences(Path(options["cache"]) / "licences", wanted, path)
        listed = [{"file": each.file, "name": each.name, "version": each.version, "licence": licences[each.file], "origin": each.uri} for each in wanted]
        return {**result, "changed": bool(missing) or (path / "InRelease").read_bytes() != before, "downloaded": len(missing), "packages": listed}

    @staticmethod
    def download(apt: Apt, where: bundle.Target, missing: list[bundle.Package], path: Path) -> None:
        """Bring packages, some at a time, and check them: apt does so by the lists, which are signed."""
        size, done = sum(package.size for package in missing), 0
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            display.display(f"{where.name}: packages {start + 1} to {start + len(some)} of {len(missing)}, {done >> 20} of {size >> 20} MiB")
            run("apt-get", "-qq", *apt.options, "download", *(f"{package.name}={package.version}" for package in some), cwd=path)
            done += sum(package.size for package in some)

    @staticmethod
    def index(apt: Apt, where: bundle.Target, wanted: list[bundle.Package], path: Path, home: str) -> None:
        """Write the index, and sign it. The same packages and key make the same files."""
        plain = bundle.packages_index(apt.describe(wanted), wanted).encode()
        packed = gzip.compress(plain, mtime=0)
        date = apt.date()
        (path / "Packages.gz").write_bytes(packed)
        (path / "Release").write_text(bundle.release_file(where, date, {"Packages": plain, "Packages.gz": packed}), encoding="utf-8")
        signed = run("gpg", "--batch", "--homedir", home, "--faked-system-time", f"{bundle.seconds(date)}!", "--clearsign", "--output", "-", path / "Release")
        (path / "InRelease").write_text(signed, encoding="utf-8")
        (path / "Release").unlink()

    @staticmethod
    def licences(kept: Path, wanted: list[bundle.Package], path: Path) -> dict[str, str]:
        """Return the licences of the packages by file. Reading them takes a while, so they are kept."""
        kept.mkdir(parents=True, exist_ok=True)
        for package in wanted:
            note = kept / package.file
            if not note.exists():
                note.write_text(licence(path / package.file, package.name), encoding="utf-8")
        return {package.file: (kept / package.file).read_text(encoding="utf-8") for package in wanted}
