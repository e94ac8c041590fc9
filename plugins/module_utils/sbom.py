# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lists of packages as CycloneDX 1.6 documents. Pure functions: the same packages make the same bytes."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import quote

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
# Of our own, so that no other tool makes the same serial number.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:mlops.mlflow:sbom")
MARKER = "mlops.mlflow:marker"
SOURCE = "mlops.mlflow:source"

PINNED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(\[[\w., -]*\])?==(?P<version>[^\s;=*]+)(\s*;\s*(?P<marker>.+))?")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One entry of a lock: a package, when it is installed, and the files that may be."""

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...] = ()


def canonical(name: str) -> str:
    """Return a Python package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> list[Pin]:
    """Return the entries of a lock.

    Args:
        text: a requirements file as ``make lock`` writes it.

    Raises:
        ValueError: a line is no pinned version, or has no SHA-256; with the line.
    """
    pins = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        entry = re.sub(r"(^|\s)#.*", "", line).strip()
        if not entry:
            continue
        hashes = HASH.findall(entry)
        match = PINNED.fullmatch(re.sub(r"\s--hash=\S+", "", entry).strip())
        if match is None:
            raise ValueError(f"'{entry[:100]}' is not pinned with ==")
        if not hashes:
            raise ValueError(f"'{entry[:100]}' has no --hash=sha256:")
        pins.append(Pin(canonical(match["name"]), match["version"], (match["marker"] or "").strip(), tuple(sorted(hashes))))
    return pins


def licence_of(metadata: Message) -> dict[str, str]:
    """Return a package's licence: an SPDX expression, or the author's words where there is none and they are not the whole text of the licence."""
    expression = str(metadata.get("License-Expression") or "").strip()
    words = str(metadata.get("License") or "").strip()
    if len(words) > 100 or "\n" in words or words == "UNKNOWN":
        words = ""
    named = {value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier") or [] if value.startswith("License :: ")}
    return {"expression": expression, "licence": "" if expression else words or ", ".join(sorted(named - {"OSI Approved"}))}


def purl(kind: str, name: str, version: str, **qualifiers: str) -> str:
    """Return a package URL.

    Args:
        kind: type, with the namespace behind a slash where the type has one: ``pypi``, ``deb/debian``.
        name: of the package.
        version: its version.
        qualifiers: those that are empty are left out.
    """
    query = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{kind}/{quote(name, safe='')}@{quote(version, safe=':')}" + (f"?{query}" if query else "")


def python_component(
    name: str,
    version: str,
    hashes: Iterable[str] = (),
    expression: str = "",
    licence: str = "",
    marker: str = "",
    folders: Iterable[str] = (),
    bundled: Iterable[tuple[str, str, str]] = (),
) -> dict[str, Any]:
    """Return the component of a Python package.

    Args:
        name: as its author writes it.
        version: its version.
        hashes: SHA-256 of each file that the lock accepts for it. It is one of them, and the list does not say which.
        expression: its licence as an SPDX expression.
        licence: its licence in the author's words, where there is no expression.
        marker: on which Pythons and platforms it is installed, where not on all.
        folders: the virtual environments that have it.
        bundled: name, version and package URL of what it says to have inside; the last two may be empty.
    """
    url = purl("pypi", canonical(name), version)
    result: dict[str, Any] = {"type": "library", "bom-ref": url, "name": canonical(name), "version": version, "purl": url}
    if expression or licence:
        result["licenses"] = [{"expression": expression}] if expression else [{"license": {"name": licence}}]
    accepted = [{"alg": "SHA-256", "content": content} for content in sorted(set(hashes))]
    if accepted:
        result["externalReferences"] = [{"type": "distribution", "url": url, "comment": "One of these files, as the lock has them.", "hashes": accepted}]
    if marker:
        result["properties"] = [{"name": MARKER, "value": marker}]
    places = sorted(set(folders))
    if places:
        result["evidence"] = {"occurrences": [{"location": place} for place in places]}
    # Without a reference of their own: the same library may be inside of many packages.
    parts = [dict(zip(("name", "version", "purl"), part)) for part in sorted(set(bundled))]
    if parts:
        result["components"] = [{"type": "library", **{key: value for key, value in part.items() if value}} for part in parts]
    return result


def debian_component(package: Mapping[str, str], system: Mapping[str, str]) -> dict[str, Any]:
    """Return the component of a Debian package.

    Args:
        package: ``name``, ``version``, ``architecture``, ``source`` and ``source_version``, by which advisories are published.
        system: ``id`` and ``version`` of the distribution, as in /etc/os-release.
    """
    name, version = str(package["name"]), str(package["version"])
    source, source_version = str(package["source"]), str(package["source_version"])
    upstream = "" if (source, source_version) == (name, version) else source if source_version == version else f"{source}@{source_version}"
    distro = f"{system['id']}-{system['version']}"
    url = purl(f"deb/{system['id']}", name, version, arch=str(package["architecture"]), distro=distro, upstream=upstream)
    result: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
    if upstream:
        result["properties"] = [{"name": SOURCE, "value": f"{source} {source_version}"}]
    return result


def merged_packages(environments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the components of the Python packages of some virtual environments, each package and version once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for environment in environments:
        for package in environment["packages"]:
            key = canonical(str(package["name"])), str(package["version"])
            texts = {field: str(package[field]) for field in ("expression", "licence")}
            entry = found.setdefault(key, {"hashes": set(), "folders": set(), "bundled": set(), **texts})
            entry["hashes"].update(str(content) for content in package["hashes"])
            entry["folders"].add(str(environment["folder"]))
            entry["bundled"].update((str(part["name"]), str(part["version"]), str(part["purl"])) for part in package["bundled"])
    return [python_component(name, version, **entry) for (name, version), entry in found.items()]


def document(subject: dict[str, Any], components: Iterable[dict[str, Any]], timestamp: int | None = None) -> dict[str, Any]:
    """Return a CycloneDX document.

    Args:
        subject: the component that all the others are in.
        components: those of the packages, in any order.
        timestamp: seconds since the epoch. Without it the document has no time, and only another package makes another document.

    Raises:
        ValueError: two components are the same.
    """
    parts = sorted(components, key=lambda part: (part["type"], part["bom-ref"]))
    references = [part["bom-ref"] for part in [subject, *parts]]
    twice = sorted({reference for reference in references if references.count(reference) > 1})
    if twice:
        raise ValueError(f"more than once: {', '.join(twice)}")
    metadata: dict[str, Any] = {"tools": {"components": [{"type": "application", "name": "mlops.mlflow"}]}, "component": subject}
    if timestamp is not None:
        metadata["timestamp"] = datetime.datetime.fromtimestamp(timestamp, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    result = {"$schema": SCHEMA, "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": metadata, "components": parts}
    digest = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    return {**result, "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}"}


def render(content: Mapping[str, Any]) -> str:
    """Return a document as the text of a file."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def of_lock(version: str, pins: Iterable[Pin], timestamp: int | None = None) -> dict[str, Any]:
    """Return the document of a lock: what the environment of an MLflow version is made of.

    Args:
        version: of MLflow.
        pins: entries of its lock.
        timestamp: see ``document``.
    """
    subject = {"type": "application", "bom-ref": f"mlflow-server@{version}", "name": "mlflow-server", "version": version}
    return document(subject, [python_component(pin.name, pin.version, pin.hashes, marker=pin.marker) for pin in pins], timestamp)


def of_host(name: str, report: Mapping[str, Any], timestamp: int | None = None) -> dict[str, Any]:
    """Return the document of a host.

    Args:
        name: of the host.
        report: what the module ``package_report`` returns: ``system``, ``debian`` and ``environments``.
        timestamp: see ``document``.
    """
    system = {"id": str(report["system"]["id"]), "version": str(report["system"]["version"])}
    distribution = {
        "type": "operating-system",
        "bom-ref": f"{system['id']}-{system['version']}",
        "name": system["id"],
        "version": system["version"],
    }
    debian = [debian_component(package, system) for package in report["debian"]]
    return document(
        {"type": "platform", "bom-ref": f"host:{name}", "name": name}, [distribution, *debian, *merged_packages(report["environments"])], timestamp
    )
