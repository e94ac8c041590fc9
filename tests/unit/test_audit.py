"""`make audit`: the real pip-audit against a database that answers in several ways. Silence is never good news."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
PIP_AUDIT = ROOT / ".venv-audit/bin/pip-audit"
LOCKED = "boto3==1.40.0 --hash=sha256:{0}\nnumpy==2.2.6 ; python_version < '3.11' --hash=sha256:{0}\nnumpy==2.4.6 --hash=sha256:{0}\n".format("a" * 64)

SPEC = importlib.util.spec_from_file_location("testbed_audit", ROOT / "testbed/audit.py")
assert SPEC and SPEC.loader
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

Answer = tuple[int, dict[str, Any]]


def advisory(package: str, identity: str = "GHSA-test") -> dict[str, Any]:
    """Return an advisory as OSV writes it."""
    events = [{"introduced": "0"}, {"fixed": "9.9"}]
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": identity, "aliases": ["CVE-2099-1"], "summary": "bad", "affected": [affected]}


def knows(package: str, version: str, *vulnerable: tuple[str, str]) -> Answer:
    """A database that knows the control, and some others."""
    return 200, {"vulns": [advisory(package)]} if (package, version) in (audit.CONTROL, *vulnerable) else {}


@pytest.fixture(name="database")
def fixture_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[str, str], Answer]], str]]:
    """A function that starts a database and returns its URL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(answer: Callable[[str, str], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            """Answers as it is told."""

            def do_POST(self) -> None:
                """A query of OSV's interface."""
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = answer(query["package"]["name"], query["version"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_args: Any) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1/query"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(name="lock")
def fixture_lock(tmp_path: Path) -> Path:
    """A lock with two versions of a package."""
    assert PIP_AUDIT.exists(), "make unit makes the environment that this test needs"
    path = tmp_path / "3.17.2.txt"
    path.write_text(LOCKED, encoding="utf-8")
    return path


def test_clean(lock: Path, database: Any) -> None:
    """All were asked about, those for other Pythons too."""
    asked: list[tuple[str, str]] = []

    def answer(package: str, version: str) -> Answer:
        asked.append((package, version))
        return knows(package, version)

    assert audit.audit(str(PIP_AUDIT), [lock], database(answer)) == (0, ["3 packages in 1 locks were checked: no advisory."])
    assert sorted(asked) == sorted([audit.CONTROL, ("boto3", "1.40.0"), ("numpy", "2.2.6"), ("numpy", "2.4.6")])


def test_an_advisory_is_reported(lock: Path, database: Any) -> None:
    """Package, version, names, the version that mends it, and the lock."""
    url = database(lambda package, version: knows(package, version, ("numpy", "2.4.6")))
    assert audit.audit(str(PIP_AUDIT), [lock], url) == (1, ["numpy 2.4.6: CVE-2099-1 (GHSA-test), fixed in 9.9; in 3.17.2.txt"])


def test_a_database_that_knows_nothing_is_none(lock: Path, database: Any) -> None:
    """A proxy, or an empty mirror, that answers everything with nothing."""
    code, lines = audit.audit(str(PIP_AUDIT), [lock], database(lambda _package, _version: (200, {})))
    assert code == 2 and "3 of 3 packages were NOT checked: it knows of no advisory for jinja2 2.4.1" in lines[0]


def test_no_database(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there; pip-audit itself would end with 1, as if it had found something."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    code, lines = audit.audit(str(PIP_AUDIT), [lock], "http://127.0.0.1:9/v1/query")
    assert code == 2 and "3 of 3 packages were NOT checked" in lines[0] and "onnection" in lines[0] and "OSV_URL" in lines[1]


def test_a_database_that_fails_on_the_way(lock: Path, database: Any) -> None:
    """What it said before counts; what it did not say is no good news."""
    url = database(lambda package, version: (500, {}) if version == "2.4.6" else knows(package, version, ("boto3", "1.40.0")))
    code, lines = audit.audit(str(PIP_AUDIT), [lock], url)
    assert code == 1 and "boto3 1.40.0: CVE-2099-1" in lines[0] and "1 of 3 packages were NOT checked" in lines[1]


def test_packages_that_were_passed_over_are_named(lock: Path, tmp_path: Path) -> None:
    """pip-audit ends with 0 when it skips what it does not find."""
    program = tmp_path / "pip-audit"
    known = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "x", "fix_versions": [], "aliases": []}]}
    program.write_text(f"#!/bin/sh\necho '{json.dumps({'dependencies': [known, {'name': 'boto3', 'skip_reason': 'not found'}]})}'\n", encoding="utf-8")
    program.chmod(0o755)
    code, lines = audit.audit(str(program), [lock], "")
    assert code == 2 and "3 of 3 packages were NOT checked: the database passed over boto3 1.40.0, numpy 2.2.6, numpy 2.4.6" in lines[0]


@given(st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from(["1", "2", "3"]))))
def test_rounds_have_everything_once(packages: set[tuple[str, str]]) -> None:
    """No package twice in a round, and none is lost."""
    found = audit.rounds(packages)
    assert sorted(item for each in found for item in each.items()) == sorted(packages)
