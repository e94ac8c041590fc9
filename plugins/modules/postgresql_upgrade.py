#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Brings a PostgreSQL cluster to another major version, and back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_upgrade
short_description: Another major version of PostgreSQL
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Has Debian's C(pg_upgradecluster) upgrade a cluster, on a copy first where that is wanted, and keeps the old cluster for the way back.
  - What was done is remembered on the host, with the number of rows of every table, so that a run that was interrupted can be undone.
options:
  state:
    description:
      - V(looked) says what would be done, and refuses what cannot be done. V(rehearsed) upgrades a copy while the server serves, compares
        the rows of all tables, and removes it.
      - V(moved) stops the server, brings the data to the other version's cluster, and compares the rows of all tables while nobody but root reaches it.
        That cluster is then stopped.
      - V(opened) starts it for everybody, and gathers statistics for its planner. From then on it is the one that has the data, and nothing removes it.
      - V(recovered) ends what was interrupted. Before V(opened) it gives the data back to the cluster that had it, and starts that one; after it, it starts
        the one that has the data now.
    type: str
    choices: [looked, rehearsed, moved, opened, recovered]
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  version:
    description: The major version that is wanted.
    type: str
    required: true
  transfer:
    description: Whether files are copied, or cloned on a file system that can.
    type: str
    choices: [copy, clone]
    default: copy
  rehearse:
    description: For O(state=looked), whether there must be room for a rehearsal too.
    type: bool
    default: true
  conf:
    description: The settings of the new version, which O(state=rehearsed) and O(state=moved) start it with.
    type: str
    default: ""
  quiet_timeout:
    description: Seconds to wait for transactions to end.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Only O(state=looked) does anything then.
  diff_mode:
    support: none
    description: There is nothing to show.
requirements:
  - psycopg2
"""

EXAMPLES = r"""
- name: See what would be done
  mlops.mlflow.postgresql_upgrade:
    state: looked
    cluster: main
    version: "17"
  become: true
"""

RETURN = r"""
action:
  description: V(upgrade), V(back), or V(none) where the data is in the wanted version.
  returned: always
  type: str
name:
  description: Both versions, C(15-17) for instance, to be confirmed with.
  returned: always
  type: str
unfinished:
  description: Whether an earlier move was interrupted, and V(recovered) comes first.
  returned: always
  type: bool
summary:
  description: What would be done, or has been rehearsed, for people.
  returned: always
  type: list
seconds:
  description: How long upgrading the copy took.
  returned: with O(state=rehearsed)
  type: int
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import database, postgresql_upgrade
from ansible_collections.mlops.mlflow.plugins.module_utils.postgresql_clusters import ROOT, Failed, Host

REHEARSAL_SETTINGS = "listen_addresses = ''\nshared_buffers = '128MB'\nhuge_pages = 'off'\nfsync = 'off'\n"
BUSY = """
SELECT coalesce(usename, '') || ' in ' || coalesce(datname, '') || coalesce(' from ' || host(client_addr), '') FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""
COPY_ALLOWED = """
SELECT current_setting('wal_level') <> 'minimal' AND current_setting('max_wal_senders')::int >= 2
  AND EXISTS (SELECT 1 FROM pg_hba_file_rules WHERE type = 'local' AND 'replication' = ANY (database) AND auth_method = 'peer')
"""
OTHER_COLLATIONS = "SELECT datname FROM pg_database WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid) ORDER BY 1"


def look(host: Host, module: AnsibleModule, about: dict) -> dict:
    """See what an upgrade needs, and what going back would lose.

    Raises:
        Failed: it cannot be done; the message says why.
    """
    origin, destination = about["origin"], about["destination"]
    connection = host.connect(origin)
    if about["action"] == "back":
        return {"lost": postgresql_upgrade.differences(about["journal"]["rows"], host.rows(origin))}
    rehearse, transfer = module.params["rehearse"], module.params["transfer"]
    data = database.rows(connection, "SELECT sum(pg_database_size(oid))::bigint FROM pg_database")[0][0] >> 20
    needed = postgresql_upgrade.needed_mib(data, transfer, rehearse)
    disk = os.statvfs(ROOT)
    free = disk.f_bavail * disk.f_frsize >> 20
    if database.rows(connection, "SELECT count(*) FROM pg_tablespace")[0][0] > 2:
        raise Failed("The server has tablespaces of its own, which this upgrade does not know: upgrade the cluster yourself with pg_upgradecluster.")
    if rehearse and not database.rows(connection, COPY_ALLOWED)[0][0]:
        raise Failed(
            f"The server does not let the user postgres copy it for the rehearsal: run site.yml with postgresql_version '{origin}' first, which writes "
            "pg_hba.conf, and leave wal_level and max_wal_senders to the server."
        )
    if free < needed:
        what = "An upgrade with its rehearsal" if rehearse else "An upgrade"
        remedy = "make room, or leave out the rehearsal (postgresql_upgrade_rehearse: false)" if rehearse else "make room"
        raise Failed(f"{what} takes up to {needed} MiB beside the {data} MiB of the databases, and {ROOT} has {free} MiB left: {remedy}.")
    if transfer == "clone" and not host.can_clone():
        raise Failed(f"The file system of {ROOT} cannot clone files: set postgresql_upgrade_transfer to copy.")
    missing = postgresql_upgrade.missing_extensions(host.extensions(origin), host.available(destination), destination)
    # Check mode has not installed the new version.
    if missing and os.path.exists(host.program(destination, "postgres")):
        raise Failed(" ".join(missing))
    version = database.rows(connection, "SHOW server_version")[0][0].split()[0]
    return {"origin_version": version, "destination_version": host.newest(destination), "data_mib": data, "needed_mib": needed, "free_mib": free, "lost": {}}


def rehearse(host: Host, module: AnsibleModule, about: dict) -> dict:
    """Upgrade a copy while the server serves, and remove it.

    Raises:
        Failed: it could not be upgraded, or does not have the same rows.
    """
    origin, destination = about["origin"], about["destination"]
    copy = Host(module, f"{host.cluster}_rehearsal")
    started = time.monotonic()
    for version in (origin, destination):
        copy.drop(version)
    try:
        settings = REHEARSAL_SETTINGS + "".join(
            f"{name} = '{database.rows(host.connect(origin), f'SHOW {name}')[0][0]}'\n" for name in ("shared_preload_libraries", "max_connections")
        )
        copy.copy_of(host, origin, settings)
        copy.start_alone(origin)
        rows = copy.rows(origin)
        upgrading = time.monotonic()
        copy.upgrade(origin, destination, module.params["transfer"])
        port = copy.port(destination)
        copy.write_settings(destination, "mlops.conf", module.params["conf"])
        # This one is read last.
        copy.write_settings(destination, "rehearsal.conf", REHEARSAL_SETTINGS + f"port = {port}\n")
        copy.start_alone(destination)
        seconds = time.monotonic() - upgrading
        other = postgresql_upgrade.differences(rows, copy.rows(destination))
        if other:
            raise Failed("Tables of the upgraded copy have other rows: " + "; ".join(postgresql_upgrade.difference_lines(other)))
    finally:
        for version in (destination, origin):
            copy.drop(version)
    tables = sum(map(len, rows.values()))
    return {"seconds": round(seconds), "total": round(time.monotonic() - started), "tables": tables}


def wait_until_quiet(host: Host, version: str, timeout: int) -> None:
    """Wait until nobody is in the middle of something; idle connections end with the server, as with every restart.

    Raises:
        Failed: somebody still is.
    """
    connection = host.connect(version)
    for attempt in range(timeout + 1):
        if attempt:
            time.sleep(1)
        busy = [row[0] for row in database.rows(connection, BUSY)]
        if not busy:
            return
    raise Failed(f"Somebody still has a transaction after {timeout} s: {', '.join(busy)}. End it, then run this again.")


def move(host: Host, module: AnsibleModule, about: dict) -> None:
    """Stop the server, bring the data to the other cluster, and see that nothing is missing there, before anybody else reaches it.

    Raises:
        Failed: the state V(recovered) brings back what was.
    """
    if about["unfinished"] or about["action"] not in ("upgrade", "back"):
        raise Failed(about["why"] or "There is nothing to do, or something to be ended first: run the playbook again.")
    origin, destination, journal = about["origin"], about["destination"], about["journal"]
    connection = host.connect(origin)
    port = int(database.rows(connection, "SHOW port")[0][0])
    back = about["action"] == "back"
    journal = {
        "origin": origin,
        "destination": destination,
        "phase": "moving",
        "rows": {},
        "expected": journal["rows"] if back else {},
        "port": port,
    }
    wait_until_quiet(host, origin, module.params["quiet_timeout"])
    postgresql_upgrade.write_journal(host.cluster, journal)
    # A host that loses power from here on starts neither.
    host.keep(origin)
    host.stop(origin)
    # Nobody else comes in while they are counted.
    host.start_alone(origin)
    journal["rows"] = host.rows(origin)
    if not back:
        journal["expected"] = journal["rows"]
    postgresql_upgrade.write_journal(host.cluster, journal)
    if back:
        host.stop(origin)
    else:
        if destination in about["versions"]:
            host.drop(destination)
        host.upgrade(origin, destination, module.params["transfer"])
    host.keep(destination)
    host.set_port(destination, port)
    # With the settings that it will have: what stops it with them shows now.
    host.write_settings(destination, "mlops.conf", module.params["conf"])
    host.start_alone(destination)
    other = postgresql_upgrade.differences(journal["expected"], host.rows(destination))
    host.stop(destination)
    if other:
        raise Failed(f"PostgreSQL {destination} has other rows: " + "; ".join(postgresql_upgrade.difference_lines(other)))


def serve(host: Host, module: AnsibleModule, journal: dict) -> None:
    """Have the cluster that the data was moved to serve; from here on it is the one that has the data, whatever fails.

    Raises:
        Failed: it does not start.
    """
    version = journal["destination"]
    # First of all: what others write from now on must never be removed.
    postgresql_upgrade.write_journal(host.cluster, {**journal, "phase": "starting"})
    host.use(version)
    try:
        host.start(version)
    except Failed as error:
        raise Failed(f"PostgreSQL {version} has the data now, and does not start. Mend it, and run this again. {error}") from error
    if postgresql_upgrade.is_upgrade(journal):
        try:
            host.analyze(version)
        except Failed as error:
            module.warn(f"The planner of PostgreSQL {version} knows nothing of its tables until vacuumdb --all --analyze-only has run as postgres: {error}")
    found = [row[0] for row in database.rows(host.connect(version), OTHER_COLLATIONS)] if int(version) >= 15 else []
    if found:
        module.warn(
            f"This host's system sorts text otherwise than the one on which these databases were made: {', '.join(found)}. Rebuild their indexes "
            "(docs/upgrading.md)."
        )
    postgresql_upgrade.write_journal(host.cluster, {**journal, "phase": "done"})


def undo(host: Host, journal: dict) -> None:
    """Give the data back to the cluster that had it, and start that one.

    Raises:
        Failed: it does not start.
    """
    origin, destination = journal["origin"], journal["destination"]
    host.wait_for_strays()
    if postgresql_upgrade.is_upgrade(journal):
        # Nobody but this module has reached it; one that was kept would have been removed anyway.
        host.drop(destination)
    else:
        host.stop(destination)
        host.keep(destination)
    host.stop(origin)
    host.set_port(origin, journal["port"])
    host.use(origin)
    host.start(origin)
    postgresql_upgrade.write_journal(host.cluster, postgresql_upgrade.undone(journal))


def recover(host: Host, module: AnsibleModule, journal: dict) -> None:
    """Have the cluster that has the data serve again, if a move was interrupted.

    Raises:
        Failed: it does not start.
    """
    if postgresql_upgrade.is_undoable(journal):
        undo(host, journal)
    elif postgresql_upgrade.is_unfinished(journal):
        serve(host, module, journal)


def situation(host: Host, wanted: str) -> dict:
    """Return what is there, and what is to be done."""
    journal = postgresql_upgrade.read_journal(host.cluster)
    versions = host.versions()
    decided = postgresql_upgrade.decision(host.cluster, versions, wanted, journal)
    return {**decided, "cluster": host.cluster, "versions": versions, "journal": journal, "unfinished": postgresql_upgrade.is_unfinished(journal)}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["looked", "rehearsed", "moved", "opened", "recovered"], "required": True},
            "cluster": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "transfer": {"type": "str", "choices": ["copy", "clone"], "default": "copy"},
            "rehearse": {"type": "bool", "default": True},
            "conf": {"type": "str", "default": ""},
            "quiet_timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if database.PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=database.PSYCOPG2_ERROR)
    state = module.params["state"]
    host = Host(module, module.params["cluster"])
    if not module.check_mode:
        # A run that was killed goes on here for a while.
        host.lock()
    about, more, changed = situation(host, module.params["version"]), {}, False
    journal = about["journal"]
    try:
        if state == "looked" and about["action"] == "refused" and not about["unfinished"]:
            raise Failed(about["why"])
        if state == "looked" and about["action"] != "none" and not about["unfinished"]:
            more = look(host, module, about)
        elif module.check_mode:
            pass
        elif state == "rehearsed":
            more = {**look(host, module, about), **rehearse(host, module, about)}
        elif state == "moved":
            move(host, module, about)
            changed = True
        elif state == "opened":
            if not postgresql_upgrade.is_undoable(journal):
                raise Failed("There is nothing to open: run the playbook again.")
            serve(host, module, journal)
            changed = True
        elif state == "recovered":
            recover(host, module, journal)
            changed = about["unfinished"]
    except (Failed, OSError, database.psycopg2.Error) as error:
        prefix = "A copy could not be upgraded, and nothing was changed: " if state == "rehearsed" else ""
        module.fail_json(msg=prefix + str(error).strip())
    answer = {key: value for key, value in {**about, **more}.items() if key != "journal"}
    answer["name"] = f"{about['origin']}-{about['destination']}"
    answer["summary"] = postgresql_upgrade.summary(answer) if state in ("looked", "rehearsed") and not about["unfinished"] else []
    module.exit_json(changed=changed, **answer)


if __name__ == "__main__":
    main()
