"""Measures both hosts in turns, and writes every figure of every round as JSON.

usage: measure.py {quick|full} FOLDER RESULT, with MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, CA_FILE and SSH_KEY; FOLDER has the
file runs, with the runs to log to
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

from harness import PROGRAMS, Server, machine, save


@dataclasses.dataclass(frozen=True)
class Mode:
    """How long everything is measured."""

    rounds: int
    calls: int
    # Seconds of load by the number of clients; stock MLflow needs 30 s to find out that it has blocked itself.
    load: dict[int, int]
    artifact_mib: int


# Stock MLflow alone needs the half minute at 100 clients; all else of the quick one is as short as it can be.
MODES = {
    "quick": Mode(rounds=1, calls=40, load={1: 3, 8: 3, 32: 3, 100: 32}, artifact_mib=256),
    "full": Mode(rounds=3, calls=200, load={1: 8, 8: 8, 32: 8, 100: 40}, artifact_mib=1024),
}


def measure(server: Server, mode: Mode, folder: Path) -> dict[str, Any]:
    """One round of one server."""
    runs, result = folder / "runs", {}
    result["idle"] = server.memory()
    result["client"] = server.program("client.py", str(mode.calls))
    with server.writers(8, runs):
        result["search"] = server.program("client.py", str(mode.calls), "search_runs")["search_runs"]
    # The browser is driven from the controller's environment.
    result["page"] = server.run("python", str(PROGRAMS / "page.py"), server.url, os.environ["CA_FILE"])
    file = folder / "large.bin"
    if not file.exists():
        with file.open("wb") as out:
            for _mib in range(mode.artifact_mib):
                out.write(os.urandom(1024 * 1024))
    result["artifact"] = server.program("artifact.py", str(file), "mlflow")
    # Last, as it may take a server long to come to itself after that.
    for metrics in (10, 20):
        for clients, seconds in mode.load.items():
            if metrics == 10 and clients not in (8, 32):
                continue
            server.settle()
            result[f"load {metrics} {clients}"] = server.load(runs, metrics, clients, seconds)
    result["loaded"] = server.memory()
    server.settle()
    return result


def of_one_worker(server: Server) -> int:
    """Give a server the smallest profile, and return its memory in MiB, idle."""
    server.on_host("""
    mkdir -p /etc/systemd/system/mlflow.service.d
    echo MLFLOW_WORKERS=1 > /etc/mlflow/smallest.env
    printf '[Service]\\nEnvironmentFile=/etc/mlflow/smallest.env\\n' > /etc/systemd/system/mlflow.service.d/smallest.conf
    systemctl daemon-reload
    systemctl restart mlflow
    """)
    server.settle()
    return server.memory()["server"]


def main() -> None:
    """All rounds."""
    mode, folder, target = MODES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    password = os.environ["MLFLOW_TRACKING_PASSWORD"]
    servers = [
        Server("stock", "10.213.8.11", "http://10.213.8.11:5000", "stock", "mlops-benchmark-guide"),
        Server("site.yml", "10.213.8.10", "https://10.213.8.10", "mlflow", "mlops-benchmark-ours", password),
    ]
    rounds: list[dict[str, Any]] = []
    begun = time.monotonic()
    for number in range(mode.rounds):
        rounds.append({})
        # The one that begins is another one each time.
        for server in servers if number % 2 == 0 else reversed(servers):
            print(f"    round {number + 1} of {mode.rounds}: {server.name}", flush=True)
            with server.alone([each for each in servers if each is not server]):
                rounds[-1][server.name] = measure(server, mode, folder)
    smallest = of_one_worker(servers[1])
    command = f"make bench NAME=serving MODE={sys.argv[1]}"
    about = {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), **servers[1].versions()}
    minutes = round((time.monotonic() - begun) / 60, 1)
    save(target, about | {"minutes": minutes, "artifact_mib": mode.artifact_mib, "smallest": smallest, "rounds": rounds})


main()
