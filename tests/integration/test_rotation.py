"""New secrets for all servers, while a client writes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_mlflow import EXPERIMENT, answer
from test_users import login_of

PROJECT = Path(__file__).resolve().parents[2]
Playbook = Callable[..., subprocess.CompletedProcess[str]]

NEW = {
    "mlflow_database_password": "n@w:s/w%o'r\"d $x tokenServer8",
    "mlflow_database_owner_password": "n@w:o/w%o'r\"d $x tokenOwner8",
    "mlflow_admin_password": "n@w:a/w%o'r\"d $x tokenAdmin8",
    "mlflow_s3_access_key_id": "MLFLOWMOLECULE8",
    "mlflow_s3_secret_access_key": "n3w+cr/t=%d'\"$HOME\\tokenStore8",
}

# An API key of a model provider, as MLflow's server keeps and reads it.
STORE = "import os; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as S; s = S(os.environ['MLFLOW_BACKEND_STORE_URI'], '/tmp'); "
KEEP = STORE + "print('id', s.create_gateway_secret(secret_name=os.urandom(4).hex(), secret_value={'api_key': 'stored'}).secret_id)"
READ = STORE + "print('value', s._get_decrypted_secret({0!r})['api_key'])"
DROP = STORE + "s.delete_gateway_secret({0!r})"


@pytest.fixture(scope="module")
def as_server(connect: Callable[[str], Any]) -> Callable[[str], str]:
    """A function that runs Python with the server's environment, and returns the last word that it prints."""
    run = "systemd-run --quiet --pipe --wait --property=EnvironmentFile=/etc/mlflow/mlflow.env /opt/mlflow/current/bin/python -c %s"
    return lambda code: connect("mlflow").check_output(run, code).split()[-1:]


def starts(host: Any) -> int:
    """Count the starts of MLflow."""
    return int(host.check_output("journalctl --unit mlflow --no-pager --output cat | grep -c '^Started mlflow.service'"))


@pytest.fixture(scope="module")
def rotated(site: dict[str, Any], connect: Callable[[str], Any], playbook: Playbook, as_server: Any, tmp_path_factory: Any) -> Iterator[dict[str, Any]]:
    """Rotate everything while a client writes; afterwards the inventory's own secrets count again."""
    user, password = login_of(site, "writer")
    stop = tmp_path_factory.mktemp("writer") / "stop"
    settings = {"MLFLOW_TRACKING_URI": site["url"], "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    environment = {**os.environ, **settings, "REQUESTS_CA_BUNDLE": site["ca_file"], "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [str(PROJECT / ".venv-client/bin/python"), str(PROJECT / "tests/integration/writer.py"), str(stop)]
    secret, host = as_server(KEEP)[0], connect("mlflow")
    before, passphrase = starts(host), host.check_output("grep KEK_PASSPHRASE /etc/mlflow/mlflow.env")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        result = playbook("playbooks/rotate_secrets.yml", variables=NEW)
        stop.touch()
        said, fault = writer.communicate(timeout=120)
    try:
        assert result.returncode == 0, result.stdout
        assert writer.returncode == 0, fault
        yield {
            "wrote": json.loads(said),
            "starts": starts(host) - before,
            "changed": passphrase != host.check_output("grep KEK_PASSPHRASE /etc/mlflow/mlflow.env"),
            "stored": as_server(READ.format(secret)),
        }
    finally:
        result = playbook("playbooks/site.yml")
    assert result.returncode == 0, result.stdout
    assert as_server(READ.format(secret)) == ["stored"]
    as_server(DROP.format(secret))


def test_no_acknowledged_write_is_lost(rotated: dict[str, Any]) -> None:
    """The client waits through the restart, and everything that it was told to be there is there."""
    assert rotated["wrote"]["acknowledged"] > 20 and rotated["wrote"]["lost"] == []


def test_one_restart(rotated: dict[str, Any]) -> None:
    """However many secrets change."""
    assert rotated["starts"] == 1


def test_what_was_encrypted_stays_readable(rotated: dict[str, Any]) -> None:
    """Under the new passphrase."""
    assert rotated["changed"] and rotated["stored"] == ["stored"]


def test_the_old_ones_no_longer_count(site: dict[str, Any], rotated: dict[str, Any], connect: Callable[[str], Any]) -> None:
    """Neither the administrator's password nor the key of the store."""
    assert [answer(site, EXPERIMENT, password=password)[0] for password in (site["admin_password"], NEW["mlflow_admin_password"])] == [401, 200]
    keys = connect("object_store").check_output("radosgw-admin user info --uid=mlflow")
    assert [key["access_key"] for key in json.loads(keys)["keys"]] == [NEW["mlflow_s3_access_key_id"]]
