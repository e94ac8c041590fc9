# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a PostgreSQL that somebody else runs: pure functions over the report of the module database_report.

A problem is one line, as in preflight. What the database's administrator has to run is in it as SQL, with '…' for a password.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import pgwire, preflight, sizing

# Connections of the administrator's own, which are not always open.
THEIRS = sizing.RESERVE["backup"] + sizing.RESERVE["monitoring"]
DATABASE_VARIABLE = {"tracking": "mlflow_database_name", "auth": "mlflow_database_auth_name"}
USER_VARIABLE = {"owner": "mlflow_database_owner_user", "server": "mlflow_database_user"}
PASSWORD_VARIABLE = {"owner": "mlflow_database_owner_password", "server": "mlflow_database_password"}
# How a login ends without telling whether the server's certificate would be trusted.
_BEFORE_TRUST = (
    *("name", "folder", "refused", "timeout", "unreachable", "protocol", "no_tls", "tls"),
    *("ca", "ca_text", "untrusted", "wrong_name", "expired", "surprise"),
)
# The bundle of the package ca-certificates, which a bare host need not have yet.
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
# How Ansible replaces what is the text of a password, or has it in it, and what of the report is for people only.
_MASKED, _ASTERISKS = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", "********"
_ONLY_SHOWN = {"store", "name", "message", "path", "owner_name", "names", "foreign_names", "foreign_owners", "missing_users"}

# Words that PostgreSQL accepts as a name only within double quotes (manual, appendix C).
_RESERVED = frozenset(
    "all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column concurrently "
    "constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp current_user default "
    "deferrable desc distinct do else end except false fetch for foreign freeze from full grant group having ilike in initially inner "
    "intersect into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or "
    "order outer overlaps placing primary public references returning right select session_user similar some symmetric system_user table "
    "tablesample then to trailing true union unique user using variadic verbose when where window with".split()
)

_WEAKER = {
    "disable": "passwords, parameters and results cross the network readable, and whoever sits on the way may change them",
    "allow": "TLS is used only if the server insists, so that everything may cross the network readable",
    "prefer": "whoever sits on the way can turn TLS off, and nobody notices that everything is readable",
    "require": "the connection is encrypted, but to anybody who answers: a server in between can read and change everything",
    "verify-ca": "any server with a certificate of the same CA is taken for the database; with a public CA that is everybody",
}


def identifier(name: str) -> str:
    """Write a name for SQL, in double quotes where it needs them."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def shown(names: list[str], count: int) -> str:
    """List some of the names, and say how many there are."""
    few = ", ".join(names[:5])
    return few if count <= 5 else f"{few} and {count - 5} more"


def masked(part: Any) -> bool:
    """Tell whether Ansible has replaced something that the checks go by, because it has the text of a password in it."""
    if isinstance(part, dict):
        return any(masked(each) for key, each in part.items() if key not in _ONLY_SHOWN)
    if isinstance(part, list):
        return any(map(masked, part))
    return isinstance(part, str) and (part == _MASKED or _ASTERISKS in part)


def unique(lines: list[str]) -> list[str]:
    """Say everything once; two databases often share what is wrong."""
    return list(dict.fromkeys(lines))


# --- Reaching the server and logging in ---


def _reach(kind: str, target: dict[str, Any]) -> str | None:
    host, port = target["host"], target["port"]
    remedies = {
        "folder": "a PostgreSQL of somebody else's is reached over TCP, not by a socket in a folder; use its name or address",
        "name": "this host cannot resolve the name; mend DNS or /etc/hosts, or use an address",
        "timeout": f"no answer at port {port}; open the way in firewalls and security groups, or correct the address",
        "unreachable": "there is no way to it; mend the network, or correct the address",
        "refused": f"nothing accepts connections there on {host}; start PostgreSQL, let it listen beyond localhost (listen_addresses), or correct the port",
        "protocol": f"what answers there on {host} does not speak as PostgreSQL does, or hangs up; correct the port, or read the server's log",
    }
    if kind not in remedies:
        return None
    at_port = kind in ("refused", "protocol")
    return preflight.problem("mlflow_database_port" if at_port else "mlflow_database_host", port if at_port else host, remedies[kind])


def _certificate(outcome: dict[str, Any], target: dict[str, Any], ca_file: dict[str, Any]) -> str | None:
    host, mode, message = target["host"], target["sslmode"], outcome["message"]
    path = ca_file["path"] or "the system's CAs"
    reason = message if ca_file["exists"] or not ca_file["path"] else "there is no such file on this host"
    return {
        "no_tls": preflight.problem(
            "mlflow_database_sslmode", mode, "the server has no TLS; give it a certificate and ssl = on, or give TLS up with mlflow_database_sslmode: prefer"
        ),
        "tls": preflight.problem("mlflow_database_sslmode", mode, f"no TLS session comes about ({message}); the server must know TLS 1.2 or newer"),
        "ca_text": f"sources_ca_files: no certificates can be read from them ({message}); use files in PEM form",
        "ca": preflight.problem("mlflow_database_ca_file", path, f"no certificates can be read from it ({message}); use a file in PEM form"),
        "untrusted": preflight.problem(
            "mlflow_database_ca_file",
            path,
            f"the certificate of {host} is not from a CA in there ({reason}); name the file with its CA, or add that to sources_ca_files",
        ),
        "wrong_name": preflight.problem(
            "mlflow_database_host", host, f"the server's certificate is for {message}; use such a name, or have a certificate made for this one"
        ),
        "expired": preflight.problem(
            "mlflow_database_sslmode", mode, f"the certificate of {host} is not valid at this time ({message}); renew it, or set this host's clock"
        ),
    }.get(outcome["kind"])


def _refused(which: str, outcome: dict[str, Any], target: dict[str, Any], role: dict[str, Any] | None, database: str) -> str:
    """Say why a role may not log in; role is what the other role could see of it, None when that saw nothing."""
    user, host, message = target[f"{which}_user"], target["host"], outcome["message"]
    variable, name = USER_VARIABLE[which], identifier(user)
    create = f"CREATE ROLE {name} LOGIN PASSWORD '…';"
    if role == {}:
        return preflight.problem(variable, user, f"{host} has no such role: {create}")
    if role and not role["can_login"]:
        return preflight.problem(variable, user, f"the role may not log in: ALTER ROLE {name} LOGIN;")
    if role and role["expired"]:
        return preflight.problem(variable, user, f"the role's password has expired: ALTER ROLE {name} VALID UNTIL 'infinity';")
    unknown = "" if role else f" or, if there is no such role, {create}"
    if outcome["sqlstate"] == "28000":
        line = f"{_hba(name, message, target, database)}{unknown and ';'}{unknown}"
        return preflight.problem(variable, user, f"{host} does not let it in ({message}); add to pg_hba.conf: {line}")
    if not outcome["sqlstate"]:
        return preflight.problem("mlflow_database_host", host, f"{message}; find out who answers there in the database's place")
    remedy = f"{host} refuses the login of {user} ({message}); correct it, or ALTER ROLE {name} PASSWORD '…';{unknown}"
    return preflight.problem(PASSWORD_VARIABLE[which], None, remedy)


def _hba(name: str, message: str, target: dict[str, Any], database: str) -> str:
    """Write the line that lets a role in, for the address that the server has named, or to be filled in."""
    address = "ADDRESS-OF-THIS-HOST/32"
    for word in re.findall(r"[0-9A-Fa-f.:]+", message):
        try:
            address = str(ipaddress.ip_network(word))
        except ValueError:
            continue
    kind = "hostssl" if target["sslmode"] in ("require", "verify-ca", "verify-full") else "host"
    line = f"{kind} {identifier(database)} {name} {address} scram-sha-256"
    return line if target["sslmode"] != "disable" else f"{line}; or, if it wants TLS, set mlflow_database_sslmode to verify-full"


def _create_database(name: str, owner: str) -> str:
    return f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)} ENCODING 'UTF8' TEMPLATE template0;"


def _login(which: str, entry: dict[str, Any], database: dict[str, str], report: dict[str, Any], target: dict[str, Any]) -> str | None:
    """Say what kept a role from logging in to one database; None when nothing did."""
    outcome = entry[which]
    kind, state, name = outcome["kind"], outcome["sqlstate"], database["name"]
    line = _reach(kind, target) or _certificate(outcome, target, report["ca_file"])
    if kind == "ok" or line:
        return line
    role = report["server"].get("roles", {}).get(which)
    if kind == "method":
        remedy = f"{outcome['message']}; let pg_hba.conf ask {target[f'{which}_user']} for scram-sha-256"
        return preflight.problem("mlflow_database_host", target["host"], remedy)
    if kind == "login":
        return _refused(which, outcome, target, role, name)
    if state == "3D000":
        remedy = f"{target['host']} has no such database: {_create_database(name, target['owner_user'])}"
        return preflight.problem(DATABASE_VARIABLE[database["store"]], name, remedy)
    if state == "42501":
        # The owner will grant it, if it can.
        if which == "server" and entry["facts"].get("owner", {}).get("owns"):
            return None
        remedy = f"the role may not connect to {name}: GRANT CONNECT ON DATABASE {identifier(name)} TO {identifier(target[f'{which}_user'])};"
        return preflight.problem(USER_VARIABLE[which], target[f"{which}_user"], remedy)
    if kind == "surprise":
        return preflight.problem("mlflow_database_host", target["host"], f"the login of {target[f'{which}_user']} could not be tried ({outcome['message']})")
    remedy = f"it refuses a login: {outcome['message']}{f' ({state})' if state else ''}"
    if state == "53300":
        if role and 0 <= role["connection_limit"] < sizing.RESERVE["migration"]:
            # The limit has a line of its own.
            return None
        remedy += "; raise max_connections, or the limit of the role (ALTER ROLE … CONNECTION LIMIT) or of the database"
    return preflight.problem("mlflow_database_host", target["host"], remedy)


# --- Connections ---


@dataclasses.dataclass(frozen=True)
class Need:
    """Connections, by who opens them.

    Args:
        total: all together, of the whole server.
        arithmetic: how they add up.
        pools: of MLflow's servers, by store.
        users: of the roles in postgresql_users, in the tracking database.
        migration: of the owner, in one database at a time. Hosts that wait for another's migration have one each.
    """

    total: int
    arithmetic: str
    pools: dict[str, int]
    users: int
    migration: int


def needed(connections: dict[str, Any]) -> Need:
    """Leave to the server's administrator what is kept for superusers, backup and monitoring: the server says what of it is in use or reserved."""
    parts = [part for part in connections["parts"] if part["what"] == "migration" or part["what"] not in sizing.RESERVE]
    users = [part["count"] for part in parts if part["what"].startswith("postgresql_users: ")]
    arithmetic = ", ".join(f"{part['what']} = {part['count']}" for part in parts)
    migration = sizing.RESERVE["migration"] + max(connections["hosts"] - 1, 0)
    return Need(sum(part["count"] for part in parts), arithmetic, connections["by_store"], sum(users), migration)


# --- The server ---


def _roles(server: dict[str, Any], target: dict[str, Any]) -> list[str]:
    """Check what the server's role may do beyond its tables; a role that is both migrates too, but needs no more than that."""
    role = server["roles"]["server"]
    if not role:
        return []
    user, name = target["server_user"], identifier(target["server_user"])
    rights = [right for right in ("superuser", "createdb", "createrole") if role[right]]
    if rights:
        taken = " ".join(f"NO{right.upper()}" for right in rights)
        return [preflight.problem(USER_VARIABLE["server"], user, f"the role is {' and '.join(rights)}, far more than it needs: ALTER ROLE {name} {taken};")]
    if role["member_of_owner"] and not target["single_role"]:
        owner = identifier(target["owner_user"])
        return [preflight.problem(USER_VARIABLE["server"], user, f"the role can act as the owner and change the schema: REVOKE {owner} FROM {name};")]
    return []


def _connections(server: dict[str, Any], target: dict[str, Any], need: Need) -> list[str]:
    """Compare what is left for ordinary roles with what MLflow and its users can open."""
    # Superusers' sessions are among the others: those that are open leave the reserved ones free.
    kept, others = server["superuser_reserved"] + server["reserved"], max(server["others"], THEIRS)
    free = server["max_connections"] - kept - others
    if free >= need.total:
        return []
    taken = f"{others} in use by other roles" if server["others"] >= THEIRS else f"{THEIRS} for backup and monitoring"
    wish = need.total + kept + others
    remedy = (
        f"of max_connections {server['max_connections']}, {kept} are reserved and {taken}, which leaves {max(free, 0)}; {need.total} are needed "
        f"({need.arithmetic}); use fewer mlflow_workers, or raise max_connections to {wish} or more: ALTER SYSTEM SET max_connections = {wish}; "
        "and restart PostgreSQL"
    )
    return [preflight.problem("mlflow_database_host", target["host"], remedy)]


def _role_limits(server: dict[str, Any], target: dict[str, Any], need: Need) -> list[str]:
    pools, migration = sum(need.pools.values()), f"a migration takes {need.migration}"
    wanted = {"server": (pools, f"MLflow's pools can open {pools}; use fewer mlflow_workers, or")}
    if target["single_role"]:
        wanted["server"] = (pools + need.migration, f"MLflow's pools can open {pools}, and {migration}; use fewer mlflow_workers, or")
    else:
        wanted["owner"] = (need.migration, f"{migration};")
    found = []
    for which, (least, why) in wanted.items():
        role, user = server["roles"][which], target[f"{which}_user"]
        if role and not role["superuser"] and 0 <= role["connection_limit"] < least:
            remedy = f"the role is limited to {role['connection_limit']} connections, and {why} ALTER ROLE {identifier(user)} CONNECTION LIMIT {least};"
            found.append(preflight.problem(USER_VARIABLE[which], user, remedy))
    return found


def _further_users(server: dict[str, Any], target: dict[str, Any]) -> list[str]:
    return [
        preflight.problem("postgresql_users", name, f"{target['host']} has no such role: CREATE ROLE {identifier(name)} LOGIN PASSWORD '…';")
        for name in server["missing_users"]
    ]


def _server(report: dict[str, Any], target: dict[str, Any], need: Need) -> list[str]:
    server, host = report["server"], target["host"]
    if report["server_error"]:
        remedy = f"the server could be asked for its version and settings in part only ({report['server_error']['message']}); look at its log"
        return [preflight.problem("mlflow_database_host", host, remedy)]
    if not server:
        return []
    if server["version"] < pgwire.OLDEST_VERSION:
        # Before 10 the second number was part of the version.
        version = server["version"] // 10000 if server["version"] >= 100000 else f"{server['version'] // 10000}.{server['version'] // 100 % 100}"
        return [preflight.problem("mlflow_database_host", host, f"it runs PostgreSQL {version}; MLflow's driver and these checks want 12 or newer")]
    if server["read_only"]:
        remedy = "it takes no writes: a standby, or default_transaction_read_only is on; use the address of the primary"
        return [preflight.problem("mlflow_database_host", host, remedy)]
    return _roles(server, target) + _connections(server, target, need) + _role_limits(server, target, need) + _further_users(server, target)


# --- A database ---


def _rights(facts: dict[str, Any], database: dict[str, str], target: dict[str, Any], above: bool) -> list[str]:
    """Check whose the database is, and who may create in it; above: the server's role has come to more rights by other ways."""
    variable, name, owner = DATABASE_VARIABLE[database["store"]], database["name"], identifier(target["owner_user"])
    found = []
    if facts["encoding"] != "UTF8":
        other = _create_database(f"{name}_utf8", target["owner_user"])
        remedy = f"its encoding is {facts['encoding']}, which cannot hold every text; name another, such as {other}"
        found.append(preflight.problem(variable, name, remedy))
    owned_by_server = facts["server"].get("owns", False) and not target["single_role"] and not above
    if facts["owner"] and (not facts["owner"]["owns"] or owned_by_server):
        remedy = f"it belongs to {facts['owner_name']} and not to {target['owner_user']}: ALTER DATABASE {identifier(name)} OWNER TO {owner};"
        found.append(preflight.problem(variable, name, remedy))
    if not facts["schema_owner"]:
        return [*found, preflight.problem(variable, name, f"it has no schema public: in this database, CREATE SCHEMA public AUTHORIZATION {owner};")]
    return found + _owner_rights(facts, database, target) + ([] if above or target["single_role"] else _server_rights(facts, database, target))


def _owner_rights(facts: dict[str, Any], database: dict[str, str], target: dict[str, Any]) -> list[str]:
    rights = facts["owner"]
    if not target["single_role"] and facts["schema_owner"] == target["server_user"]:
        # The remedy for the server's rights gives them to the owner.
        return []
    if not rights or (rights["usage"] and rights["create"]) or (_by_ownership(facts) and not rights["owns"]):
        return []
    remedy = f"{target['owner_user']} may not create tables in it: in this database, {_create_right(target)}"
    return [preflight.problem(DATABASE_VARIABLE[database["store"]], database["name"], remedy)]


def _create_right(target: dict[str, Any]) -> str:
    return f"GRANT USAGE, CREATE ON SCHEMA public TO {identifier(target['owner_user'])};"


def _by_ownership(facts: dict[str, Any]) -> bool:
    """Tell whether the rights on the schema come and go with the database itself, as by default from PostgreSQL 15 on."""
    return facts["schema_owner"] == "pg_database_owner"


def _server_rights(facts: dict[str, Any], database: dict[str, str], target: dict[str, Any]) -> list[str]:
    rights, variable, user = facts["server"], DATABASE_VARIABLE[database["store"]], target["server_user"]
    if not rights:
        return []
    if rights["create"] and (facts["public_create"] or not (_by_ownership(facts) and rights["owns"])):
        if facts["schema_owner"] == user:
            sql = f"ALTER SCHEMA public OWNER TO {identifier(target['owner_user'])};"
        elif facts["public_create"]:
            # The owner may have it from PUBLIC alone.
            sql = f"REVOKE CREATE ON SCHEMA public FROM PUBLIC; {_create_right(target)}"
        else:
            sql = f"REVOKE CREATE ON SCHEMA public FROM {identifier(user)};"
        return [preflight.problem(variable, database["name"], f"{user} may create tables in it, and must not: in this database, {sql}")]
    owner = facts["owner"]
    if not rights["usage"] and owner and not owner["grant"] and not _by_ownership(facts):
        sql = f"GRANT USAGE ON SCHEMA public TO {identifier(user)};"
        remedy = f"{user} may not use its schema public, and {target['owner_user']} cannot grant it: in this database, {sql}"
        return [preflight.problem(variable, database["name"], remedy)]
    return []


def _limit(facts: dict[str, Any], database: dict[str, str], stores: list[str], need: Need) -> list[str]:
    parts = {"pools": sum(need.pools.get(store, 0) for store in stores), "migration": need.migration}
    parts["postgresql_users"] = need.users if "tracking" in stores else 0
    least, limit = sum(parts.values()), facts["connection_limit"]
    if limit < 0 or limit - facts["others"] >= least:
        return []
    taken = f", {facts['others']} of them in use by other roles" if facts["others"] else ""
    arithmetic = ", ".join(f"{what} = {count}" for what, count in parts.items() if count)
    remedy = (
        f"it is limited to {limit} connections{taken}, and {least} are needed in it ({arithmetic}); use fewer mlflow_workers, or "
        f"ALTER DATABASE {identifier(database['name'])} CONNECTION LIMIT {least + facts['others']};"
    )
    return [preflight.problem(DATABASE_VARIABLE[database["store"]], database["name"], remedy)]


def is_mlflow(has: dict[str, bool], store: str) -> bool:
    """Tell by its tables whether a database is MLflow's tracking or auth store."""
    names = ("alembic_version", "experiments", "runs") if store == "tracking" else ("alembic_version_auth", "users")
    return all(has[name] for name in names)


def _content(facts: dict[str, Any], database: dict[str, str], target: dict[str, Any]) -> list[str]:
    """Check whose tables there are: nobody's, or MLflow's and the owner's."""
    tables, has, name = facts["tables"], facts["has"], database["name"]
    variable = DATABASE_VARIABLE[database["store"]]
    stores = [each["store"] for each in target["databases"] if each["name"] == name]
    if not tables["count"]:
        return []
    if any(is_mlflow(has, store) for store in stores):
        return _foreign(tables, name, variable, target)
    other = "auth" if database["store"] == "tracking" else "tracking"
    empty = "name a database that is empty, or MLflow's"
    if is_mlflow(has, other):
        remedy = f"it is MLflow's {other} database; exchange mlflow_database_name and mlflow_database_auth_name, or {empty}"
    elif has["alembic_version"] and not has["experiments"]:
        remedy = f"its alembic_version is another program's, which MLflow would take for its own; {empty}"
    elif has["experiments"] and not has["alembic_version"]:
        remedy = f"it has experiments and no alembic_version: another program's, or an MLflow that was stopped while it made its tables; {empty}"
    else:
        remedy = f"it holds tables of something else ({shown(tables['names'], tables['count'])}); {empty}"
    return [preflight.problem(variable, name, remedy)]


def _foreign(tables: dict[str, Any], name: str, variable: str, target: dict[str, Any]) -> list[str]:
    """Name tables of MLflow that the owner can neither migrate nor grant on."""
    if not tables["foreign"]:
        return []
    owner, owners = identifier(target["owner_user"]), tables["foreign_owners"]
    if tables["foreign"] <= 5:
        sql = " ".join(f"ALTER TABLE public.{identifier(each)} OWNER TO {owner};" for each in tables["foreign_names"])
    elif "postgres" in owners:
        # PostgreSQL does not reassign what its first superuser owns.
        wanted = target["owner_user"].replace("'", "''")
        sql = f"SELECT format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, '{wanted}') FROM pg_class c "
        sql += "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') \\gexec"
    else:
        sql = " ".join(f"REASSIGN OWNED BY {identifier(each)} TO {owner};" for each in owners) + " which concerns all that is theirs in the whole database"
    remedy = f"{tables['foreign']} of its tables ({shown(tables['foreign_names'], tables['foreign'])}) belong to {', '.join(owners)}, so that "
    return [preflight.problem(variable, name, f"{remedy}{target['owner_user']} can neither migrate them nor grant on them: in this database, {sql}")]


def _database(entry: dict[str, Any], database: dict[str, str], report: dict[str, Any], target: dict[str, Any], need: Need) -> list[str]:
    variable, name, server = DATABASE_VARIABLE[database["store"]], database["name"], report["server"]
    found = [line for line in (_login(which, entry, database, report, target) for which in ("owner", "server")) if line]
    if entry["error"]:
        found.append(preflight.problem(variable, name, f"it could not be looked at ({entry['error']['message']}); see the server's log"))
    if not entry["facts"] or server["read_only"]:
        return found
    facts, role = entry["facts"], server["roles"]["server"]
    above = bool(role) and (role["superuser"] or role["member_of_owner"])
    stores = [each["store"] for each in target["databases"] if each["name"] == name]
    return found + _rights(facts, database, target, above) + _limit(facts, database, stores, need) + _content(facts, database, target)


# --- Both ---


def _ca_file(report: dict[str, Any], target: dict[str, Any]) -> list[str]:
    """Name a file that the checks could do without and the driver cannot."""
    path = report["ca_file"]["path"]
    used = target["sslmode"].startswith("verify-") and any(each["owner"]["kind"] not in _BEFORE_TRUST for each in report["databases"])
    if not used or not path or path == SYSTEM_CAS or report["ca_file"]["exists"]:
        return []
    return [preflight.problem("mlflow_database_ca_file", path, "there is no such file on this host; put it there, or leave it out to trust the system's CAs")]


def database_problems(report: dict[str, Any], target: dict[str, Any], connections: dict[str, Any]) -> list[str]:
    """Check whether MLflow can run on a PostgreSQL that somebody else runs.

    Args:
        report: what the module database_report saw on one MLflow host.
        target: what was to be looked at: host, port, sslmode, owner_user, server_user, single_role (both are one role), and databases, a
            list of store (tracking or auth) and name, in the order of the report.
        connections: what the site can open (the filter site_connections).

    Returns:
        One line for each problem. What only follows from another is left out.
    """
    if masked(report):
        return ["mlflow_database_password: its value is not shown; it, or the owner's, is a word or number that Ansible hides all over the report; use another"]
    need = needed(connections)
    found = _ca_file(report, target) + _server(report, target, need)
    seen: set[str] = set()
    for entry, database in zip(report["databases"], target["databases"]):
        if database["name"] in seen:
            continue
        seen.add(database["name"])
        found += _database(entry, database, report, target, need)
    return unique(found)


def database_notices(report: dict[str, Any], target: dict[str, Any], connections: dict[str, Any] | None = None) -> list[str]:
    """Say what works and still costs something, and what site.yml will take from others.

    Args:
        report: as for database_problems.
        target: as for database_problems.
        connections: as for database_problems.

    Returns:
        One line each.
    """
    found = []
    if target["single_role"]:
        found.append(
            f"mlflow_database_owner_user and mlflow_database_user are both {target['owner_user']}: a server that is broken into can change or drop the "
            "tables, and a newer MLflow migrates them by itself at its start, without a backup and without a lock; give the owner a role of its own"
        )
    mode = target["sslmode"]
    if mode in _WEAKER:
        found.append(f"mlflow_database_sslmode is {mode}: {_WEAKER[mode]}; verify-full prevents that")
    if mode in ("allow", "prefer") and any(each["owner"]["kind"] == "ok" and not each["owner"]["tls"] for each in report["databases"]):
        found.append(f"the connection to {target['host']} is without TLS at present")
    names = {each["store"]: each["name"] for each in target["databases"]}
    tracking = next((each["facts"] for each, database in zip(report["databases"], target["databases"]) if database["store"] == "tracking"), {})
    if tracking and "auth" in names and names["auth"] != names["tracking"] and is_mlflow(tracking["has"], "auth"):
        found.append(f"the database {names['tracking']} has users of basic-auth, which do not count: mlflow_database_auth_name is {names['auth']}")
    open_to_all = [database["name"] for each, database in zip(report["databases"], target["databases"]) if each["facts"] and _taken_from_public(each["facts"])]
    if open_to_all:
        found.append(
            f"every role of the server may connect to {' and '.join(dict.fromkeys(open_to_all))} (PUBLIC): site.yml takes that away; whoever else "
            "uses it needs GRANT CONNECT ON DATABASE … TO …;"
        )
    if connections and connections["unknown"]:
        hosts = ", ".join(connections["unknown"])
        found.append(f"nobody has looked at {hosts}: what MLflow opens from there is not counted, unless mlflow_workers says how much")
    return found


def _taken_from_public(facts: dict[str, Any]) -> bool:
    """Tell whether everybody has rights on a database that its owner can take."""
    return facts["public"] and bool(facts["owner"]) and facts["owner"]["owns"]
