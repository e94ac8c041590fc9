# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Connections to MLflow's databases, for whoever changes their tables or copies them."""

from __future__ import annotations

import time
import traceback
from typing import Any

try:
    import psycopg2
    from psycopg2 import sql

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()

# Any number that nothing else in the database uses; the same for all hosts and controllers, for ever.
ADVISORY_LOCK = 7_306_098_155_273_011

# Options of the modules that work on the databases, and of those that copy them (doc_fragments/copies.py).
DATABASES = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "store": {"type": "str", "choices": ["tracking", "auth"], "required": True},
        "url": {"type": "str", "required": True, "no_log": True},
    },
}
COPIES = {
    "databases": DATABASES,
    "folder": {"type": "path", "required": True},
    "server_role": {"type": "str", "required": True},
    "writers": {"type": "list", "elements": "str", "default": []},
    "quiet_timeout": {"type": "int", "default": 30},
    "lock_timeout": {"type": "int", "default": 600},
}

# Before 3.6 the users' tables had the other store's name for theirs, in a database of their own.
VERSION_TABLES = {"tracking": ["alembic_version"], "auth": ["alembic_version_auth", "alembic_version"]}


def connect(url: str) -> Any:
    """Open a connection that commits by itself.

    Args:
        url: of SQLAlchemy or libpq.

    Returns:
        A connection of psycopg2.

    Raises:
        psycopg2.OperationalError: there is none to be had.
    """
    connection = psycopg2.connect(url.replace("postgresql+psycopg2://", "postgresql://", 1))
    connection.autocommit = True
    return connection


def rows(connection: Any, query: Any, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Return what a query finds."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall()


def lock(connection: Any, timeout: int) -> bool:
    """Take the advisory lock, which goes with the connection.

    Args:
        connection: to the database whose tables it stands for.
        timeout: seconds to wait for whoever has it.

    Returns:
        False when it was not to be had in time.
    """
    for attempt in range(timeout + 1):
        if attempt:
            time.sleep(1)
        if rows(connection, "SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,))[0][0]:
            return True
    return False


def revisions(connection: Any, store: str) -> list[str]:
    """Return what stands in a store's version table; none when it was never migrated."""
    for table in VERSION_TABLES[store]:
        if rows(connection, "SELECT to_regclass(%s)", (f"public.{table}",))[0][0] is not None:
            return sorted(row[0] for row in rows(connection, f"SELECT version_num FROM public.{table}"))
    return []


def others_tables(connection: Any, tables: list[str]) -> dict[str, str]:
    """Return which of these tables in the schema public the role of a connection does not own, with their owners."""
    query = """SELECT relname, relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
      AND relname = ANY(%s) AND NOT pg_has_role(relowner, 'USAGE') ORDER BY 1"""
    return dict(rows(connection, query, (tables,)))


def table_rows(connection: Any) -> dict[str, int]:
    """Return the tables of the schema public, with about as many rows as they have."""
    query = "SELECT relname, greatest(reltuples, 0)::bigint FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    return dict(rows(connection, query))


def exact_rows(connection: Any) -> dict[str, int]:
    """Return the tables of the schema public, with the number of their rows; every table is read."""
    return {name: rows(connection, sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name)))[0][0] for name in sorted(table_rows(connection))}


def connections_left(connection: Any, others: int) -> int | None:
    """Return how many more connections the role of one may open.

    Args:
        connection: of the role.
        others: its further connections.

    Returns:
        None for a role without a limit.
    """
    limit = rows(connection, "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user")[0][0]
    return None if limit < 0 else limit - 1 - others


def sessions(connection: Any, roles: list[str]) -> list[str]:
    """Return which of these roles have connections to this database."""
    query = """SELECT DISTINCT usename::text FROM pg_stat_activity WHERE usename = ANY(%s) AND datname = current_database()
      AND pid <> pg_backend_pid() ORDER BY 1"""
    return [row[0] for row in rows(connection, query, (roles,))]


def quiet(connection: Any, roles: list[str], timeout: int) -> list[str]:
    """Wait until roles have no connection to this database.

    Args:
        connection: itself not counted.
        roles: the server's, and others that write.
        timeout: seconds to wait.

    Returns:
        Those that still have some; the connections of a server that was stopped go within a second.
    """
    for attempt in range(timeout + 1):
        if attempt:
            time.sleep(1)
        left = sessions(connection, roles)
        if not left:
            break
    return left


def end_sessions(connection: Any, roles: list[str]) -> bool:
    """End the connections of roles to this database; False where that is not allowed."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY(%s) AND datname = current_database() AND pid <> pg_backend_pid()"
    try:
        rows(connection, query, (roles,))
    except psycopg2.errors.InsufficientPrivilege:
        return False
    return True
