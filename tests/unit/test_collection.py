"""The tarball: clean, complete, and enough to run a site from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
UNWANTED = {"__pycache__", ".secrets", "testbed", "molecule", "benchmarks", "Makefile", "ansible.cfg"}
UNWANTED_FOLDERS = ("tests/unit", "tests/integration")


def unwanted(names: list[str]) -> list[str]:
    """Return the files that have no place in a release."""
    return [
        name
        for name in names
        if any(part in UNWANTED or part.startswith(".") for part in PurePosixPath(name).parts) or name.startswith(UNWANTED_FOLDERS)
    ]


def run(*command: str | Path, cwd: Path, collections: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment, with none of the checkout's settings; collections is the only place to find any."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment["HOME"] = str(cwd)
    if collections:
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    return subprocess.run([BIN / command[0], *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", name="tarball")
def fixture_tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh build of the collection."""
    folder = tmp_path_factory.mktemp("build")
    result = run("ansible-galaxy", "collection", "build", ROOT, "--output-path", folder, cwd=folder)
    assert result.returncode == 0, result.stderr
    return next(folder.glob("mlops-mlflow-*.tar.gz"))


@pytest.fixture(scope="module", name="names")
def fixture_names(tarball: Path) -> list[str]:
    """Return the files in the tarball."""
    with tarfile.open(tarball) as archive:
        return [member.name for member in archive.getmembers() if not member.isdir()]


@pytest.fixture(scope="module", name="installed")
def fixture_installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the tarball was installed into, without a network."""
    folder = tmp_path_factory.mktemp("collections")
    result = run("ansible-galaxy", "collection", "install", "--offline", "-p", folder, tarball, cwd=folder, collections=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_nothing_unwanted_is_shipped(names: list[str]) -> None:
    """Tests, tools of the checkout, caches and secrets stay at home."""
    assert unwanted(names) == []


@pytest.mark.parametrize("name", [".venv/x", "inventories/single/.secrets/x", "plugins/filter/__pycache__/x.pyc", "tests/unit/x.py", "testbed/x"])
def test_unwanted_files_are_seen(name: str) -> None:
    """The test above can fail."""
    assert unwanted(["plugins/filter/x.py", name]) == [name]


@pytest.mark.parametrize("folder", ["roles", "playbooks", "plugins", "inventories", "docs", "meta"])
def test_everything_else_is_shipped(names: list[str], folder: str) -> None:
    """Every file that git knows, or will know, in these folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder]
    known = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    expected = {name for name in known if name and (ROOT / name).exists()}
    assert expected and expected - set(names) == set()


def test_every_scenario_is_run() -> None:
    """By `make test`, which knows them by name."""
    listed = re.search(r"^SCENARIOS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed and sorted(listed[1].split()) == sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))


@pytest.mark.parametrize("playbook", sorted({"site", *(path.stem for path in (ROOT / "playbooks").glob("*.yml"))}))
def test_playbooks_run_from_an_empty_folder(installed: Path, tmp_path: Path, playbook: str) -> None:
    """An installed collection needs no checkout: its playbooks find its roles and plugins by name."""
    (tmp_path / "hosts.yml").write_text("all: {children: {mlflow: {hosts: {one.example.org: }}}}\n", encoding="utf-8")
    result = run("ansible-playbook", "--syntax-check", "-i", "hosts.yml", f"mlops.mlflow.{playbook}", cwd=tmp_path, collections=installed)
    assert result.returncode == 0, result.stdout + result.stderr
