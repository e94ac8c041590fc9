#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Writes a PostgreSQL cluster's settings and pg_hba together, checked before they stay."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_config
short_description: Settings and pg_hba of one PostgreSQL cluster
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Writes a drop-in file with settings and the whole C(pg_hba.conf). The server's own program reads the settings before they are put in place.
    C(pg_hba.conf) can be checked only in its place, by a running server; when that finds an error, the previous file is put back.
  - Reloads a running server when something changed, and returns the settings that wait for a restart. It never restarts.
  - Runs as the operating-system user that owns the cluster.
options:
  conf:
    description: Lines of the drop-in file. Keys that are no longer there go back to the server's default.
    type: str
    required: true
  conf_file:
    description: The drop-in file, in a folder that C(postgresql.conf) includes.
    type: path
    required: true
  hba:
    description: Lines of C(pg_hba.conf).
    type: str
    required: true
  hba_file:
    description: The cluster's C(pg_hba.conf).
    type: path
    required: true
  main_conf_file:
    description: The cluster's C(postgresql.conf).
    type: path
    required: true
  bin_folder:
    description: Where the server's programs are.
    type: path
    required: true
  data_folder:
    description: The cluster's data directory. Its C(postmaster.pid) tells where a running server listens, even after a change of the port.
    type: path
    required: true
  reload_for:
    description: Other files that the server reads when it reloads, such as its certificate. It is reloaded when one is newer than what it has read.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: Shows what would change; the check by the server's own program is left to the real run.
  diff_mode:
    support: full
    description: Shows the lines of both files.
requirements:
  - psycopg2, when the server runs
"""

EXAMPLES = r"""
- name: Write the configuration
  mlops.mlflow.postgresql_config:
    conf: "work_mem = '8MB'\n"
    conf_file: /etc/postgresql/17/main/conf.d/mlops.conf
    hba: "local all,replication postgres peer\n"
    hba_file: /etc/postgresql/17/main/pg_hba.conf
    main_conf_file: /etc/postgresql/17/main/postgresql.conf
    bin_folder: /usr/lib/postgresql/17/bin
    data_folder: /var/lib/postgresql/17/main
  become: true
  become_user: postgres
"""

RETURN = r"""
pending_restart:
  description: Settings whose new value waits for a restart of the server.
  returned: always
  type: list
  elements: str
running:
  description: Whether the server ran.
  returned: always
  type: bool
"""

import os
import shutil
import tempfile
import time
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import psycopg2

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()


# A setting that waited for a restart and was then removed again has its default, in force all the time; PostgreSQL forgets to clear
# the mark.
PENDING = """
SELECT name FROM pg_settings s
WHERE pending_restart AND NOT (source = 'default' AND NOT EXISTS (SELECT 1 FROM pg_file_settings f WHERE f.name = s.name))
ORDER BY name
"""


def read(path: str) -> str:
    """Return the file's text, empty when there is none."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replace a file in one step, mode 0640; remove it when the text is empty."""
    if not text:
        if os.path.exists(path):
            os.unlink(path)
        return
    draft = f"{path}.mlops-draft"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    module.atomic_move(draft, path)


def connect(module: AnsibleModule):
    """Connect through the local socket as the owner of the cluster; None when no server runs."""
    lines = read(os.path.join(module.params["data_folder"], "postmaster.pid")).splitlines()
    # Lines 4 and 5 are the port and the socket's folder; a server that was killed leaves the file behind, one that starts has half of it.
    if len(lines) < 5 or not os.path.exists(f"{lines[4]}/.s.PGSQL.{lines[3]}"):
        return None
    if PSYCOPG2_ERROR is not None:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    for attempt in range(30):
        if not os.path.exists(f"/proc/{lines[0]}"):
            return None
        try:
            connection = psycopg2.connect(host=lines[4], port=lines[3], dbname="postgres", connect_timeout=10)
        except psycopg2.OperationalError as error:
            # It may be starting, or recovering from a crash.
            if attempt == 29:
                module.fail_json(msg=f"The server runs, but lets nobody in: {error}")
            time.sleep(1)
        else:
            connection.autocommit = True
            return connection
    return None


def query(connection, statement: str) -> list:
    """Run one statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def setting_errors(module: AnsibleModule) -> list[str]:
    """Have the server's own program read the settings with the new drop-in, in a copy of the folder."""
    main_file, drop_in = module.params["main_conf_file"], module.params["conf_file"]
    folder = os.path.dirname(main_file)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(os.path.dirname(drop_in), os.path.join(copy, os.path.relpath(os.path.dirname(drop_in), folder)))
        shutil.copy(main_file, copy)
        with open(os.path.join(copy, os.path.relpath(drop_in, folder)), "w", encoding="utf-8") as file:
            file.write(module.params["conf"])
        draft = os.path.join(copy, os.path.basename(main_file))
        rc, dummy, stderr = module.run_command([f"{module.params['bin_folder']}/postgres", "-C", "max_connections", f"--config-file={draft}"])
    return [line.replace(copy, folder) for line in stderr.splitlines() if rc != 0 and line.strip()]


def hba_errors(module: AnsibleModule, connection) -> list[str]:
    """Ask the running server what is wrong with pg_hba.conf as it is now."""
    if connection is None:
        return []
    rows = query(connection, "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL")
    return [f"{module.params['hba_file']} line {line}: {error}" for line, error in rows]


def loaded(connection) -> float:
    """When the server last read its files, in seconds since the epoch."""
    return float(query(connection, "SELECT extract(epoch FROM pg_conf_load_time())")[0][0])


def reload(connection) -> None:
    """Have the server read its files again, and wait until it has."""
    before = loaded(connection)
    query(connection, "SELECT pg_reload_conf()")
    for dummy in range(100):
        if loaded(connection) != before:
            return
        time.sleep(0.1)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "conf": {"type": "str", "required": True},
            "conf_file": {"type": "path", "required": True},
            "hba": {"type": "str", "required": True},
            "hba_file": {"type": "path", "required": True},
            "main_conf_file": {"type": "path", "required": True},
            "bin_folder": {"type": "path", "required": True},
            "data_folder": {"type": "path", "required": True},
            "reload_for": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = {module.params["conf_file"]: module.params["conf"], module.params["hba_file"]: module.params["hba"]}
    before = {path: read(path) for path in wanted}
    changed = {path: text for path, text in wanted.items() if before[path] != text}
    diff = [{"before_header": path, "before": before[path], "after_header": path, "after": text} for path, text in changed.items()]
    connection = connect(module)
    if changed and not module.check_mode:
        found = setting_errors(module)
        if found:
            module.fail_json(msg="PostgreSQL refuses the new settings; the previous ones stay. " + " ".join(found))
        for path, text in changed.items():
            write(module, path, text)
        found = hba_errors(module, connection)
        if found:
            for path in changed:
                write(module, path, before[path])
            module.fail_json(msg="PostgreSQL refuses the new pg_hba.conf; the previous one is back in place. " + " ".join(found))
    pending, stale = [], False
    if connection is not None:
        # An interrupted run may have left files that the server has not read, nor anybody checked.
        files = [*wanted, *module.params["reload_for"]]
        stale = any(os.path.exists(path) and os.path.getmtime(path) > loaded(connection) for path in files)
        if stale and not module.check_mode:
            found = setting_errors(module) + hba_errors(module, connection)
            if found:
                module.fail_json(msg="PostgreSQL refuses its configuration, which it has not read yet. " + " ".join(found))
            reload(connection)
        # A new session: the one that asked for the reload has the flags of its own start.
        connection.close()
        connection = connect(module)
        pending = [row[0] for row in query(connection, PENDING)]
    module.exit_json(changed=bool(changed) or stale, diff=diff, pending_restart=pending, running=connection is not None)


if __name__ == "__main__":
    main()
