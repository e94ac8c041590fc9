"""The lists of packages that playbooks/sbom.yml writes, held against what the hosts themselves say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Playbook = Callable[..., Any]
Components = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module", name="folder")
def fixture_folder(playbook: Playbook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a file for each host."""
    folder = tmp_path_factory.mktemp("sbom")
    result = playbook("playbooks/sbom.yml", variables={"sbom_folder": str(folder)})
    assert result.returncode == 0, result.stdout
    return folder


@pytest.fixture(scope="module", name="components")
def fixture_components(folder: Path, site: dict[str, Any]) -> Components:
    """The MLflow host's components, by the type of their package URL."""
    found: Components = {"pkg:deb": [], "pkg:pypi": [], "": []}
    for part in json.loads((folder / f"{site['mlflow_name']}.cdx.json").read_text(encoding="utf-8"))["components"]:
        found[part.get("purl", "").partition("/")[0]].append(part)
    return found


def test_every_debian_package_is_listed(components: Components, mlflow: Any) -> None:
    """As many as dpkg counts, with its versions."""
    installed = mlflow.check_output("dpkg-query -Wf '${db:Status-Status} ${Package} ${Version}\\n' | grep '^installed '").splitlines()
    assert sorted(f"installed {part['name']} {part['version']}" for part in components["pkg:deb"]) == sorted(installed)


def test_every_python_package_is_listed_as_it_was_locked(components: Components, mlflow: Any) -> None:
    """As many as the environment's own Python finds; all but what Python itself brings, with hashes."""
    code = "import importlib.metadata as m; print(*{d.name + '==' + d.version for d in m.distributions()}, sep='\\n')"
    installed = mlflow.check_output("/opt/mlflow/current/bin/python -c %s", code).lower().replace("_", "-").replace(".", "-").splitlines()
    assert sorted(f"{part['name']}=={part['version']}".lower().replace(".", "-") for part in components["pkg:pypi"]) == sorted(installed)
    assert {part["name"] for part in components["pkg:pypi"] if "externalReferences" not in part} <= {"pip", "setuptools"}


def test_a_second_run_writes_the_same(folder: Path, playbook: Playbook) -> None:
    """Byte by byte."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert playbook("playbooks/sbom.yml", variables={"sbom_folder": str(folder)}).returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_secret_is_listed(folder: Path, site: dict[str, Any]) -> None:
    """Only packages."""
    assert [number for number, secret in enumerate(site["secrets"]) for path in folder.iterdir() if secret in path.read_text(encoding="utf-8")] == []
