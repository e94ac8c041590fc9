"""The MLflow service as the role leaves it."""

from __future__ import annotations

import base64
import json
import re
import ssl
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest


def opener(site: dict[str, Any], *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """What opens URLs of the site: it trusts the site's CA alone, and no proxy is in between."""
    context = ssl.create_default_context(cafile=site["ca_file"])
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), *handlers)


def basic(user: str, password: str) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def answer(site: dict[str, Any], path: str, host: str = "", password: str | None = "", body: Any = None) -> tuple[int, str]:
    """Ask the server over the network; ``password`` None is no login at all, empty is the administrator's own. With a body it is a POST."""
    request = urllib.request.Request(f"{site['url']}{path}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if host:
        request.add_header("Host", host)
    if password is not None:
        request.add_header("Authorization", basic("admin", password or site["admin_password"]))
    try:
        with opener(site).open(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=0"


def test_answers_from_its_database(site: dict[str, Any]) -> None:
    """With the awkward password, over the network."""
    status, body = answer(site, EXPERIMENT)
    assert (status, json.loads(body)["experiment"]["name"]) == (200, "Default")


@pytest.mark.parametrize("password", [None, "wrong-password-1"])
def test_wants_a_password(site: dict[str, Any], password: str | None) -> None:
    """Basic-auth is on by default."""
    assert answer(site, EXPERIMENT, password=password)[0] == 401


def test_knows_its_names_and_no_others(site: dict[str, Any]) -> None:
    """A browser that was sent here under a foreign name gets nothing."""
    assert answer(site, EXPERIMENT, host=site["name"])[0] == 200
    assert answer(site, EXPERIMENT, host=f"{site['name'].lower()}:{urlsplit(site['url']).port or 443}")[0] == 200
    assert answer(site, EXPERIMENT, host="evil.example.org")[0] == 403


def test_starts_by_itself(mlflow: Any) -> None:
    """Running, enabled, and as its own user."""
    service = mlflow.service("mlflow")
    assert service.is_running and service.is_enabled
    assert mlflow.check_output("ps -o user= -p $(systemctl show -P MainPID mlflow)").strip() == "mlflow"


def test_is_confined(mlflow: Any) -> None:
    """systemd's own measure of what the service could do."""
    exposure = mlflow.check_output("systemd-analyze security mlflow.service --no-pager | grep -o 'level for mlflow.service: [0-9.]*'")
    assert float(exposure.rsplit(" ", 1)[1]) <= 2.0


def test_confinement_is_in_force(mlflow: Any) -> None:
    """Not only written down: the service's own view of the file system is read-only, and nobody's home is there."""
    code = (
        "import os; print(os.access('/etc', os.W_OK), os.access('/opt/mlflow', os.W_OK),"
        " os.path.exists('/home/admin'), os.access('/var/lib/mlflow', os.W_OK))"
    )
    pid = mlflow.check_output("systemctl show -P MainPID mlflow")
    seen = mlflow.check_output(f"nsenter --target {pid} --mount runuser -u mlflow -- python3 -c %s", code)
    assert seen == "False False False True"


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/mlflow", "root", "mlflow", 0o750),
        ("/etc/mlflow/mlflow.env", "root", "root", 0o600),
        ("/etc/mlflow/basic_auth.ini", "root", "mlflow", 0o640),
        ("/var/lib/mlflow", "mlflow", "mlflow", 0o750),
    ],
)
def test_files_are_closed(mlflow: Any, path: str, owner: str, group: str, mode: int) -> None:
    """Who may read what."""
    file = mlflow.file(path)
    assert (file.user, file.group, file.mode) == (owner, group, mode)


@pytest.mark.parametrize("service", ["mlflow", "postgresql", "object_store", "gateway"])
class TestSecrets:
    """The secrets, as they are, in a URL and in base64, are where they must be and nowhere else."""

    def test_search_finds_what_is_there(self, connect: Any, service: str) -> None:
        """The search itself works: the list is not empty, and finds itself."""
        assert int(connect(service).check_output("grep -cFf /root/secrets /root/secrets")) > 20

    def test_not_in_the_process_list(self, connect: Any, service: str) -> None:
        """No command line shows one."""
        assert connect(service).run("ps -eww -o args | grep -Ff /root/secrets").stdout == ""

    def test_not_in_units(self, connect: Any, service: str) -> None:
        """No unit file has one."""
        assert connect(service).run("grep -rlFf /root/secrets /etc/systemd /run/systemd /usr/lib/systemd").stdout == ""

    def test_not_in_logs(self, connect: Any, service: str) -> None:
        """Neither the journal nor a log file has one."""
        assert connect(service).run("journalctl --no-pager --output cat | grep -Ff /root/secrets").stdout == ""
        assert connect(service).run("grep -rlFf /root/secrets /var/log --exclude-dir=journal").stdout == ""

    def test_not_in_files_that_everybody_reads(self, connect: Any, service: str) -> None:
        """Wherever the file is."""
        search = (
            "find / -xdev -type f -perm -o=r -size -20M -not -path '/proc/*' -not -path '/sys/*' -not -path '/usr/*' -not -path '*/site-packages/*' -print0"
            " | xargs -0 grep -lFf /root/secrets"
        )
        assert connect(service).run(search).stdout == ""


def test_has_no_idle_processes(mlflow: Any) -> None:
    """One that starts the workers, the workers, and Python's own helper of the first. MLflow's command line, and processes for jobs, only with mlflow_jobs;
    these know where the server is."""
    settings = dict(re.findall(r'^(\w+)="(.*)"$', mlflow.check_output("cat /etc/mlflow/mlflow.env"), re.MULTILINE))
    workers = int(settings["MLFLOW_WORKERS"])
    processes = mlflow.check_output("ps -u mlflow -o args=").splitlines()
    if settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false":
        assert len(processes) == (workers + 2 if workers > 1 else 1)
        assert "uvicorn" in processes[0]
        return
    consumers = [process for process in processes if "huey_consumer" in process]
    assert len(consumers) >= 5
    urls = mlflow.check_output("for pid in $(pgrep -u mlflow -f huey_consumer); do tr '\\0' '\\n' < /proc/$pid/environ | grep ^MLFLOW_TRACKING_URI=; done")
    assert set(urls.splitlines()) == {f"MLFLOW_TRACKING_URI={settings['MLOPS_JOBS_URL']}"}


def program(name: str) -> str:
    """What runs on the host, from this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def test_searches_find_the_same_by_shorter_ways(mlflow: Any) -> None:
    """In MLflow's own store. DISTINCT is left to the searches by dataset, where a run can come twice; and those ordered by a metric first look for the first
    ones only."""
    searches = json.loads(mlflow.check_output("/opt/mlflow/current/bin/python -c %s /opt/mlflow/app 2> /dev/null", program("searches.py")))
    assert len(searches) > 10
    for text, order, distinct, twice, pages, distinct_by_the_short_way, twice_by_the_short_way, pages_by_the_short_way in searches:
        assert distinct and not twice
        assert distinct_by_the_short_way == ("datasets." in text), text
        assert twice_by_the_short_way == (bool(order) and order[0].startswith("metrics.") and "datasets." not in text), order
        assert pages_by_the_short_way == pages and pages[0], (text, order)


def test_metrics_are_logged_the_same_by_a_shorter_way(mlflow: Any) -> None:
    """In the site's own database: the same rows, the same latest values, the same refusals, and far fewer statements."""
    way = "export \"$(sed -n 's/^\\(MLFLOW_BACKEND_STORE_URI\\)=\"\\(.*\\)\"$/\\1=\\2/p' /etc/mlflow/mlflow.env)\"; "
    found = json.loads(mlflow.check_output(way + "/opt/mlflow/current/bin/python -c %s /opt/mlflow/app 2> /dev/null", program("logging_both_ways.py")))
    assert found["different"] == []
    assert found["rows"] > 200 and all(found["refused"])
    assert found["statements"][1] < found["statements"][0] / 3


def test_the_server_takes_them(site: dict[str, Any], connect: Any) -> None:
    """In what it asks PostgreSQL, which tells it by its log."""
    database = connect("theirs")

    def psql(statement: str) -> None:
        database.check_output("cd / && runuser -u postgres -- psql -XAtc %s", statement)

    marker = f"probe_{uuid.uuid4().hex}"
    metric = {"key": marker, "value": 1, "timestamp": 1, "step": 1}
    search = {"experiment_ids": ["0"], "filter": f"metrics.{marker} > 0.5", "order_by": [f"metrics.{marker} DESC"], "max_results": 1}
    run = json.loads(answer(site, "/api/2.0/mlflow/runs/create", body={"experiment_id": "0"})[1])["run"]["info"]["run_id"]
    psql("ALTER SYSTEM SET log_statement = 'all'")
    psql("SELECT pg_reload_conf()")
    try:
        # The first ones may come before PostgreSQL has read its settings again.
        for _try in range(3):
            assert answer(site, "/api/2.0/mlflow/runs/log-batch", body={"run_id": run, "metrics": [metric]})[0] == 200
            status, found = answer(site, "/api/2.0/mlflow/runs/search", body=search)
            assert status == 200 and [each["info"]["run_id"] for each in json.loads(found)["runs"]] == [run]
    finally:
        psql("ALTER SYSTEM RESET log_statement")
        psql("SELECT pg_reload_conf()")
        assert answer(site, "/api/2.0/mlflow/runs/delete", body={"run_id": run})[0] == 200
    log = database.check_output("grep --no-filename --before-context=40 --after-context=40 %s /var/log/postgresql/*.log", marker)
    # A statement's further lines begin with a tab.
    statements = [" ".join(entry.split()) for entry in re.split(r"^(?=\S)", log, flags=re.MULTILINE) if marker in entry]
    logged = [each for each in statements if "INSERT INTO" in each]
    assert logged and all("WITH run AS" in each for each in logged), logged
    searches = [each for each in statements if " LIMIT " in each]
    assert searches and all("DISTINCT" not in each for each in searches), searches


def test_calls_go_straight_to_flask(site: dict[str, Any]) -> None:
    """What goes through FastAPI, such as a question for the headers alone, has one of them twice."""

    def origins(method: str) -> int:
        request = urllib.request.Request(f"{site['url']}{EXPERIMENT}", method=method)
        request.add_header("Authorization", basic("admin", site["admin_password"]))
        try:
            headers = opener(site).open(request, timeout=30).headers
        except urllib.error.HTTPError as error:
            headers = error.headers
        return ", ".join(headers.get_all("Vary")).split(", ").count("Origin")

    assert (origins("GET"), origins("HEAD")) == (1, 2)
