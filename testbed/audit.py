"""Asks an advisory database about every version in some locks, and never takes silence for good news.

usage: python testbed/audit.py PIP_AUDIT LOCK…

Exit codes: 0 all were asked about, and there is no advisory; 1 there are advisories; 2 not all could be asked about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The module is imported by the collection's full name, which is found only there.
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.mlops.mlflow.plugins.module_utils import sbom  # noqa: E402

# A version with advisories for years. A database that has none for it is none, or does not answer for itself.
CONTROL = ("jinja2", "2.4.1")

Package = tuple[str, str]


class NotAsked(Exception):
    """The database could not be asked; the text says why."""


def read(locks: Iterable[Path]) -> dict[Package, list[str]]:
    """Return the packages of some locks, whatever platform they are for, each with the names of its locks."""
    found: dict[Package, list[str]] = {}
    for lock in locks:
        for pin in sbom.parse_lock(lock.read_text(encoding="utf-8")):
            places = found.setdefault((pin.name, pin.version), [])
            places += [lock.name] if lock.name not in places else []
    return found


def rounds(packages: Iterable[Package]) -> list[dict[str, str]]:
    """Divide packages so that none is twice in a round, as pip-audit wants it; locks have several versions for several Pythons."""
    found: list[dict[str, str]] = []
    for name, version in sorted(packages):
        free = next((each for each in found if name not in each), None)
        if free is None:
            free = {}
            found.append(free)
        free[name] = version
    return found


def ask(program: str, packages: dict[str, str], url: str) -> dict[Package, list[dict[str, Any]]]:
    """Ask about some packages.

    Args:
        program: path of pip-audit.
        packages: names and versions.
        url: of the database, empty for OSV's own.

    Returns:
        The advisories of each package that the database answered for.

    Raises:
        NotAsked: it did not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [program, "--requirement", str(requirements), "--no-deps", "--disable-pip", "--cache-dir", folder, "--progress-spinner", "off"]
        command += ["--format", "json", "--desc", "off", "--aliases", "on", "--vulnerability-service", "osv", *(["--osv-url", url] if url else [])]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answers = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        # pip-audit ends with 1 for advisories, and also when it cannot reach the database.
        raise NotAsked((result.stderr.strip().splitlines() or [f"pip-audit ended with {result.returncode}"])[-1]) from error
    return {(sbom.canonical(each["name"]), each["version"]): each["vulns"] for each in answers if "vulns" in each}


def row(package: Package, advisory: dict[str, Any], locks: list[str]) -> str:
    """Return the line about one advisory."""
    aliases = f" ({', '.join(advisory['aliases'])})" if advisory["aliases"] else ""
    fixed = f"fixed in {', '.join(advisory['fix_versions'])}" if advisory["fix_versions"] else "not fixed in any version yet"
    return f"{' '.join(package)}: {advisory['id']}{aliases}, {fixed}; in {', '.join(locks)}"


def audit(program: str, locks: list[Path], url: str) -> tuple[int, list[str]]:
    """Ask about everything.

    Returns:
        The exit code, and what to print.
    """
    packages = read(locks)
    advisories: dict[Package, list[dict[str, Any]]] = {}
    problem = ""
    try:
        if not ask(program, dict([CONTROL]), url).get(CONTROL):
            raise NotAsked(f"it knows of no advisory for {' '.join(CONTROL)}, which has some")
        for each in rounds(packages):
            advisories |= ask(program, each, url)
    except NotAsked as error:
        problem = str(error)
    lines = [row(package, advisory, packages[package]) for package in sorted(packages) for advisory in advisories.get(package, [])]
    code = 1 if lines else 0
    silent = sorted(set(packages) - set(advisories))
    if silent:
        reason = problem or f"the database passed over {', '.join(' '.join(each) for each in silent[:10])}"
        lines.append(f"{len(silent)} of {len(packages)} packages were NOT checked: {reason}")
        lines.append("The advisory database must be reachable from this machine. OSV_URL names another server with OSV's interface.")
        return code or 2, lines
    return code, lines or [f"{len(packages)} packages in {len(locks)} locks were checked: no advisory."]


def main() -> None:
    """Entry point."""
    program, *locks = sys.argv[1:]
    code, lines = audit(program, [Path(lock) for lock in locks], os.environ.get("OSV_URL", ""))
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
