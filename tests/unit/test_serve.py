# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How `mlflow server` is started (roles/mlflow/files/app/mlops_serve.py)."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "roles/mlflow/files/app"))

import mlops_serve


def test_the_command_takes_the_place_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the environment had, and what MLflow adds."""
    called = []
    monkeypatch.setattr(mlops_serve.os, "execvpe", lambda *arguments: called.append(arguments))
    monkeypatch.setenv("KEPT", "yes")
    mlops_serve.become(["python", "-m", "uvicorn"], extra_env={"ADDED": "too"}, capture_output=False, synchronous=False)
    ((file, command, environment),) = called
    assert (file, command) == ("python", ["python", "-m", "uvicorn"])
    assert (environment["KEPT"], environment["ADDED"]) == ("yes", "too")


def test_jobs_reach_a_server_without_tls() -> None:
    """By its URL alone."""
    assert mlops_serve.way_to_server("http://127.0.0.1:5000", "") == {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "MLFLOW_GATEWAY_URI": "http://127.0.0.1:5000",
    }


def test_jobs_trust_the_sites_ca_and_everybody_elses(tmp_path: Path) -> None:
    """A judge of a provider outside has another CA than the gateway."""
    system, site = tmp_path / "system.crt", tmp_path / "site.crt"
    system.write_text("one\n", encoding="utf-8")
    site.write_text("two\n", encoding="utf-8")
    way = mlops_serve.way_to_server("https://mlflow.example.org", str(site), system)
    assert way["REQUESTS_CA_BUNDLE"] == way["SSL_CERT_FILE"]
    assert Path(way["SSL_CERT_FILE"]).read_text(encoding="utf-8") == "one\ntwo\n"
    assert Path(way["SSL_CERT_FILE"]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["_launch_job_execution_runner", "_launch_job_runner"])
def test_jobs_are_told_the_way(name: str) -> None:
    """By either name of MLflow's function."""
    called: list[tuple[dict[str, str], int]] = []
    launchers = types.SimpleNamespace(**{name: lambda environment, process: called.append((environment, process))})
    mlops_serve.lead(launchers, {"MLFLOW_TRACKING_URI": "https://mlflow"})
    getattr(launchers, name)({"KEPT": "yes", "MLFLOW_TRACKING_URI": "http://0.0.0.0"}, 17)
    assert called == [({"KEPT": "yes", "MLFLOW_TRACKING_URI": "https://mlflow"}, 17)]


def test_the_link_to_the_current_version_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may lead elsewhere later."""
    (tmp_path / "3.17.2").mkdir()
    (tmp_path / "current").symlink_to("3.17.2")

    def execute(*command: Any) -> None:
        raise SystemExit(command)

    monkeypatch.setattr(mlops_serve.os, "execv", execute)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "current"))
    monkeypatch.setattr(sys, "argv", ["mlops_serve", "--app-name", "basic-auth"])
    with pytest.raises(SystemExit) as end:
        mlops_serve.main()
    python = f"{tmp_path}/3.17.2/bin/python"
    assert end.value.args[0] == (python, [python, "-m", "mlops_serve", "--app-name", "basic-auth"])
