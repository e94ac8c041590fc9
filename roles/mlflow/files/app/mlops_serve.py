# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""`mlflow server`, without the process that would only wait for the server that it started.

Without jobs, the command turns into the server. With jobs it stays, as it has to look after those who do them, and tells them where the server really is:
MLflow takes it for one without TLS.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SYSTEM_CAS = Path("/etc/ssl/certs/ca-certificates.crt")


def become(command: list[str], *, extra_env: dict[str, str], **_options: Any) -> None:
    """Run a command in the place of this process, with more in its environment."""
    os.execvpe(command[0], command, os.environ | extra_env)


def way_to_server(url: str, ca: str, system: Path = SYSTEM_CAS) -> dict[str, str]:
    """Tell jobs, by their environment, how to reach the server.

    Args:
        url: of the server, or of the gateway before it.
        ca: file of the site's CA, which counts beside those of the system; empty without TLS.
        system: file of the latter.
    """
    way = {"MLFLOW_TRACKING_URI": url, "MLFLOW_GATEWAY_URI": url}
    if ca:
        handle, bundle = tempfile.mkstemp(suffix=".crt")
        with os.fdopen(handle, "wb") as file:
            file.writelines(each.read_bytes() for each in (system, Path(ca)) if each.exists())
        way |= {"REQUESTS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle}
    return way


def lead(launchers: Any, way: dict[str, str]) -> None:
    """Have whatever starts the jobs tell them the way.

    Args:
        launchers: MLflow's module of that; the function has another name since 3.17.
        way: what jobs have in their environment.
    """
    name = next(name for name in ("_launch_job_execution_runner", "_launch_job_runner") if hasattr(launchers, name))
    launch = getattr(launchers, name)
    setattr(launchers, name, lambda environment, process: launch(environment | way, process))


def main() -> None:
    """Entry point; the arguments are those of `mlflow server`."""
    installed = os.path.realpath(sys.prefix)
    if installed != sys.prefix:
        # By the link to the current version, what is imported later could be another version's.
        os.execv(f"{installed}/bin/python", [f"{installed}/bin/python", "-m", "mlops_serve", *sys.argv[1:]])
    from mlflow import server
    from mlflow.cli import cli

    if os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "true":
        from mlflow.server.jobs import utils

        lead(utils, way_to_server(os.environ["MLOPS_JOBS_URL"], os.environ.get("MLOPS_JOBS_CA_FILE", "")))
    else:
        server._exec_cmd = become
    cli(["server", *sys.argv[1:]], prog_name="mlflow")


if __name__ == "__main__":
    main()
