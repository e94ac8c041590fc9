"""What the benchmarks share: a server with the programs that use it, the machine they run on, and how figures are written."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
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
PROGRAMS = HERE / "serving"
STORE = "https://10.213.8.12:7480"


@dataclasses.dataclass(frozen=True)
class Server:
    """One that is measured.

    Attributes:
        name: how reports call it.
        address: of its host.
        url: of MLflow.
        unit: of systemd, without its suffix.
        host: its container.
        password: of admin; empty where everybody may do everything.
    """

    name: str
    address: str
    url: str
    unit: str
    host: str
    password: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the real client and the programs beside it need."""
        names = ("PATH", "HOME", "PYTHONPATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_DISABLE_TELEMETRY")
        wanted = {name: os.environ[name] for name in names if name in os.environ}
        # Stock has no TLS of its own, but the store to which it sends clients has.
        ca_file = os.environ["CA_FILE"]
        wanted |= {"MLFLOW_TRACKING_URI": self.url, "S3_ENDPOINT": STORE, "AWS_CA_BUNDLE": ca_file, "REQUESTS_CA_BUNDLE": ca_file}
        wanted |= {"AWS_DEFAULT_REGION": "us-east-1"}
        if self.password:
            # As README.md has it for clients that reach the store.
            wanted |= {"MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true"}
            wanted |= {"MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(16 * 1024 * 1024)}
            token = base64.b64encode(f"admin:{self.password}".encode()).decode()
            wanted |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": self.password, "AUTHORIZATION": f"Basic {token}"}
        return wanted

    def run(self, *command: str, **extra: str) -> Any:
        """Run a program that prints JSON, on this machine."""
        done = subprocess.run(command, env=self.environment | extra, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def program(self, name: str, *arguments: str, **extra: str) -> Any:
        """Run one of our programs."""
        return self.run(sys.executable, str(PROGRAMS / name), *arguments, **extra)

    def load(self, runs: Path, metrics: int, clients: int, seconds: int) -> dict[str, Any]:
        """Have so many clients log batches as fast as they can; times are in ms, and those of the processors for each answer."""
        before = self.processor()
        result = self.run(*wrk(self.url, clients, seconds), RUNS=str(runs), METRICS=str(metrics))
        after = self.processor()
        return result | {"processor": {unit: round((after[unit] - before[unit]) / max(result["answers"], 1), 2) for unit in after}}

    def settle(self) -> None:
        """Wait until it answers from its database, five times at once, in no time: one that has blocked itself needs half a minute for that."""
        import requests

        quick, end = 0, time.monotonic() + 180
        while quick < 5:
            if time.monotonic() > end:
                sys.exit(f"{self.name}: MLflow does not answer.")
            start = time.monotonic()
            try:
                auth = ("admin", self.password) if self.password else None
                url = f"{self.url}/api/2.0/mlflow/experiments/get?experiment_id=0"
                good = requests.get(url, auth=auth, verify=os.environ["CA_FILE"], timeout=60).ok
            except requests.RequestException:
                good = False
            quick = quick + 1 if good and time.monotonic() - start < 1 else 0
            time.sleep(0.05)

    @contextlib.contextmanager
    def writers(self, count: int, runs: Path) -> Iterator[None]:
        """Have so many clients log ten times a second each meanwhile."""
        environment = self.environment | {"RUNS": str(runs), "METRICS": "10", "PAUSE": "100"}
        with subprocess.Popen(wrk(self.url, count, 600), env=environment, stdout=subprocess.DEVNULL) as load:
            try:
                time.sleep(2)
                yield
            finally:
                load.terminate()

    def on_host(self, script: str) -> str:
        """Run a script as root, on the host."""
        ssh = ["ssh", "-i", os.environ["SSH_KEY"], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        done = subprocess.run([*ssh, f"admin@{self.address}", "sudo", "bash"], input=script, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"On {self.address}, this failed:\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def sums(self, file: str, awk: str) -> dict[str, int]:
        """Add up something of all processes: those of the server, and of PostgreSQL and the gateway beside it."""
        script = f"""
        sum() {{
          for f in $(grep -lE "$1" /proc/[0-9]*/cgroup); do cat "${{f%cgroup}}{file}" 2>/dev/null; done | awk '{awk} END {{print int(s)}}'
        }}
        """
        units = {"server": f"/{self.unit}(-[0-9])?\\.service", "postgresql": "/postgresql@", "gateway": "/mlflow-gateway.service"}
        lines = self.on_host(script + "\n".join(f"sum '{unit}'" for unit in units.values())).split()
        return dict(zip(units, map(int, lines), strict=True))

    def memory(self) -> dict[str, int]:
        """Proportional set size in MiB."""
        return self.sums("smaps_rollup", "/^Pss:/ {s += $2 / 1024}")

    def processor(self) -> dict[str, int]:
        """Time of the processors in ms, in hundredths of a second: their own, and that of children that have ended."""
        return self.sums("stat", '{sub(/.*\\) /, ""); s += 10 * ($12 + $13 + $14 + $15)}')

    @contextlib.contextmanager
    def alone(self, others: list[Server]) -> Iterator[None]:
        """Freeze the others meanwhile."""
        for each in others:
            podman("pause", each.host)
        try:
            yield
        finally:
            for each in others:
                podman("unpause", each.host)

    def versions(self) -> dict[str, str]:
        """Of what a site has."""
        lines = self.on_host("basename $(readlink /opt/mlflow/current) | sed 's/-[^-]*$//'; psql --version").splitlines()
        return {"mlflow": lines[0], "postgresql": lines[1]}


def podman(*arguments: str) -> None:
    """Run podman, as root."""
    prefix = [] if os.getuid() == 0 else ["sudo", "--preserve-env=CONTAINERS_CONF"]
    subprocess.run([*prefix, "podman", *arguments], stdout=subprocess.DEVNULL, check=True)


def wrk(url: str, clients: int, seconds: int) -> list[str]:
    """Return the command that keeps so many clients busy."""
    return ["wrk", "-t", str(min(clients, 2)), "-c", str(clients), "-d", str(seconds), "--timeout", "120", "-s", str(PROGRAMS / "load.lua"), url]


def machine() -> dict[str, Any]:
    """Where it is measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**3
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": memory, "kernel": platform.release()}


def where(result: dict[str, Any]) -> str:
    """Return the line of a report that says what was run where."""
    on = result["machine"]
    return (
        f"`{result['command']}`, {result['date']}: {on['cores']} cores of {on['processor']}, {on['memory_gib']} GiB, Linux {on['kernel']}; "
        f"MLflow {result['mlflow']}{', ' + result['postgresql'] if 'postgresql' in result else ''}."
    )


def percentile(values: list[float], part: int) -> float:
    """Return the value below which that part of a hundred is."""
    return sorted(values)[min(len(values) * part // 100, len(values) - 1)]


def number(value: float) -> str:
    """Return three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def save(target: Path, result: dict[str, Any]) -> None:
    """Write JSON."""
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
