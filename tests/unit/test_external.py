"""An external PostgreSQL: one line for each problem, with the variable, the value seen and the SQL that mends it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.common.parameters import remove_values
from ansible_collections.mlops.mlflow.plugins.filter.plan import site_connections
from ansible_collections.mlops.mlflow.plugins.module_utils import external, pgwire, sizing
from ansible_collections.mlops.mlflow.plugins.modules import database_report
from hypothesis import given
from hypothesis import strategies as st

SUM = "m1: 1 workers = 82, postgresql_users: a = 5, migration = 3"
PASSWORD = "p@s:s/w%o'r\"d $x\\"
OK = {"kind": "ok", "message": "", "sqlstate": "", "tls": True}
TABLES = {"count": 0, "names": [], "foreign": 0, "foreign_names": [], "foreign_owners": []}
TELLING = ("alembic_version", "experiments", "runs", "alembic_version_auth", "users")
CREATE_OWNER = "CREATE ROLE mlflow_owner LOGIN PASSWORD '…';"
GRANT = "GRANT USAGE, CREATE ON SCHEMA public TO mlflow_owner;"
EMPTY = "name a database that is empty, or MLflow's"


def outcome(kind: str, message: str = "", sqlstate: str = "") -> dict[str, Any]:
    """Return how a login failed."""
    return {"kind": kind, "message": message, "sqlstate": sqlstate, "tls": False}


WRONG_PASSWORD = outcome("login", "password authentication failed", "28P01")
NO_DATABASE = outcome("server", "database does not exist", "3D000")


def role(**changes: Any) -> dict[str, Any]:
    """Return a role that may log in and nothing else."""
    plain = {"can_login": True, "expired": False, "superuser": False, "createdb": False, "createrole": False, "connection_limit": -1}
    return plain | {"member_of_owner": False} | changes


def facts(**changes: Any) -> dict[str, Any]:
    """Return an empty database that fits, of PostgreSQL 15 or newer."""
    return {
        "encoding": "UTF8",
        "owner_name": "mlflow_owner",
        "connection_limit": -1,
        "others": 0,
        "schema_owner": "pg_database_owner",
        "public_create": False,
        "public": False,
        "owner": {"owns": True, "usage": True, "create": True, "grant": True},
        "server": {"owns": False, "usage": True, "create": False, "grant": False},
        "tables": dict(TABLES),
        "has": dict.fromkeys(TELLING, False),
    } | changes


def content(*names: str, owned_by: str = "", foreign: int = 0) -> dict[str, Any]:
    """Return what is in a database with these tables, the last ones of which are somebody else's."""
    others = list(names[len(names) - foreign :])
    tables = {"count": len(names), "names": list(names), "foreign": foreign, "foreign_names": others, "foreign_owners": [owned_by] if foreign else []}
    return {"tables": tables, "has": {name: name in names for name in TELLING}}


def server(**changes: Any) -> dict[str, Any]:
    """Return a server with room for everything."""
    numbers = {"version": 170004, "read_only": False, "max_connections": 200, "superuser_reserved": 3, "reserved": 0, "others": 5}
    return numbers | {"missing_users": [], "roles": {"owner": role(member_of_owner=True), "server": role()}} | changes


def seen(*databases: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a report; each database overrides parts of its entry."""
    entries = []
    for store, name, override in zip(("tracking", "auth"), ("mlflow", "mlflow_auth"), (*databases, {}, {})):
        entries.append({"store": store, "name": name, "owner": dict(OK), "server": dict(OK), "facts": facts(), "error": {}} | override)
    return {"ca_file": {"path": "", "exists": False}, "server": server(), "server_error": {}, "databases": entries} | changes


def target(**changes: Any) -> dict[str, Any]:
    """Return what the inventory says."""
    databases = [{"store": "tracking", "name": "mlflow"}, {"store": "auth", "name": "mlflow_auth"}]
    plain = {"host": "db", "port": 5432, "sslmode": "verify-full", "owner_user": "mlflow_owner", "server_user": "mlflow", "single_role": False}
    return plain | {"databases": databases} | changes


def connections(tracking: int = 41, auth: int = 41, users: int = 5, hosts: int = 1) -> dict[str, Any]:
    """Return what a site can open, as the filter site_connections has it; all of it is the first host's."""
    parts = [{"what": "m1: 1 workers", "count": tracking + auth}, *({"what": f"m{each}: 0 workers", "count": 0} for each in range(2, hosts + 1))]
    parts += [{"what": "postgresql_users: a", "count": users}] if users else []
    parts += [{"what": what, "count": count} for what, count in sizing.RESERVE.items()]
    return {"parts": parts, "by_store": {"tracking": tracking, "auth": auth}, "hosts": hosts, "unknown": []}


def problems(report: dict[str, Any], need: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    """Return the problems of a report."""
    return external.database_problems(report, target(**changes), need or connections())


def both(kind: str, message: str = "", sqlstate: str = "", **changes: Any) -> dict[str, Any]:
    """Return a report in which every login ended the same way."""
    entry = {"owner": outcome(kind, message, sqlstate), "server": outcome(kind, message, sqlstate), "facts": {}}
    return seen(entry, entry, server={}, **changes)


def test_a_database_that_fits_has_no_problem() -> None:
    """Neither an empty one nor MLflow's own, in one database or two, with one role or two."""
    assert problems(seen()) == []
    assert external.database_notices(seen(), target()) == []
    tracking, auth = ("alembic_version", "experiments", "runs"), ("alembic_version_auth", "users")
    assert problems(seen({"facts": facts(**content(*tracking))}, {"facts": facts(**content(*auth))})) == []
    one = [{"store": store, "name": "mlflow"} for store in ("tracking", "auth")]
    for names in (tracking, auth, tracking + auth):
        shared = {"name": "mlflow", "facts": facts(**content(*names))}
        assert problems(seen(shared, shared), databases=one) == []
    rights = {"owns": True, "usage": True, "create": True, "grant": True}
    roles = {which: role(member_of_owner=True) for which in ("owner", "server")}
    alone = {"facts": facts(server=rights)}
    assert problems(seen(alone, alone, server=server(roles=roles)), single_role=True, server_user="mlflow_owner") == []


# --- Reaching the server and logging in ---


@pytest.mark.parametrize(
    ("kind", "message", "line"),
    [
        ("name", "x", "mlflow_database_host = 'db': this host cannot resolve the name; mend DNS or /etc/hosts, or use an address"),
        ("timeout", "x", "mlflow_database_host = 'db': no answer at port 5432; open the way in firewalls and security groups, or correct the address"),
        (
            "folder",
            "x",
            "mlflow_database_host = 'db': a PostgreSQL of somebody else's is reached over TCP, not by a socket in a folder; use its name or address",
        ),
        ("ca_text", "no PEM", "sources_ca_files: no certificates can be read from them (no PEM); use files in PEM form"),
        ("unreachable", "x", "mlflow_database_host = 'db': there is no way to it; mend the network, or correct the address"),
        (
            "refused",
            "x",
            "mlflow_database_port = 5432: nothing accepts connections there on db; start PostgreSQL, let it listen beyond localhost "
            "(listen_addresses), or correct the port",
        ),
        (
            "protocol",
            "x",
            "mlflow_database_port = 5432: what answers there on db does not speak as PostgreSQL does, or hangs up; correct the port, or read the "
            "server's log",
        ),
        (
            "no_tls",
            "x",
            "mlflow_database_sslmode = 'verify-full': the server has no TLS; give it a certificate and ssl = on, or give TLS up with "
            "mlflow_database_sslmode: prefer",
        ),
        ("tls", "ALERT", "mlflow_database_sslmode = 'verify-full': no TLS session comes about (ALERT); the server must know TLS 1.2 or newer"),
        ("ca", "no PEM", 'mlflow_database_ca_file = "the system\'s CAs": no certificates can be read from it (no PEM); use a file in PEM form'),
        (
            "untrusted",
            "self-signed certificate",
            'mlflow_database_ca_file = "the system\'s CAs": the certificate of db is not from a CA in there (self-signed certificate); name the file '
            "with its CA, or add that to sources_ca_files",
        ),
        (
            "wrong_name",
            "a.test, b.test",
            "mlflow_database_host = 'db': the server's certificate is for a.test, b.test; use such a name, or have a certificate made for this one",
        ),
        (
            "expired",
            "certificate has expired",
            "mlflow_database_sslmode = 'verify-full': the certificate of db is not valid at this time (certificate has expired); renew it, or set "
            "this host's clock",
        ),
    ],
)
def test_what_ends_every_login_is_said_once(kind: str, message: str, line: str) -> None:
    """Two roles and two databases, one line."""
    assert problems(both(kind, message)) == [line]


def test_a_ca_file_that_is_not_there() -> None:
    """It is the reason why nothing is trusted; and where other CAs helped, the driver will still ask for it. The system's own may come later."""
    missing = {"path": "/etc/pg.pem", "exists": False}
    assert problems(both("untrusted", "x", ca_file=missing)) == [
        "mlflow_database_ca_file = '/etc/pg.pem': the certificate of db is not from a CA in there (there is no such file on this host); name the "
        "file with its CA, or add that to sources_ca_files"
    ]
    line = "mlflow_database_ca_file = '/etc/pg.pem': there is no such file on this host; put it there, or leave it out to trust the system's CAs"
    assert problems(seen(ca_file=missing)) == [line]
    assert problems(seen(ca_file=missing), sslmode="require") == []
    assert problems(seen(ca_file=missing | {"exists": True})) == []
    assert problems(seen(ca_file={"path": external.SYSTEM_CAS, "exists": False})) == []


@pytest.mark.parametrize(
    ("which", "override", "known", "line"),
    [
        (
            "server",
            WRONG_PASSWORD,
            role(),
            "mlflow_database_password = (not shown): db refuses the login of mlflow (password authentication failed); correct it, or ALTER ROLE "
            "mlflow PASSWORD '…';",
        ),
        (
            "owner",
            WRONG_PASSWORD,
            role(),
            "mlflow_database_owner_password = (not shown): db refuses the login of mlflow_owner (password authentication failed); correct it, or "
            "ALTER ROLE mlflow_owner PASSWORD '…';",
        ),
        ("owner", WRONG_PASSWORD, {}, f"mlflow_database_owner_user = 'mlflow_owner': db has no such role: {CREATE_OWNER}"),
        (
            "server",
            outcome("login", "no entry for mlflow", "28000"),
            {},
            "mlflow_database_user = 'mlflow': db has no such role: CREATE ROLE mlflow LOGIN PASSWORD '…';",
        ),
        ("server", WRONG_PASSWORD, role(can_login=False), "mlflow_database_user = 'mlflow': the role may not log in: ALTER ROLE mlflow LOGIN;"),
        (
            "server",
            WRONG_PASSWORD,
            role(expired=True),
            "mlflow_database_user = 'mlflow': the role's password has expired: ALTER ROLE mlflow VALID UNTIL 'infinity';",
        ),
        (
            "server",
            outcome("login", 'no pg_hba.conf entry for host "10.0.0.7", user "mlflow"', "28000"),
            role(),
            'mlflow_database_user = \'mlflow\': db does not let it in (no pg_hba.conf entry for host "10.0.0.7", user "mlflow"); add to '
            "pg_hba.conf: hostssl mlflow mlflow 10.0.0.7/32 scram-sha-256",
        ),
        (
            "server",
            outcome("login", "its proof (SCRAM) is wrong"),
            role(),
            "mlflow_database_host = 'db': its proof (SCRAM) is wrong; find out who answers there in the database's place",
        ),
        (
            "server",
            outcome("method", "it wants GSS"),
            role(),
            "mlflow_database_host = 'db': it wants GSS; let pg_hba.conf ask mlflow for scram-sha-256",
        ),
        (
            "server",
            outcome("server", "too many clients already", "53300"),
            role(),
            "mlflow_database_host = 'db': it refuses a login: too many clients already (53300); raise max_connections, or the limit of the role "
            "(ALTER ROLE … CONNECTION LIMIT) or of the database",
        ),
        (
            "server",
            outcome("server", "the database system is starting up", "57P03"),
            role(),
            "mlflow_database_host = 'db': it refuses a login: the database system is starting up (57P03)",
        ),
        ("server", outcome("surprise", "MemoryError"), role(), "mlflow_database_host = 'db': the login of mlflow could not be tried (MemoryError)"),
    ],
)
def test_one_role_is_refused(which: str, override: dict[str, Any], known: dict[str, Any], line: str) -> None:
    """The other got in and saw what is the matter with it."""
    roles = {"owner": role(member_of_owner=True), "server": role()} | {which: known}
    # What the owner may do is unknown of a role that is not there.
    about = facts() if known else facts(**{which: {}})
    assert problems(seen({which: override, "facts": about}, {"facts": about}, server=server(roles=roles))) == [line]


def test_both_roles_are_refused() -> None:
    """Nobody could look whether they are there."""
    found = problems(both("login", "password authentication failed", "28P01"))
    assert found == [
        "mlflow_database_owner_password = (not shown): db refuses the login of mlflow_owner (password authentication failed); correct it, or ALTER "
        f"ROLE mlflow_owner PASSWORD '…'; or, if there is no such role, {CREATE_OWNER}",
        "mlflow_database_password = (not shown): db refuses the login of mlflow (password authentication failed); correct it, or ALTER ROLE mlflow "
        "PASSWORD '…'; or, if there is no such role, CREATE ROLE mlflow LOGIN PASSWORD '…';",
    ]


@pytest.mark.parametrize(
    ("message", "sslmode", "line"),
    [
        ('rejects connection for host "fd00::7", user "cafe"', "require", "hostssl mlflow mlflow_owner fd00::7/128 scram-sha-256"),
        ('no entry for host "10.0.0.7"', "prefer", "host mlflow mlflow_owner 10.0.0.7/32 scram-sha-256"),
        (
            'no entry for host "10.0.0.7"',
            "disable",
            "host mlflow mlflow_owner 10.0.0.7/32 scram-sha-256; or, if it wants TLS, set mlflow_database_sslmode to verify-full",
        ),
        ('role "abc" does not exist', "verify-ca", "hostssl mlflow mlflow_owner ADDRESS-OF-THIS-HOST/32 scram-sha-256"),
    ],
)
def test_the_line_for_pg_hba(message: str, sslmode: str, line: str) -> None:
    """It fits the mode, and the address that the server named."""
    report = seen({"owner": outcome("login", message, "28000"), "server": dict(OK), "facts": {}}, {"facts": {}}, server={})
    assert problems(report, sslmode=sslmode) == [
        f"mlflow_database_owner_user = 'mlflow_owner': db does not let it in ({message}); add to pg_hba.conf: {line}; or, if there is no such role, "
        f"{CREATE_OWNER}"
    ]


def test_databases_that_are_missing() -> None:
    """Once for each, although both roles were told so."""
    entry = {"owner": NO_DATABASE, "server": NO_DATABASE, "facts": {}}
    names = [{"store": "tracking", "name": "Ml-flow"}, {"store": "auth", "name": "order"}]
    assert problems(seen(entry, entry), databases=names) == [
        "mlflow_database_name = 'Ml-flow': db has no such database: CREATE DATABASE \"Ml-flow\" OWNER mlflow_owner ENCODING 'UTF8' TEMPLATE template0;",
        "mlflow_database_auth_name = 'order': db has no such database: CREATE DATABASE \"order\" OWNER mlflow_owner ENCODING 'UTF8' TEMPLATE template0;",
    ]


def test_the_right_to_connect() -> None:
    """The owner gives it to the server's role where the database is its own."""
    denied = outcome("server", "permission denied for database", "42501")
    assert problems(seen({"server": denied})) == []
    assert problems(seen({"owner": denied, "server": denied, "facts": {}})) == [
        "mlflow_database_owner_user = 'mlflow_owner': the role may not connect to mlflow: GRANT CONNECT ON DATABASE mlflow TO mlflow_owner;",
        "mlflow_database_user = 'mlflow': the role may not connect to mlflow: GRANT CONNECT ON DATABASE mlflow TO mlflow;",
    ]


# --- The server ---


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"version": 110022}, "mlflow_database_host = 'db': it runs PostgreSQL 11; MLflow's driver and these checks want 12 or newer"),
        ({"version": 90624}, "mlflow_database_host = 'db': it runs PostgreSQL 9.6; MLflow's driver and these checks want 12 or newer"),
        (
            {"read_only": True, "others": 500},
            "mlflow_database_host = 'db': it takes no writes: a standby, or default_transaction_read_only is on; use the address of the primary",
        ),
        (
            {"max_connections": 100, "reserved": 2, "others": 20},
            "mlflow_database_host = 'db': of max_connections 100, 5 are reserved and 20 in use by other roles, which leaves 75; 90 are "
            f"needed ({SUM}); use fewer mlflow_workers, or raise max_connections to 115 or more: ALTER SYSTEM SET max_connections = 115; and "
            "restart PostgreSQL",
        ),
        (
            {"max_connections": 98, "others": 2},
            "mlflow_database_host = 'db': of max_connections 98, 3 are reserved and 6 for backup and monitoring, which leaves 89; 90 are "
            f"needed ({SUM}); use fewer mlflow_workers, or raise max_connections to 99 or more: ALTER SYSTEM SET max_connections = 99; and "
            "restart PostgreSQL",
        ),
        ({"missing_users": ["team a"]}, "postgresql_users = 'team a': db has no such role: CREATE ROLE \"team a\" LOGIN PASSWORD '…';"),
    ],
)
def test_the_server(changes: dict[str, Any], line: str) -> None:
    """Its version, its settings and its roles; of an old one nothing else is known."""
    old = {"facts": {}} if "version" in changes else {}
    assert problems(seen(old, old, server=server(**changes))) == [line]


def test_connections_that_are_just_enough() -> None:
    """90 of 99 with 3 reserved; the 5 in use may be the backup and the monitoring that are counted with 6."""
    assert problems(seen(server=server(max_connections=99))) == []
    assert len(problems(seen(server=server(max_connections=98)))) == 1
    assert len(problems(seen(server=server(max_connections=99, others=7)))) == 1


def test_every_connection_is_counted_once() -> None:
    """What superusers, backup and monitoring need is the server's own, and it says what of it is in use."""
    site = site_connections(
        [{"inventory_hostname": "m1", "mlflow_workers": 2}, {"inventory_hostname": "m2", "mlflow_workers": 1, "mlflow_auth": "none"}],
        {"mlflow": ["m1", "m2"]},
        [{"name": "backup", "connections": 7}],
    )
    need = external.needed(site)
    assert need.total == 2 * 123 + 82 + 7 + 3 == site["total"] - sum(count for what, count in sizing.RESERVE.items() if what != "migration")
    assert (need.pools, need.users, need.migration) == ({"tracking": 246, "auth": 82}, 7, 4)
    assert need.arithmetic.endswith("pools (tracking, registry) = 82, postgresql_users: backup = 7, migration = 3")
    empty = external.needed(site_connections([], {}))
    assert (empty.total, empty.users, empty.migration) == (3, 0, 3)


@given(st.integers(1, 500), st.integers(0, 20), st.integers(0, 20), st.integers(0, 500), st.integers(1, 5000))
def test_the_number_to_ask_for_is_enough(most: int, reserved: int, further: int, others: int, need: int) -> None:
    """With max_connections as the line says, the problem is gone; with one less it is not."""
    about = {"max_connections": most, "superuser_reserved": reserved, "reserved": further, "others": others}
    pools = connections(need, 0, users=0)
    lines = problems(seen(server=server(**about)), pools)
    assert bool(lines) == (most < need + 3 + reserved + further + max(others, 6))
    if lines:
        wish = int(lines[0].split("max_connections to ")[1].split()[0])
        assert problems(seen(server=server(**about | {"max_connections": wish})), pools) == []
        assert len(problems(seen(server=server(**about | {"max_connections": wish - 1})), pools)) == 1


@pytest.mark.parametrize(
    ("which", "changes", "line"),
    [
        (
            "server",
            {"superuser": True, "createrole": True, "member_of_owner": True},
            "mlflow_database_user = 'mlflow': the role is superuser and createrole, far more than it needs: ALTER ROLE mlflow NOSUPERUSER NOCREATEROLE;",
        ),
        ("server", {"createdb": True}, "mlflow_database_user = 'mlflow': the role is createdb, far more than it needs: ALTER ROLE mlflow NOCREATEDB;"),
        (
            "server",
            {"member_of_owner": True},
            "mlflow_database_user = 'mlflow': the role can act as the owner and change the schema: REVOKE mlflow_owner FROM mlflow;",
        ),
        (
            "server",
            {"connection_limit": 81},
            "mlflow_database_user = 'mlflow': the role is limited to 81 connections, and MLflow's pools can open 82; use fewer mlflow_workers, or "
            "ALTER ROLE mlflow CONNECTION LIMIT 82;",
        ),
        (
            "owner",
            {"connection_limit": 2},
            "mlflow_database_owner_user = 'mlflow_owner': the role is limited to 2 connections, and a migration takes 3; ALTER ROLE mlflow_owner "
            "CONNECTION LIMIT 3;",
        ),
    ],
)
def test_the_roles(which: str, changes: dict[str, Any], line: str) -> None:
    """What they may do and how often they may connect; what a superuser may do besides is no further problem."""
    roles = {"owner": role(member_of_owner=True), "server": role()}
    rights = {"owns": True, "usage": True, "create": True, "grant": True}
    about = facts(server=rights) if changes.get("superuser") or changes.get("member_of_owner") else facts()
    assert problems(seen({"facts": about}, {"facts": about}, server=server(roles=roles | {which: role(**changes)}))) == [line]


def test_a_role_without_connections_is_one_problem() -> None:
    """Its logins fail because of the limit."""
    full = {"server": outcome("server", 'too many connections for role "mlflow"', "53300")}
    roles = {"owner": role(member_of_owner=True), "server": role(connection_limit=0)}
    assert len(problems(seen(full, full, server=server(roles=roles)))) == 1


def test_the_limits_of_roles_and_databases_by_store() -> None:
    """Users are not the server's role, and the auth store is not in the tracking database."""
    roles = {"owner": role(member_of_owner=True, connection_limit=3), "server": role(connection_limit=82)}
    databases = ({"facts": facts(connection_limit=49)}, {"facts": facts(connection_limit=43)})
    assert problems(seen(*databases, server=server(roles=roles))) == [
        "mlflow_database_auth_name = 'mlflow_auth': it is limited to 43 connections, and 44 are needed in it (pools = 41, migration = 3); use fewer "
        "mlflow_workers, or ALTER DATABASE mlflow_auth CONNECTION LIMIT 44;"
    ]
    shared = [{"store": store, "name": "mlflow"} for store in ("tracking", "auth")]
    assert problems(seen({"facts": facts(connection_limit=90, others=10)}), databases=shared) == [
        "mlflow_database_name = 'mlflow': it is limited to 90 connections, 10 of them in use by other roles, and 90 are needed in it (pools = 82, "
        "migration = 3, postgresql_users = 5); use fewer mlflow_workers, or ALTER DATABASE mlflow CONNECTION LIMIT 100;"
    ]


def test_hosts_that_wait_for_a_migration() -> None:
    """Each has the connection with which it asks for the lock."""
    roles = {"owner": role(member_of_owner=True, connection_limit=4), "server": role()}
    assert problems(seen(server=server(roles=roles)), connections(hosts=2)) == []
    assert problems(seen(server=server(roles=roles)), connections(hosts=3)) == [
        "mlflow_database_owner_user = 'mlflow_owner': the role is limited to 4 connections, and a migration takes 5; ALTER ROLE mlflow_owner "
        "CONNECTION LIMIT 5;"
    ]


def test_the_limit_of_a_role_that_is_both() -> None:
    """It migrates while the server runs."""
    rights = facts(server={"owns": True, "usage": True, "create": True, "grant": True})
    roles = dict.fromkeys(("owner", "server"), role(member_of_owner=True, connection_limit=84))
    alone = {"single_role": True, "server_user": "mlflow_owner"}
    assert problems(seen({"facts": rights}, {"facts": rights}, server=server(roles=roles)), **alone) == [
        "mlflow_database_user = 'mlflow_owner': the role is limited to 84 connections, and MLflow's pools can open 82, and a migration takes 3; use "
        "fewer mlflow_workers, or ALTER ROLE mlflow_owner CONNECTION LIMIT 85;"
    ]


# --- A database ---


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"encoding": "LATIN1"},
            "its encoding is LATIN1, which cannot hold every text; name another, such as CREATE DATABASE mlflow_utf8 OWNER mlflow_owner ENCODING "
            "'UTF8' TEMPLATE template0;",
        ),
        (
            # What an owner of the database may do comes with it.
            {"owner_name": "postgres", "owner": {"owns": False, "usage": False, "create": False, "grant": False}},
            "it belongs to postgres and not to mlflow_owner: ALTER DATABASE mlflow OWNER TO mlflow_owner;",
        ),
        (
            {"owner_name": "mlflow", "server": {"owns": True, "usage": True, "create": True, "grant": True}},
            "it belongs to mlflow and not to mlflow_owner: ALTER DATABASE mlflow OWNER TO mlflow_owner;",
        ),
        ({"schema_owner": ""}, "it has no schema public: in this database, CREATE SCHEMA public AUTHORIZATION mlflow_owner;"),
        (
            {"schema_owner": "postgres", "owner": {"owns": True, "usage": True, "create": False, "grant": False}},
            f"mlflow_owner may not create tables in it: in this database, {GRANT}",
        ),
        (
            {
                "schema_owner": "postgres",
                "public_create": True,
                "owner": {"owns": True, "usage": True, "create": True, "grant": False},
                "server": {"owns": False, "usage": True, "create": True, "grant": False},
            },
            f"mlflow may create tables in it, and must not: in this database, REVOKE CREATE ON SCHEMA public FROM PUBLIC; {GRANT}",
        ),
        (
            {"server": {"owns": False, "usage": True, "create": True, "grant": False}},
            "mlflow may create tables in it, and must not: in this database, REVOKE CREATE ON SCHEMA public FROM mlflow;",
        ),
        (
            {
                "schema_owner": "mlflow",
                "owner": {"owns": True, "usage": True, "create": False, "grant": False},
                "server": {"owns": False, "usage": True, "create": True, "grant": True},
            },
            "mlflow may create tables in it, and must not: in this database, ALTER SCHEMA public OWNER TO mlflow_owner;",
        ),
        (
            {
                "schema_owner": "postgres",
                "owner": {"owns": True, "usage": True, "create": True, "grant": False},
                "server": {"owns": False, "usage": False, "create": False, "grant": False},
            },
            "mlflow may not use its schema public, and mlflow_owner cannot grant it: in this database, GRANT USAGE ON SCHEMA public TO mlflow;",
        ),
        (
            content("alembic_version", "dag"),
            f"its alembic_version is another program's, which MLflow would take for its own; {EMPTY}",
        ),
        (
            content("experiments", "runs"),
            f"it has experiments and no alembic_version: another program's, or an MLflow that was stopped while it made its tables; {EMPTY}",
        ),
        (content("a", "b"), f"it holds tables of something else (a, b); {EMPTY}"),
        (content(*"abcdefg"), f"it holds tables of something else (a, b, c, d, e and 2 more); {EMPTY}"),
        (content("alembic_version", "experiments"), f"it holds tables of something else (alembic_version, experiments); {EMPTY}"),
        (
            content("alembic_version_auth", "users"),
            f"it is MLflow's auth database; exchange mlflow_database_name and mlflow_database_auth_name, or {EMPTY}",
        ),
        (
            content("alembic_version", "experiments", "runs", "Odd", foreign=2, owned_by="x"),
            "2 of its tables (runs, Odd) belong to x, so that mlflow_owner can neither migrate them nor grant on them: in this database, "
            'ALTER TABLE public.runs OWNER TO mlflow_owner; ALTER TABLE public."Odd" OWNER TO mlflow_owner;',
        ),
        (
            content("alembic_version", "experiments", "runs", *"abc", foreign=6, owned_by="X"),
            "6 of its tables (alembic_version, experiments, runs, a, b and 1 more) belong to X, so that mlflow_owner can neither migrate them nor grant "
            'on them: in this database, REASSIGN OWNED BY "X" TO mlflow_owner; which concerns all that is theirs in the whole database',
        ),
        (
            content("alembic_version", "experiments", "runs", *"abc", foreign=6, owned_by="postgres"),
            "6 of its tables (alembic_version, experiments, runs, a, b and 1 more) belong to postgres, so that mlflow_owner can neither migrate them nor "
            "grant on them: in this database, SELECT format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, 'mlflow_owner') FROM pg_class c WHERE "
            "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') \\gexec",
        ),
    ],
)
def test_a_database(changes: dict[str, Any], line: str) -> None:
    """Whose it is, who may do what in it, and what is in it already."""
    assert problems(seen({"facts": facts(**changes)})) == [f"mlflow_database_name = 'mlflow': {line}"]


def test_the_auth_database_has_its_own_variable() -> None:
    """And it is not MLflow's because of somebody's table of users."""
    assert problems(seen({}, {"facts": facts(**content("users"))})) == [
        f"mlflow_database_auth_name = 'mlflow_auth': it holds tables of something else (users); {EMPTY}"
    ]


def test_what_could_not_be_looked_at() -> None:
    """The server's words are passed on."""
    error = {"kind": "server", "message": "canceling statement due to statement timeout", "sqlstate": "57014"}
    assert problems(seen({"facts": {}, "error": error})) == [
        "mlflow_database_name = 'mlflow': it could not be looked at (canceling statement due to statement timeout); see the server's log"
    ]
    nothing = {"facts": {}}
    assert problems(seen(nothing, nothing, server={}, server_error=error)) == [
        "mlflow_database_host = 'db': the server could be asked for its version and settings in part only (canceling statement due to statement "
        "timeout); look at its log"
    ]


# --- Words, names and secrets ---


@pytest.mark.parametrize(
    ("name", "written"),
    [("mlflow", "mlflow"), ("a_1", "a_1"), ("order", '"order"'), ("Team", '"Team"'), ("a-b", '"a-b"'), ('a"b', '"a""b"'), ("1a", '"1a"'), ("é", '"é"')],
)
def test_names_in_sql(name: str, written: str) -> None:
    """In double quotes where they need them."""
    assert external.identifier(name) == written


@given(st.text(min_size=1))
def test_a_name_stays_one_name(name: str) -> None:
    """Whatever is in it."""
    written = external.identifier(name)
    assert written == name or written[1:-1].replace('""', '"') == name


@pytest.mark.parametrize("password", ["ok", "170004", "200", "True", "a", "UTF8", "mlflow_owner", "28P01"])
def test_a_password_that_hides_the_report(password: str) -> None:
    """Ansible strikes it out wherever it stands: that ends in a line or in the usual ones, never in an error."""
    report = remove_values(seen({"server": WRONG_PASSWORD}), {password})
    found = problems(report)
    line = "mlflow_database_password: its value is not shown; it, or the owner's, is a word or number that Ansible hides all over the report; use another"
    assert found == [line] or found[0].startswith("mlflow_database_password = (not shown): db refuses the login of mlflow")
    external.database_notices(report, target())


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_notices_about_tls(mode: str) -> None:
    """Every mode below verify-full costs something."""
    (line,) = external.database_notices(seen(), target(sslmode=mode))
    assert line.startswith(f"mlflow_database_sslmode is {mode}: ") and line.endswith("; verify-full prevents that")


def test_what_is_taken_from_everybody_is_said_before() -> None:
    """Of databases whose owner can take it, once for each, and not when it is done."""
    public = {"facts": facts(public=True)}
    line = (
        "every role of the server may connect to {} (PUBLIC): site.yml takes that away; whoever else uses it needs GRANT CONNECT ON DATABASE … TO …;"
    )
    assert external.database_notices(seen(public), target()) == [line.format("mlflow")]
    assert external.database_notices(seen(public, public), target()) == [line.format("mlflow and mlflow_auth")]
    shared = [{"store": store, "name": "one"} for store in ("tracking", "auth")]
    assert external.database_notices(seen(public, public), target(databases=shared)) == [line.format("one")]
    for owner in ({}, {"owns": False, "usage": True, "create": True, "grant": False}):
        assert external.database_notices(seen({"facts": facts(public=True, owner=owner)}), target()) == []


def test_hosts_that_nobody_has_looked_at() -> None:
    """Their connections are not in the sum."""
    (line,) = external.database_notices(seen(), target(), connections() | {"unknown": ["m2", "m3"]})
    assert line == "nobody has looked at m2, m3: what MLflow opens from there is not counted, unless mlflow_workers says how much"
    assert external.database_notices(seen(), target(), connections()) == []


def test_notices() -> None:
    """One role for both, no TLS where it was preferred, and users that nobody will see."""
    used = {"facts": facts(**content("alembic_version", "experiments", "runs", "alembic_version_auth", "users")), "owner": OK | {"tls": False}}
    alone, weak, plain, users = external.database_notices(seen(used), target(single_role=True, server_user="mlflow_owner", sslmode="prefer"))
    assert alone == (
        "mlflow_database_owner_user and mlflow_database_user are both mlflow_owner: a server that is broken into can change or drop the tables, and a "
        "newer MLflow migrates them by itself at its start, without a backup and without a lock; give the owner a role of its own"
    )
    assert weak.startswith("mlflow_database_sslmode is prefer: whoever sits on the way can turn TLS off")
    assert plain == "the connection to db is without TLS at present"
    assert users == "the database mlflow has users of basic-auth, which do not count: mlflow_database_auth_name is mlflow_auth"
    assert external.database_notices(both("refused"), target()) == []


# --- The module ---


class Server:
    """A server without a socket: answers by role and database, and rows by the beginning of a statement."""

    tls = True

    def __init__(self, answers: dict[tuple[str, str], Exception], rows: dict[str, Any]) -> None:
        self.answers, self.rows, self.logins, self.asked = answers, rows, [], []

    def connect(self, _host: str, _port: int, user: str, password: str, database: str, *_further: Any) -> Server:
        assert password == PASSWORD
        self.logins.append((user, database))
        if (user, database) in self.answers:
            raise self.answers[user, database]
        return self

    def query(self, sql: str) -> Any:
        self.asked.append(sql)
        found = next(rows for start, rows in self.rows.items() if sql.strip().startswith(start))
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Nothing is open."""


ROWS = {
    "SHOW": [["170004"]],
    "SELECT pg_is_in_recovery": [["f", "100", "3", "0"]],
    "SELECT count": [["7", "2"]],
    "SELECT r.rolname, r.rolcanlogin": [["own", "t", "f", "f", "f", "f", "-1", "t"]],
    "SELECT rolname": [["own"], ["team"]],
    "SELECT pg_encoding": [["UTF8", "own", "-1", "pg_database_owner", "f", "t"]],
    "SELECT r.rolname, pg_has_role": [["own", "t", "t", "t", "t"]],
    "SELECT c.relname": [["runs", "x", "f"], ["users", "own", "t"]],
}


def look(
    monkeypatch: pytest.MonkeyPatch, answers: dict[tuple[str, str], Exception] | None = None, roles: dict[str, Any] | None = None, **rows: Any
) -> tuple[dict[str, Any], list[Any]]:
    """Return the report about such a server, and the logins that were tried."""
    fake = Server(answers or {}, copy.deepcopy(ROWS) | rows)
    monkeypatch.setattr(pgwire, "connect", fake.connect)
    databases = [{"store": "tracking", "name": "one"}, {"store": "auth", "name": "two"}]
    parameters = {"host": "db", "port": 5432, "sslmode": "require", "ca_file": "", "ca_text": "", "connect_timeout": 1, "databases": databases}
    roles = roles or {"owner": {"user": "own", "password": PASSWORD}, "server": {"user": "srv", "password": PASSWORD}}
    report = database_report.Report(parameters | roles | {"further_users": ["team", "o'er"]})
    for database in databases:
        report.look_at_database(database)
    report.look_elsewhere()
    assert PASSWORD not in repr(report.found)
    # Whoever is counted in the site's own sum is not among the others.
    assert all("usename NOT IN ( E'own',  E'" in sql and "',  E'team',  E'o''er')" in sql for sql in fake.asked if "usename" in sql)
    return report.found, fake.logins


def test_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of text become what the checks want."""
    found, logins = look(monkeypatch)
    assert logins == [(user, database) for database in ("one", "two") for user in ("own", "srv")]
    assert found["server"]["version"] == 170004 and found["server"]["missing_users"] == ["o'er"] and found["server"]["others"] == 7
    assert found["server"]["roles"] == {"owner": role(member_of_owner=True), "server": {}}
    about = found["databases"][1]["facts"]
    assert about["owner"] == {"owns": True, "usage": True, "create": True, "grant": True} and about["server"] == {} and about["others"] == 2 and about["public"]
    assert about["tables"] == {"count": 2, "names": ["runs", "users"], "foreign": 1, "foreign_names": ["runs"], "foreign_owners": ["x"]}
    assert about["has"] == dict.fromkeys(TELLING, False) | {"runs": True, "users": True}


@pytest.mark.parametrize("empty", ["owner", "server", ""])
def test_one_role_logs_in_with_the_password_that_is_there(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    """Whichever of the two variables has it."""
    roles = {which: {"user": "own", "password": "" if which == empty else PASSWORD} for which in ("owner", "server")}
    found, logins = look(monkeypatch, roles=roles)
    assert logins == [("own", "one"), ("own", "two")]
    assert [each[which]["kind"] for each in found["databases"] for which in ("owner", "server")] == ["ok"] * 4


def test_what_ends_one_login_for_all_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt may take its time."""
    found, logins = look(monkeypatch, {("own", "one"): pgwire.PgError("timeout", "x")})
    assert logins == [("own", "one")]
    assert [each[which]["kind"] for each in found["databases"] for which in ("owner", "server")] == ["timeout"] * 4


def test_missing_databases_do_not_hide_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are in the maintenance database as well."""
    missing = pgwire.PgError("server", "no such database", "3D000")
    found, logins = look(monkeypatch, {(user, database): missing for user in ("own", "srv") for database in ("one", "two")})
    assert logins[-1] == ("own", "postgres") and found["server"]["max_connections"] == 100
    assert found["databases"][0]["facts"] == {} and found["databases"][0]["owner"]["sqlstate"] == "3D000"


def test_surprises_are_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a login, at the server and in a database; an old server is not asked what it does not know."""
    found, _logins = look(monkeypatch, {("srv", "one"): RuntimeError(PASSWORD)})
    assert found["databases"][0]["server"] == outcome("surprise", "RuntimeError")
    found, _logins = look(monkeypatch, **{"SELECT count": pgwire.PgError("server", "denied", "42501")})
    assert found["server"] == {} and found["server_error"] == {"kind": "server", "message": "denied", "sqlstate": "42501"}
    found, _logins = look(monkeypatch, **{"SELECT c.relname": [["short"]]})
    assert found["databases"][0]["error"]["kind"] == "surprise" and found["server"]["version"] == 170004
    found, _logins = look(monkeypatch, SHOW=[["90624"]])
    assert found["server"] == {"version": 90624} and found["databases"][0]["facts"] == {} and found["databases"][0]["error"] == {}


@given(st.text())
def test_a_text_in_sql(text: str) -> None:
    """It ends where it should, with or without standard_conforming_strings."""
    written = database_report.literal(text)
    assert written.startswith(" E'") and written.endswith("'")
    assert written[3:-1].replace("''", "'").replace("\\\\", "\\") == text


def test_jobs_are_no_hosts() -> None:
    """They need connections, and migrate nothing."""
    need = connections()
    jobs = need | {"parts": [{"what": "m1: jobs", "count": 43}, *need["parts"]]}
    assert external.needed(jobs).migration == external.needed(need).migration
    assert external.needed(jobs).total == external.needed(need).total + 43
