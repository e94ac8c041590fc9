#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Brings MLflow's databases to the schema of an installed MLflow, as their owner and under a lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_schema
short_description: Tables and grants of MLflow's databases
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Compares the revision that a database is at with the one that the installed MLflow wants, and runs MLflow's own migrations when
    they differ.
  - Holds an advisory lock in the database, so that of any number of hosts and controllers one migrates and the others find it done.
  - Gives the server's role SELECT, INSERT, UPDATE and DELETE on every table, present and future, and nothing that changes the schema.
  - Runs with the Python of the MLflow environment (C(ansible_python_interpreter)).
options:
  databases:
    description: The databases, in the order to migrate them.
    type: list
    elements: dict
    required: true
    suboptions:
      store:
        description: Which schema.
        type: str
        choices: [tracking, auth]
        required: true
      url:
        description: SQLAlchemy URL with the owner's credentials.
        type: str
        required: true
  server_role:
    description: The role that the server logs in with. The owner itself gets no grants.
    type: str
    required: true
  users:
    description: Further roles with rights on the tables of the tracking store, present and future. They have exactly these rights.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the role.
        type: str
        required: true
      grants:
        description: SELECT alone, or what the server has.
        type: str
        choices: [read, write]
        default: read
  lock_timeout:
    description: Seconds to wait for another migration to end.
    type: int
    default: 600
attributes:
  check_mode:
    support: full
    description: Says from which revision to which it would migrate.
  diff_mode:
    support: full
    description: Shows the revisions.
requirements:
  - mlflow
  - psycopg2
"""

EXAMPLES = r"""
- name: Create or upgrade the tables
  mlops.mlflow.mlflow_schema:
    databases:
      - store: tracking
        url: "{{ owner_url }}"
    server_role: mlflow
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
  no_log: true
"""

RETURN = r"""
differs:
  description: Whether tables or grants were not as the installed MLflow wants them. Check mode leaves it at that.
  returned: always
  type: bool
moves:
  description: Whether tables that were there had another revision.
  returned: always
  type: bool
revisions:
  description: For each store, the revision found (empty for a database without tables) and the one that the installed MLflow wants.
  returned: always
  type: dict
  sample: {"tracking": {"before": "", "after": "76601a5f987d"}}
"""

import json
import os
import sys
import time
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import psycopg2
    from psycopg2 import sql

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()

# Any number that nothing else in the database uses; the same for all hosts and controllers, for ever.
ADVISORY_LOCK = 7_306_098_155_273_011

VERSION_TABLE = {"tracking": "alembic_version", "auth": "alembic_version_auth"}
MIGRATIONS = {"tracking": ("store", "db_migrations"), "auth": ("server", "auth", "db", "migrations")}

# What the kinds of roles have on every table and view, and on every sequence.
PRIVILEGES = {
    "read": {"TABLES": ("SELECT",), "SEQUENCES": ()},
    "write": {"TABLES": ("DELETE", "INSERT", "SELECT", "UPDATE"), "SEQUENCES": ("SELECT", "USAGE")},
}

# What a role itself, not by a group, may do with what the owner has: relations that are there, those to come, the database.
RELATIONS = """
SELECT c.relname, CASE c.relkind WHEN 'S' THEN 'SEQUENCES' ELSE 'TABLES' END,
  ARRAY(SELECT a.privilege_type::text COLLATE "C" FROM aclexplode(c.relacl) a WHERE a.grantee = r.oid ORDER BY 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r
WHERE r.rolname = %(role)s AND n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
"""
DEFAULTS = """
SELECT CASE d.defaclobjtype WHEN 'S' THEN 'SEQUENCES' ELSE 'TABLES' END,
  ARRAY(SELECT a.privilege_type::text COLLATE "C" FROM aclexplode(d.defaclacl) a WHERE a.grantee = r.oid ORDER BY 1)
FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace, pg_roles r
WHERE r.rolname = %(role)s AND n.nspname = 'public' AND d.defaclobjtype IN ('r', 'S')
  AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
"""
# Whether everybody may do something in the database, and whether the role itself may connect; no row where the owner cannot change it.
DATABASE = """
SELECT coalesce(bool_or(a.grantee = 0), false), coalesce(bool_or(a.grantee = r.oid AND a.privilege_type = 'CONNECT'), false)
FROM pg_database d LEFT JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a ON true, pg_roles r
WHERE d.datname = current_database() AND pg_has_role(d.datdba, 'USAGE') AND r.rolname = %(role)s
GROUP BY d.oid
"""
SCHEMA = "SELECT has_schema_privilege(%(role)s, 'public', 'USAGE')"


def head_revision(store: str, cache: str, keep: bool) -> str:
    """Return the newest revision among the migrations of the installed MLflow.

    Reading them takes a second, so the answer is kept in the environment, which never changes once it is built.

    Args:
        store: tracking or auth.
        cache: file in the environment.
        keep: whether the file may be written.

    Returns:
        The revision's id.
    """
    known = {}
    if os.path.exists(cache):
        with open(cache, encoding="utf-8") as file:
            try:
                known = json.load(file)
            except ValueError:
                # Lost its content with the power; made again below.
                known = {}
        if store in known:
            return known[store]
    import importlib.util

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    package = os.path.dirname(importlib.util.find_spec("mlflow").origin)
    config = Config()
    config.set_main_option("script_location", os.path.join(package, *MIGRATIONS[store]).replace("%", "%%"))
    known[store] = ScriptDirectory.from_config(config).get_current_head()
    if keep:
        draft = f"{cache}.{os.getpid()}"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(known, file)
        os.replace(draft, cache)
    return known[store]


def current_revision(connection, table: str) -> str:
    """Return the revision that the database is at, empty when it has never been migrated."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", (f"public.{table}",))
        if cursor.fetchone()[0] is None:
            return ""
        cursor.execute(f"SELECT version_num FROM public.{table}")
        row = cursor.fetchone()
        return row[0] if row else ""


def missing_roles(connection, roles: dict[str, str]) -> list[str]:
    """Return those of the roles that the server does not have."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM unnest(%s) name WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name)", (list(roles),))
        return [row[0] for row in cursor.fetchall()]


def repairs(connection, role: str, kind: str) -> list[sql.Composed]:
    """Return the statements that give a role its rights and take all others; none when it has exactly these."""
    names = {"database": sql.Identifier(connection.info.dbname), "role": sql.Identifier(role)}
    wanted = PRIVILEGES[kind]
    found = []

    def add(statement: str, **parts: sql.Composable) -> None:
        found.append(sql.SQL(statement).format(**names, **parts))

    def exactly(kind_of: str, has: list[str], revoke: str, give: str, **parts: sql.Composable) -> None:
        if list(has) == list(wanted[kind_of]):
            return
        if set(has) - set(wanted[kind_of]):
            add(revoke, **parts)
        if wanted[kind_of]:
            add(give, privileges=sql.SQL(", ").join(map(sql.SQL, wanted[kind_of])), **parts)

    with connection.cursor() as cursor:
        cursor.execute(DATABASE, {"role": role})
        for everybody, connects in cursor.fetchall():
            if everybody:
                add("REVOKE ALL ON DATABASE {database} FROM PUBLIC")
            if not connects:
                add("GRANT CONNECT ON DATABASE {database} TO {role}")
        cursor.execute(SCHEMA, {"role": role})
        if not cursor.fetchone()[0]:
            add("GRANT USAGE ON SCHEMA public TO {role}")
        cursor.execute(RELATIONS, {"role": role})
        for name, what, has in cursor.fetchall():
            on = {"on": sql.SQL("SEQUENCE public.{}" if what == "SEQUENCES" else "public.{}").format(sql.Identifier(name))}
            exactly(what, has, "REVOKE ALL ON {on} FROM {role}", "GRANT {privileges} ON {on} TO {role}", **on)
        cursor.execute(DEFAULTS, {"role": role})
        defaults = dict(cursor.fetchall())
        for what in wanted:
            alter = "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
            revoke, give = "REVOKE ALL ON {what} FROM {role}", "GRANT {privileges} ON {what} TO {role}"
            exactly(what, defaults.get(what, []), alter + revoke, alter + give, what=sql.SQL(what))
    return found


def apply(connection, statements: list[sql.Composed]) -> None:
    """Run statements, all or none."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("COMMIT")


def lock(connection, timeout: int) -> bool:
    """Take the advisory lock; it goes with the connection. False when it was not to be had in time."""
    for attempt in range(timeout + 1):
        if attempt:
            time.sleep(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,))
            if cursor.fetchone()[0]:
                return True
    return False


def migrate(store: str, url: str) -> None:
    """Run MLflow's own migrations, in this process: the command line would show the password."""
    if store == "auth":
        import sqlalchemy
        from mlflow.server.auth.db import utils as auth

        engine = sqlalchemy.create_engine(url)
        auth.migrate(engine, "head")
    else:
        from mlflow.store.db import utils as tracking

        engine = tracking.create_sqlalchemy_engine_with_retry(url)
        if tracking._is_empty_database(engine):
            tracking._initialize_tables(engine)
        else:
            tracking._upgrade_db(engine)
    # The owner may be limited to the connections of one migration.
    engine.dispose()


def bring(module: AnsibleModule, store: str, url: str) -> tuple[bool, str, str]:
    """Bring one database to the wanted schema and grants.

    Args:
        module: for its parameters, its check mode and its way to fail.
        store: tracking or auth.
        url: SQLAlchemy URL with the owner's credentials.

    Returns:
        Whether something changed (or would), the revision found, the revision wanted.
    """
    timeout = module.params["lock_timeout"]
    try:
        connection = psycopg2.connect(url.replace("postgresql+psycopg2://", "postgresql://", 1))
    except psycopg2.OperationalError as error:
        module.fail_json(msg=f"Cannot connect to the {store} database as its owner: {str(error).strip()}")
    connection.autocommit = True
    wanted = head_revision(store, os.path.join(sys.prefix, "schema-heads.json"), not module.check_mode)
    roles = {user["name"]: user["grants"] for user in module.params["users"] if store == "tracking"}
    roles[module.params["server_role"]] = "write"
    # Where one role is both, it has everything as the owner.
    roles.pop(connection.info.user, None)
    unknown = missing_roles(connection, roles)
    if unknown and not module.check_mode:
        module.fail_json(msg=f"The server of the {store} database has no role {unknown[0]!r}: CREATE ROLE \"{unknown[0]}\" LOGIN PASSWORD '…'")

    def state() -> tuple[str, list[sql.Composed]]:
        known = [role for role in roles if role not in unknown]
        return current_revision(connection, VERSION_TABLE[store]), [each for role in known for each in repairs(connection, role, roles[role])]

    found, grants = state()
    if module.check_mode or (found == wanted and not grants):
        return found != wanted or bool(grants or unknown), found, wanted
    if not lock(connection, timeout):
        module.fail_json(msg=f"Another migration of the {store} database still runs after {timeout} s; run this again when it is done.")
    # Somebody else may have done it while this one waited.
    found, grants = state()
    if found != wanted:
        try:
            migrate(store, url)
        except Exception as error:
            module.fail_json(
                msg=f"The migration of the {store} database from {found or 'nothing'} to {wanted} failed and was rolled back: {error}",
                exception=traceback.format_exc(),
            )
        reached, grants = state()
        if reached != wanted:
            module.fail_json(msg=f"After the migration the {store} database is at {reached or 'no revision'} instead of {wanted}.")
    apply(connection, grants)
    connection.close()
    return found != wanted or bool(grants), found, wanted


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "databases": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "store": {"type": "str", "choices": ["tracking", "auth"], "required": True},
                    "url": {"type": "str", "required": True, "no_log": True},
                },
            },
            "server_role": {"type": "str", "required": True},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "grants": {"type": "str", "choices": ["read", "write"], "default": "read"}},
            },
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    if PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    changed, revisions = False, {}
    for database in module.params["databases"]:
        did, before, after = bring(module, database["store"], database["url"])
        changed = changed or did
        revisions[database["store"]] = {"before": before, "after": after}
    diff = {side: "".join(f"{store}: {each[side]}\n" for store, each in revisions.items()) for side in ("before", "after")}
    moves = any(each["before"] not in ("", each["after"]) for each in revisions.values())
    module.exit_json(changed=changed, differs=changed, moves=moves, revisions=revisions, diff=diff)


if __name__ == "__main__":
    main()
