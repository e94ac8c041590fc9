# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a bundle for sites without a way out is made of, whether it is whole, and whom it fits. No Ansible."""

from __future__ import annotations

import email.utils
import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ansible_collections.mlops.mlflow.plugins.module_utils import sbom

MANIFEST, SIGNATURE, KEY = "manifest.json", "manifest.sig", "key.pem"
# Of manifest.json. A reader refuses one that it does not know.
FORMAT = 1

# By release: distribution, its major version, the Python and the C library that it has.
RELEASES = {
    "bookworm": ("Debian", "12", "3.11.2", "2.36"),
    "trixie": ("Debian", "13", "3.13.5", "2.41"),
}
# What Debian calls a machine, and what everybody else does.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# Names that wheels had before PEP 600, by the C library that they stand for.
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class Target:
    """A kind of host: release and architecture, as Debian has them."""

    release: str
    architecture: str

    @property
    def name(self) -> str:
        """How an inventory calls it."""
        return f"{self.release}-{self.architecture}"

    @property
    def machine(self) -> str:
        """The architecture as Python and the kernel have it."""
        return MACHINES[self.architecture]

    @property
    def python(self) -> str:
        """The release's Python, with its patch level."""
        return RELEASES[self.release][2]

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, best first."""
        newest = int(RELEASES[self.release][3].split(".")[1])
        tags = [tag for minor in range(newest, 4, -1) for tag in (f"manylinux_2_{minor}", LEGACY.get(minor)) if tag]
        return [f"{tag}_{self.machine}" for tag in tags]

    @property
    def markers(self) -> dict[str, str]:
        """What the markers of requirements are judged by (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": ".".join(self.python.split(".")[:2]),
            "sys_platform": "linux",
        }


def target(name: str) -> Target:
    """Return the target of a name such as ``trixie-amd64``.

    Raises:
        ValueError: there is none of that name; with those that there are.
    """
    release, _dash, architecture = name.partition("-")
    if release not in RELEASES or architecture not in MACHINES:
        raise ValueError(f"'{name}' is no target: use RELEASE-ARCHITECTURE with one of {', '.join(RELEASES)} and one of {', '.join(MACHINES)}")
    return Target(release, architecture)


def holds(marker: str, where: Target) -> bool:
    """Tell whether a marker holds on a target. pip would judge it by the Python that runs it."""
    from packaging.markers import Marker

    return not marker or Marker(marker).evaluate({**where.markers, "extra": ""})


def requirements(lock: str, where: Target) -> list[str]:
    """Return the entries of a lock that are installed on a target, sorted, each with its hashes (see ``sbom.parse_lock``)."""
    pins = [pin for pin in sbom.parse_lock(lock) if holds(pin.marker, where)]
    return sorted(" ".join([f"{pin.name}=={pin.version}", *(f"--hash=sha256:{content}" for content in pin.hashes)]) for pin in pins)


@dataclass(frozen=True)
class Package:
    """A Debian package that a mirror has."""

    uri: str
    file: str
    size: int
    name: str
    version: str
    architecture: str


def packages(output: str) -> list[Package]:
    """Read what ``apt-get install --print-uris`` prints, by file name."""
    found = []
    for uri, file, size in re.findall(r"^'([^']+)' (\S+\.deb) (\d+)\b", output, re.MULTILINE):
        name, version, architecture = unquote(file[: -len(".deb")]).split("_")
        found.append(Package(uri, file, int(size), name, version, architecture))
    return sorted(found, key=lambda package: package.file)


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Read paragraphs of fields, as apt has them; a field that goes on has its lines in its value."""
    for paragraph in re.split(r"\n{2,}", text.strip()):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE))
        if fields:
            yield fields


def packages_index(described: str, wanted: Iterable[Package]) -> str:
    """Return the index of a repository whose packages lie beside it.

    Args:
        described: the paragraphs of these packages, and perhaps of others, as ``apt-cache show`` prints them.
        wanted: the packages.

    Raises:
        ValueError: one of them is not described.
    """
    known = {(fields["Package"], fields["Version"], fields["Architecture"]): fields for fields in stanzas(described)}
    lines = []
    for package in sorted(wanted, key=lambda each: (each.name, each.version, each.architecture)):
        fields = known.get((package.name, package.version, package.architecture))
        if fields is None:
            raise ValueError(f"apt-cache does not describe {package.name} {package.version} ({package.architecture})")
        lines += [f"{name}: {value}" for name, value in {**fields, "Filename": f"./{package.file}"}.items()] + [""]
    return "\n".join(lines)


def release_file(where: Target, date: str, files: Mapping[str, bytes]) -> str:
    """Return the file that says what a repository has; apt believes it for its signature.

    Args:
        where: the target whose packages it has.
        date: as apt writes dates.
        files: the indices, by path.
    """
    lines = [
        "Origin: mlops.mlflow",
        "Label: mlops.mlflow bundle",
        f"Suite: {where.release}",
        f"Codename: {where.release}",
        f"Date: {date}",
        f"Architectures: {where.architecture}",
        "SHA256:",
    ]
    return "\n".join(lines + [f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}" for path, content in sorted(files.items())]) + "\n"


def seconds(date: str) -> int:
    """Return the seconds since the epoch of a date as apt writes it."""
    return int(email.utils.parsedate_to_datetime(date.replace("UTC", "+0000")).timestamp())


def licences(copyright_file: str) -> str:
    """Return the licences that a Debian package's copyright file names, where it is one that programs can read; else an empty text."""
    if not re.match(r"\s*Format:.*copyright-format", copyright_file):
        return ""
    names = {name.strip() for fields in stanzas(copyright_file) if "License" in fields for name in [fields["License"].partition("\n")[0]] if name.strip()}
    return ", ".join(sorted(names, key=str.lower))


def components(debs: Mapping[str, Iterable[Mapping[str, Any]]], wheels: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return what is known of the files of a bundle, each with the targets that it is for.

    Args:
        debs: by target, what the module ``bundle_packages`` says of each package.
        wheels: by target, what the module ``bundle_wheels`` says of each wheel.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, folder, listed in (("deb", "debian/{}/", debs), ("wheel", "wheels/", wheels)):
        for name, files in listed.items():
            for file in files:
                path = folder.format(name) + file["file"]
                licence = file.get("expression") or file["licence"]
                about = {"name": file["name"], "version": file["version"], "licence": licence, "origin": file.get("origin", "")}
                found.setdefault(path, {"path": path, "kind": kind, **about, "targets": []})["targets"].append(name)
    return [{**each, "targets": sorted(each["targets"])} for _path, each in sorted(found.items())]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def render(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest: the same ones for the same content. They are what is signed."""
    return (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def identity(manifest: Mapping[str, Any]) -> str:
    """Return what tells a bundle from others."""
    return hashlib.sha256(render(manifest)).hexdigest()[:12]


def damage(manifest: Mapping[str, Any], folder: Path, chosen: Iterable[str] | None = None) -> list[str]:
    """Compare files with the manifest.

    Args:
        manifest: whose ``files`` have path, size and sha256.
        folder: where they are.
        chosen: the paths to look at; all, without.

    Returns:
        A sentence for each that is not as it should be.
    """
    paths = None if chosen is None else set(chosen)
    found = []
    for entry in manifest["files"]:
        path = folder / entry["path"]
        if paths is not None and entry["path"] not in paths:
            continue
        if not path.is_file():
            found.append(f"{entry['path']} is missing")
        elif path.stat().st_size != entry["size"]:
            found.append(f"{entry['path']} has {path.stat().st_size} bytes instead of {entry['size']}")
        elif digest(path) != entry["sha256"]:
            found.append(f"{entry['path']} is damaged: its SHA-256 is not the one in {MANIFEST}")
    return found


def target_of(distribution: str, version: str, machine: str) -> str | None:
    """Return the name of the target that a host is; None where there is none. The arguments are those of ``misfit``."""
    hosts = {(*about[:2], kernel): Target(release, name).name for release, about in RELEASES.items() for name, kernel in MACHINES.items()}
    return hosts.get((distribution, version, machine))


def misfit(manifest: Mapping[str, Any], distribution: str, version: str, machine: str) -> str | None:
    """Say why a bundle is not for a host; None where it is.

    Args:
        manifest: of the bundle.
        distribution: the host's, such as Debian.
        version: its major version.
        machine: its architecture, as the kernel has it.
    """
    wanted = target_of(distribution, version, machine)
    if wanted in manifest["targets"]:
        return None
    known = " and ".join(f"{about[0]} {about[1]}" for about in RELEASES.values())
    remedy = f"make one with bundle_targets: [{wanted}]" if wanted else f"there are bundles for {known}"
    return f"it is for {' and '.join(manifest['targets'])}, and this host is {distribution} {version} on {machine}: {remedy}"


def files_for(manifest: Mapping[str, Any], name: str) -> list[str]:
    """Return the paths that a target needs: what is for it alone, or for it too."""
    return [entry["path"] for entry in manifest["files"] if name in entry.get("targets", [])]


def part(manifest: Mapping[str, Any], folder: Path, names: Iterable[str], tarball: Path) -> None:
    """Write the tarball with what some targets need, the manifest among it."""
    pack(folder, [MANIFEST, *sorted({path for name in names for path in files_for(manifest, name)})], tarball)


def pack(folder: Path, paths: Iterable[str], tarball: Path) -> None:
    """Write a tarball, the same one for the same files; it is there when it is whole."""
    draft = tarball.with_name(f"{tarball.name}.part")
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            content = folder / path
            member = tarfile.TarInfo(path)
            member.size, member.mode = content.stat().st_size, 0o755 if content.suffix == ".sh" else 0o644
            with content.open("rb") as file:
                archive.addfile(member, file)
    draft.replace(tarball)


def unpack(tarball: Path, folder: Path, wanted: Iterable[str]) -> None:
    """Unpack the files of a tarball that are wanted; what else is in it is left alone.

    Raises:
        ValueError: it cannot be read to its end.
    """
    names = set(wanted)
    try:
        with tarfile.open(tarball) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name in names else None
                if content is not None:
                    path = folder / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"it cannot be read to its end ({error}): copy it again") from error


def delta(manifest: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the paths whose content an older bundle does not have, under whatever name."""
    known = {entry["sha256"] for entry in before["files"]}
    return [entry["path"] for entry in manifest["files"] if entry["sha256"] not in known]
