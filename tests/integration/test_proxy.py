"""mlflow_auth proxy: an identity provider says who somebody is, and MLflow what he may do."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_gateway import ask
from test_mlflow import EXPERIMENT, answer, opener

Playbook = Callable[..., subprocess.CompletedProcess[str]]
PORT = 4180
CHANGES = {
    "mlflow_auth": "proxy",
    "gateway_auth_url": f"http://127.0.0.1:{PORT}",
    "mlflow_admin_user": "boss@example.org",
    "mlflow_default_permission": "READ",
    "mlflow_users": [],
}

# As root, who has the host's certificate.
FROM_THE_HOST = """
import ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
context.load_cert_chain("/etc/ssl/certs/mlops-host.crt", "/etc/ssl/private/mlops-host.key")
request = urllib.request.Request(sys.argv[1], headers={"X-Forwarded-User": "boss@example.org"})
try:
    print(urllib.request.urlopen(request, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(scope="module", autouse=True)
def proxied(site: dict[str, Any], connect: Callable[[str], Any], playbook: Playbook) -> Iterator[None]:
    """Run an identity provider beside the gateway, and have the site ask it; afterwards passwords count again."""
    gateway = connect("gateway")
    program = (Path(__file__).parent / "identity_provider.py").read_text(encoding="utf-8")
    gateway.check_output("printf %%s %s > /run/identity_provider.py", program)
    gateway.check_output(f"systemd-run --unit=identity-provider python3 /run/identity_provider.py {PORT}")
    try:
        result = playbook("playbooks/site.yml", variables=CHANGES)
        assert result.returncode == 0, result.stdout
        yield
    finally:
        gateway.check_output("systemctl stop identity-provider && rm /run/identity_provider.py")
        result = playbook("playbooks/site.yml")
    assert result.returncode == 0, result.stdout
    assert answer(site, EXPERIMENT)[0] == 200


def call(site: dict[str, Any], path: str, token: str, body: dict[str, Any] | None = None, method: str = "", **headers: str) -> tuple[int, Any]:
    """Call the API with a token; return status and answer."""
    data = json.dumps(body).encode() if body is not None else None
    given = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{site['url']}/api/2.0/mlflow/{path}", data, given, method=method or None)
    try:
        with opener(site).open(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_who_has_not_signed_in(site: dict[str, Any]) -> None:
    """Programs are told, people see the sign-in page, which knows where they wanted to go, and passwords no longer count."""
    url = f"{site['url']}{EXPERIMENT}"
    assert call(site, "experiments/get?experiment_id=0", "wrong")[0] == 401
    assert ask(site, url)[0] == 401
    status, dummy, body = ask(site, site["url"] + "/?workspace=a&compare=b%26c", Accept="text/html")
    assert status == 403 and b"Sign in" in body and b"value='/?workspace=a&amp;compare=b%26c'" in body


def test_a_browser_signs_in(site: dict[str, Any]) -> None:
    """By the cookie that the sign-in page gives."""
    status, headers, dummy = ask(site, f"{site['url']}/oauth2/sign_in?rd=/&token=tokenAlice7")
    assert status == 302
    cookie = headers["set-cookie"].partition(";")[0]
    status, dummy, body = ask(site, site["url"] + "/", Cookie=cookie, Accept="text/html", Authorization="")
    assert status == 200 and b"MLflow" in body


def test_a_user_is_made_with_the_default_permission(site: dict[str, Any]) -> None:
    """He has his own experiments, reads those of others, and does not change them."""
    status, mine = call(site, "experiments/create", "tokenAlice7", {"name": f"alice's {time.time()}"})
    assert status == 200
    status, theirs = call(site, "experiments/create", "tokenBoss7", {"name": f"boss's {time.time()}"})
    assert status == 200
    rename = {"experiment_id": theirs["experiment_id"], "new_name": "mine now"}
    assert call(site, f"experiments/get?experiment_id={theirs['experiment_id']}", "tokenAlice7")[0] == 200
    assert call(site, "experiments/update", "tokenAlice7", rename)[0] == 403
    for experiment, token in ((mine, "tokenAlice7"), (theirs, "tokenBoss7")):
        assert call(site, "experiments/delete", token, {"experiment_id": experiment["experiment_id"]})[0] == 200


@pytest.mark.parametrize("header", ["X-Forwarded-User", "x-forwarded-user", "X-Auth-Request-Email"])
def test_nobody_says_who_he_is(site: dict[str, Any], header: str) -> None:
    """What a client sends under the gateway's names is dropped."""
    status, seen = call(site, "users/current", "tokenAlice7", **{header: "boss@example.org"})
    assert status == 200 and "alice@example.org" in json.dumps(seen) and "boss" not in json.dumps(seen)
    assert call(site, "users/current", "", **{header: "boss@example.org"})[0] == 401


def test_nobody_goes_around_the_gateway(site: dict[str, Any], connect: Callable[[str], Any]) -> None:
    """Not even somebody with a shell on the host, who does not know the gateway's secret."""
    host = connect("mlflow")
    address = host.check_output("ss -Hltn 'sport = 5000' | awk '{print $4}'").strip()
    url = f"{'http' if address.startswith('127.') else 'https'}://{address}/api/2.0/mlflow/users/current"
    assert host.check_output("python3 -c %s %s", FROM_THE_HOST, url) == "401"
