# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""From one major version of PostgreSQL to another: where the data is, what a run would do, and what must be the same afterwards."""

from __future__ import annotations

import json
import os
from typing import Any

STATE = "/var/lib/mlops-postgresql"
# A new cluster has catalogs and a first file of the write-ahead log of its own; a copy has the log that was written meanwhile.
OVERHEAD_MIB = 256

Rows = dict[str, dict[str, int]]


def journal_path(cluster: str) -> str:
    """Return where the last move between versions is remembered."""
    return os.path.join(STATE, f"upgrade-{cluster}.json")


def read_journal(cluster: str) -> dict[str, Any]:
    """Return what is remembered of it; empty when there was none.

    Returns:
        ``origin`` and ``destination`` (versions), ``phase``: ``moving`` while the origin has the data and nobody else has reached the destination,
        ``starting`` once somebody may, then ``done``; ``rows`` of the origin when it was stopped, ``expected`` of the destination, and the TCP ``port``.
    """
    path = journal_path(cluster)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_journal(cluster: str, journal: dict[str, Any]) -> None:
    """Remember it, also if the power fails in the next moment; an empty one is forgotten."""
    path = journal_path(cluster)
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    if journal:
        draft = f"{path}.draft"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(journal, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    elif os.path.exists(path):
        os.unlink(path)
    descriptor = os.open(STATE, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def is_unfinished(journal: dict[str, Any]) -> bool:
    """Tell whether a move was interrupted."""
    return journal.get("phase") in ("moving", "starting")


def is_undoable(journal: dict[str, Any]) -> bool:
    """Tell whether it was interrupted before anybody could write to its destination."""
    return journal.get("phase") == "moving"


def is_upgrade(journal: dict[str, Any]) -> bool:
    """Tell an upgrade from the way back."""
    return int(journal["origin"]) < int(journal["destination"])


def aside(journal: dict[str, Any]) -> str:
    """Return the version whose cluster does not have the data: kept after a move, or not there yet during one; empty when there is none."""
    return "" if not journal else journal["destination" if is_undoable(journal) else "origin"]


def undone(journal: dict[str, Any]) -> dict[str, Any]:
    """Return what is remembered once a move has been undone: nothing of an upgrade, and the upgrade before of a way back."""
    if is_upgrade(journal):
        return {}
    return {
        "origin": journal["destination"],
        "destination": journal["origin"],
        "phase": "done",
        "rows": journal["expected"],
        "expected": {},
        "port": journal["port"],
    }


def decision(name: str, versions: list[str], wanted: str, journal: dict[str, Any]) -> dict[str, str]:
    """Decide how a site comes to a version.

    Args:
        name: of the clusters.
        versions: those that have a cluster of that name.
        wanted: the version.
        journal: what is remembered of the last move.

    Returns:
        ``action``: ``none``, ``upgrade``, ``back`` or ``refused``; ``origin``, where the data is; ``destination``; and with a refusal ``why``.
    """
    other = aside(journal)
    holders = [version for version in versions if version != other] or versions
    answer = {"action": "refused", "origin": holders[0] if len(holders) == 1 else "", "destination": wanted, "why": ""}
    if not holders:
        return {**answer, "why": f"There is no cluster {name} on this host: run site.yml, which makes one."}
    if len(holders) > 1:
        places = " and ".join(f"{version}/{name}" for version in sorted(holders, key=int))
        return {**answer, "why": f"There are the clusters {places}, and nobody knows which one has MLflow's data: remove or rename one (pg_renamecluster)."}
    origin = holders[0]
    if origin == wanted:
        return {**answer, "action": "none"}
    if int(wanted) < int(origin):
        if other == wanted and wanted in versions:
            return {**answer, "action": "back"}
        why = f"PostgreSQL {origin} cannot become {wanted}, and no cluster of {wanted} was kept: set postgresql_version to '{origin}' or higher."
        return {**answer, "why": why}
    if other and other != wanted and other in versions:
        why = f"The cluster {other}/{name} is still kept from an earlier upgrade: remove it first with pg_dropcluster {other} {name}."
        return {**answer, "why": why}
    return {**answer, "action": "upgrade"}


def needed_mib(data_mib: int, transfer: str, rehearse: bool) -> int:
    """Compute the room that an upgrade takes at most, beside the data that is there.

    Args:
        data_mib: size of all databases, in MiB.
        transfer: ``copy`` or ``clone``; clones share their blocks.
        rehearse: whether a copy is upgraded first.

    Returns:
        MiB.
    """
    new = (data_mib if transfer == "copy" else 0) + OVERHEAD_MIB
    return new + (data_mib + OVERHEAD_MIB if rehearse else 0)


def differences(then: Rows, now: Rows) -> dict[str, dict[str, dict[str, int]]]:
    """Compare the rows of all tables.

    Args:
        then: by database and table.
        now: by database and table.

    Returns:
        For each database, its tables with another number of rows, as ``then`` and ``now``; a table that is not there has none.
    """
    found = {}
    for database in sorted(then | now):
        before, after = then.get(database, {}), now.get(database, {})
        other = {
            table: {"then": before.get(table, 0), "now": after.get(table, 0)}
            for table in sorted(before | after)
            if before.get(table, 0) != after.get(table, 0) or (table in before) != (table in after)
        }
        if other:
            found[database] = other
    return found


def difference_lines(found: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """Write differences for people, one line for each table."""
    return [f"{database}: {table}: {count['then']} rows then, {count['now']} now" for database, tables in found.items() for table, count in tables.items()]


def missing_extensions(installed: dict[str, list[str]], available: list[str], version: str) -> list[str]:
    """Name the extensions that the new version does not have.

    Args:
        installed: by database.
        available: those of the new version.
        version: the new version.
    """
    where: dict[str, list[str]] = {}
    for database, names in sorted(installed.items()):
        for name in names:
            if name not in available:
                where.setdefault(name, []).append(database)
    return [
        f"The extension {name} of the database {', '.join(databases)} is not there for PostgreSQL {version}: install its package, or drop it."
        for name, databases in sorted(where.items())
    ]


def summary(about: dict[str, Any]) -> list[str]:
    """Say what a run would do, or has rehearsed.

    Args:
        about: what the module returns.
    """
    origin, destination, name = about["origin"], about["destination"], about["cluster"]
    if about["action"] == "none":
        return [f"PostgreSQL {origin} has MLflow's data already."]
    lines = []
    if about["action"] == "upgrade":
        lines.append(f"PostgreSQL {about['origin_version']} would be upgraded to {about['destination_version']}; MLflow stops meanwhile.")
        lines.append(f"The databases have {about['data_mib']} MiB; an upgrade takes up to {about['needed_mib']} MiB, and {about['free_mib']} MiB are free.")
        lines.append(f"The cluster {origin}/{name} stays, stopped, for the way back.")
        if destination in about["versions"]:
            lines.append(f"The cluster {destination}/{name}, which was kept when you went back, is removed.")
    else:
        lines.append(f"The cluster {destination}/{name} would serve again, as it was before the upgrade to {origin}; {origin}/{name} stays, stopped.")
        lost = difference_lines(about["lost"])
        lines += ["What was written since is lost. Tables with another number of rows:", *lost] if lost else [
            "What was written since is lost. No table has another number of rows; changes of rows do not show here."
        ]
    if about.get("seconds"):
        lines.append(f"Rehearsed on a copy: {about['tables']} tables have the same rows. Upgrading took {about['seconds']} s, all of it {about['total']} s.")
    return lines
