# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the tables in a database are, and whether an MLflow version can go on with them. Pure functions, no Ansible."""

from __future__ import annotations

from typing import Any

# Every release has had these two, from the first one on.
CORE = {"tracking": {"experiments", "runs"}, "auth": {"users", "experiment_permissions"}}
# What the first migration makes; it would take a table of that name for its own.
INITIAL = {
    "tracking": {"experiments", "runs", "tags", "metrics", "params"},
    "auth": {"users", "experiment_permissions", "registered_model_permissions"},
}
VARIABLE = {"tracking": "mlflow_database_name", "auth": "mlflow_database_auth_name"}

# Rows that a second of migration comes to, and seconds that every migration takes: MLflow is loaded, the tables are locked and changed. Measured by
# benchmarks/upgrade on two cores; the migration of traces is the slow one.
ROWS_PER_SECOND = 30_000
SECONDS = 5

# PostgreSQL then finds and orders runs by a metric without looking into the table, where those of one run lie together and not those of one name.
INDEX = "mlops_latest_metrics"
INDEX_TABLE = "latest_metrics"
INDEX_COLUMNS = "(key, value, run_uuid) INCLUDE (is_nan)"
MAKE_INDEX = f"CREATE INDEX CONCURRENTLY {INDEX} ON public.{INDEX_TABLE} {INDEX_COLUMNS}"
DROP_INDEX = f"DROP INDEX CONCURRENTLY public.{INDEX}"


def index_repairs(valid: bool | None, wanted: bool) -> list[str]:
    """Return the statements that make the index, or take it away. None of them may be in a transaction.

    Args:
        valid: whether it can be used; one whose making was interrupted cannot. None where there is none.
        wanted: whether it is to be there.
    """
    drop = [DROP_INDEX] if valid is False or (valid and not wanted) else []
    return drop + ([MAKE_INDEX] if wanted and not valid else [])


def problem(store: str, found: list[str], history: list[str], tables: set[str]) -> str | None:
    """Say why an MLflow version must not touch a database; None when it may.

    Args:
        store: tracking or auth.
        found: the revisions that stand in the store's version table; one, or none before it was ever migrated.
        history: all revisions that the version knows which is to be installed, first the one that it wants. Empty where none was found.
        tables: names of the tables in the schema public.

    Returns:
        A sentence with the remedy.
    """
    core = CORE[store]
    elsewhere = f"give MLflow a database of its own in {VARIABLE[store]}"
    if len(found) > 1:
        return f"its version table has {len(found)} revisions ({', '.join(sorted(found))}), and MLflow has one; it belongs to another program: {elsewhere}"
    if found:
        if found[0] in history:
            return None
        if core <= tables:
            return (
                f"its tables are those of a newer MLflow: it does not know their revision {found[0]}, only such up to {history[0]}. Set mlflow_version to the "
                "version that made them; the way back to an older one is playbooks/rollback.yml"
            )
        return f"its revision {found[0]} is no revision of MLflow, and MLflow's tables are not there; it belongs to another program: {elsewhere}"
    if core <= tables:
        # Early releases kept no revision of the users' tables, and MLflow knows which one that is.
        return None if store == "auth" else (
            "it has MLflow's tables and no revision, so nobody knows which release made them; restore the version table, or set the revision with "
            "the alembic of that release"
        )
    taken = sorted(INITIAL[store] & tables)
    if taken:
        return f"it has a table {taken[0]} of another program, whose name MLflow needs: {elsewhere}"
    return None


def foreign(store: str, owners: dict[str, str], role: str) -> str:
    """Say why a role cannot migrate tables that others own.

    Args:
        store: tracking or auth.
        owners: by table.
        role: the one that migrates.

    Returns:
        A sentence with the remedy.
    """
    table, owner = next(iter(owners.items()))
    return (
        f"its table {table} belongs to the role {owner}, and {role} cannot change it. Where it is MLflow's: ALTER TABLE public.{table} OWNER TO {role}, and so "
        f"with all of MLflow's tables. Where it is another program's: give MLflow a database of its own in {VARIABLE[store]}"
    )


def expected_seconds(rows: dict[str, int]) -> int:
    """Estimate how long a migration takes.

    Args:
        rows: by table.

    Returns:
        Seconds, rounded up.
    """
    return SECONDS + -(-sum(rows.values()) // ROWS_PER_SECOND)


def notice(looked: dict[str, Any], copy: dict[str, Any], folder: str) -> list[str]:
    """Say what an upgrade will do, before it does anything.

    Args:
        looked: what the module mlflow_schema saw.
        copy: what the module database_backup saw.
        folder: where copies go.

    Returns:
        Lines.
    """
    moves = [f"{store} from {each['before']} to {each['after']}" for store, each in looked["revisions"].items() if each["before"] not in ("", each["after"])]
    rows = [f"{table} {count}" for each in looked["rows"].values() for table, count in each.items() if count]
    return [
        f"The tables change: {', '.join(moves)}",
        f"Rows, about: {', '.join(rows) or 'none'}",
        f"A copy takes up to {copy['needed_mib']} MiB of {copy['free_mib']} MiB in {folder}",
        f"MLflow will be away for about {looked['expected_seconds']} s, and as long as the copy takes",
    ]


def loss(looked: dict[str, Any], version: str) -> list[str]:
    """Say what going back to a copy would cost.

    Args:
        looked: what the module database_restore saw.
        version: the MLflow version that is wanted.

    Returns:
        Lines: tables with another number of rows, then the runs that began since.
    """
    rows = [
        f"{store}.{table}: {each['now']} rows now, {each['then']} then" for store, tables in looked["lost"].items() for table, each in tables.items()
    ]
    runs = [f"{run['start']} run {run['id']} {run['name'] or ''}".rstrip() for run in looked["runs"]]
    return [
        f"Back to MLflow {version} and the copy {looked['path']}. What was written since then would be lost, changes of rows that were there too:",
        *(rows or ["no table has another number of rows"]),
        f"Runs that began since then: {len(runs)}{' or more, of which the latest are' if len(runs) == 100 else ''}",
        *runs,
    ]


def biggest(rows: dict[str, int], count: int = 5) -> dict[str, int]:
    """Return the tables with the most rows, first the biggest."""
    return dict(sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:count])
