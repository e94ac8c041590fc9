"""Copies of the databases: their names, how long they stay, whether they are as they were written, and which programs can read them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import backups
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)


def named(days: int) -> str:
    """The name of a copy of so many days ago."""
    return backups.name_of(NOW - datetime.timedelta(days=days), "3.16.1")


def test_a_name_says_when_and_for_which_version() -> None:
    """And can be read again; a version of somebody's own makes no path of it."""
    assert named(1) == "20261120T120000Z-3.16.1"
    assert backups.taken_at(named(1)) == NOW - datetime.timedelta(days=1)
    assert backups.name_of(NOW, "3.17.2+../x") == "20261121T120000Z-3.17.2_.._x"
    assert backups.NAME.fullmatch(named(1))


@pytest.mark.parametrize(
    ("keep", "days", "gone"),
    [(5, 0, []), (2, 0, [40, 9]), (1, 0, [40, 9, 3]), (0, 0, [40, 9, 3]), (5, 7, [40, 9]), (3, 30, [40]), (5, 1, [40, 9, 3])],
)
def test_which_copies_go(keep: int, days: int, gone: list[int]) -> None:
    """By their number and by their age; the newest never."""
    assert backups.outdated([named(age) for age in (3, 40, 0, 9)], NOW, keep, days) == [named(age) for age in gone]


@given(st.lists(st.integers(0, 4000), unique=True), st.integers(0, 10), st.integers(0, 400))
def test_the_newest_copy_stays(ages: list[int], keep: int, days: int) -> None:
    """Whatever the rules are."""
    names = [named(age) for age in ages]
    left = set(names) - set(backups.outdated(names, NOW, keep, days))
    assert not names or max(names) in left
    assert len(left) <= max(keep, 1)


def test_only_complete_copies_count(tmp_path: Path) -> None:
    """Not what is being made, nor what somebody put there; and a folder that is not there has none."""
    for name in (named(2), named(1), named(0) + backups.DRAFT, "notes"):
        (tmp_path / name).mkdir()
    assert backups.complete(str(tmp_path)) == [named(2), named(1)]
    assert backups.complete(str(tmp_path / "nowhere")) == []
    assert not backups.is_settled(str(tmp_path), named(1))
    backups.settle(str(tmp_path), named(1))
    assert backups.is_settled(str(tmp_path), named(1))


@pytest.mark.parametrize(
    ("version", "current", "fits"),
    [("3.16.1", True, True), ("3.16.1", False, False), ("3.17.2", True, False), ("3.17.2", False, True), ("2.22.5", True, True), ("2.22.5", False, True)],
)
def test_which_version_finds_its_tables(version: str, current: bool, fits: bool) -> None:
    """After an upgrade from 3.16.1 to 3.17.2; of another version a copy knows nothing."""
    assert backups.fits({"version": "3.16.1", "target_version": "3.17.2"}, version, current) is fits


def test_rows_that_no_migration_makes() -> None:
    """More runs come from somebody who writes, more tags of traces perhaps from the migration, and fewer of anything from a deletion or from it."""
    assert backups.grown({"runs": {"then": 3, "now": 4}})
    assert not backups.grown({"runs": {"then": 4, "now": 3}, "trace_tags": {"then": 1, "now": 9}})
    assert not backups.grown({})


@pytest.fixture(name="copy")
def fixture_copy(tmp_path: Path) -> Path:
    """A copy of two files with their digests."""
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking/toc.dat").write_bytes(b"contents")
    (tmp_path / "tracking/1.dat.gz").write_bytes(b"rows")
    (tmp_path / backups.SUMS).write_text(backups.sums_text(backups.sums(str(tmp_path))), encoding="utf-8")
    (tmp_path / backups.MANIFEST).write_text("{}", encoding="utf-8")
    return tmp_path


def test_a_copy_as_it_was_written(copy: Path) -> None:
    """What it says about itself is not part of it."""
    backups.settle(str(copy.parent), copy.name)
    assert backups.damage(str(copy)) is None


@pytest.mark.parametrize("fault", ["changed", "lost", "added", "unsigned"])
def test_damage_is_found(copy: Path, fault: str) -> None:
    """Whatever kind it is of, with the file."""
    if fault == "changed":
        (copy / "tracking/1.dat.gz").write_bytes(b"Rows")
    elif fault == "lost":
        (copy / "tracking/1.dat.gz").unlink()
    elif fault == "added":
        (copy / "tracking/2.dat.gz").write_bytes(b"")
    else:
        (copy / backups.SUMS).unlink()
    words = {
        "changed": "tracking/1.dat.gz differ from SHA256SUMS",
        "lost": "tracking/1.dat.gz differ from SHA256SUMS",
        "added": "tracking/2.dat.gz differ from SHA256SUMS",
        "unsigned": "SHA256SUMS is missing",
    }
    assert backups.damage(str(copy)) == words[fault]


def test_the_nearest_programs_that_are_not_older(tmp_path: Path) -> None:
    """An older pg_dump refuses a newer server, and the server's own writes what the server reads."""
    for major in ("15", "16", "17"):
        (tmp_path / major / "bin").mkdir(parents=True)
        (tmp_path / major / "bin/pg_dump").touch()
    (tmp_path / "beta/bin").mkdir(parents=True)
    (tmp_path / "beta/bin/pg_dump").touch()
    pattern = str(tmp_path / "*/bin")
    assert backups.program("pg_dump", 160004, pattern) == str(tmp_path / "16/bin/pg_dump")
    assert backups.program("pg_dump", 140011, pattern) == str(tmp_path / "15/bin/pg_dump")
    assert backups.program("pg_dump", 180000, pattern) is None
