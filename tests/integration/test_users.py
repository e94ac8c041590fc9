"""Users of MLflow: what each may do, and what a changed inventory does to them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_mlflow import basic, opener

Playbook = Callable[..., Any]
API = "/api/2.0/mlflow"
NEW = "n@w:p/ss%w'o\"rd $x tokenReader8"
NEW_ADMIN = "n@w:adm/in%d $x tokenAdmin8"


def ask(site: dict[str, Any], login: tuple[str, str], path: str, values: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Ask the server over the network; with values it is a POST."""
    request = urllib.request.Request(f"{site['url']}{API}{path}", data=None if values is None else json.dumps(values).encode())
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", basic(*login))
    try:
        with opener(site).open(request, timeout=30) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, {}


def is_refused(site: dict[str, Any], login: tuple[str, str]) -> bool:
    """Whether a login no longer counts, for any worker: each remembers for mlflow_auth_cache_seconds that a password was right."""
    wanted = [401] * 20
    for _attempt in range(20):
        if [ask(site, login, f"/users/get?username={login[0]}")[0] for _each in wanted] == wanted:
            return True
        time.sleep(1)
    return False


def login_of(site: dict[str, Any], name: str) -> tuple[str, str]:
    """Return a user's name and password, the inventory's or the one that was made."""
    entry = next(user for user in site["users"] if user["name"] == name)
    made = Path(site["secrets_folder"]) / f"mlflow_user_{name}_password"
    return name, entry["password"] if "password" in entry else made.read_text(encoding="utf-8").strip()


def experiment(site: dict[str, Any], name: str) -> str:
    """Return the id of an experiment, as the administrator sees it."""
    status, found = ask(site, ("admin", site["admin_password"]), f"/experiments/get-by-name?experiment_name={name}")
    assert status == 200
    return found["experiment"]["experiment_id"]


@pytest.mark.parametrize(("name", "on_shared", "may_log"), [("reader", 200, 403), ("writer", 200, 200)])
def test_users_may_do_what_they_were_given(site: dict[str, Any], name: str, on_shared: int, may_log: int) -> None:
    """And nothing with what nobody gave them."""
    login, shared = login_of(site, name), experiment(site, "shared")
    assert ask(site, login, f"/experiments/get?experiment_id={shared}")[0] == on_shared
    assert ask(site, login, "/runs/create", {"experiment_id": shared})[0] == may_log
    assert ask(site, login, "/experiments/get?experiment_id=0")[0] == 403
    assert ask(site, login, "/users/get?username=admin")[0] == 403


def test_who_is_absent_is_not_there(site: dict[str, Any]) -> None:
    """The administrator sees the others."""
    admin = ("admin", site["admin_password"])
    assert [ask(site, admin, f"/users/get?username={name}")[0] for name in ("reader", "writer", "nobody")] == [200, 200, 404]


@pytest.fixture(name="changed", scope="module")
def fixture_changed(site: dict[str, Any], playbook: Playbook) -> Iterator[Any]:
    """Run with other passwords and permissions; afterwards with those of the inventory."""
    users = [{"name": "reader", "password": NEW, "experiments": {"shared": "DENY"}}, {"name": "writer", "state": "absent"}]
    yield playbook("playbooks/site.yml", "--diff", "--tags", "users", variables={"mlflow_users": users, "mlflow_admin_password": NEW_ADMIN})
    back = playbook("playbooks/site.yml", "--tags", "users")
    assert back.returncode == 0, back.stdout
    assert ask(site, login_of(site, "writer"), f"/experiments/get?experiment_id={experiment(site, 'shared')}")[0] == 200


def test_a_changed_inventory_counts(site: dict[str, Any], changed: Any) -> None:
    """New passwords instead of the old ones, the administrator's too; a permission that was changed; a user who is gone."""
    assert changed.returncode == 0, changed.stdout
    assert ask(site, ("reader", NEW), "/users/get?username=reader")[0] == 200
    assert ask(site, ("admin", NEW_ADMIN), "/users/get?username=admin")[0] == 200
    found = ask(site, ("admin", NEW_ADMIN), "/experiments/get-by-name?experiment_name=shared")[1]
    assert ask(site, ("reader", NEW), f"/experiments/get?experiment_id={found['experiment']['experiment_id']}")[0] == 403
    for login in (login_of(site, "reader"), ("admin", site["admin_password"]), login_of(site, "writer")):
        assert is_refused(site, login)


def test_the_output_shows_what_changed_and_no_password(changed: Any) -> None:
    """The permission, before and after."""
    assert "experiment shared: READ" in changed.stdout and "experiment shared: DENY" in changed.stdout
    assert [word for word in ("tokenReader", "tokenAdmin") if word in changed.stdout + changed.stderr] == []
