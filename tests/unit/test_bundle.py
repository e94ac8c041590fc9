"""Bundles for sites without a way out: what belongs into one, whether it is whole, whom it fits, and whose it is."""

from __future__ import annotations

import datetime
import functools
import gzip
import http.server
import io
import ipaddress
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.mlops.mlflow.plugins.action import bundle_collections, bundle_place, bundle_wheels
from ansible_collections.mlops.mlflow.plugins.filter import checks, plan
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle
from ansible_collections.mlops.mlflow.plugins.modules import bundle_open, bundle_seal
from ansible_collections.mlops.mlflow.plugins.modules import bundle_place as place_module
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [*sorted((ROOT / "roles/mlflow/files/locks").glob("*.txt")), ROOT / "roles/bundle/files/controller.txt"]
TRIXIE, BOOKWORM = bundle.target("trixie-amd64"), bundle.target("bookworm-arm64")
ABOUT = {"collection": "0.1.0", "mlflow": ["3.17.2"]}

URIS = """\
'http://mirror.example.org/pool/main/a/acl/acl_2.3.2-2%2bb1_amd64.deb' acl_2.3.2-2+b1_amd64.deb 64412 SHA256:abc
'http://mirror.example.org/pool/main/l/llvm/libllvm19_19.1.7-3%2bb1_amd64.deb' libllvm19_1%3a19.1.7-3+b1_amd64.deb 25978316 SHA256:def
"""
DESCRIBED = """\
Package: libllvm19
Version: 1:19.1.7-3+b1
Architecture: amd64
Description: Modular compiler
 in several lines
Filename: pool/main/l/llvm/libllvm19_19.1.7-3+b1_amd64.deb
SHA256: def

Package: acl
Version: 2.3.2-2
Architecture: amd64
Filename: pool/older.deb

Package: acl
Version: 2.3.2-2+b1
Architecture: amd64
Filename: pool/main/a/acl/acl_2.3.2-2+b1_amd64.deb
SHA256: abc
"""


@pytest.mark.parametrize("name", ["sid-amd64", "trixie", "trixie-riscv64", "amd64-trixie", ""])
def test_targets_that_are_none(name: str) -> None:
    """Said with those that there are."""
    with pytest.raises(ValueError, match="is no target: use RELEASE-ARCHITECTURE with one of bookworm, trixie and one of amd64, arm64"):
        bundle.target(name)


def test_wheels_that_run_on_a_target() -> None:
    """Up to its C library, best first, under the names of before too."""
    assert TRIXIE.platforms[0] == "manylinux_2_41_x86_64" and BOOKWORM.platforms[0] == "manylinux_2_36_aarch64"
    assert TRIXIE.platforms[-1] == "manylinux1_x86_64" and TRIXIE.platforms.index("manylinux2014_x86_64") > TRIXIE.platforms.index("manylinux_2_17_x86_64")


LOCK = """\
# made by a program
one==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \\
    --hash=sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    # via two
one==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
two==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
three==1.0 ; platform_machine == 'aarch64' and extra != 'x' \\
    --hash=sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
four[full]==1.0 \\
    --hash=sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
"""


def test_what_a_target_installs_of_a_lock() -> None:
    """By the target's Python and machine, whatever this one has; with all hashes."""
    def hashes(*letters: str) -> str:
        return " ".join(f"--hash=sha256:{letter * 64}" for letter in letters)

    assert bundle.requirements(LOCK, TRIXIE) == [f"four==1.0 {hashes('f')}", f"one==2.0 {hashes('c')}"]
    assert bundle.requirements(LOCK, BOOKWORM) == [f"four==1.0 {hashes('f')}", f"one==1.0 {hashes('a', 'b')}", f"three==1.0 {hashes('e')}"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
@pytest.mark.parametrize("where", [TRIXIE, BOOKWORM], ids=lambda where: where.name)
def test_each_package_of_a_lock_once(lock: Path, where: bundle.Target) -> None:
    """And none without a hash."""
    lines = bundle.requirements(lock.read_text(encoding="utf-8"), where)
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names)) > 5
    assert all("--hash=sha256:" in line for line in lines)


def test_which_packages_are_updated() -> None:
    """What is newer, but for what has a way of its own; what would be new comes by itself."""
    lines = [
        "Reading package lists...",
        "Inst nginx [1.26.3-3+deb13u10] (1.26.3-3+deb13u11 Debian-Security:13/stable-security [amd64])",
        "Inst libssl3t64 [3.5.7-1] (3.5.9-1 Debian:13.1/stable [amd64]) [openssl:amd64 ]",
        "Inst linux-image-6.12 (6.12.48-1 Debian:13.1/stable [amd64])",
        *(f"Inst {name} [1] (2 Debian:13.1/stable [amd64])" for name in ("postgresql-17", "postgresql-client-17", "libpq5", "ceph-osd", "radosgw")),
        *(f"Inst {name} [1] (2 Debian:13.1/stable [amd64])" for name in ("librados2", "librbd1", "libcephfs2", "python3-rbd", "libsqlite3-mod-ceph")),
        "Inst python3-psycopg2 [2.9.10-1] (2.9.10-1+b1 Debian:13.1/stable [amd64])",
        "Conf nginx (1.26.3-3+deb13u11 Debian-Security:13/stable-security [amd64])",
    ]
    assert plan.package_updates(lines) == ["nginx", "libssl3t64", "python3-psycopg2"]


def test_the_index_of_a_repository() -> None:
    """The paragraphs of the very packages, in the order of their names, with the files beside it."""
    packages = bundle.packages(URIS)
    assert [(package.name, package.version, package.size) for package in packages] == [("acl", "2.3.2-2+b1", 64412), ("libllvm19", "1:19.1.7-3+b1", 25978316)]
    index = list(bundle.stanzas(bundle.packages_index(DESCRIBED, reversed(packages))))
    assert [each["Filename"] for each in index] == ["./acl_2.3.2-2+b1_amd64.deb", "./libllvm19_1%3a19.1.7-3+b1_amd64.deb"]
    assert index[1]["Description"] == "Modular compiler\n in several lines" and index[0]["SHA256"] == "abc"


def test_a_package_that_nobody_describes() -> None:
    """Never left out without a word."""
    with pytest.raises(ValueError, match="does not describe acl 2.3.2-2.b1 .amd64."):
        bundle.packages_index(DESCRIBED.replace("2.3.2-2+b1", "2.3.2-3"), bundle.packages(URIS))


def test_the_release_file() -> None:
    """What apt compares the index with."""
    text = bundle.release_file(TRIXIE, "Sun, 29 Nov 2026 00:53:14 UTC", {"Packages": b"x"})
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert f"Date: Sun, 29 Nov 2026 00:53:14 UTC\nArchitectures: amd64\nSHA256:\n {digest} 1 Packages\n" in text
    assert bundle.seconds("Sun, 29 Nov 2026 00:53:14 UTC") == 1795913594


def test_licences_of_a_debian_package() -> None:
    """Those that its list names, each once; nothing where it has no list."""
    text = "Format: https://www.example.org/copyright-format/1.0/\n\nFiles: *\nLicense: MIT\n\nFiles: b\nLicense: GPL-2+\n Long text\n\nLicense: MIT\n Text\n"
    assert bundle.licences(text) == "GPL-2+, MIT"
    assert bundle.licences("This package was debianized by somebody.\nLicense: GPL\n") == ""


def test_files_know_their_targets() -> None:
    """A wheel for several of them is one file."""
    wheel = {"file": "a.whl", "name": "a", "version": "1", "expression": "MIT", "licence": ""}
    deb = {"file": "b.deb", "name": "b", "version": "2", "licence": "GPL-2+", "origin": "http://mirror.example.org/b.deb"}
    found = bundle.components({"trixie-amd64": [deb]}, {"trixie-amd64": [wheel], "bookworm-amd64": [wheel]})
    assert [(each["path"], each["licence"], each["targets"]) for each in found] == [
        ("debian/trixie-amd64/b.deb", "GPL-2+", ["trixie-amd64"]),
        ("wheels/a.whl", "MIT", ["bookworm-amd64", "trixie-amd64"]),
    ]


def test_the_metadata_of_a_wheel(tmp_path: Path) -> None:
    """Not that of something that it has inside."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/_vendor/b-1.dist-info/METADATA", "Name: b\nVersion: 1\n")
        archive.writestr("a-2.dist-info/METADATA", "Name: a\nVersion: 2\nLicense-Expression: MIT\n\nLong text")
    assert bundle_wheels.described(tmp_path / "a.whl") == {"name": "a", "version": "2", "expression": "MIT", "licence": ""}


def test_hosts_that_no_bundle_is_for() -> None:
    """They are accepted without one."""
    ubuntu = {"distribution": "Ubuntu", "distribution_major_version": "24", "architecture": "x86_64"}
    assert plan.bundle_targets([{"ansible_facts": ubuntu}, {"ansible_facts": {}}, {}]) == []
    assert plan.bundle_targets([{"ansible_facts": FACTS}, {"ansible_facts": FACTS | {"architecture": "aarch64"}}]) == ["trixie-amd64", "trixie-arm64"]
    target = yaml.safe_load((ROOT / "roles/sources/vars/main.yml").read_text(encoding="utf-8"))["__sources_bundle_target"]
    assert target.endswith("| first | default('') }}")


def test_whom_a_bundle_fits() -> None:
    """Who needs another one hears which."""
    manifest = {"targets": ["bookworm-amd64", "bookworm-arm64"]}
    assert bundle.misfit(manifest, "Debian", "12", "x86_64") is None and bundle.misfit(manifest, "Debian", "12", "aarch64") is None
    assert bundle.misfit(manifest, "Debian", "13", "x86_64") == (
        "it is for bookworm-amd64 and bookworm-arm64, and this host is Debian 13 on x86_64: make one with bundle_targets: [trixie-amd64]"
    )
    assert str(bundle.misfit(manifest, "Ubuntu", "24", "x86_64")).endswith("this host is Ubuntu 24 on x86_64: there are bundles for Debian 12 and Debian 13")


def test_collections_make_the_same_bytes(tmp_path: Path) -> None:
    """An installed one by its own list of files, whatever lies beside them."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/a.py").write_text("1\n", encoding="utf-8")
    (tmp_path / "MANIFEST.json").write_text("{}", encoding="utf-8")
    (tmp_path / "linked").symlink_to("plugins")
    listed = [{"name": ".", "ftype": "dir"}, {"name": "linked", "ftype": "dir"}, {"name": "plugins/a.py", "ftype": "file"}]
    (tmp_path / "FILES.json").write_text(json.dumps({"files": listed}), encoding="utf-8")
    first = bundle_collections.packed({"some.one": tmp_path})
    (tmp_path / "plugins/a.pyc").write_bytes(b"x")
    (tmp_path / "plugins/a.py").touch()
    assert bundle_collections.packed({"some.one": tmp_path}) == first
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(first))) as archive:
        names = [(member.name, member.linkname) for member in archive.getmembers()]
    files = (("FILES.json", ""), ("MANIFEST.json", ""), ("linked", "plugins"), ("plugins/a.py", ""))
    assert names == [(f"ansible_collections/some/one/{name}", link) for name, link in files]


def test_links_of_a_checkout_are_links_in_a_bundle() -> None:
    """The variables beside a play in a folder of its own are such a link."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(bundle_collections.packed({"mlops.mlflow": ROOT.resolve()})))) as archive:
        links = {member.name: member.linkname for member in archive.getmembers() if member.issym()}
        names = set(archive.getnames())
    assert links["ansible_collections/mlops/mlflow/playbooks/plays/group_vars"] == "../group_vars"
    assert "ansible_collections/mlops/mlflow/playbooks/group_vars/all.yml" in names


def test_the_packages_are_those_of_the_roles() -> None:
    """What a role installs and a bundle lacks would stop a site without a way out."""
    own = yaml.safe_load((ROOT / "roles/bundle/vars/main.yml").read_text(encoding="utf-8"))
    store = yaml.safe_load((ROOT / "roles/object_store/vars/Debian_13.yml").read_text(encoding="utf-8"))["__object_store_packages"]
    assert own["__bundle_object_store_packages"] == {"trixie": store}
    for release in ("bookworm", "trixie"):
        packages = {*own["__bundle_common_packages"], *re.findall(r"'([a-z0-9-]+)'", own["__bundle_packages"][release])}
        # What the image of a test host has in its cache is what the scenarios install.
        tested = set((ROOT / f"testbed/packages-{release}").read_text(encoding="utf-8").split()) - {*store, "libmagic1", "postgresql-common"}
        assert len(tested) > 7 and tested <= packages


# --- One bundle, from its making to the host ---


def call(module: Any, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    """Run a module and return its answer."""
    with patch_module_args({name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}), pytest.raises(SystemExit):
        module.main()
    answer = dict(json.loads(capsys.readouterr().out))
    del answer["invocation"]
    return answer


def manifest_digest(opened: dict[str, Any]) -> str:
    """Return what the controller tells a host about a bundle."""
    return bundle.digest(Path(opened["folder"]) / "manifest.json")


class Made:
    """A small bundle, and what is done with it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Make it in a folder."""
        self.folder, self.capsys, self.content, self.cache = folder, capsys, folder / "content", folder / "cache"
        self.file("wheels/a-1.whl", "a wheel")
        self.file("debian/trixie-amd64/b.deb", "a package")
        self.file("debian/bookworm-amd64/c.deb", "another package")
        self.file("debian/bookworm-amd64/Packages.gz", "an index")
        self.file("bootstrap.sh", "#!/bin/sh")

    def file(self, path: str, text: str) -> None:
        """Write a file of it."""
        (self.content / path).parent.mkdir(parents=True, exist_ok=True)
        (self.content / path).write_text(text, encoding="utf-8")

    def seal(self, name: str = "bundle.tar", key: str = "key", **more: Any) -> dict[str, Any]:
        """Make the tarball."""
        rows = [("wheels/a-1.whl", "wheel", ["bookworm-amd64", "trixie-amd64"]), ("debian/trixie-amd64/b.deb", "deb", ["trixie-amd64"])]
        rows.append(("debian/bookworm-amd64/c.deb", "deb", ["bookworm-amd64"]))
        components = [{"path": path, "kind": kind, "name": Path(path).stem, "version": "1", "targets": targets} for path, kind, targets in rows]
        arguments = {"path": self.content, "tarball": self.folder / name, "key_file": self.folder / key, "targets": ["trixie-amd64", "bookworm-amd64"]}
        return call(bundle_seal, self.capsys, about=ABOUT, components=components, **arguments, **more)

    def open(self, name: str = "bundle.tar", fingerprint: str = "") -> dict[str, Any]:
        """Open the tarball as a controller does."""
        return call(bundle_open, self.capsys, path=self.folder / name, cache=self.cache, fingerprint=fingerprint)

    def rewrite(self, **content: bytes | None) -> None:
        """Change files in the tarball; None takes one out."""
        changed = {name.replace("__", ".").replace("_1_", "/"): value for name, value in content.items()}
        with tarfile.open(self.folder / "bundle.tar") as archive:
            members = [(member.name, archive.extractfile(member).read()) for member in archive.getmembers()]  # type: ignore[union-attr]
        with tarfile.open(self.folder / "bundle.tar", "w") as archive:
            for name, old in members:
                new = changed.get(name, old)
                if new is not None:
                    member = tarfile.TarInfo(name)
                    member.size = len(new)
                    archive.addfile(member, io.BytesIO(new))


@pytest.fixture(name="made")
def fixture_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Made:
    """A small bundle."""
    return Made(tmp_path, capsys)


def test_the_same_files_make_the_same_bundle(made: Made) -> None:
    """With the same key; and nothing is written anew."""
    first = made.seal()
    content = (made.folder / "bundle.tar").read_bytes()
    again = made.seal()
    assert first["changed"] and not again["changed"] and first["id"] == again["id"]
    (made.folder / "bundle.tar").unlink()
    assert made.seal()["changed"] and (made.folder / "bundle.tar").read_bytes() == content
    assert (made.folder / "key").stat().st_mode & 0o777 == 0o600 and "PRIVATE" not in content.decode("latin-1")


def test_what_is_left_of_other_bundles_goes(made: Made) -> None:
    """A wheel of another version, a target that is no longer wanted; and nothing else."""
    first = made.seal()
    made.file("wheels/a-0.whl", "an older wheel")
    made.file("debian/sid-amd64/InRelease", "another release")
    assert made.seal()["id"] == first["id"]
    assert not (made.content / "wheels/a-0.whl").exists() and not (made.content / "debian/sid-amd64/InRelease").exists()
    assert (made.content / "wheels/a-1.whl").exists()


def test_another_file_is_another_bundle(made: Made) -> None:
    """However small the change is."""
    first = made.seal()
    made.file("bootstrap.sh", "#!/bin/sh ")
    assert made.seal()["id"] != first["id"]


def test_a_bundle_is_opened_once(made: Made) -> None:
    """And is all there."""
    sealed, opened = made.seal(), made.open()
    assert opened["problem"] == "" and opened["id"] == sealed["id"] and opened["fingerprint"] == sealed["fingerprint"]
    assert (Path(opened["folder"]) / "wheels/a-1.whl").read_text(encoding="utf-8") == "a wheel"
    assert made.open(fingerprint=sealed["fingerprint"].upper()) == opened


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"wheels_1_a-1__whl": b"a wheal"}, "wheels/a-1.whl is damaged: its SHA-256 is not the one in manifest.json"),
        ({"debian_1_trixie-amd64_1_b__deb": b"a pack"}, "debian/trixie-amd64/b.deb has 6 bytes instead of 9"),
        ({"debian_1_bookworm-amd64_1_c__deb": None}, "debian/bookworm-amd64/c.deb is missing"),
        ({"manifest__json": b"{}"}, "manifest.sig is not the signature of its manifest.json: one of them was damaged, or changed after it was made"),
        ({"manifest__sig": b"x" * 64}, "manifest.sig is not the signature of its manifest.json"),
        ({"key__pem": b"x"}, "key.pem is no public key"),
        ({"manifest__sig": None}, "it does not begin with manifest.sig, so it is no bundle"),
    ],
)
def test_damage_is_named(made: Made, content: dict[str, bytes | None], words: str) -> None:
    """Before anything of it is used; and nothing of it stays."""
    made.seal()
    made.rewrite(**content)
    assert words in made.open()["problem"]
    assert not made.cache.exists() or not list(made.cache.iterdir())


@pytest.mark.parametrize("size", [0, 700, 3000, 6000])
def test_a_bundle_that_was_cut_off(made: Made, size: int) -> None:
    """Wherever the copying ended."""
    made.seal()
    tarball = made.folder / "bundle.tar"
    assert tarball.stat().st_size > size
    tarball.write_bytes(tarball.read_bytes()[:size])
    assert made.open()["problem"]


def test_a_bundle_of_somebody_else(made: Made) -> None:
    """It is whole, and not the one to trust."""
    mine = made.seal()["fingerprint"]
    theirs = made.seal(name="theirs.tar", key="other")["fingerprint"]
    assert f"it is signed with the key {theirs}, and this site takes bundles of the key {mine} only" in made.open("theirs.tar", mine)["problem"]
    assert made.open("theirs.tar")["problem"] == ""


def test_no_bundle(made: Made) -> None:
    """Another file, or none."""
    assert "there is no such file on the controller" in made.open()["problem"]
    (made.folder / "bundle.tar").write_text("hello", encoding="utf-8")
    assert "it cannot be read" in made.open()["problem"]


def test_a_delta_needs_what_was_before(made: Made) -> None:
    """It has only what changed, and says what is missing where the older one was never opened."""
    made.seal("old.tar")
    shutil.copyfile(made.content / bundle.MANIFEST, made.folder / "old.json")
    made.file("bootstrap.sh", "#!/bin/sh\nnew")
    made.seal(older=made.folder / "old.json")
    with tarfile.open(made.folder / "bundle.tar") as archive:
        assert archive.getnames() == ["manifest.json", "manifest.sig", "key.pem", "bootstrap.sh"]
    assert made.seal()["changed"], "a whole one in its place"
    made.seal(older=made.folder / "old.json")
    assert "wheels/a-1.whl is missing" in made.open()["problem"]
    assert made.open("old.tar")["problem"] == "" == made.open()["problem"]
    assert (Path(made.open()["folder"]) / "wheels/a-1.whl").read_text(encoding="utf-8") == "a wheel"


def test_a_host_gets_its_part(made: Made) -> None:
    """Nothing of other targets, once, and without the bundles of before."""
    made.seal()
    opened, there = made.open(), made.folder / "host"
    (there / "older").mkdir(parents=True)
    arguments = {"folder": opened["folder"], "targets": ["trixie-amd64"], "path": there, "sha256": manifest_digest(opened)}
    assert call(place_module, made.capsys, **arguments) == {"changed": True, "complete": False}
    part = bundle_place.part_of(Path(opened["folder"]), ["trixie-amd64"])
    assert call(place_module, made.capsys, **arguments, part=part)["complete"]
    files = {path.relative_to(there / opened["id"]).as_posix() for path in there.rglob("*") if path.is_file()}
    assert files == {".complete", "manifest.json", "sbom.cdx.json", "bootstrap.sh", "wheels/a-1.whl", "debian/trixie-amd64/b.deb"}
    assert not (there / "older").exists()
    assert not call(place_module, made.capsys, **arguments)["changed"]


def test_a_part_that_arrives_damaged(made: Made) -> None:
    """It is not taken for the bundle, and the older one is not removed."""
    made.seal()
    opened, there = made.open(), made.folder / "host"
    (there / "older").mkdir(parents=True)
    part = bundle_place.part_of(Path(opened["folder"]), ["trixie-amd64"])
    part.write_bytes(part.read_bytes().replace(b"a package", b"a pickage"))
    answer = call(place_module, made.capsys, folder=opened["folder"], targets=["trixie-amd64"], path=there, part=part, sha256=manifest_digest(opened))
    assert answer["failed"] and "debian/trixie-amd64/b.deb is damaged" in answer["msg"]
    assert sorted(path.name for path in there.iterdir()) == [f"{opened['id']}.part", "older"]


# --- A host that has it for others ---


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Counts what is asked for."""

    asked: list[str] = []

    def do_GET(self) -> None:
        """Answer with a file."""
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


def certificate(folder: Path) -> str:
    """Write a certificate for 127.0.0.1 with its key into one file, and return the certificate, which is its own CA."""
    key, start = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mirror")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, start + datetime.timedelta(days=9))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    public = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(private + public)
    return public.decode()


@pytest.fixture(name="mirror")
def fixture_mirror(made: Made) -> Iterator[dict[str, Any]]:
    """A host with the bundle for both kinds of hosts; yields how another one gets its part from there."""
    made.seal()
    opened, there = made.open(), made.folder / "mirror"
    both = ["bookworm-amd64", "trixie-amd64"]
    part = bundle_place.part_of(Path(opened["folder"]), both)
    assert call(place_module, made.capsys, folder=opened["folder"], targets=both, path=there, part=part, sha256=manifest_digest(opened))["complete"]
    ca = certificate(made.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.folder / "server.pem")
    Mirror.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Mirror, directory=str(there))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments = {"folder": opened["folder"], "targets": ["bookworm-amd64"], "path": made.folder / "host", "sha256": manifest_digest(opened)}
        yield {**arguments, "url": f"https://127.0.0.1:{server.server_port}", "ca": ca}
        server.shutdown()


def test_a_host_gets_its_part_from_another(made: Made, mirror: dict[str, Any]) -> None:
    """By TLS, what is for its kind and nothing else, once."""
    assert call(place_module, made.capsys, **mirror) == {"changed": True, "complete": True}
    there, index = Path(mirror["path"]) / Path(mirror["folder"]).name, ["debian/bookworm-amd64/Packages.gz"]
    files = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert files == {".complete", "manifest.json", "sbom.cdx.json", "bootstrap.sh", "wheels/a-1.whl", *index, "debian/bookworm-amd64/c.deb"}
    asked = len(Mirror.asked)
    assert call(place_module, made.capsys, **mirror) == {"changed": False, "complete": True} and len(Mirror.asked) == asked == 6


def test_a_mirror_of_somebody_else(made: Made, mirror: dict[str, Any]) -> None:
    """Nothing is fetched from a server whose certificate is from another CA."""
    answer = call(place_module, made.capsys, **(mirror | {"ca": certificate(made.folder)}))
    assert answer["failed"] and "manifest.json cannot be had: " in answer["msg"] and "certificate" in answer["msg"]
    assert Mirror.asked == []


def test_a_mirror_with_another_manifest(made: Made, mirror: dict[str, Any]) -> None:
    """Whatever it is called there, it is not the one that the controller has checked."""
    manifest = made.folder / "mirror" / Path(mirror["folder"]).name / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"0.1.0", b"0.1.1"))
    answer = call(place_module, made.capsys, **mirror)
    assert answer["failed"] and "manifest.json is not that of the bundle" in answer["msg"] and "for all hosts" in answer["msg"]


def test_a_fetch_goes_on_where_it_was(made: Made, mirror: dict[str, Any]) -> None:
    """What has arrived whole is not asked for again."""
    name = Path(mirror["folder"]).name
    wheel = made.folder / "mirror" / name / "wheels/a-1.whl"
    wheel.write_text("a whale", encoding="utf-8")
    answer = call(place_module, made.capsys, **mirror)
    assert answer["failed"] and "wheels/a-1.whl is damaged" in answer["msg"]
    wheel.write_text("a wheel", encoding="utf-8")
    Mirror.asked.clear()
    assert call(place_module, made.capsys, **mirror)["complete"]
    assert Mirror.asked == [f"/{name}/manifest.json", f"/{name}/wheels/a-1.whl"]


def test_files_of_the_bundle_before_are_not_fetched(made: Made, mirror: dict[str, Any]) -> None:
    """A host that has them in an older bundle takes them from there."""
    before = made.folder / "host" / "before"
    shutil.copytree(made.folder / "mirror" / Path(mirror["folder"]).name, before)
    (before / "debian/bookworm-amd64/c.deb").unlink()
    # Left by an interruption.
    (made.folder / "host/other.part").mkdir()
    (made.folder / "host/other.part/manifest.json").write_text("{", encoding="utf-8")
    assert call(place_module, made.capsys, **mirror)["complete"]
    assert [Path(name).name for name in Mirror.asked] == ["manifest.json", "c.deb"], "and nothing else"
    assert not before.exists()


FACTS = {"distribution": "Debian", "distribution_major_version": "13", "architecture": "x86_64"}


def test_preflight_says_what_is_wrong_with_a_bundle() -> None:
    """With the variable, the value and the remedy; and what else would not count."""
    host = {"sources_bundle": "/x.tar", "sources_python_wheels": "/y", "ansible_facts": FACTS}
    wrong = checks.bundle_problems(host, {"problem": "it is no bundle"})
    assert wrong == [
        "sources_python_wheels = '/y': with sources_bundle no other source is asked; leave it out",
        "sources_bundle = '/x.tar': it is no bundle",
    ]
    del host["sources_python_wheels"]
    assert checks.bundle_problems(host, {"problem": "", "targets": ["trixie-amd64"]}) == []
    plain = checks.bundle_problems(host | {"sources_bundle_url": "http://mirror"}, {"problem": "", "targets": ["trixie-amd64"]})
    assert plain == ["sources_bundle_url = 'http://mirror': use an address that begins with https://"]
    assert "make one with bundle_targets: [trixie-amd64]" in checks.bundle_problems(host, {"problem": "", "targets": ["bookworm-amd64"]})[0]


def test_a_key_that_nobody_has_compared_is_worth_a_word() -> None:
    """Until it is in the inventory."""
    opened = {"problem": "", "fingerprint": "abc"}
    assert "signed with the key abc" in checks.bundle_notices({"sources_bundle": "/x.tar"}, opened)[0]
    assert checks.bundle_notices({"sources_bundle": "/x.tar", "sources_bundle_key": "abc"}, opened) == []


def test_a_control_node_refuses_a_bundle_for_other_pythons(made: Made) -> None:
    """With the one that it is for, and before anything is made."""
    made.seal()
    shutil.copyfile(ROOT / "roles/bundle/files/bootstrap.sh", made.content / "bootstrap.sh")
    mine, other, version = ("trixie", "bookworm", "3.11") if sys.version_info[:2] == (3, 13) else ("bookworm", "trixie", "3.13")
    manifest = (made.content / "manifest.json").read_text(encoding="utf-8")
    made.file("manifest.json", manifest.replace(f"{mine}-amd64", f"{other}-amd64"))
    command = ["sh", made.content / "bootstrap.sh", made.folder / "control"]
    result = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and not (made.folder / "control").exists()
    assert result.stderr.startswith(f"ERROR: the bundle is for Python {version}, and {sys.executable} is ")


def test_a_control_node_refuses_a_bundle_that_is_not_whole(made: Made) -> None:
    """With nothing but Python and a shell."""
    shutil.copyfile(ROOT / "roles/bundle/files/bootstrap.sh", made.content / "bootstrap.sh")
    made.seal()
    made.file("wheels/a-1.whl", "a wheal")
    (made.content / "debian/trixie-amd64/b.deb").unlink()
    result = subprocess.run(["sh", made.content / "bootstrap.sh", made.folder / "control"], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and not (made.folder / "control").exists()
    assert result.stderr.splitlines() == [
        "debian/trixie-amd64/b.deb is missing",
        "wheels/a-1.whl is damaged",
        "ERROR: the bundle is not whole; copy it again",
    ]
