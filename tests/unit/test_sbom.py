"""Lists of packages: complete locks, documents that other programs can read, and nothing in them but packages."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.filter.documents import FilterModule
from ansible_collections.mlops.mlflow.plugins.module_utils import sbom
from ansible_collections.mlops.mlflow.plugins.modules import package_report
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
MLFLOW_LOCKS = sorted((ROOT / "roles/mlflow/files/locks").glob("*.txt"))
LOCKS = [*MLFLOW_LOCKS, ROOT / "roles/bundle/files/controller.txt", *sorted((ROOT / "requirements").glob("*.txt"))]
AUDITOR = ROOT / ".venv-audit/bin/python"
HASH = "a" * 64

# The official schema, and an independent reader of package URLs.
JUDGE = """
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

text = sys.stdin.read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
purls = [PackageURL.from_string(part["purl"]) for part in json.loads(text)["components"] if "purl" in part]
print(json.dumps({"error": error and str(error)[:2000], "purls": [[each.type, each.name, each.version, each.qualifiers] for each in purls]}))
"""

BUNDLED = [
    {"name": "openssl", "version": "1.0.2k-26.el7_9", "purl": "pkg:rpm/centos/openssl@1.0.2k-26.el7_9"},
    {"name": "libpq", "version": "", "purl": ""},
]

REPORT: dict[str, Any] = {
    "system": {"id": "debian", "version": "13"},
    "debian": [
        {"name": "libssl3t64", "version": "3.5.7-1~deb13u3", "architecture": "amd64", "source": "openssl", "source_version": "3.5.7-1~deb13u3"},
        {"name": "libc6", "version": "2.41-12+deb13u4", "architecture": "amd64", "source": "glibc", "source_version": "2.41-12+deb13u4"},
        {"name": "libc6", "version": "2.41-12+deb13u4", "architecture": "i386", "source": "glibc", "source_version": "2.41-12+deb13u4"},
        {"name": "g++", "version": "4:14.2.0-1", "architecture": "amd64", "source": "gcc-defaults", "source_version": "1.220"},
        {"name": "sudo", "version": "1.9.16p2-3", "architecture": "amd64", "source": "sudo", "source_version": "1.9.16p2-3"},
    ],
    "environments": [
        {
            "folder": "/opt/mlflow/3.17.2-40d9064c",
            "packages": [
                {"name": "mlflow", "version": "3.17.2", "expression": "Apache-2.0", "licence": "", "hashes": [HASH, "b" * 64], "bundled": []},
                {"name": "pip", "version": "25.1.1", "expression": "", "licence": "MIT", "hashes": [], "bundled": []},
                {"name": "huey", "version": "2.5.3", "expression": "", "licence": "", "hashes": [HASH], "bundled": BUNDLED},
            ],
        },
        {
            "folder": "/opt/mlflow/3.17.3-aaaaaaaa",
            "packages": [
                {"name": "mlflow", "version": "3.17.3", "expression": "Apache-2.0", "licence": "", "hashes": [HASH], "bundled": BUNDLED[:1]},
                {"name": "pip", "version": "25.1.1", "expression": "", "licence": "MIT", "hashes": [], "bundled": []},
            ],
        },
    ],
}


def tool(name: str) -> ModuleType:
    """Return a tool of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(f"testbed_{name}", ROOT / f"testbed/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the official schema and the reader of package URLs make of a document."""
    assert AUDITOR.exists(), "make unit makes the environment that this test needs"
    result = subprocess.run([AUDITOR, "-c", JUDGE], input=sbom.render(document), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def every_lock(test: Any) -> Any:
    """Run a test once for each lock."""
    return pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))(test)


# Locks


def test_there_are_locks() -> None:
    """The tests below would all pass on nothing."""
    assert MLFLOW_LOCKS and {"audit.txt", "controller.txt"} <= {lock.name for lock in LOCKS}


@every_lock
def test_every_requirement_is_pinned_and_has_hashes(lock: Path) -> None:
    """With == and SHA-256, and no address of an index."""
    text = lock.read_text(encoding="utf-8")
    pins = sbom.parse_lock(text)
    assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)) > 9
    assert "://" not in text


@pytest.mark.parametrize(
    ("given", "locked"),
    [*((lock.parent / "mlflow.in", lock) for lock in MLFLOW_LOCKS), *((lock.with_suffix(".in"), lock) for lock in LOCKS if lock not in MLFLOW_LOCKS)],
    ids=lambda path: path.name,
)
def test_what_was_asked_for_is_in_the_lock(given: Path, locked: Path) -> None:
    """A package added to the .in file alone would not be installed."""
    asked = {sbom.canonical(name) for name in re.findall(r"^[A-Za-z][\w.-]*", given.read_text(encoding="utf-8"), re.MULTILINE)}
    assert asked and asked - {pin.name for pin in sbom.parse_lock(locked.read_text(encoding="utf-8"))} == set()


def test_a_lock_is_read() -> None:
    """Names as indexes compare them, the marker, all hashes; comments are none of it."""
    text = f"# a comment\nZope.Interface[x,y]==7.2 ; python_version < '3.12' \\\n    --hash=sha256:{'b' * 64} \\\n    --hash=sha256:{HASH}\n    # via them\n"
    assert sbom.parse_lock(text) == [sbom.Pin("zope-interface", "7.2", "python_version < '3.12'", (HASH, "b" * 64))]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("boto3", "not pinned"),
        (f"boto3>=1.0 --hash=sha256:{HASH}", "not pinned"),
        (f"boto3==1.* --hash=sha256:{HASH}", "not pinned"),
        (f"boto3 @ https://example.org/boto3.whl --hash=sha256:{HASH}", "not pinned"),
        ("--index-url https://example.org/simple", "not pinned"),
        ("boto3==1.0", "no --hash=sha256:"),
        ("boto3==1.0 --hash=md5:d41d8cd98f00b204e9800998ecf8427e", "no --hash=sha256:"),
        (f"boto3==1.0 --hash=sha256:{HASH[:-1]}", "no --hash=sha256:"),
    ],
)
def test_what_is_not_locked_is_refused(line: str, problem: str) -> None:
    """Each with its line."""
    with pytest.raises(ValueError, match=problem):
        sbom.parse_lock(f"uv==1.0 --hash=sha256:{HASH}\n{line}\n")


# Documents


@pytest.mark.parametrize("lock", MLFLOW_LOCKS, ids=lambda lock: lock.stem)
def test_the_document_of_a_lock_follows_the_schema(lock: Path) -> None:
    """Of the real lock, with the official schema; every package is found again by its URL."""
    pins = sbom.parse_lock(lock.read_text(encoding="utf-8"))
    answer = judged(sbom.of_lock(lock.stem, pins, 1700000000))
    assert answer["error"] is None
    assert {(name, version) for _kind, name, version, _qualifiers in answer["purls"]} == {(pin.name, pin.version) for pin in pins}


def test_the_document_of_a_host_follows_the_schema() -> None:
    """With two architectures of a package, an epoch, a version that is not its source's, and two environments that share a package."""
    document = sbom.of_host("Host.example", REPORT)
    answer = judged(document)
    assert answer["error"] is None
    assert ["deb", "g++", "4:14.2.0-1", {"arch": "amd64", "distro": "debian-13", "upstream": "gcc-defaults@1.220"}] in answer["purls"]
    assert ["deb", "libc6", "2.41-12+deb13u4", {"arch": "i386", "distro": "debian-13", "upstream": "glibc"}] in answer["purls"]
    assert ["deb", "sudo", "1.9.16p2-3", {"arch": "amd64", "distro": "debian-13"}] in answer["purls"]
    (pip,) = [part for part in document["components"] if part["name"] == "pip"]
    assert [place["location"] for place in pip["evidence"]["occurrences"]] == ["/opt/mlflow/3.17.2-40d9064c", "/opt/mlflow/3.17.3-aaaaaaaa"]


def test_the_schema_can_refuse() -> None:
    """The judge of the tests above is no rubber stamp."""
    document = sbom.of_host("host", REPORT)
    document["components"][0]["type"] = "thing"
    assert "thing" in judged(document)["error"]


def test_licences_are_what_the_package_says() -> None:
    """An expression where there is one, else a name, else nothing."""
    parts = {part["name"]: part for part in sbom.of_host("host", REPORT)["components"]}
    assert parts["mlflow"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert parts["pip"]["licenses"] == [{"license": {"name": "MIT"}}]
    assert "licenses" not in parts["huey"]


def test_what_a_wheel_has_inside_is_part_of_it() -> None:
    """The same library may be inside of several; it is no package of the host."""
    document = sbom.of_host("host", REPORT)
    parts = {part["name"]: part for part in document["components"]}
    openssl = {"type": "library", **BUNDLED[0]}
    assert parts["huey"]["components"] == [{"type": "library", "name": "libpq"}, openssl]
    assert [part["components"] for part in document["components"] if part["name"] == "mlflow" and "components" in part] == [[openssl]]
    assert "openssl" not in parts


@given(seed=st.randoms(use_true_random=False))
def test_the_same_packages_make_the_same_bytes(seed: Any) -> None:
    """Whatever the order in which a host lists them."""
    shuffled = copy.deepcopy(REPORT)
    for rows in (shuffled["debian"], shuffled["environments"], *(each["packages"] for each in shuffled["environments"])):
        seed.shuffle(rows)
    assert sbom.render(sbom.of_host("host", shuffled)) == sbom.render(sbom.of_host("host", REPORT))


def test_another_package_or_host_makes_another_serial_number() -> None:
    """The number says which document it is."""
    other = copy.deepcopy(REPORT)
    other["debian"][0]["version"] = "3.5.8-1"
    numbers = {sbom.of_host(name, report)["serialNumber"] for name, report in (("host", REPORT), ("host", other), ("other", REPORT))}
    assert len(numbers) == 3


@pytest.mark.parametrize(("epoch", "timestamp"), [("", None), ("0", "1970-01-01T00:00:00Z"), ("1700000000", "2023-11-14T22:13:20Z")])
def test_the_time_is_the_one_that_is_given(epoch: str, timestamp: str | None) -> None:
    """SOURCE_DATE_EPOCH, and none without it."""
    assert json.loads(FilterModule().filters()["host_sbom"](REPORT, "host", epoch))["metadata"].get("timestamp") == timestamp


def test_a_time_that_is_none_is_refused() -> None:
    """With the variable's name."""
    with pytest.raises(AnsibleFilterError, match="SOURCE_DATE_EPOCH = 'today'"):
        FilterModule().filters()["host_sbom"](REPORT, "host", "today")


def test_a_package_that_is_there_twice_is_refused() -> None:
    """A reference leads to one component."""
    part = sbom.python_component("boto3", "1.0")
    with pytest.raises(ValueError, match="more than once: pkg:pypi/boto3@1.0"):
        sbom.document({"type": "application", "bom-ref": "x", "name": "x"}, [part, part])


def test_the_list_of_a_lock_has_what_hosts_get() -> None:
    """Each Python's version of a package, and nothing for other systems."""
    pins = sbom.parse_lock(MLFLOW_LOCKS[-1].read_text(encoding="utf-8"))
    kept = [pin for pin in pins if tool("sbom").installable(pin)]
    assert {pin.version for pin in kept if pin.name == "numpy"} == {pin.version for pin in pins if pin.name == "numpy"}
    assert {"mlflow", "boto3", "gunicorn"} <= {pin.name for pin in kept}
    assert not {"pywin32", "waitress", "colorama"} & {pin.name for pin in kept}


def test_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each lock, the same twice."""
    monkeypatch.setattr(sys, "argv", ["sbom.py", str(tmp_path)])
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    seen = []
    for _run in range(2):
        tool("sbom").main()
        seen.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert seen[0] == seen[1] and set(seen[0]) == {f"mlflow-{lock.stem}.cdx.json" for lock in MLFLOW_LOCKS}


# Hosts


def test_installed_packages_are_listed() -> None:
    """Not those that were removed but for their configuration, and not half of one."""
    output = "installed\tsudo\t1.9\tamd64\tsudo\t1.9\nconfig-files\tnano\t8.0\tamd64\tnano\t8.0\nhalf-installed\tvim\t9\tamd64\tvim\t9\n"
    assert package_report.parse_packages(output) == [
        {"name": "sudo", "version": "1.9", "architecture": "amd64", "source": "sudo", "source_version": "1.9"}
    ]


@pytest.mark.parametrize(
    ("headers", "expression", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "something")], "MIT", ""),
        ([("License", "BSD License")], "", "BSD License"),
        ([("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved :: MIT License")], "", "MIT License"),
        ([("License", "Permission is\nhereby granted"), ("Classifier", "License :: OSI Approved")], "", ""),
        ([("Classifier", "Topic :: Software Development")], "", ""),
    ],
)
def test_the_licence_of_a_package(headers: list[tuple[str, str]], expression: str, licence: str) -> None:
    """The most exact statement; not the whole text."""
    metadata = Message()
    for name, value in headers:
        metadata[name] = value
    assert sbom.licence_of(metadata) == {"expression": expression, "licence": licence}


def test_environments_are_read_whatever_else_is_there(tmp_path: Path) -> None:
    """Complete ones only, the link to the current one not again; hashes of the lock for the version that is installed; nothing else of the folder."""
    for name, mark in (("3.17.2-a", ".complete"), ("3.17.3-b", "building")):
        site = tmp_path / name / "lib/python3.13/site-packages"
        for package, version in (("Flask_Cors", "6.0"), ("uv", "0.9")):
            info = site / f"{package}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: {version}\nLicense-Expression: MIT\n", encoding="utf-8")
            (info / "sboms").mkdir()
            (info / "sboms/b.json").write_text(json.dumps({"components": [*BUNDLED, *BUNDLED, {"name": package, "purl": "pkg:pypi/x@1"}]}), encoding="utf-8")
            for number, content in enumerate(("no JSON", "[]", "{}", '{"components": {}}', '{"components": [{}, 1]}')):
                (info / f"sboms/{number}.json").write_text(content, encoding="utf-8")
        (tmp_path / name / mark).touch()
        (tmp_path / name / "mlflow.env").write_text("PASSWORD=tokenServer7\n", encoding="utf-8")
        (tmp_path / name / "requirements.txt").write_text(f"flask-cors==6.0 --hash=sha256:{HASH}\nuv==0.8 --hash=sha256:{HASH}\n", encoding="utf-8")
    (tmp_path / "current").symlink_to("3.17.2-a")
    assert package_report.environments(str(tmp_path)) == [
        {
            "folder": str(tmp_path / "3.17.2-a"),
            "packages": [
                {"name": "flask-cors", "version": "6.0", "hashes": [HASH], "bundled": BUNDLED[::-1], "expression": "MIT", "licence": ""},
                {"name": "uv", "version": "0.9", "hashes": [], "bundled": BUNDLED[::-1], "expression": "MIT", "licence": ""},
            ],
        }
    ]


@pytest.mark.parametrize("requirements", [None, "boto3\nmlflow[auth]==3.99.0\n"])
def test_an_environment_without_a_lock_has_no_hashes(tmp_path: Path, requirements: str | None) -> None:
    """It was installed with mlflow_unlocked, or by hand."""
    if requirements:
        (tmp_path / "requirements.txt").write_text(requirements, encoding="utf-8")
    assert package_report.lock_of(str(tmp_path)) == {}
