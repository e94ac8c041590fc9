"""Versions side by side, which of them is current, and the configuration that each ran with."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.modules import mlflow_switch as switch


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path) -> Path:
    """A folder with two versions, the old one current, and two files of configuration, of which one is not there."""
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "old")
    (tmp_path / "mlflow.env").write_text("as it was", encoding="utf-8")
    (tmp_path / "mlflow.env").chmod(0o600)
    os.utime(tmp_path / "mlflow.env", (1, 1))
    return tmp_path


def files(host: Path) -> list[str]:
    """The files of the configuration."""
    return [str(host / "mlflow.env"), str(host / "basic_auth.ini")]


def test_what_is_kept_comes_back_as_it_was(host: Path) -> None:
    """With its mode and its time; what was not there goes."""
    switch.keep(str(host / "old/kept"), files(host))
    (host / "mlflow.env").write_text("for the new version", encoding="utf-8")
    (host / "basic_auth.ini").write_text("new", encoding="utf-8")
    switch.put_back(switch.kept(str(host / "current"))[-1])
    status = (host / "mlflow.env").stat()
    assert (host / "mlflow.env").read_text(encoding="utf-8") == "as it was"
    assert (status.st_mode & 0o777, status.st_mtime) == (0o600, 1)
    assert not (host / "basic_auth.ini").exists()


def test_what_was_not_kept_to_the_end_is_not_there(host: Path) -> None:
    """The index is written last; a run that is killed before it keeps nothing."""
    switch.keep(str(host / "old/kept"), files(host))
    (host / "old/kept/index.json").unlink()
    assert switch.kept(str(host / "current")) == []


def test_two_controllers_keep_at_the_same_moment(host: Path) -> None:
    """Both end well, and what is kept is whole."""
    for _round in range(20):
        together = threading.Barrier(8)

        def keep(_who: int, together: threading.Barrier = together) -> None:
            together.wait()
            switch.keep(str(host / "old/kept"), files(host))

        with ThreadPoolExecutor(8) as controllers:
            list(controllers.map(keep, range(8)))
        assert switch.kept(str(host / "current")) == [str(host / "old/kept")]
        shutil.rmtree(host / "old/kept")


def test_the_link_is_no_version_of_its_own(host: Path) -> None:
    """What the current version keeps is found once."""
    switch.keep(str(host / "old/kept"), files(host))
    assert switch.kept(str(host / "current")) == [str(host / "old/kept")]


def test_the_link_leads_to_the_other_version_at_once(host: Path) -> None:
    """And nothing is left beside it."""
    switch.point(str(host / "current"), str(host / "new"))
    assert switch.current(str(host / "current")) == str(host / "new")
    assert sorted(path.name for path in host.iterdir()) == ["current", "mlflow.env", "new", "old"]


def test_a_host_without_a_version(tmp_path: Path) -> None:
    """As it is before the first."""
    assert switch.current(str(tmp_path / "current")) == ""
    assert switch.kept(str(tmp_path / "current")) == []
