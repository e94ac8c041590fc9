"""Files of a store on their way to a host and into S3, and what MLflow's client gives of both sides."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.action import store_place as bringer
from ansible_collections.mlops.mlflow.plugins.module_utils import store_files
from ansible_collections.mlops.mlflow.plugins.module_utils.store_progress import Progress
from ansible_collections.mlops.mlflow.plugins.modules import store_artifacts, store_compare, store_place


def write(path: Path, content: bytes) -> Path:
    """Make a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def brought(paths: list[Path], host: Path, scratch: Path, databases: set[str] = frozenset()) -> list[str]:
    """Bring what is not there, as the action does; return the paths of what came."""
    came: list[str] = []
    scratch.mkdir(exist_ok=True)
    names = (each for path in paths for each in store_files.files_of(str(path)))
    for part, _size in bringer.parts(names, databases, store_place.there(str(host), [str(path) for path in paths]), str(scratch)):
        with tarfile.open(part) as archive:
            came += ["/" + name for name in archive.getnames()]
        store_place.unpack(part, bringer.digest(part), str(host))
    return came


def test_what_is_there_does_not_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts; a changed file comes again, and folders behind links come too, but for those that lead round."""
    monkeypatch.setattr(bringer, "PART_BYTES", 10)
    folder, host = tmp_path / "mlruns", tmp_path / "host"
    files = [write(folder / f"1/{name}", name.encode() * 5) for name in ("a", "b b", "ü")]
    (folder / "linked").symlink_to(folder / "1")
    (folder / "1/hard").hardlink_to(files[0])
    files.append(folder / "1/hard")
    (folder / "round").symlink_to(folder)
    linked = [folder / "linked" / each.name for each in files]
    assert sorted(brought([folder], host, tmp_path / "scratch")) == sorted(map(str, files + linked))
    assert (host / str(files[1]).lstrip("/")).read_bytes() == b"b b" * 5
    assert brought([folder], host, tmp_path / "scratch") == []
    write(files[0], b"changed")
    assert sorted(brought([folder], host, tmp_path / "scratch")) == sorted(map(str, (files[0], files[3], linked[0], linked[3])))
    store_place.remove([str(files[1])], str(host))
    assert not (host / str(files[1]).lstrip("/")).exists() and (host / str(files[0]).lstrip("/")).exists()
    store_place.remove([str(path) for path in (files[0], *files[2:])], str(host))
    assert not (host / str(folder).lstrip("/") / "1").exists() and (host / str(linked[0]).lstrip("/")).exists()


def test_a_file_store_without_its_artifacts(tmp_path: Path) -> None:
    """What MLflow's conversion reads comes; spans of traces are among it, and a parameter of this name."""
    kept = [write(tmp_path / f"mlruns/1/{name}", b"x") for name in ("r/meta.yaml", "r/params/artifacts/a", "traces/t/trace_info.yaml", "traces/t/artifacts/s")]
    write(tmp_path / "mlruns/1/r/artifacts/model/weights", b"x")
    assert sorted(store_files.files_of(str(tmp_path), store_files.is_artifacts)) == sorted(map(str, kept))
    assert len(list(store_files.files_of(str(tmp_path)))) == 5
    host = tmp_path / "host"
    for name in ("1/r/meta.yaml", "1/r/artifacts/model/weights", "1/kept/meta.yaml"):
        write(host / f"mlruns/{name}", b"x")
    store_place.remove(["/mlruns/1/r/meta.yaml", "/mlruns/1/kept/meta.yaml"], str(host))
    assert host.is_dir() and not list(host.iterdir())
    host.rmdir()
    assert sorted(store_place.there("", [str(tmp_path)], store_place.skips({"artifacts": False}))) == sorted(map(str, kept))


def test_a_database_comes_whole(tmp_path: Path) -> None:
    """With what is in its log only; one that is somebody's artifact comes byte for byte."""
    path, host = tmp_path / "mlflow.db", tmp_path / "host"
    writer = sqlite3.connect(path)
    writer.executescript("PRAGMA journal_mode = wal; CREATE TABLE runs (run_uuid TEXT); INSERT INTO runs VALUES ('r1')")
    brought([path], host, tmp_path / "scratch", {str(path)})
    with sqlite3.connect(host / str(path).lstrip("/")) as copy:
        assert copy.execute("SELECT * FROM runs").fetchall() == [("r1",)]
    copy.close()
    writer.close()
    artifact = write(tmp_path / "mlruns/model.db", path.read_bytes() + b"tail")
    brought([tmp_path / "mlruns"], host, tmp_path / "scratch")
    assert (host / str(artifact).lstrip("/")).read_bytes() == artifact.read_bytes()


def test_a_part_that_was_damaged(tmp_path: Path) -> None:
    """Is not unpacked; neither is what would come to another place."""
    part = tmp_path / "part.tar"
    with tarfile.open(part, "w") as archive:
        archive.add(write(tmp_path / "x", b"x"), arcname="../outside")
    with pytest.raises(ValueError, match="not what was sent"):
        store_place.unpack(str(part), "0" * 64, str(tmp_path / "host"))
    with pytest.raises(ValueError, match="no file below"):
        store_place.unpack(str(part), bringer.digest(str(part)), str(tmp_path / "host"))
    assert not (tmp_path / "outside").exists()


def test_what_is_missing(tmp_path: Path) -> None:
    """A folder that MLflow has not made yet is not, but for one that has something for sure; one of another machine is."""
    write(tmp_path / "mlruns/4/file", b"x")
    (tmp_path / "mlruns/3").mkdir()
    paths = ["/mlruns/1", "/mlruns/2", "/mlruns/3", "/mlruns/4", "/other/1", "/C:/Users/ada/mlruns/1"]
    assert store_files.absent(paths, ["/mlruns/2", "/mlruns/3", "/mlruns/4"], str(tmp_path)) == (
        ["/mlruns/2", "/mlruns/3", "/other/1", "/C:/Users/ada/mlruns/1"],
        ["/mlruns/1"],
    )


def test_what_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and no shorter list."""
    write(tmp_path / "a/b/c", b"x")
    real = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(store_files.files_of(str(tmp_path / "a")))


class Store:
    """S3 as boto3 has it, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.puts = 0
        self.spoils = False
        self.listed = ""

    def keep(self, key: str, data: bytes, tag: str) -> dict[str, str]:
        """Keep an object."""
        self.puts += 1
        self.kept[key], self.tags[key] = data[:-1] if self.spoils else data, tag
        return {"ETag": f'"{tag}"'}

    def put_object(self, Bucket: str, Key: str, Body: Any, ContentMD5: str) -> dict[str, str]:
        """Keep an object that comes in one piece."""
        return self.keep(Key, data := Body.read(), hashlib.md5(data).hexdigest())

    def create_multipart_upload(self, **_at: str) -> dict[str, str]:
        """Begin one in parts."""
        self.parts = []
        return {"UploadId": "u"}

    def upload_part(self, Body: bytes, **_at: Any) -> dict[str, str]:
        """Keep a part."""
        self.parts.append(Body)
        return {"ETag": "part"}

    def complete_multipart_upload(self, Key: str, **_at: Any) -> dict[str, str]:
        """End it."""
        tag = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in self.parts)).hexdigest()
        return self.keep(Key, b"".join(self.parts), f"{tag}-{len(self.parts)}")

    def get_paginator(self, _name: str) -> Any:
        """Return what lists."""
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        """List, on two pages."""
        found = [{"Key": key, "Size": len(data), "ETag": f'"{self.tags[key]}"'} for key, data in self.kept.items() if key.startswith(Prefix)]
        self.listed += " ".join(each["Key"] for each in found)
        return [{"Contents": found[:1]}, {"Contents": found[1:]}, {}]


def test_artifacts_are_uploaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones in parts; a root in another one goes to its own place; what is there already stays."""
    monkeypatch.setattr(store_artifacts, "PART", 8)
    write(tmp_path / "u/mlruns/1/r/artifacts/small", b"1234")
    write(tmp_path / "u/mlruns/1/r/artifacts/large", b"12345678" * 3 + b"x")
    write(tmp_path / "u/mlruns/1/deeper/file", b"")
    write(tmp_path / "u/one.txt", b"alone")
    client = Store()
    monkeypatch.setattr(store_artifacts, "CHUNK", 1)
    client.keep("team/70/other", b"x", "x")
    bucket, ledger = store_artifacts.Bucket(client, "b", "team"), store_artifacts.Ledger(str(tmp_path / "uploads.db"))
    roots = {"/u/mlruns/1": "7", "/u/mlruns/1/deeper": "8", "/u/mlruns/2": "9", "/u/one.txt": "imported/x"}

    def bring() -> dict[str, int]:
        return store_artifacts.bring(bucket, ledger, roots, str(tmp_path), 4, Progress(str(tmp_path), "files"))

    assert bring() == {"files": 4, "uploaded": 4, "mib": 1}
    assert "team/70/" not in client.listed
    del client.kept["team/70/other"]
    assert client.kept == {
        "team/7/r/artifacts/small": b"1234",
        "team/7/r/artifacts/large": b"12345678" * 3 + b"x",
        "team/8/file": b"",
        "team/imported/x": b"alone",
    }
    write(tmp_path / "u/mlruns/1/r/artifacts/small", b"4321")
    assert bring()["uploaded"] == 1 and client.puts == 6
    client.spoils = True
    write(tmp_path / "u/mlruns/1/r/artifacts/small", b"9999")
    with pytest.raises(ValueError, match="1 objects are not in the store as they were sent, team/7/r/artifacts/small"):
        bring()


class Thing:
    """What MLflow's client gives."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update({f"_{name}": value for name, value in values.items()})


@pytest.mark.parametrize(
    ("wanted", "found", "what"),
    [
        (Thing(a=1, b=None, c=[]), Thing(a="1", b=""), ""),
        ([Thing(key="x", value=float("nan")), Thing(key="a", value=1.0)], [Thing(key="a", value=1.0), Thing(key="x", value=float("nan"))], ""),
        (Thing(tags={"k": "v"}), Thing(tags={"k": "w"}), "tags.k is 'w', and 'v' in the source"),
        (Thing(steps=[1, 2]), Thing(steps=[1]), "steps is \"['1']\", and \"['1', '2']\" in the source"),
        (Thing(steps=[Thing(v=0.1)]), Thing(steps=[Thing(v=0.2)]), "steps[0].v is '0.2', and '0.1' in the source"),
        (Thing(run_link="x", run_id="r"), Thing(run_link=None, run_id="r"), ""),
    ],
)
def test_what_is_different(wanted: Any, found: Any, what: str) -> None:
    """And nothing where only the way is another in which it was read."""
    assert store_compare.difference(store_compare.comparable(wanted), store_compare.comparable(found)) == what


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("mlflow-artifacts:/7/r/artifacts", "/u/mlruns/1/r/artifacts"),
        ("mlflow-artifacts:/imported/x", "/u/one"),
        ("mlflow-artifacts:/70/r/artifacts", ""),
        ("s3://theirs/7/r/artifacts", ""),
        (None, ""),
    ],
)
def test_where_an_artifact_was(uri: str | None, folder: str) -> None:
    """By the place that its root went to, wherever the artifact store is."""
    places = {"7": "/u/mlruns/1", "imported/x": "/u/one"}
    assert store_compare.place_of(uri, places, "mlflow-artifacts:/") == folder
    if folder:
        assert store_compare.place_of(uri.replace("mlflow-artifacts:/", "s3://b/team/"), places, "s3://b/team") == folder


class Client:
    """One that gives runs, or says why not."""

    def __init__(self, **runs: str) -> None:
        self.runs = runs

    def download_artifacts(self, run: str, name: str, folder: str) -> str:
        """Write what was asked for."""
        return str(write(Path(folder) / name, self.runs[f"{run}/{name}"].encode()))


@pytest.mark.parametrize(
    ("theirs", "ours", "checked", "differences"),
    [
        ({"r": "1"}, {"r": "1"}, {"run": 1}, []),
        ({"r": "1"}, {"r": "2"}, {"run": 1}, ["run r:  is '2', and '1' in the source"]),
        ({"r": "1"}, {}, {"run": 1}, ["run r: the server does not give it: 'r'"]),
        ({}, {"r": "1"}, {"run": 1}, ["run r: the copy does not give it: 'r'"]),
        ({}, {}, {store_compare.UNREADABLE: 1}, []),
    ],
)
def test_who_gives_nothing(theirs: dict[str, str], ours: dict[str, str], checked: dict[str, int], differences: list[str]) -> None:
    """Is different from who does; what neither reads is said."""
    source = sqlite3.connect(":memory:")
    source.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    comparison = store_compare.Comparison(source, 5, lambda: (Client(**theirs), Client(**ours)))
    comparison.same("run", "r", lambda client: client.runs["r"])
    assert (comparison.checked, comparison.differences) == (checked, differences)
    assert list(comparison.unreadable) == (["run"] if store_compare.UNREADABLE in checked else [])
    source.close()


def test_artifacts_are_looked_for_where_there_are_some(tmp_path: Path) -> None:
    """However few of the runs have any; a download that fails is a difference."""
    source = sqlite3.connect(":memory:")
    source.executescript("CREATE TABLE experiments (experiment_id); CREATE TABLE runs (run_uuid, artifact_uri, lifecycle_stage)")
    source.executemany("INSERT INTO runs VALUES (?, 'mlflow-artifacts:/7/' || ? || '/artifacts', 'active')", [(f"r{number}",) * 2 for number in range(300)])
    for number in (17, 170):
        write(tmp_path / f"u/1/r{number}/artifacts/in/a", b"a")
    comparison = store_compare.Comparison(source, 5, lambda: (Client(), Client(**{"r17/in/a": "b"})))
    write(tmp_path / "u/1/r18/artifacts/later", b"later")
    os.utime(tmp_path / "u/1/r18/artifacts/later", (time.time() + 99,) * 2)
    comparison.artifacts({"7": "/u/1"}, "mlflow-artifacts:/", str(tmp_path), time.time() + 9)
    assert comparison.checked == {"artifact": 2}
    assert sorted(comparison.differences) == [
        "artifact in/a of the run r17 is not the file /u/1/r17/artifacts/in/a",
        "artifact in/a of the run r170 is not the file /u/1/r170/artifacts/in/a: 'r170/in/a'",
    ]
    source.close()
