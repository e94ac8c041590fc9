#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Looks at a PostgreSQL that this collection does not run, as the MLflow host will see it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_report
short_description: What MLflow will find at an existing PostgreSQL
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Logs in to each database as the owner and as the server's role, and returns what it saw and what it was refused.
  - Changes nothing. Needs no driver; the host only has to have Python 3.9 or newer.
  - Knows PostgreSQL from version 12. An older one is reported with its version and nothing else.
  - A failure is an entry of the report. The module itself does not fail.
options:
  host:
    description: Name or address of the server.
    type: str
    required: true
  port:
    description: TCP port of the server.
    type: int
    default: 5432
  sslmode:
    description: As in libpq. V(require) does not look at the certificate, even when there is a file with CAs.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
    default: prefer
  ca_file:
    description: PEM file on the host with the CAs to trust. When it is empty or does not exist, those of the system are trusted.
    type: str
    default: ''
  ca_text:
    description: PEM text with CAs to trust beside those.
    type: str
    default: ''
  connect_timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 10
  databases:
    description: The databases.
    type: list
    elements: dict
    required: true
    suboptions:
      store:
        description: What it is for.
        type: str
        choices: [tracking, auth]
        required: true
      name:
        description: Its name.
        type: str
        required: true
  owner:
    description: The role that migrates.
    type: dict
    required: true
    suboptions:
      user:
        description: Its name.
        type: str
        required: true
      password:
        description: Its password. When one role is both, it may be empty for one of them.
        type: str
        required: true
  server:
    description: The role that MLflow's server logs in with; may be the owner.
    type: dict
    required: true
    suboptions:
      user:
        description: Its name.
        type: str
        required: true
      password:
        description: Its password.
        type: str
        required: true
  further_users:
    description: Roles that must exist.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Look at the database
  mlops.mlflow.database_report:
    host: db.example.org
    sslmode: verify-full
    databases:
      - {store: tracking, name: mlflow}
      - {store: auth, name: mlflow_auth}
    owner: {user: mlflow_owner, password: "{{ owner_password }}"}
    server: {user: mlflow, password: "{{ server_password }}"}
  no_log: true
"""

RETURN = r"""
report:
  description: What was seen.
  returned: always
  type: dict
  contains:
    ca_file:
      description: The path, and whether there is such a file (C(path), C(exists)).
      type: dict
    server:
      description:
        - The server, as the first login that succeeded saw it; empty when none did.
        - It has C(version) (such as 170004), C(read_only), C(max_connections), C(superuser_reserved), C(reserved), C(others) (connections
          of roles that are not among the options), C(missing_users), and C(roles).
        - In C(roles), C(owner) and C(server) are empty when there is no such role. Otherwise each has C(can_login), C(expired), C(superuser),
          C(createdb), C(createrole), C(connection_limit) (-1 is none), and C(member_of_owner).
      type: dict
    server_error:
      description: Why C(server) is empty although a login succeeded (C(kind), C(message), C(sqlstate)); otherwise empty.
      type: dict
    databases:
      description:
        - One entry for each database, in the order of the option.
        - It has C(store), C(name), the outcome of both logins (C(owner), C(server)), C(facts), and C(error), which says why they are empty
          although a login succeeded.
        - An outcome has C(kind) (V(ok), or what went wrong), C(message), C(sqlstate), and C(tls).
        - The facts are C(encoding), C(owner_name), C(connection_limit), C(others), C(schema_owner) (of public; empty when that is
          missing), C(public_create), and C(public) (whether every role has rights on the database); for C(owner) and C(server), what each
          C(owns) and may do (C(usage), C(create), C(grant)), empty when there is no such role; C(tables) with C(count), C(names),
          C(foreign), C(foreign_names) and C(foreign_owners); and C(has), which says for each of the tables that tell MLflow's databases
          from others whether it is there.
      type: list
      elements: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mlops.mlflow.plugins.module_utils import pgwire

SHOWN_TABLES = 20
# Is there on practically every server, and shows roles and settings when MLflow's own databases are missing.
MAINTENANCE_DATABASE = "postgres"
# What ended the first login this way ends the others too, and each may take its time.
SAME_FOR_ALL = ("name", "folder", "refused", "timeout", "unreachable", "no_tls", "tls", "ca", "ca_text", "untrusted", "wrong_name", "expired")
TELLING_TABLES = ("alembic_version", "experiments", "runs", "alembic_version_auth", "users")

SETTINGS = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on', current_setting('max_connections'),
  current_setting('superuser_reserved_connections'), coalesce(current_setting('reserved_connections', true), '0')
"""

# Who may not see other roles' sessions gets NULL for most columns, but user and database are always there.
OTHERS = """
SELECT count(*), count(*) FILTER (WHERE datname = current_database()) FROM pg_stat_activity
WHERE (backend_type = 'client backend' OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL))
  AND usename NOT IN ({owner}, {server}{further})
"""

ROLES = """
SELECT r.rolname, r.rolcanlogin, coalesce(r.rolvaliduntil < now(), false), r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolconnlimit,
  EXISTS (SELECT 1 FROM pg_roles o WHERE o.rolname = {owner} AND pg_has_role(r.oid, o.oid, 'MEMBER'))
FROM pg_roles r WHERE r.rolname IN ({owner}, {server})
"""

DATABASE = """
SELECT pg_encoding_to_char(d.encoding), pg_get_userbyid(d.datdba), d.datconnlimit, coalesce(pg_get_userbyid(n.nspowner), ''),
  coalesce(has_schema_privilege('public', n.oid, 'CREATE'), false),
  EXISTS (SELECT 1 FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0)
FROM pg_database d LEFT JOIN pg_namespace n ON n.nspname = 'public' WHERE d.datname = current_database()
"""

RIGHTS = """
SELECT r.rolname, pg_has_role(r.oid, d.datdba, 'USAGE'), coalesce(has_schema_privilege(r.oid, n.oid, 'USAGE'), false),
  coalesce(has_schema_privilege(r.oid, n.oid, 'CREATE'), false), coalesce(has_schema_privilege(r.oid, n.oid, 'USAGE WITH GRANT OPTION'), false)
FROM pg_roles r CROSS JOIN pg_database d LEFT JOIN pg_namespace n ON n.nspname = 'public'
WHERE d.datname = current_database() AND r.rolname IN ({owner}, {server})
"""

# Views of an extension, such as pg_stat_statements, are not somebody's data.
TABLES = """
SELECT c.relname, pg_get_userbyid(c.relowner),
  coalesce((SELECT pg_has_role(o.oid, c.relowner, 'USAGE') FROM pg_roles o WHERE o.rolname = {owner}), false)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY c.relname
"""


def literal(text: str) -> str:
    """Write a text for SQL."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def failure(error: Exception) -> dict:
    """Describe an error; one that nobody thought of by its class alone, as its text may hold anything."""
    if isinstance(error, pgwire.PgError):
        return {"kind": error.kind, "message": error.message, "sqlstate": error.sqlstate}
    return {"kind": "surprise", "message": type(error).__name__, "sqlstate": ""}


def log_in(parameters: dict, role: dict, database: str) -> tuple[pgwire.Connection | None, dict]:
    """Log in to a database.

    Args:
        parameters: the module's.
        role: user and password.
        database: its name.

    Returns:
        The connection, if there is one, and the outcome.
    """
    try:
        connection = pgwire.connect(
            parameters["host"],
            parameters["port"],
            role["user"],
            role["password"],
            database,
            parameters["sslmode"],
            parameters["ca_file"],
            parameters["ca_text"],
            parameters["connect_timeout"],
        )
    except Exception as error:
        return None, failure(error) | {"tls": False}
    return connection, {"kind": "ok", "message": "", "sqlstate": "", "tls": connection.tls}


class Session:
    """A connection and the names of the roles, with which the statements are completed."""

    def __init__(self, connection: pgwire.Connection, parameters: dict) -> None:
        self.connection = connection
        self.users = {which: parameters[which]["user"] for which in ("owner", "server")}
        self.further = "".join(f", {literal(name)}" for name in parameters["further_users"])

    def rows(self, sql: str) -> list[list]:
        return self.connection.query(sql.format(**{which: literal(name) for which, name in self.users.items()}, further=self.further))

    def by_role(self, sql: str, names: tuple) -> dict:
        """Return, for the owner and for the server, the columns after the first by name; nothing for a role that is not there."""
        found = {row[0]: row[1:] for row in self.rows(sql)}
        return {which: dict(zip(names, map(value, found[name]))) if name in found else {} for which, name in self.users.items()}


def value(text: str | None) -> bool | int | str | None:
    """Read a boolean or a number."""
    if text in ("t", "f"):
        return text == "t"
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def server_facts(session: Session, further_users: list[str]) -> dict:
    """Describe the server."""
    facts = {"version": int(session.rows("SHOW server_version_num")[0][0])}
    if facts["version"] < pgwire.OLDEST_VERSION:
        return facts
    names = ("read_only", "max_connections", "superuser_reserved", "reserved")
    facts.update(zip(names, map(value, session.rows(SETTINGS)[0])))
    facts["others"] = int(session.rows(OTHERS)[0][0])
    names = ("can_login", "expired", "superuser", "createdb", "createrole", "connection_limit", "member_of_owner")
    facts["roles"] = session.by_role(ROLES, names)
    present = {row[0] for row in session.rows("SELECT rolname FROM pg_roles")}
    facts["missing_users"] = [name for name in further_users if name not in present]
    return facts


def table_facts(session: Session) -> dict:
    """Describe the tables in the schema public. What is foreign belongs to a role that the owner may not act as."""
    rows = session.rows(TABLES)
    names = [row[0] for row in rows]
    foreign = [row for row in rows if row[2] != "t"]
    return {
        "tables": {
            "count": len(names),
            "names": names[:SHOWN_TABLES],
            "foreign": len(foreign),
            "foreign_names": [row[0] for row in foreign[:SHOWN_TABLES]],
            "foreign_owners": sorted({row[1] for row in foreign}),
        },
        "has": {name: name in names for name in TELLING_TABLES},
    }


def database_facts(session: Session) -> dict:
    """Describe the database that the session is in."""
    encoding, owner_name, limit, schema_owner, public_create, public = session.rows(DATABASE)[0]
    facts = {
        "encoding": encoding,
        "owner_name": owner_name,
        "connection_limit": int(limit),
        "others": int(session.rows(OTHERS)[0][1]),
        "schema_owner": schema_owner,
        "public_create": value(public_create),
        "public": value(public),
    }
    facts.update(session.by_role(RIGHTS, ("owns", "usage", "create", "grant")))
    facts.update(table_facts(session))
    return facts


def guarded(look, *arguments) -> tuple[dict, dict]:
    """Return what a function found and no error, or nothing and its error."""
    try:
        return look(*arguments), {}
    except Exception as error:
        return {}, failure(error)


class Report:
    """The report, as it grows."""

    def __init__(self, parameters: dict) -> None:
        path = parameters["ca_file"]
        self.parameters = parameters
        self.hopeless: dict = {}
        self.single_role = parameters["owner"]["user"] == parameters["server"]["user"]
        self.found = {"ca_file": {"path": path, "exists": bool(path) and os.path.exists(path)}, "server": {}, "server_error": {}, "databases": []}

    def log_in(self, which: str, database: str) -> tuple[pgwire.Connection | None, dict]:
        if self.hopeless:
            return None, self.hopeless
        role = self.parameters[which]
        if self.single_role and not role["password"]:
            role = self.parameters["server"]
        connection, outcome = log_in(self.parameters, role, database)
        self.hopeless = outcome if outcome["kind"] in SAME_FOR_ALL else {}
        return connection, outcome

    def look_at_server(self, session: Session) -> None:
        if not self.found["server"]:
            self.found["server"], self.found["server_error"] = guarded(server_facts, session, self.parameters["further_users"])

    def look_at_database(self, database: dict) -> None:
        """Add an entry for one database."""
        owner, owner_outcome = self.log_in("owner", database["name"])
        server, server_outcome = (None, owner_outcome) if self.single_role else self.log_in("server", database["name"])
        entry = {"store": database["store"], "name": database["name"], "owner": owner_outcome, "server": server_outcome, "facts": {}, "error": {}}
        if owner or server:
            session = Session(owner or server, self.parameters)
            self.look_at_server(session)
            if self.found["server"].get("version", 0) >= pgwire.OLDEST_VERSION:
                entry["facts"], entry["error"] = guarded(database_facts, session)
        for connection in filter(None, (owner, server)):
            connection.close()
        self.found["databases"].append(entry)

    def look_elsewhere(self) -> None:
        """Look at the server when its databases are missing: it has shown that it lets the roles in."""
        for which in ("owner", "server"):
            if not self.found["server"] and any(each[which]["sqlstate"] == "3D000" for each in self.found["databases"]):
                connection = self.log_in(which, MAINTENANCE_DATABASE)[0]
                if connection:
                    self.look_at_server(Session(connection, self.parameters))
                    connection.close()


def main() -> None:
    """Entry point."""
    role = {
        "type": "dict",
        "required": True,
        "options": {"user": {"type": "str", "required": True}, "password": {"type": "str", "required": True, "no_log": True}},
    }
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5432},
            "sslmode": {"type": "str", "choices": list(pgwire.SSLMODES), "default": "prefer"},
            "ca_file": {"type": "str", "default": ""},
            "ca_text": {"type": "str", "default": ""},
            "connect_timeout": {"type": "int", "default": 10},
            "databases": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "store": {"type": "str", "choices": ["tracking", "auth"], "required": True},
                    "name": {"type": "str", "required": True},
                },
            },
            "owner": role,
            "server": role,
            "further_users": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    report = Report(module.params)
    for database in module.params["databases"]:
        report.look_at_database(database)
    report.look_elsewhere()
    module.exit_json(changed=False, report=report.found)


if __name__ == "__main__":
    main()
