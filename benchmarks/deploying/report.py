"""Makes a page and JSON of how long each run took.

usage: report.py ROUNDS FOLDER MLFLOW-VERSION TARGET; FOLDER has a file with the seconds of each kind of run, one a line
"""

from __future__ import annotations

import datetime
import statistics
import sys
from pathlib import Path

from harness import machine, save, where

# Which file, what it says, what it is compared with, and the goal.
TABLE = [
    ("script", "script, one bare host", "", ""),
    ("cold", "`site.yml`, one bare host", "script", "≤ 1.25"),
    ("controller", "the processor's time that Ansible takes of that on the controller", "cold", ""),
    ("warm", "`site.yml`, one host with nothing to do", "", "≤ 12 s"),
    ("six_cold", "`site.yml`, six bare hosts", "cold", ""),
    ("six_warm", "`site.yml`, six hosts with nothing to do", "warm", "≤ 2"),
    ("build", "MLflow's environment, built by a host", "", ""),
    ("hand_on", "MLflow's environment, packed by a host, through the controller to another and unpacked there", "build", ""),
]


# What a kind of run is called where another one is compared with it.
OTHERS = {"script": "script", "cold": "one bare host", "warm": "one host", "build": "built"}


def main() -> None:
    """Write both."""
    rounds, folder, version, target = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    seconds = {name: [float(line) for line in (folder / name).read_text(encoding="utf-8").split()] for name, *_rest in TABLE}
    median = {name: statistics.median(values) for name, values in seconds.items()}
    command = f"make bench NAME=deploying MODE={'quick' if rounds == 1 else 'full'}"
    result = {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), "mlflow": version, "seconds": seconds}
    lines = [
        "# How long site.yml takes",
        "",
        f"{where(result)} Median of {rounds} round{'s' if rounds > 1 else ''}. Controller and hosts share the machine's cores. Wheels and packages come from "
        "this machine.",
        "",
        "| run | seconds | ratio | goal |",
        "| --- | ---: | --- | --- |",
    ]
    for name, title, other, goal in TABLE:
        ratio = f"{median[name] / median[other]:.2f} × {OTHERS[other]}" if other else ""
        lines.append(f"| {title} | {median[name]:.1f} | {ratio} | {goal} |")
    size = (folder / "environment.tar").stat().st_size / 2**20
    lines += ["", f"The environment has {size:.0f} MiB. Between these hosts there is no wire that would have to carry them."]
    page = "\n".join(lines) + "\n"
    (target / "deploying.md").write_text(page, encoding="utf-8")
    save(target / "deploying.json", result)
    print(page)


main()
