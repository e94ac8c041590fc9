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
  - Refuses a database that is newer than the installed MLflow or belongs to another program.
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
  action:
    description:
      - V(look) changes nothing. It waits for a migration that somebody else runs, so that its answer stays true.
      - V(prepopulate) makes the index and has MLflow do, while its servers run, what it can do of the migration, where a release has such a step.
    type: str
    choices: [look, migrate, prepopulate]
    default: migrate
  metrics_index:
    description: Whether the tracking store has an index of the latest metrics with their values. Searches for runs by metrics are faster with it, and
      logging metrics is a little slower. It is made and taken away while servers run. What keeps it from being made is a warning, and the next run tries
      again.
    type: bool
    default: true
  lock_timeout:
    description: Seconds to wait for another migration to end.
    type: int
    default: 600
  table_lock_timeout:
    description: Seconds that a migration waits for a table that somebody reads or writes; after them it is rolled back.
    type: int
    default: 60
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
prepopulates:
  description: Whether O(action=prepopulate) has something to do.
  returned: always
  type: bool
prepopulated:
  description: How many rows that changed, by their kind.
  returned: for O(action=prepopulate)
  type: dict
rows:
  description: For each store, the tables with the most rows, as PostgreSQL estimates them.
  returned: always
  type: dict
expected_seconds:
  description: How long the migration is expected to take.
  returned: always
  type: int
revisions:
  description: For each store, the revision found (empty for a database without tables) and the one that the installed MLflow wants, which O(action=look)
    leaves empty where there are no tables.
  returned: always
  type: dict
  sample: {"tracking": {"before": "", "after": "76601a5f987d"}}
"""

import json
import os
import sys
import traceback
from functools import cached_property

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import database, schema

try:
    import psycopg2
    from psycopg2 import sql

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()

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
INDEX = """
SELECT i.indisvalid AND pg_get_indexdef(c.oid) LIKE %(like)s
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = %(name)s AND i.indrelid = 'public.latest_metrics'::regclass
"""
SCHEMA = "SELECT has_schema_privilege(%(role)s, 'public', 'USAGE')"


def history(store: str, cache: str, keep: bool) -> list[str]:
    """Return the revisions that the installed MLflow knows.

    Reading them takes seconds, so the answer is kept in the environment, which never changes once it is built.

    Args:
        store: tracking or auth.
        cache: file in the environment.
        keep: whether the file may be written.

    Returns:
        The revisions, first the one that this MLflow wants.
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
    known[store] = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if keep:
        draft = f"{cache}.{os.getpid()}"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(known, file)
        os.replace(draft, cache)
    return known[store]


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


def index_repairs(connection, wanted: bool) -> list[str]:
    """Return the statements that bring the index of the latest metrics to what it is to be."""
    with connection.cursor() as cursor:
        cursor.execute(INDEX, {"name": schema.INDEX, "like": f"%{schema.INDEX_COLUMNS}"})
        row = cursor.fetchone()
    return schema.index_repairs(row[0] if row else None, wanted)


def prepopulate(url: str) -> dict[str, int]:
    """Have MLflow fill in, while the servers run, what the migration would otherwise compute while they do not.

    Args:
        url: SQLAlchemy URL with the owner's credentials.

    Returns:
        How many rows it changed, by their kind; nothing where this release has no such step for these tables.
    """
    try:
        from mlflow.store.db import trace_analytics_prepopulation as step
        from mlflow.store.db import utils as tracking
    except ImportError:
        return {}
    engine = tracking.create_sqlalchemy_engine_with_retry(url)
    try:
        done = step.prepopulate_trace_analytics(engine)
    finally:
        engine.dispose()
    return {kind: getattr(done, kind).updated for kind in ("traces", "spans", "assessments")}


def prepopulates(found: list[str]) -> bool:
    """Tell whether the installed MLflow has such a step for tables at a revision."""
    try:
        from mlflow.store.db.trace_analytics_prepopulation import PREPOPULATION_SCHEMA_REVISION
    except ImportError:
        return False
    return found == [PREPOPULATION_SCHEMA_REVISION]


def reason(error: Exception) -> str:
    """Return what an error says, without the statement and the advertisement that SQLAlchemy adds."""
    return str(error).split("\n[SQL:", 1)[0].strip()


def migrate(store: str, url: str, empty: bool) -> None:
    """Run MLflow's own migrations, in this process: the command line would show the password.

    Args:
        store: tracking or auth.
        url: SQLAlchemy URL with the owner's credentials.
        empty: whether there are no tables yet.
    """
    if store == "auth":
        import sqlalchemy
        from mlflow.server.auth.db import utils as auth

        engine = sqlalchemy.create_engine(url)
        auth.migrate(engine, "head")
    else:
        from mlflow.store.db import utils as tracking

        engine = tracking.create_sqlalchemy_engine_with_retry(url)
        if empty:
            tracking._initialize_tables(engine)
        else:
            tracking._upgrade_db(engine)
    # The owner may be limited to the connections of one migration.
    engine.dispose()


class Database:
    """One of the databases: what it has, and what it is to have."""

    def __init__(self, module: AnsibleModule, store: str, url: str) -> None:
        """Look at it; the module fails where the installed MLflow cannot go on with it.

        Args:
            module: for its parameters, its check mode and its way to fail.
            store: tracking or auth.
            url: SQLAlchemy URL with the owner's credentials.
        """
        self.module, self.store, self.url = module, store, url
        self.connect()
        self.roles = {user["name"]: user["grants"] for user in module.params["users"] if store == "tracking"}
        self.roles[module.params["server_role"]] = "write"
        # Where one role is both, it has everything as the owner.
        self.roles.pop(self.connection.info.user, None)
        self.unknown = missing_roles(self.connection, self.roles)
        self.look()
        self.started = self.before
        self.connection.close()

    def connect(self) -> None:
        """Open a connection. There is one at a time: the owner may be limited to those of one migration."""
        try:
            self.connection = database.connect(self.url)
        except psycopg2.OperationalError as error:
            self.module.fail_json(msg=f"Cannot connect to the {self.store} database as its owner: {str(error).strip()}")

    def look(self) -> None:
        """See which revision it is at and which rights are missing."""
        others = database.others_tables(self.connection, [*database.VERSION_TABLES[self.store], *schema.CORE[self.store]])
        if others:
            self.refuse(schema.foreign(self.store, others, self.connection.info.user))
        self.found = database.revisions(self.connection, self.store)
        self.rows = database.table_rows(self.connection)
        if self.store == "auth" and not schema.CORE["auth"] <= set(self.rows):
            # The version table is that of the tracking store, in the same database.
            self.found = []
        fault = schema.problem(self.store, self.found, self.known if self.found else [], set(self.rows))
        if fault:
            self.refuse(fault)
        self.grants = [each for role in self.roles if role not in self.unknown for each in repairs(self.connection, role, self.roles[role])]
        has_metrics = self.store == "tracking" and schema.INDEX_TABLE in self.rows
        self.index = index_repairs(self.connection, self.module.params["metrics_index"]) if has_metrics else []

    def refuse(self, fault: str) -> None:
        """End before anything is changed."""
        name = self.connection.info.dbname
        self.module.fail_json(msg=f"The {self.store} database {name!r} cannot be used with this MLflow, and has not been changed: {fault}.")

    @cached_property
    def known(self) -> list[str]:
        """The revisions that the installed MLflow knows. Who only looks at a database without tables needs none."""
        return history(self.store, os.path.join(sys.prefix, "schema-revisions.json"), not self.module.check_mode)

    @property
    def wanted(self) -> str:
        """The revision that the installed MLflow wants."""
        return self.known[0]

    @property
    def after(self) -> str:
        """The same as far as it counts: a look at a database without tables does not ask for it."""
        return self.wanted if self.found or self.module.params["action"] != "look" else ""

    @property
    def before(self) -> str:
        """The revision that was found, empty when it was never migrated."""
        return "".join(self.found)

    @property
    def moves(self) -> bool:
        """Whether tables that are there change."""
        return bool(self.found) and self.found != [self.wanted]

    @property
    def differs(self) -> bool:
        """Whether anything is to be done."""
        return not self.found or self.found != [self.wanted] or bool(self.grants or self.unknown or self.index)

    def take(self) -> None:
        """Wait for the lock, and look again: somebody else may have done it meanwhile. The lock goes with the connection."""
        self.connect()
        timeout = self.module.params["lock_timeout"]
        if not database.lock(self.connection, timeout):
            self.module.fail_json(msg=f"Another migration of the {self.store} database still runs after {timeout} s; run this again when it is done.")
        self.look()

    def bring(self) -> bool:
        """Bring it to the wanted schema and grants; return whether that was still to be done when the lock was had."""
        if self.unknown:
            role = self.unknown[0]
            self.module.fail_json(msg=f"The server of the {self.store} database has no role {role!r}: CREATE ROLE \"{role}\" LOGIN PASSWORD '…'")
        self.take()
        self.started = before = self.before
        differed = self.differs
        if self.found != [self.wanted]:
            try:
                migrate(self.store, self.url, not self.found and not schema.CORE[self.store] <= set(self.rows))
            except Exception as error:
                self.module.fail_json(
                    msg=f"The migration of the {self.store} database from {before or 'nothing'} to {self.wanted} failed and was rolled back: {reason(error)}",
                    exception=traceback.format_exc(),
                )
            self.look()
            if self.found != [self.wanted]:
                self.module.fail_json(msg=f"After the migration the {self.store} database is at {self.before or 'no revision'} instead of {self.wanted}.")
        apply(self.connection, self.grants)
        # Nobody waits for it while the servers are stopped: it was made before that.
        if before in ("", self.wanted):
            self.bring_index()
        self.connection.close()
        return differed

    def bring_index(self) -> None:
        """Make the index, or take it away. MLflow works without it: what cannot be done now is left to the next run."""
        with self.connection.cursor() as cursor:
            for statement in self.index:
                try:
                    cursor.execute(statement)
                except psycopg2.Error as error:
                    why = str(error).strip()
                    self.module.warn(
                        f"The index {schema.INDEX} of the {self.store} database is not as wanted yet, and searches by metrics take longer: {why}. The next "
                        "run of site.yml does it, if no transaction is open for longer than a minute then; mlflow_schema_metrics_index turns it off."
                    )
                    return

    def prepopulate(self) -> dict[str, int]:
        """Make the index, and have MLflow do what it can before the servers stop, if this is the way to its release."""
        if self.store != "tracking" or not (prepopulates(self.found) or self.index):
            return {}
        self.take()
        self.bring_index()
        try:
            return prepopulate(self.url) if prepopulates(self.found) else {}
        except Exception as error:
            self.module.fail_json(msg=f"MLflow could not prepare the migration while its servers run: {error}", exception=traceback.format_exc())


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "databases": database.DATABASES,
            "server_role": {"type": "str", "required": True},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "grants": {"type": "str", "choices": ["read", "write"], "default": "read"}},
            },
            "action": {"type": "str", "choices": ["look", "migrate", "prepopulate"], "default": "migrate"},
            "metrics_index": {"type": "bool", "default": True},
            "lock_timeout": {"type": "int", "default": 600},
            "table_lock_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    os.environ["PGOPTIONS"] = f"-c lock_timeout={module.params['table_lock_timeout']}s"
    # All of them are looked at before the first one changes.
    databases = [Database(module, each["store"], each["url"]) for each in module.params["databases"]]
    if module.params["action"] == "look" and not module.check_mode:
        for each in databases:
            each.take()
            each.connection.close()
    moves = any(each.moves for each in databases)
    answer = {
        "differs": any(each.differs for each in databases),
        "moves": moves,
        "prepopulates": any(each.index or (each.store == "tracking" and prepopulates(each.found)) for each in databases) if moves else False,
        "rows": {each.store: schema.biggest(each.rows) for each in databases},
        "expected_seconds": schema.expected_seconds({each.store: sum(each.rows.values()) for each in databases if each.moves}),
        "revisions": {each.store: {"before": each.before, "after": each.after} for each in databases},
    }
    if module.params["action"] == "prepopulate":
        done = {} if module.check_mode else {kind: count for each in databases for kind, count in each.prepopulate().items()}
        module.exit_json(changed=any(done.values()) or any(each.index for each in databases), prepopulated=done, **answer)
    if module.params["action"] == "look":
        module.exit_json(changed=False, **answer)
    changed = answer["differs"]
    if not module.check_mode:
        brought = [each.bring() for each in databases if each.differs]
        changed = any(brought)
        # Somebody else may have been quicker.
        answer["revisions"] = {each.store: {"before": each.started, "after": each.after} for each in databases}
    diff = {side: "".join(f"{store}: {each[side]}\n" for store, each in answer["revisions"].items()) for side in ("before", "after")}
    module.exit_json(changed=changed, diff=diff, **answer)


if __name__ == "__main__":
    main()
