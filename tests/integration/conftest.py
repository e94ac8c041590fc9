"""Hosts and helpers. Molecule's verify step says in TEST_SITE_FILE which site is tested."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

PROJECT = Path(__file__).resolve().parents[2]
SSH = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ControlMaster=auto -o ControlPersist=60s -o ControlPath=/tmp/mlops-%C"


@pytest.fixture(scope="session")
def site() -> dict[str, Any]:
    """What the scenario knows of its site."""
    return json.loads(Path(os.environ["TEST_SITE_FILE"]).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def connect(site: dict[str, Any]) -> Callable[[str], Any]:
    """A function that connects to a host of the site, as root."""
    return lambda service: testinfra.get_host(f"ssh://admin@{site[service]}", ssh_identity_file=site["ssh_key"], ssh_extra_args=SSH, sudo=True)


@pytest.fixture(scope="session")
def mlflow(connect: Callable[[str], Any]) -> Any:
    """The MLflow host."""
    return connect("mlflow")


@pytest.fixture(scope="session")
def postgresql(connect: Callable[[str], Any]) -> Any:
    """The PostgreSQL host."""
    return connect("postgresql")


@pytest.fixture(scope="session")
def object_store(connect: Callable[[str], Any]) -> Any:
    """The S3 host."""
    return connect("object_store")


@pytest.fixture(scope="session")
def psql(postgresql: Any) -> Callable[[str], str]:
    """A function that runs a statement as the superuser and returns the rows."""
    return lambda statement: postgresql.check_output("cd / && runuser -u postgres -- psql -XAtc %s", statement)


@pytest.fixture(scope="session")
def playbook(site: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a playbook against the site, as a user would."""

    def run(name: str, *options: str, variables: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        extra = tmp_path_factory.mktemp("variables") / "variables.json"
        extra.write_text(json.dumps(variables or {}), encoding="utf-8")
        command = ["ansible-playbook", "--inventory", site["inventory"], "--extra-vars", f"@{extra}", *options, name]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)

    return run
