"""Makes a page and JSON of how large bundles are, and how long it takes to make them and to install from one.

usage: report.py ROUNDS FOLDER MLFLOW-VERSION TARGET; FOLDER has a file with the seconds of each kind of run, one a line, and the folders of the bundles
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from harness import machine, save, where

MB = 1_000_000
KINDS = ("deb", "wheel", "other")
# Which file, what it says, what it is compared with, and the goal.
TABLE = [
    ("build_cold", "a bundle for one target, nothing downloaded yet", "", ""),
    ("build_again", "the same again", "build_cold", ""),
    ("build_two", "a bundle for both, nothing downloaded yet", "", ""),
    ("online", "`site.yml`, a bare host with a way out", "", ""),
    ("offline", "`site.yml`, a bare host and the bundle", "online", "≤ 1"),
]
OTHERS = {"build_cold": "the first time", "online": "with a way out"}
# Which folder, for whom, and the goals for its tarball and the wheels in it.
BUNDLES = [("one", "Debian 13", "≤ 400", "≤ 210"), ("two", "Debian 12 and 13", "≤ 700", "")]


def sizes(folder: Path) -> dict[str, Any]:
    """Return what a bundle has, in bytes by kind, and its largest files."""
    files = json.loads((folder / "content/manifest.json").read_text(encoding="utf-8"))["files"]
    found = dict.fromkeys(KINDS, 0)
    for each in files:
        found[each["kind"] if each["kind"] in KINDS else "other"] += each["size"]
    largest = {each.get("name", each["path"]): each["size"] for each in sorted(files, key=lambda each: -each["size"])[:10]}
    return {**found, "tarball": (folder / "mlops-mlflow-bundle.tar").stat().st_size, "largest": largest}


def main() -> None:
    """Write both."""
    rounds, folder, version, target = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    seconds = {name: [float(line) for line in (folder / name).read_text(encoding="utf-8").split()] for name, *_rest in TABLE}
    median = {name: statistics.median(values) for name, values in seconds.items()}
    bundles = {name: sizes(folder / name) for name, *_rest in BUNDLES}
    command = f"make bench NAME=airgap MODE={'quick' if rounds == 1 else 'full'}"
    about = {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), "mlflow": version}
    result = about | {"seconds": seconds, "bundles": bundles}
    lines = [
        "# Bundles for sites without a way out",
        "",
        f"{where(result)} Median of {rounds} round{'s' if rounds > 1 else ''}. Controller and host share the machine's cores. With a way out, packages and "
        "wheels come from the mirrors that this machine uses. The host has MLflow, gateway, PostgreSQL and the one-node Ceph.",
        "",
        "| bundle for | MB | goal | packages of Debian | wheels | goal | all else |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: |",
    ]
    for name, title, goal, wheels in BUNDLES:
        has = bundles[name]
        figures = [f"{has[key] / MB:.0f}" for key in ("tarball", "deb", "wheel", "other")]
        lines.append(f"| {title} | {figures[0]} | {goal} | {figures[1]} | {figures[2]} | {wheels} | {figures[3]} |")
    largest = ", ".join(f"{name} {size / MB:.0f}" for name, size in bundles["one"]["largest"].items())
    lines += ["", f"The largest files of the first one, in MB: {largest}.", "", "| run | seconds | ratio | goal |", "| --- | ---: | --- | --- |"]
    for name, title, other, goal in TABLE:
        ratio = f"{median[name] / median[other]:.2f} × {OTHERS[other]}" if other else ""
        lines.append(f"| {title} | {median[name]:.1f} | {ratio} | {goal} |")
    page = "\n".join(lines) + "\n"
    (target / "airgap.md").write_text(page, encoding="utf-8")
    save(target / "airgap.json", result)
    print(page)


main()
