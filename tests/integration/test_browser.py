"""The user interface in a real browser, through the gateway: what a person sees of a run, and that the browser refuses nothing of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

PROJECT = Path(__file__).resolve().parents[2]
CLIENT_PYTHON = PROJECT / ".venv-client" / "bin" / "python"
SCREENSHOTS = PROJECT / "build" / "screenshots"

STEPS = 20
REPORT = "\n".join(f"line {number}: π ≈ 3.14, <b>&amp;</b>" for number in range(100))
LOG_A_RUN = """
import os, sys, time
os.environ["MLFLOW_TRACKING_PASSWORD"] = sys.stdin.read()
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
client, now = MlflowClient(), int(time.time() * 1000)
experiment = client.create_experiment(sys.argv[1])
run = client.create_run(experiment, run_name="falling").info.run_id
client.log_batch(run, [Metric("loss", 1 / (step + 1), now, step) for step in range(int(sys.argv[2]))], [Param("depth", "seven")])
client.log_text(run, sys.argv[3], "notes/report.txt")
client.set_terminated(run)
print(experiment, run)
"""
# Where plotly drew each step of the curve.
POINTS = "return [...document.querySelectorAll('.js-plotly-plot .scatterlayer .point')].map(point => point.getBoundingClientRect().y)"
STATUS = "return performance.getEntriesByType('navigation')[0].responseStatus"


@contextlib.contextmanager
def chromium(home: Path, ca_file: str = "") -> Iterator[webdriver.Chrome]:
    """A browser with a home of its own, which trusts the CA in the way of a person who imports it."""
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{store}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    if ca_file:
        subprocess.run([*certutil, "-A", "-n", "site", "-t", "C,,", "-i", ca_file], check=True)
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    # Chromium has no sandbox for root, and the pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(home / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.enable_bidi = True
    service = webdriver.ChromeService("/usr/bin/chromedriver", env={"HOME": str(home), "PATH": os.environ["PATH"]})
    # The driver is on this machine, whatever stands between it and others.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        browser = webdriver.Chrome(options, service)
        try:
            yield browser
        finally:
            browser.quit()


def visit(browser: webdriver.Chrome, url: str, *passwords: str) -> int:
    """Open a page as a person does: answer its login dialogs with the passwords in turn, cancel the next one, return the status of the page."""
    left: list[str] = []

    def answer(dialog: Any) -> None:
        if left:
            dialog.provide_credentials("admin", left.pop(0))
        else:
            dialog.cancel()

    def navigate(driver: webdriver.Chrome) -> bool:
        left[:] = passwords
        # driver.get() would keep the driver busy, which then could not pass on an answer.
        driver.browsing_context.navigate(context=driver.current_window_handle, url=url, wait="complete")
        return True

    handler = browser.network.add_authentication_handler(answer)
    until(browser, navigate, url)
    browser.network.remove_authentication_handler(handler)
    return int(browser.execute_script(STATUS))


def until(browser: webdriver.Chrome, condition: Callable[[webdriver.Chrome], Any], what: str) -> Any:
    """Wait until it holds; what is not there yet, is replaced at this moment, or is lost with a network that changes, is tried again."""
    return WebDriverWait(browser, 60, poll_frequency=0.1, ignored_exceptions=[WebDriverException]).until(condition, what)


def go(browser: webdriver.Chrome, url: str) -> None:
    """Open a page, logged in or not."""
    until(browser, lambda driver: driver.get(url) is None, url)


def text(browser: webdriver.Chrome) -> str:
    """What a person reads."""
    return browser.find_element(By.TAG_NAME, "body").text


def click(browser: webdriver.Chrome, selector: str) -> None:
    """Click on what the XPath selects, as soon as that is possible."""
    until(browser, lambda driver: driver.find_element(By.XPATH, selector).click() is None, selector)


def complaints(browser: webdriver.Chrome, site: dict[str, Any]) -> list[str]:
    """What went wrong since the last look: what the browser refused or scripts failed at, answers that are errors, requests to other sites."""
    gateway = urlsplit(site["url"]).hostname
    words = re.compile("Content Security Policy|CORS|Mixed Content|Refused to")
    lines = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE" or words.search(entry["message"])]
    # Containers that come and go around the test end what the browser is loading; it loads it again.
    lines = [line for line in lines if "ERR_NETWORK_CHANGED" not in line]
    # By which the user interface learns that it is to load an artifact itself.
    no_presigned = re.compile("(^501 .*/ajax-api/2.0/mlflow-artifacts/presigned/)|(/ajax-api/2.0/mlflow-artifacts/presigned/.* status of 501 )")
    for entry in browser.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.responseReceived" and event["params"]["response"]["status"] >= 400:
            lines.append("{status} {url}".format_map(event["params"]["response"]))
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if url.startswith(("http:", "https:", "ws:", "wss:")) and urlsplit(url).hostname != gateway:
                lines.append(f"went to {url}")
    return [line for line in lines if not no_presigned.search(line)]


@pytest.fixture(scope="module", name="run")
def fixture_run(site: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Log a run with the real client; return the identifiers of its experiment and of itself."""
    environment = {
        "HOME": str(tmp_path_factory.mktemp("client")),
        "PATH": os.environ["PATH"],
        "MLFLOW_TRACKING_URI": site["url"],
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "REQUESTS_CA_BUNDLE": site["ca_file"],
    }
    command = [CLIENT_PYTHON, "-c", LOG_A_RUN, f"browser {uuid.uuid4()}", str(STEPS), REPORT]
    result = subprocess.run(command, env=environment, input=site["admin_password"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    experiment, run = result.stdout.splitlines()[-1].split()
    return experiment, run


@pytest.fixture(scope="module", name="home")
def fixture_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the browser."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module", name="browser")
def fixture_browser(site: dict[str, Any], home: Path) -> Iterator[webdriver.Chrome]:
    """A browser that has logged in once, and remembers the password as browsers do."""
    with chromium(home, site["ca_file"]) as browser:
        assert visit(browser, site["url"], site["admin_password"]) == 200
        yield browser


@pytest.fixture(name="page")
def fixture_page(browser: webdriver.Chrome, site: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[webdriver.Chrome]:
    """The browser; after the test, failed or not, there is a picture, and nothing may have been refused."""
    complaints(browser, site)
    yield browser
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(SCREENSHOTS / f"{request.node.name.removeprefix('test_')}.png")
    assert complaints(browser, site) == []


def test_a_stranger_to_the_ca_is_warned(site: dict[str, Any], tmp_path: Path) -> None:
    """So what the other tests trust is the site's certificate, and not just any."""
    with chromium(tmp_path) as browser:
        go(browser, site["url"])
        assert "ERR_CERT_AUTHORITY_INVALID" in text(browser)


def test_nobody_comes_in_without_the_password(site: dict[str, Any], tmp_path: Path) -> None:
    """Whoever cancels the dialog reads why, after a wrong password too."""
    with chromium(tmp_path, site["ca_file"]) as browser:
        for passwords in ((), ("wrong-password-1",)):
            assert visit(browser, site["url"], *passwords) == 401
            assert "You are not authenticated" in text(browser)


def test_a_run_and_its_curve(page: webdriver.Chrome, site: dict[str, Any], run: tuple[str, str]) -> None:
    """From the list of runs to the curve, where every step is lower than the one before."""
    go(page, f"{site['url']}/#/experiments/{run[0]}/runs")
    click(page, "//a[normalize-space()='falling']")
    until(page, lambda driver: run[1] in driver.current_url and re.search(r"\bdepth\s+seven\b", text(driver)), "the page of the run")
    click(page, "//*[@role='tab'][normalize-space()='Model metrics']")

    def falls(driver: webdriver.Chrome) -> bool:
        heights = driver.execute_script(POINTS)
        return len(heights) == STEPS and heights == sorted(set(heights))

    until(page, falls, "the curve")


def test_an_artifact(page: webdriver.Chrome, site: dict[str, Any], run: tuple[str, str], home: Path) -> None:
    """Shown as the text that it is, and downloaded as the same bytes."""
    go(page, f"{site['url']}/#/experiments/{run[0]}/runs/{run[1]}/artifacts")
    click(page, "//*[text()='notes']")
    click(page, "//*[text()='report.txt']")
    until(page, lambda driver: REPORT in text(driver), "the text")
    click(page, "//button[contains(@data-component-id, 'artifactview')]")
    file = home / "downloads" / "report.txt"
    until(page, lambda dummy: file.exists(), "the download")
    assert file.read_bytes() == REPORT.encode()


def test_notebooks_show_traces(browser: webdriver.Chrome, site: dict[str, Any], tmp_path: Path) -> None:
    """In a frame, on a page from elsewhere; the user interface itself is in nobody's frame."""

    def fits(path: str) -> bool:
        notebook = tmp_path / "notebook.html"
        notebook.write_text(f'<iframe src="{site["url"]}{path}"></iframe>', encoding="utf-8")
        complaints(browser, site)
        go(browser, notebook.as_uri())
        return not any("frame-ancestors" in line for line in complaints(browser, site))

    assert fits("/static-files/lib/notebook-trace-renderer/index.html")
    assert not fits("/")
