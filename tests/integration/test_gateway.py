"""The gateway as its clients see it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_mlflow import EXPERIMENT, answer, basic, opener

Playbook = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def gateway(connect: Callable[[str], Any]) -> Any:
    """The gateway's host."""
    return connect("gateway")


def ask(site: dict[str, Any], url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Open a URL as the administrator, without following redirects; return status, headers in lower case, and body."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> None:
            return None

    request = urllib.request.Request(url, headers={"Authorization": basic("admin", site["admin_password"]), **headers})
    try:
        with opener(site, Stay()).open(request, timeout=60) as reply:
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def handshake(site: dict[str, Any], *options: str) -> str:
    """Try to speak TLS with the gateway; return what OpenSSL said."""
    command = ["openssl", "s_client", "-connect", f"{site['gateway']}:443", "-CAfile", site["ca_file"], "-verify_return_error", *options]
    result = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=30)
    return result.stdout + result.stderr


def test_a_server_that_pauses(site: dict[str, Any], connect: Callable[[str], Any]) -> None:
    """As one does under load. There is no other one, so a request waits for it, the TLS handshake too."""
    host = connect("mlflow")
    # Longer than a connection that nobody uses is kept.
    time.sleep(5)
    host.check_output("systemctl kill --signal=STOP mlflow.service")
    try:
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(ask, site, f"{site['url']}/health") for _request in range(4)]
            time.sleep(5)
            host.check_output("systemctl kill --signal=CONT mlflow.service")
            assert [each.result()[0] for each in asked] == [200] * 4
    finally:
        host.check_output("systemctl kill --signal=CONT mlflow.service")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_speaks_current_tls(site: dict[str, Any], version: str) -> None:
    """With a certificate of the site's CA."""
    assert "Verify return code: 0 (ok)" in handshake(site, version)


@pytest.mark.parametrize(
    ("options", "alert"),
    [
        (("-tls1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"),
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"),
        (("-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"), "alert handshake failure"),
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"), "alert handshake failure"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"), "alert handshake failure"),
    ],
)
def test_refuses_old_protocols_and_weak_ciphers(site: dict[str, Any], options: tuple[str, ...], alert: str) -> None:
    """The server refuses, not the client that asks: without forward secrecy or authenticated encryption there is no session."""
    assert alert in handshake(site, *options)


def test_plain_http_is_a_redirect(site: dict[str, Any]) -> None:
    """Path and query stay; another name gets nothing."""
    status, headers, dummy = ask(site, f"http://{site['gateway']}/x?y=1")
    assert (status, headers["location"]) == (308, f"https://{site['gateway']}/x?y=1")
    assert ask(site, f"http://{site['gateway']}/x", Host="evil.example.org")[0] == 403


@pytest.mark.parametrize("path", ["/", EXPERIMENT, "/health"])
def test_another_name_gets_nothing(site: dict[str, Any], path: str) -> None:
    """Not even what MLflow itself would answer to any name."""
    assert ask(site, f"{site['url']}{path}", Host="evil.example.org")[0] == 403


def test_headers_of_a_page(site: dict[str, Any]) -> None:
    """Each once: two of a kind count as none for some browsers."""
    status, headers, dummy = ask(site, site["url"] + "/")
    assert status == 200
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert headers["server"] == "nginx"


def test_the_user_interface_may_ask(site: dict[str, Any]) -> None:
    """Its pages search by POST, which MLflow refuses to other origins."""

    def search(origin: str) -> int:
        headers = {"Authorization": basic("admin", site["admin_password"]), "Origin": origin, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{site['url']}/ajax-api/2.0/mlflow/runs/search", json.dumps({"experiment_ids": ["0"]}).encode(), headers)
        try:
            with opener(site).open(request, timeout=60) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert search(site["url"]) == 200
    assert search("https://evil.example.org") == 403


def test_static_files_are_small_and_kept(site: dict[str, Any]) -> None:
    """Compressed, and the browser asks once."""
    page = ask(site, site["url"] + "/")[2].decode()
    script = next(part for part in page.split('"') if part.startswith("static-files/static/js/main"))
    plain = ask(site, f"{site['url']}/{script}")
    status, headers, body = ask(site, f"{site['url']}/{script}", **{"Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert len(body) < len(plain[2]) / 2
    assert int(headers["cache-control"].rpartition("max-age=")[2]) > 24 * 3600


def test_what_has_one_name_in_every_version_is_not_kept(site: dict[str, Any], gateway: Any) -> None:
    """After an upgrade a kept page would name scripts that are gone."""
    page = "/static-files/lib/notebook-trace-renderer/index.html"
    script = "/" + next(part for part in ask(site, site["url"] + "/")[2].decode().split('"') if part.startswith("static-files/static/js/main"))

    def kept(path: str) -> bool:
        assert [ask(site, f"{site['url']}{path}")[0] for dummy in range(2)] == [200, 200]
        log = gateway.check_output("journalctl -u mlflow-gateway --no-pager --output cat --lines 100").splitlines()
        return "upstream=- " in [line for line in log if f'"GET {path} ' in line][-1]

    assert kept(script) and not kept(page)


def test_mlflow_itself_is_out_of_reach(site: dict[str, Any]) -> None:
    """Nobody goes around the gateway: the port is closed, or wants a certificate that only the site's hosts have."""
    for scheme in ("http", "https"):
        with pytest.raises(OSError):
            opener(site).open(f"{scheme}://{site['mlflow']}:5000/health", timeout=10)


def test_is_confined(gateway: Any) -> None:
    """systemd's own measure, and not root."""
    exposure = gateway.check_output("systemd-analyze security mlflow-gateway.service --no-pager | grep -o 'level for mlflow-gateway.service: [0-9.]*'")
    assert float(exposure.rsplit(" ", 1)[1]) <= 2.0
    users = gateway.check_output("ps -o user= -p $(systemctl show -P MainPID mlflow-gateway)")
    assert users.strip().startswith("mlflow-g") and gateway.service("mlflow-gateway").is_enabled


def test_the_log_has_neither_query_nor_password(site: dict[str, Any], gateway: Any) -> None:
    """What is asked for, by whom, and how long it took."""
    for path in ("/health", "/"):
        assert ask(site, f"{site['url']}{path}?token=tokenQuery7")[0] == 200
    log = gateway.check_output("journalctl -u mlflow-gateway --no-pager --output cat --lines 200")
    assert 'admin [' in log and '"GET /health HTTP/' in log
    assert "tokenQuery7" not in log and "Basic " not in log


def test_maintenance(site: dict[str, Any], gateway: Any) -> None:
    """People get a page, programs something that they can read, and both know when to come back."""
    gateway.check_output("touch /run/mlflow-gateway.maintenance")
    try:
        status, headers, body = ask(site, f"{site['url']}{EXPERIMENT}")
        assert (status, headers["retry-after"], json.loads(body)["error_code"]) == (503, "30", "TEMPORARILY_UNAVAILABLE")
        status, headers, body = ask(site, site["url"] + "/", Accept="text/html,*/*")
        assert status == 503 and headers["content-type"].startswith("text/html") and b"MLflow is not available" in body
        # Clients try again after 503, and never after 405.
        assert send(site, "POST", "/api/2.0/mlflow/runs/log-metric", 100) == 503
    finally:
        gateway.check_output("rm /run/mlflow-gateway.maintenance")
    assert answer(site, EXPERIMENT)[0] == 200


def send(site: dict[str, Any], method: str, path: str, size: int) -> int:
    """Send a body of so many bytes; return the status."""
    headers = {"Authorization": basic("admin", site["admin_password"]), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{site['url']}{path}", b"x" * size, headers, method=method)
    try:
        with opener(site).open(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_change_is_a_reload(site: dict[str, Any], gateway: Any, playbook: Playbook) -> None:
    """No request is lost, and the process stays; limits hold for requests, and not for the size of artifacts."""
    process = gateway.check_output("systemctl show -P MainPID mlflow-gateway")
    done, answers = threading.Event(), []

    def keep_asking() -> None:
        # Slower than the limit that comes.
        while not done.wait(0.05):
            answers.append(answer(site, EXPERIMENT)[0])

    thread = threading.Thread(target=keep_asking)
    thread.start()
    changes = {"gateway_max_body_mib": 1, "gateway_requests_per_second": 50, "gateway_request_burst": 50}
    result = playbook("playbooks/site.yml", "--tags", "gateway", variables=changes)
    done.set()
    thread.join()
    assert result.returncode == 0, result.stdout
    assert len(answers) > 10 and set(answers) == {200}
    assert gateway.check_output("systemctl show -P MainPID mlflow-gateway") == process
    assert send(site, "POST", "/api/2.0/mlflow/runs/search", 2 << 20) == 413
    assert send(site, "PUT", "/api/2.0/mlflow-artifacts/artifacts/0/large", 20 << 20) == 200
    assert send(site, "DELETE", "/api/2.0/mlflow-artifacts/artifacts/0/large", 0) in (200, 204)
    hurried: list[int] = []
    threads = [threading.Thread(target=lambda: hurried.extend(ask(site, f"{site['url']}/health")[0] for dummy in range(20))) for dummy in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(hurried) == {200, 429}
    assert playbook("playbooks/site.yml", "--tags", "gateway").returncode == 0
    assert gateway.check_output("systemctl show -P MainPID mlflow-gateway") == process
    assert send(site, "POST", "/api/2.0/mlflow/runs/search", 2 << 20) != 413


def test_a_migration_keeps_clients_waiting(site: dict[str, Any], playbook: Playbook) -> None:
    """While the tables change they get 503 and its page, never an error of a server whose tables have moved; then they are served again."""
    assert playbook("tests/integration/downgrade.yml").returncode == 0
    done, answers, others = threading.Event(), [], []

    def keep_asking() -> None:
        while not done.is_set():
            status, dummy, body = ask(site, f"{site['url']}{EXPERIMENT}")
            answers.append((status, b"TEMPORARILY_UNAVAILABLE" in body))
            if status not in (200, 503):
                others.append((len(answers), status, body))

    thread = threading.Thread(target=keep_asking)
    thread.start()
    result = playbook("playbooks/site.yml", "--tags", "mlflow_schema,mlflow")
    done.set()
    thread.join()
    assert result.returncode == 0, result.stdout
    assert others == [], f"of {len(answers)} answers"
    assert set(answers) == {(200, False), (503, True)} and answers[-1] == (200, False)


def test_nobody_writes_into_the_cache(site: dict[str, Any]) -> None:
    """A path that is a static file for nginx, and another one for MLflow, does not get as far as MLflow, whose answer would be everybody's."""
    name = "static-files/static/js/not-there.js"
    status, dummy, body = ask(site, f"{site['url']}/api/2.0/mlflow-artifacts/artifacts/{'..%2f' * 4}{name}")
    assert status == 404 and b"<center>nginx</center>" in body
    status, dummy, body = ask(site, f"{site['url']}/{name}")
    assert status == 404 and b"nginx" not in body
