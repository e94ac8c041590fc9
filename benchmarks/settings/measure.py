"""Changes one thing after the other on the host of a site, and measures two of them between two measurements of the host as site.yml left it.

usage: measure.py {quick|full} FOLDER RESULT, with MLFLOW_TRACKING_PASSWORD, CA_FILE and SSH_KEY; FOLDER has the file runs, with the runs to log to
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from harness import Server, machine, save

HERE = Path(__file__).parent
ADDRESS = "10.213.8.30"


@dataclasses.dataclass(frozen=True)
class Mode:
    """How long everything is measured."""

    rounds: int
    load_seconds: int
    searches: int


MODES = {"quick": Mode(rounds=1, load_seconds=3, searches=20), "full": Mode(rounds=3, load_seconds=5, searches=40)}


def measure(server: Server, mode: Mode, runs: Path, change: str) -> dict[str, Any]:
    """Measure with one change, or with none."""
    functions = (HERE / "on_host.sh").read_text(encoding="utf-8")
    server.on_host(f"{functions}\nreset\n{change}\nprepare\n")
    start = time.perf_counter()
    server.on_host(f"{functions}\nxargs systemctl start < /root/units\n")
    server.settle()
    result: dict[str, Any] = {"start": round(time.perf_counter() - start, 2)}
    # Connections and caches are warm, as on a server that has run for a while.
    server.load(runs, 10, 32, 2)
    for clients in (8, 32):
        load = server.load(runs, 10, clients, mode.load_seconds)
        if load["errors"]:
            sys.exit(f"{load['errors']} errors with: {change}")
        result[f"writes {clients}"] = round(load["answers"] / load["seconds"], 1)
    with server.writers(4, runs):
        result["searches"] = server.program("client.py", str(mode.searches * 5), "search_runs")["search_runs"]
    result["memory"] = server.memory()["server"]
    return result


def main() -> None:
    """All rounds."""
    mode, folder, target = MODES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    changes = yaml.safe_load((HERE / "changes.yml").read_text(encoding="utf-8"))
    server = Server("site.yml", ADDRESS, f"https://{ADDRESS}", "mlflow", "mlops-benchmark-tried", os.environ["MLFLOW_TRACKING_PASSWORD"])
    functions = (HERE / "on_host.sh").read_text(encoding="utf-8")
    rounds = []
    for number in range(mode.rounds):
        # In the other direction each time, as a machine's speed changes.
        order = changes if number % 2 == 0 else changes[::-1]
        found: dict[str, Any] = {}
        before = measure(server, mode, folder / "runs", "")
        for index in range(0, len(order), 2):
            pair = order[index : index + 2]
            for change in pair:
                print(f"    round {number + 1} of {mode.rounds}: {change['what']}", flush=True)
                found[change["what"]] = {"before": before, "with": measure(server, mode, folder / "runs", change["on"])}
                if "off" in change:
                    server.on_host(f"{functions}\nreset\n{change['off']}\n")
            before = measure(server, mode, folder / "runs", "")
            for change in pair:
                found[change["what"]]["after"] = before
        rounds.append(found)
    parts = {change["what"]: change["part"] for change in changes}
    command = f"make bench NAME=settings MODE={sys.argv[1]}"
    result = {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), **server.versions(), "parts": parts, "rounds": rounds}
    save(target, result)


main()
