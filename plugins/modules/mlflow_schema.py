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

# Rows that say which of the grants are missing for a role.
MISSING_GRANTS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
  AND NOT (has_table_privilege(%(role)s, c.oid, 'SELECT') AND has_table_privilege(%(role)s, c.oid, 'INSERT')
       AND has_table_privilege(%(role)s, c.oid, 'UPDATE') AND has_table_privilege(%(role)s, c.oid, 'DELETE'))
UNION ALL
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind = 'S'
  AND NOT (has_sequence_privilege(%(role)s, c.oid, 'USAGE') AND has_sequence_privilege(%(role)s, c.oid, 'SELECT'))
UNION ALL
SELECT 'CONNECT' WHERE NOT EXISTS (
  SELECT 1 FROM pg_database d, aclexplode(d.datacl) a
  WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT' AND a.grantee = to_regrole(%(quoted)s)::oid)
UNION ALL
SELECT 'future ' || kind FROM (VALUES ('r'), ('S')) AS wanted (kind)
WHERE NOT EXISTS (
  SELECT 1 FROM pg_default_acl d, aclexplode(d.defaclacl) a
  WHERE d.defaclrole = current_user::regrole AND d.defaclobjtype::text = kind AND a.grantee = to_regrole(%(quoted)s)::oid)
UNION ALL
SELECT 'PUBLIC' FROM pg_database d WHERE d.datname = current_database()
  AND (d.datacl IS NULL OR EXISTS (SELECT 1 FROM aclexplode(d.datacl) a WHERE a.grantee = 0))
"""

GRANTS = (
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO {role}",
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role}",
)


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


def missing_grants(connection, role: str) -> list[str]:
    """Return what the role lacks."""
    with connection.cursor() as cursor:
        cursor.execute(MISSING_GRANTS, {"role": role, "quoted": '"' + role.replace('"', '""') + '"'})
        return [row[0] for row in cursor.fetchall()]


def grant(connection, role: str) -> None:
    """Give the role its grants, all or none."""
    names = {"database": sql.Identifier(connection.info.dbname), "role": sql.Identifier(role)}
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for statement in GRANTS:
            cursor.execute(sql.SQL(statement).format(**names))
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

        auth.migrate(sqlalchemy.create_engine(url), "head")
        return
    from mlflow.store.db import utils as tracking

    engine = tracking.create_sqlalchemy_engine_with_retry(url)
    if tracking._is_empty_database(engine):
        tracking._initialize_tables(engine)
    else:
        tracking._upgrade_db(engine)


def bring(module: AnsibleModule, store: str, url: str) -> tuple[bool, str, str]:
    """Bring one database to the wanted schema and grants.

    Args:
        module: for its parameters, its check mode and its way to fail.
        store: tracking or auth.
        url: SQLAlchemy URL with the owner's credentials.

    Returns:
        Whether something changed (or would), the revision found, the revision wanted.
    """
    role, timeout = module.params["server_role"], module.params["lock_timeout"]
    try:
        connection = psycopg2.connect(url.replace("postgresql+psycopg2://", "postgresql://", 1))
    except psycopg2.OperationalError as error:
        module.fail_json(msg=f"Cannot connect to the {store} database as its owner: {str(error).strip()}")
    connection.autocommit = True
    wanted = head_revision(store, os.path.join(sys.prefix, "schema-heads.json"), not module.check_mode)
    single_role = connection.info.user == role

    def state() -> tuple[str, bool]:
        return current_revision(connection, VERSION_TABLE[store]), not single_role and bool(missing_grants(connection, role))

    found, ungranted = state()
    if module.check_mode or (found == wanted and not ungranted):
        return found != wanted or ungranted, found, wanted
    if not lock(connection, timeout):
        module.fail_json(msg=f"Another migration of the {store} database still runs after {timeout} s; run this again when it is done.")
    # Somebody else may have done it while this one waited.
    found, ungranted = state()
    if found != wanted:
        try:
            migrate(store, url)
        except Exception as error:
            module.fail_json(
                msg=f"The migration of the {store} database from {found or 'nothing'} to {wanted} failed and was rolled back: {error}",
                exception=traceback.format_exc(),
            )
        reached, ungranted = state()
        if reached != wanted:
            module.fail_json(msg=f"After the migration the {store} database is at {reached or 'no revision'} instead of {wanted}.")
    changed = found != wanted or ungranted
    if ungranted:
        grant(connection, role)
    connection.close()
    return changed, found, wanted


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
    module.exit_json(changed=changed, revisions=revisions, diff=diff)


if __name__ == "__main__":
    main()
