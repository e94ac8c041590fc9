"""The copy that an interrupted upgrade goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import backups
from ansible_collections.mlops.mlflow.plugins.modules import database_backup

NAME = "20261121T120000Z-3.16.1"


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path) -> Path:
    """A folder with an older copy, and one of an upgrade from 3.16.1."""
    for name in ("20261120T120000Z-2.22.5", NAME):
        (tmp_path / name).mkdir()
        about = {"version": name.split("-")[1], "stores": {"tracking": {"revision": "t1"}, "auth": {"revision": "a1"}}}
        (tmp_path / name / backups.MANIFEST).write_text(json.dumps(about), encoding="utf-8")
    return tmp_path


def half_done(monkeypatch: pytest.MonkeyPatch, folder: Path, tracking: str, auth: str, version: str = "3.16.1") -> str:
    """Ask for the copy while the databases are at these revisions."""
    monkeypatch.setattr(database_backup.database, "revisions", lambda connection, store: [connection])
    connections: dict[str, Any] = {"tracking": tracking, "auth": auth}
    return database_backup.half_done(str(folder), version, connections)


def test_an_upgrade_between_the_databases(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """One is new and one is old: no copy of that mixture is worth anything."""
    assert half_done(monkeypatch, folder, "t2", "a1") == NAME


def test_an_upgrade_that_has_changed_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Somebody may have written since, so there has to be a new copy."""
    assert half_done(monkeypatch, folder, "t1", "a1") == ""


def test_another_upgrade(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A copy of an upgrade that has ended, or of another version, is none to go on with."""
    assert half_done(monkeypatch, folder, "t2", "a1", version="2.22.5") == ""
    backups.settle(str(folder), NAME)
    assert half_done(monkeypatch, folder, "t2", "a1") == ""


def test_no_copy_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As before the first upgrade."""
    assert half_done(monkeypatch, tmp_path, "t1", "a1") == ""


def test_what_is_left_of_a_copy_that_failed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Goes, or the message says where it takes room; one that was never begun is nothing to speak of."""
    assert database_backup.remove(str(folder / "never")) == ""

    def refuse(_path: str) -> None:
        raise PermissionError("no")

    with monkeypatch.context() as patched:
        patched.setattr(database_backup.shutil, "rmtree", refuse)
        assert str(folder / NAME) in database_backup.remove(str(folder / NAME))
    assert database_backup.remove(str(folder / NAME)) == "" and not (folder / NAME).exists()
