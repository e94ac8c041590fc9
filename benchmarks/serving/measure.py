"""Measures both hosts in turns, and writes every figure of every round as JSON.

usage: measure.py {quick|full} FOLDER RESULT, with MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, CA_FILE and SSH_KEY; FOLDER has the
file runs, with the runs to log to
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
STORE = "https://10.213.8.12:7480"


@dataclasses.dataclass(frozen=True)
class Mode:
    """How long everything is measured."""

    rounds: int
    calls: int
    # Seconds of load by the number of clients; stock MLflow needs 30 s to find out that it has blocked itself.
    load: dict[int, int]


MODES = {
    "quick": Mode(rounds=1, calls=100, load={1: 5, 8: 5, 32: 5, 100: 35}),
    "full": Mode(rounds=3, calls=300, load={1: 15, 8: 15, 32: 15, 100: 90}),
}


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two."""

    name: str
    host: str
    address: str
    url: str
    unit: str
    password: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the real client and the programs beside it need."""
        wanted = {name: os.environ[name] for name in ("PATH", "HOME", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_DISABLE_TELEMETRY")}
        wanted |= {"MLFLOW_TRACKING_URI": self.url, "S3_ENDPOINT": STORE, "AWS_CA_BUNDLE": os.environ["CA_FILE"], "AWS_DEFAULT_REGION": "us-east-1"}
        # Stock has no TLS of its own, but the store to which it sends clients has.
        wanted |= {"REQUESTS_CA_BUNDLE": os.environ["CA_FILE"]}
        if self.password:
            token = base64.b64encode(f"admin:{self.password}".encode()).decode()
            wanted |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": self.password, "AUTHORIZATION": f"Basic {token}"}
        return wanted

    def run(self, *command: str, **extra: str) -> Any:
        """Run a program that prints JSON, on this machine."""
        done = subprocess.run(command, env=self.environment | extra, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def on_host(self, script: str) -> str:
        """Run a script as root, on the host."""
        ssh = ["ssh", "-i", os.environ["SSH_KEY"], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return subprocess.run([*ssh, f"admin@{self.address}", "sudo", "bash"], input=script, capture_output=True, text=True, check=True).stdout

    def program(self, name: str, *arguments: str) -> Any:
        """Run a program of this folder."""
        return self.run(sys.executable, str(HERE / name), *arguments)

    def memory(self) -> dict[str, int]:
        """Proportional set size in MiB of the server, and of PostgreSQL and the gateway beside it."""
        script = """
        sum() {
          for f in $(grep -lE "$1" /proc/[0-9]*/cgroup); do cat "${f%cgroup}smaps_rollup" 2>/dev/null; done | awk '/^Pss:/ {s += $2} END {print int(s / 1024)}'
        }
        """
        units = {"server": f"/{self.unit}.service", "postgresql": "/postgresql@", "gateway": "/mlflow-gateway.service"}
        lines = self.on_host(script + "\n".join(f"sum '{unit}'" for unit in units.values())).split()
        return dict(zip(units, map(int, lines), strict=True))

    @contextlib.contextmanager
    def alone(self, others: list[Side]) -> Iterator[None]:
        """Freeze the others meanwhile."""
        for each in others:
            podman("pause", each.host)
        try:
            yield
        finally:
            for each in others:
                podman("unpause", each.host)

    @contextlib.contextmanager
    def writers(self, count: int, runs: Path) -> Iterator[None]:
        """Have others log meanwhile."""
        environment = self.environment | {"RUNS": str(runs), "METRICS": "10", "PAUSE": "100"}
        with subprocess.Popen(wrk(self.url, count, 600), env=environment, stdout=subprocess.DEVNULL) as load:
            try:
                time.sleep(2)
                yield
            finally:
                load.terminate()


def podman(*arguments: str) -> None:
    """Run podman, as root."""
    prefix = [] if os.getuid() == 0 else ["sudo", "--preserve-env=CONTAINERS_CONF"]
    subprocess.run([*prefix, "podman", *arguments], stdout=subprocess.DEVNULL, check=True)


def wrk(url: str, clients: int, seconds: int) -> list[str]:
    """The command that keeps so many clients busy."""
    return ["wrk", "-t", str(min(clients, 2)), "-c", str(clients), "-d", str(seconds), "--timeout", "120", "-s", str(HERE / "load.lua"), url]


def measure(side: Side, mode: Mode, folder: Path) -> dict[str, Any]:
    """One round of one side."""
    runs, result = folder / "runs", {}
    result["idle"] = side.memory()
    result["client"] = side.program("client.py", str(mode.calls))
    for metrics in (20, 10):
        for clients, seconds in mode.load.items():
            if metrics == 10 and clients not in (8, 32):
                continue
            result[f"load {metrics} {clients}"] = side.run(*wrk(side.url, clients, seconds), RUNS=str(runs), METRICS=str(metrics))
    result["loaded"] = side.memory()
    with side.writers(8, runs):
        result["search"] = side.program("client.py", str(mode.calls), "search_runs")["search_runs"]
    # The browser is driven from the controller's environment.
    result["page"] = side.run("python", str(HERE / "page.py"), side.url, os.environ["CA_FILE"])
    file = folder / "large.bin"
    if not file.exists():
        with file.open("wb") as out:
            for _mib in range(1024):
                out.write(os.urandom(1024 * 1024))
    result["artifact"] = side.program("artifact.py", str(file), "mlflow")
    return result


def machine() -> dict[str, Any]:
    """Where it was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**3
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": memory, "kernel": platform.release()}


def main() -> None:
    """All rounds."""
    mode, folder, target = MODES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    sides = [
        Side("stock", "mlops-benchmark-guide", "10.213.8.11", "http://10.213.8.11:5000", "stock"),
        Side("site.yml", "mlops-benchmark-ours", "10.213.8.10", "https://10.213.8.10", "mlflow", os.environ["MLFLOW_TRACKING_PASSWORD"]),
    ]
    rounds = []
    for number in range(mode.rounds):
        rounds.append({})
        # The one that begins is another one each time.
        for side in sides if number % 2 == 0 else reversed(sides):
            print(f"    round {number + 1} of {mode.rounds}: {side.name}", flush=True)
            with side.alone([each for each in sides if each is not side]):
                rounds[-1][side.name] = measure(side, mode, folder)
    version = sides[1].on_host("basename $(readlink /opt/mlflow/current) | sed 's/-[^-]*$//'; psql --version").splitlines()
    command = f"make bench NAME=serving MODE={sys.argv[1]}"
    versions = {"mlflow": version[0], "postgresql": version[1]}
    result = {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), **versions, "rounds": rounds}
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


main()
