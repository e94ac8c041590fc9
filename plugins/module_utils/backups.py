# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Copies of MLflow's databases that are made before an upgrade: their folders, and PostgreSQL's programs for them."""

from __future__ import annotations

import datetime
import glob
import hashlib
import json
import os
import re
import subprocess
import tempfile
from typing import Any

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
# There once the upgrade that a copy was made for has ended, well or by going back.
SETTLED = "settled"
# What is not complete yet, or what a run that was killed has left.
DRAFT = ".partial"
NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9._-]+")


# All that the schema has, but what belongs to an extension. CASCADE takes along what is built on it, such as the views of an analyst, which the copy brings
# back where it has them. Tables go first, with the sequences that count for them.
DROP = """
SET client_min_messages = warning;
DO $$
DECLARE one text;
BEGIN
  FOR one IN
    SELECT statement FROM (
      SELECT 'pg_class'::regclass AS class, c.oid, CASE c.relkind WHEN 'S' THEN 1 ELSE 0 END AS turn, format('DROP %s IF EXISTS public.%I CASCADE',
        CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname) AS statement
      FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      UNION ALL
      SELECT 'pg_proc'::regclass, p.oid, 2, format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure)
      FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
      UNION ALL
      SELECT 'pg_type'::regclass, t.oid, 3, format('DROP TYPE IF EXISTS public.%I CASCADE', t.typname)
      FROM pg_type t WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd')
    ) all_of_it
    WHERE NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = class AND d.objid = all_of_it.oid AND d.deptype = 'e')
    ORDER BY turn
  LOOP
    EXECUTE one;
  END LOOP;
END
$$;
"""


def name_of(now: datetime.datetime, version: str) -> str:
    """Return the name of a copy.

    Args:
        now: in UTC.
        version: of the MLflow that the tables are for.
    """
    return f"{now:%Y%m%dT%H%M%SZ}-{re.sub('[^A-Za-z0-9._]', '_', version)}"


def taken_at(name: str) -> datetime.datetime:
    """Return the time in the name of a copy, in UTC."""
    return datetime.datetime.strptime(name.split("-", 1)[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)


def outdated(names: list[str], now: datetime.datetime, keep: int, days: int) -> list[str]:
    """List the copies that need not be kept. The newest is kept however old it is.

    Args:
        names: of all copies.
        now: in UTC.
        keep: how many to keep at most.
        days: how long to keep the others; 0 for ever.

    Returns:
        Names, oldest first.
    """
    ordered = sorted(names)
    oldest = now - datetime.timedelta(days=days)
    return [name for number, name in enumerate(ordered) if number < len(ordered) - 1 and (number < len(ordered) - keep or (days and taken_at(name) < oldest))]


def complete(folder: str) -> list[str]:
    """Return the names of the copies in a folder, oldest first."""
    return sorted(name for name in os.listdir(folder) if NAME.fullmatch(name) and not name.endswith(DRAFT)) if os.path.isdir(folder) else []


def is_settled(folder: str, name: str) -> bool:
    """Tell whether the upgrade that a copy was made for has ended."""
    return os.path.exists(os.path.join(folder, name, SETTLED))


def settle(folder: str, name: str) -> None:
    """Remember that it has."""
    with open(os.path.join(folder, name, SETTLED), "w", encoding="utf-8"):
        pass


def manifest(folder: str, name: str) -> dict[str, Any]:
    """Return what a copy says of itself."""
    with open(os.path.join(folder, name, MANIFEST), encoding="utf-8") as file:
        return json.load(file)


def fits(about: dict[str, Any], version: str, current: bool) -> bool:
    """Tell whether an MLflow version finds its tables, as far as the newest copy says.

    Args:
        about: the manifest of the newest copy.
        version: of MLflow.
        current: whether the databases are at the revisions of the copy.
    """
    return {about["version"]: current, about["target_version"]: not current}.get(version, True)


# No migration of MLflow's adds rows to these; who writes does.
GROWING = ("experiments", "runs", "metrics", "params", "trace_info", "registered_models", "model_versions")


def grown(changed: dict[str, dict[str, int]]) -> bool:
    """Tell whether somebody has written since a copy.

    Args:
        changed: tables with another number of rows, as then and now.
    """
    return any(changed[table]["now"] > changed[table]["then"] for table in GROWING if table in changed)


def sums(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder but the two about the copy itself, by its path from there."""
    found = {}
    for path, dummy, files in os.walk(folder):
        for name in files:
            place = os.path.relpath(os.path.join(path, name), folder)
            if place not in (SUMS, MANIFEST, SETTLED):
                digest = hashlib.sha256()
                with open(os.path.join(path, name), "rb") as file:
                    for block in iter(lambda: file.read(1 << 20), b""):
                        digest.update(block)
                found[place] = digest.hexdigest()
    return dict(sorted(found.items()))


def sums_text(of: dict[str, str]) -> str:
    """Return digests as ``sha256sum --check`` reads them."""
    return "".join(f"{digest}  {place}\n" for place, digest in of.items())


def damage(folder: str) -> str | None:
    """Say what is wrong with the files of a copy; None when they are as they were written."""
    path = os.path.join(folder, SUMS)
    if not os.path.exists(path):
        return f"{SUMS} is missing"
    with open(path, encoding="utf-8") as file:
        wanted = {place: digest for digest, place in (line.rstrip("\n").split("  ", 1) for line in file)}
    found = sums(folder)
    wrong = sorted(place for place in wanted | found if wanted.get(place) != found.get(place))
    return f"{', '.join(wrong[:3])} differ from {SUMS}" if wrong else None


def program(name: str, server_version: int, pattern: str = "/usr/lib/postgresql/*/bin") -> str | None:
    """Find one of PostgreSQL's programs that can work with a server.

    Args:
        name: pg_dump, for instance.
        server_version: as PostgreSQL counts, 150004 for instance; an older program refuses it.
        pattern: of the folders, whose last but one part is the major version.

    Returns:
        The path of the nearest version that is not older, or None.
    """
    found = {}
    for path in glob.glob(os.path.join(pattern, name)):
        major = os.path.basename(os.path.dirname(os.path.dirname(path)))
        if major.isdigit() and int(major) >= server_version // 10000:
            found[int(major)] = path
    return found[min(found)] if found else None


def environment(connection: Any) -> dict[str, str]:
    """Return what tells PostgreSQL's programs where the database is; on a command line everybody would read it.

    Args:
        connection: of psycopg2, with the password that it was made with.
    """
    variables = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "dbname": "PGDATABASE",
        "sslmode": "PGSSLMODE",
        "sslrootcert": "PGSSLROOTCERT",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
        "options": "PGOPTIONS",
        "connect_timeout": "PGCONNECT_TIMEOUT",
    }
    given = connection.info.dsn_parameters
    known = {variables[name]: value for name, value in given.items() if name in variables}
    password = connection.info.password
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **known, **({"PGPASSWORD": password} if password else {})}


def restore(place: str, environment: dict[str, str], programs: dict[str, str]) -> str:
    """Replace the tables of one database in one transaction.

    Args:
        place: folder of the database in a copy.
        environment: of PostgreSQL's programs, which says where the database is.
        programs: paths of pg_restore and psql.

    Returns:
        What went wrong, and then the database is as it was; empty when nothing did.
    """
    listed = subprocess.run([programs["pg_restore"], "--list", place], env=environment, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return listed.stderr
    # The schema itself stays, with its rights.
    contents = "".join(line + "\n" for line in listed.stdout.splitlines() if " SCHEMA - public " not in line and " COMMENT - SCHEMA public " not in line)
    with tempfile.NamedTemporaryFile("w", suffix=".list") as chosen_contents, tempfile.TemporaryFile("w+") as complaints:
        chosen_contents.write(contents)
        chosen_contents.flush()
        reader = subprocess.Popen(
            [programs["pg_restore"], f"--use-list={chosen_contents.name}", "--file=-", place], env=environment, stdout=subprocess.PIPE, stderr=complaints
        )
        writer = subprocess.Popen(
            [programs["psql"], "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"],
            env=environment,
            stdin=subprocess.PIPE,
            stderr=complaints,
        )
        try:
            # The end of the transaction is said only when the reader came to its own, or half a copy would be taken for the whole.
            writer.stdin.write(f"SET lock_timeout = '60s';\nBEGIN;\n{DROP}".encode())
            for block in iter(lambda: reader.stdout.read(1 << 20), b""):
                writer.stdin.write(block)
            if reader.wait() == 0:
                writer.stdin.write(b"COMMIT;\n")
            writer.stdin.close()
        except BrokenPipeError:
            # It stopped at an error, which it has said.
            reader.kill()
        failed = writer.wait() != 0 or reader.wait() != 0
        complaints.seek(0)
        return complaints.read()[-1000:] or "it was stopped" if failed else ""
