# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's clusters on a Debian host, by Debian's own programs."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import database
from ansible_collections.mlops.mlflow.plugins.module_utils.postgresql_upgrade import STATE, Rows

ROOT = "/var/lib/postgresql"
CONFIGURATION = "/etc/postgresql"
LOGS = "/var/log/postgresql"
ONLY_US = "local all postgres peer\n"
STRAYS = (b"pg_upgradecluster", b"pg_basebackup", b"pg_createcluster")

DATABASES = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1"
# Temporary tables go with their session, and a view that was never filled cannot be read.
TABLES = """
SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm') AND relpersistence <> 't' AND relispopulated AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
ORDER BY 1, 2
"""


class Failed(Exception):
    """One of PostgreSQL's or Debian's programs did; the message says why."""


@contextlib.contextmanager
def acting_as(user: str) -> Iterator[None]:
    """Be somebody else towards the server, which asks the system who comes through its socket."""
    os.seteuid(pwd.getpwnam(user).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def command_lines() -> list[bytes]:
    """Return the command lines of all processes but this one."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if path != f"/proc/{os.getpid()}/cmdline":
                found.append(file.read())
    return found


class Host:
    """The clusters of one name, one for each version."""

    def __init__(self, module: Any, cluster: str) -> None:
        """Remember whom to run programs with, and the name."""
        self.module, self.cluster = module, cluster
        self.held: Any = None

    def lock(self) -> None:
        """Wait until no other run works on the clusters of this host; the lock goes with this process."""
        os.makedirs(STATE, mode=0o700, exist_ok=True)
        self.held = open(os.path.join(STATE, "lock"), "w", encoding="utf-8")  # noqa: SIM115 - held until the process ends
        fcntl.flock(self.held, fcntl.LOCK_EX)

    def run(self, *command: str, user: str = "") -> str:
        """Run a program.

        Args:
            command: the program and its arguments.
            user: as whom, if not root.

        Returns:
            What it printed.

        Raises:
            Failed: it did.
        """
        whole = [*(["runuser", "-u", user, "--"] if user else []), *command]
        rc, stdout, stderr = self.module.run_command(whole, cwd="/", environ_update={"LC_ALL": "C.UTF-8"})
        if rc != 0:
            said = "\n".join((stdout + stderr).strip().splitlines()[-15:])
            raise Failed(f"{os.path.basename(command[0])} failed: {said}")
        return stdout

    def data(self, version: str) -> str:
        """Return the folder of the data."""
        return f"{ROOT}/{version}/{self.cluster}"

    def configuration(self, version: str) -> str:
        """Return the folder of the settings."""
        return f"{CONFIGURATION}/{version}/{self.cluster}"

    def unit(self, version: str) -> str:
        """Return the name of the unit."""
        return f"postgresql@{version}-{self.cluster}.service"

    def program(self, version: str, name: str) -> str:
        """Return the path of a program of one version."""
        return f"/usr/lib/postgresql/{version}/bin/{name}"

    def versions(self) -> list[str]:
        """Return the versions that have a cluster with data, oldest first."""
        found = [path.split("/")[-3] for path in glob.glob(f"{ROOT}/*/{self.cluster}/PG_VERSION")]
        return sorted((version for version in found if version.isdigit()), key=int)

    def newest(self, version: str) -> str:
        """Return the whole version of the installed programs; that of the repository where they are not installed."""
        if os.path.exists(self.program(version, "postgres")):
            return self.run(self.program(version, "postgres"), "--version").split()[2]
        return version

    def available(self, version: str) -> list[str]:
        """Return the extensions that a version has."""
        return [os.path.basename(path)[: -len(".control")] for path in glob.glob(f"/usr/share/postgresql/{version}/extension/*.control")]

    def extensions(self, version: str) -> dict[str, list[str]]:
        """Return the extensions of each database."""
        query = "SELECT extname FROM pg_extension ORDER BY 1"
        return {name: [row[0] for row in database.rows(self.connect(version, name), query)] for name in self.databases(version)}

    def process(self, version: str) -> list[str]:
        """Return the lines of the server's own file about itself; none when no server runs."""
        try:
            with open(f"{self.data(version)}/postmaster.pid", encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        return lines if lines and os.path.exists(f"/proc/{lines[0]}") else []

    def connect(self, version: str, name: str = "postgres") -> Any:
        """Connect through the socket as the superuser.

        Raises:
            Failed: no server runs, or it lets nobody in.
        """
        for dummy in range(60):
            lines = self.process(version)
            if not lines:
                break
            try:
                with acting_as("postgres"):
                    # Lines 4 and 5 are the port and the socket's folder.
                    connection = database.psycopg2.connect(host=lines[4], port=lines[3], dbname=name, user="postgres", connect_timeout=10)
            except (database.psycopg2.OperationalError, IndexError):
                # It may be starting.
                time.sleep(0.5)
            else:
                connection.autocommit = True
                return connection
        raise Failed(f"PostgreSQL {version} does not run, or lets nobody in: journalctl -u {self.unit(version)}, and {LOGS}.")

    def databases(self, version: str) -> list[str]:
        """Return the names of all databases that can be entered."""
        return [row[0] for row in database.rows(self.connect(version), DATABASES)]

    def rows(self, version: str) -> Rows:
        """Count the rows of every table in every database; every table is read."""
        counted: Rows = {}
        for name in self.databases(version):
            connection = self.connect(version, name)
            counted[name] = {
                f"{schema}.{table}": database.rows(
                    connection, database.sql.SQL("SELECT count(*) FROM {}.{}").format(database.sql.Identifier(schema), database.sql.Identifier(table))
                )[0][0]
                for schema, table in database.rows(connection, TABLES)
            }
            connection.close()
        return counted

    def port(self, version: str) -> int:
        """Return the port that a cluster was made with."""
        return int(self.run("pg_conftool", "--short", version, self.cluster, "show", "port"))

    def can_clone(self) -> bool:
        """Tell whether the file system shares the blocks of copied files."""
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            with open(f"{folder}/a", "w", encoding="utf-8") as file:
                file.write("a")
            return self.module.run_command(["cp", "--reflink=always", f"{folder}/a", f"{folder}/b"])[0] == 0

    def write_settings(self, version: str, name: str, text: str) -> None:
        """Write a file of settings, which is the user's who has the others."""
        os.makedirs(f"{self.configuration(version)}/conf.d", exist_ok=True)
        owner = os.stat(self.configuration(version))
        with open(f"{self.configuration(version)}/conf.d/{name}", "w", encoding="utf-8") as file:
            file.write(text)
        for path in (os.path.dirname(file.name), file.name):
            os.chown(path, owner.st_uid, owner.st_gid)

    def copy_of(self, other: Host, version: str, settings: str) -> None:
        """Copy a server that runs.

        Args:
            other: whose cluster.
            version: of both.
            settings: what the copy is to run with.

        Raises:
            Failed: there is no copy.
        """
        lines, folder = other.process(version), self.data(version)
        options = ["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-password", "--username=postgres"]
        self.run(self.program(version, "pg_basebackup"), f"--pgdata={folder}", f"--host={lines[4]}", f"--port={lines[3]}", *options, user="postgres")
        # Debian has its settings elsewhere; and what somebody set in the last file could write to his archive.
        own = {"postgresql.conf": "include_dir = 'conf.d'\n", "pg_hba.conf": ONLY_US, "pg_ident.conf": "", "postgresql.auto.conf": ""}
        owner = os.stat(folder)
        for name, text in own.items():
            with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
            os.chown(file.name, owner.st_uid, owner.st_gid)
        self.run("pg_createcluster", version, self.cluster, f"--datadir={folder}", "--start-conf=manual")
        self.write_settings(version, "rehearsal.conf", settings)

    def start_alone(self, version: str) -> None:
        """Start a server that nobody but root and postgres on this host reaches."""
        with tempfile.NamedTemporaryFile("w", prefix="mlops-hba-", suffix=".conf") as hba:
            hba.write(ONLY_US)
            hba.flush()
            os.chown(hba.name, pwd.getpwnam("postgres").pw_uid, -1)
            options = f"-c listen_addresses= -c hba_file={hba.name}"
            self.run("pg_ctlcluster", "--skip-systemctl-redirect", version, self.cluster, "start", "-o", options)
            self.connect(version).close()

    def start(self, version: str) -> None:
        """Start a server as a service."""
        self.run("systemctl", "start", self.unit(version))
        self.connect(version).close()

    def stop(self, version: str) -> None:
        """Stop a server, however it was started."""
        self.run("systemctl", "stop", self.unit(version))
        if self.process(version):
            self.run("pg_ctlcluster", "--skip-systemctl-redirect", version, self.cluster, "stop", "--mode=fast")

    def upgrade(self, origin: str, destination: str, transfer: str) -> None:
        """Have Debian's program upgrade a cluster, and not start it.

        Raises:
            Failed: it did; the program's own logs stay.
        """
        cores = os.cpu_count() or 1
        options = ["--method=upgrade", "--no-start", f"--jobs={min(cores, 4)}", *(["--clone"] if transfer == "clone" else [])]
        self.run("pg_upgradecluster", f"--version={destination}", *options, origin, self.cluster)
        for folder in glob.glob(f"{LOGS}/pg_upgradecluster-{origin}-{destination}-{self.cluster}.*"):
            shutil.rmtree(folder)

    def analyze(self, version: str) -> None:
        """Gather what the planner needs to know, which an upgrade does not bring along."""
        lines = self.process(version)
        self.run(self.program(version, "vacuumdb"), "--all", "--analyze-only", "--jobs=2", f"--host={lines[4]}", f"--port={lines[3]}", user="postgres")

    def set_port(self, version: str, port: int) -> None:
        """Give a cluster a port."""
        self.run("pg_conftool", version, self.cluster, "set", "port", str(port))

    def use(self, version: str) -> None:
        """Have a cluster start at boot, also if the power fails in the next moment."""
        self._start_conf(version, "auto")
        self.run("systemctl", "enable", self.unit(version))
        os.sync()

    def keep(self, version: str) -> None:
        """Have a cluster start only by hand, also if the power fails in the next moment."""
        self._start_conf(version, "manual")
        self.run("systemctl", "disable", self.unit(version))
        os.sync()

    def _start_conf(self, version: str, word: str) -> None:
        path = f"{self.configuration(version)}/start.conf"
        with open(path, encoding="utf-8") as file:
            before = file.read()
        text = re.sub(r"^(auto|manual|disabled)\s*$", word, before, flags=re.MULTILINE)
        if text != before:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            self.run("systemctl", "daemon-reload")

    def wait_for_strays(self) -> None:
        """Wait for programs that an interrupted run has left.

        Raises:
            Failed: they do not end.
        """
        for dummy in range(600):
            left = [line for line in command_lines() if any(name in line for name in STRAYS) and self.cluster.encode() in line]
            if not left:
                return
            time.sleep(1)
        raise Failed(f"A program of an earlier run does not end: {left[0].replace(bytes(1), b' ').decode()}")

    def drop(self, version: str) -> None:
        """Remove a cluster, or what is left of one."""
        self.wait_for_strays()
        folders = [self.data(version), self.configuration(version)]
        if not any(map(os.path.exists, folders)):
            return
        self.run("systemctl", "disable", "--now", self.unit(version))
        if self.process(version):
            self.run("pg_ctlcluster", "--skip-systemctl-redirect", version, self.cluster, "stop", "--mode=immediate")
        if os.path.exists(f"{folders[1]}/postgresql.conf") and os.path.exists(f"{folders[0]}/PG_VERSION"):
            self.run("pg_dropcluster", version, self.cluster)
        for folder in filter(os.path.exists, folders):
            shutil.rmtree(folder)
        for log in glob.glob(f"{LOGS}/postgresql-{version}-{self.cluster}.log*"):
            os.unlink(log)
