"""The list of experiments in a real browser, with an empty cache and then again, from beside the server and over a slower line: prints milliseconds until it
shows, and kilobytes, as JSON.

usage: page.py URL CA_FILE, with AUTHORIZATION for the header of that name
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver

# A line as from home: 20 Mbit/s in bytes, and milliseconds that each answer takes longer.
LINE = {"offline": False, "latency": 20, "downloadThroughput": 2_500_000, "uploadThroughput": 2_500_000}


def load(browser: webdriver.Chrome, url: str, line: dict[str, float] | None) -> dict[str, float]:
    """Open it in a window of its own, as nothing may be left of the last one but the cache."""
    browser.switch_to.new_window("tab")
    browser.execute_cdp_cmd("Network.enable", {})
    if line:
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", line)
    if header := os.environ.get("AUTHORIZATION"):
        browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": header}})
    browser.get_log("performance")
    start = time.perf_counter()
    browser.get(f"{url}/#/experiments")
    while not browser.execute_script("return [...document.querySelectorAll('a')].some(link => link.textContent === 'large')"):
        time.sleep(0.01)
    shown = time.perf_counter() - start
    # What the page still asks for after that.
    time.sleep(3)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    size = sum(event["params"]["encodedDataLength"] for event in events if event["method"] == "Network.loadingFinished")
    requests = sum(event["method"] == "Network.requestWillBeSent" for event in events)
    browser.close()
    browser.switch_to.window(browser.window_handles[0])
    return {"ms": round(shown * 1000), "kB": round(size / 1000), "requests": requests}


def main() -> None:
    """Cold, then warm."""
    url, ca_file = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        store = Path(home) / ".pki" / "nssdb"
        store.mkdir(parents=True)
        subprocess.run(["certutil", "-d", f"sql:{store}", "-N", "--empty-password"], check=True)
        subprocess.run(["certutil", "-d", f"sql:{store}", "-A", "-n", "site", "-t", "C,,", "-i", ca_file], check=True)
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("--headless=new", "--no-sandbox", "--window-size=1400,1000"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        os.environ["no_proxy"] = "*"
        browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver", env={"HOME": home, "PATH": os.environ["PATH"]}))
        try:
            result = {}
            for name, line in (("", None), (" over a line", LINE)):
                browser.execute_cdp_cmd("Network.clearBrowserCache", {})
                for cache in ("cold", "warm"):
                    result[cache + name] = load(browser, url, line)
            print(json.dumps(result))
        finally:
            browser.quit()


main()
