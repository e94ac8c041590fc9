"""Writes what each lock of MLflow installs, as one CycloneDX file for each MLflow version.

usage: python testbed/sbom.py FOLDER

SOURCE_DATE_EPOCH, in seconds, is the time in the files; without it there is none, and the same lock makes the same bytes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parent.parent
# The module is imported by the collection's full name, which is found only there.
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.mlops.mlflow.plugins.module_utils import sbom  # noqa: E402

# The Pythons of the distributions, and their processors. A lock also has packages for platforms that no host has.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
LINUX = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}


def installable(pin: sbom.Pin) -> bool:
    """Tell whether some host gets a package."""
    if not pin.marker:
        return True
    marker = Marker(pin.marker)
    return any(
        marker.evaluate({**LINUX, "platform_machine": machine, "python_version": python, "python_full_version": f"{python}.0"})
        for python in PYTHONS
        for machine in MACHINES
    )


def main() -> None:
    """Entry point."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    for lock in sorted((ROOT / "roles/mlflow/files/locks").glob("[0-9]*.txt")):
        pins = [pin for pin in sbom.parse_lock(lock.read_text(encoding="utf-8")) if installable(pin)]
        path = folder / f"mlflow-{lock.stem}.cdx.json"
        path.write_text(sbom.render(sbom.of_lock(lock.stem, pins, int(epoch) if epoch else None)), encoding="utf-8")
        print(f"{path}: {len(pins)} packages")


if __name__ == "__main__":
    main()
