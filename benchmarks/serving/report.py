"""Makes a page and two plots of what measure.py wrote.

usage: report.py FOLDER, which has serving.json
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from harness import number, percentile, where

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402 - not before the choice

SIDES = ("stock", "site.yml")
COLORS = {"stock": "#b0b7c3", "site.yml": "#1f6feb"}
Round = dict[str, Any]
Measure = Callable[[Round], float]


def latency(name: str, part: int) -> Measure:
    """Of a call of the real client, in ms."""
    return lambda side: percentile(side["client"][name], part)


def throughput(key: str) -> Measure:
    """Good answers in a second."""
    return lambda side: (side[key]["answers"] - side[key]["errors"]) / side[key]["seconds"]


def errors(key: str) -> Measure:
    """Answers that were none, of all, in percent."""
    return lambda side: 100 * side[key]["errors"] / max(side[key]["answers"], side[key]["errors"], 1)


def page(key: str, unit: str) -> Measure:
    """Of the list of experiments."""
    return lambda side: side["page"][key][unit]


def artifact(way: str) -> Measure:
    """How much longer than boto3 it takes."""
    return lambda side: side["artifact"][way] / side["artifact"][f"boto3 {way}"]


# Title, unit, how it is found in a round, whether more is better, the goal for the ratio.
TABLE: list[tuple[str, str, Measure, bool, str]] = [
    *[
        (f"`{name}` {what}, one client", "ms", latency(name, part), False, "≥ 10" if (name, part) == ("log_metric", 50) else "")
        for name in ("log_metric", "log_batch", "get_run", "search_runs")
        for what, part in (("p50", 50), ("p95", 95))
    ],
    ("`search_runs` p95 while 8 clients log ten times a second each", "ms", lambda side: percentile(side["search"], 95), False, "≥ 2"),
    *[
        (f"`log_batch({metrics})`, {clients} client{'s' if clients > 1 else ''}", "answers/s", throughput(f"load {metrics} {clients}"), True, goal)
        for metrics, clients, goal in ((20, 1, ""), (20, 8, ""), (20, 32, ""), (20, 100, "≥ 15"), (10, 8, "≥ 2"), (10, 32, "≥ 2"))
    ],
    ("errors of `log_batch(20)`, 100 clients", "%", errors("load 20 100"), False, "0"),
    ("memory of the server, idle", "MiB", lambda side: side["idle"]["server"], False, "≥ 5"),
    ("memory of the server, after the load", "MiB", lambda side: side["loaded"]["server"], False, ""),
    ("memory of server, PostgreSQL and gateway, after the load", "MiB", lambda side: sum(side["loaded"].values()), False, ""),
    *[
        (f"list of experiments in a browser, {cache} cache{where}", unit, page(f"{cache}{key}", unit), False, goal)
        for cache, goal in (("cold", "≥ 3"), ("warm", "≥ 5"))
        for where, key, unit in (("", "", "kB"), (", beside the server", "", "ms"), (", over 20 Mbit/s", " over a line", "ms"))
    ],
    *[
        (f"a large artifact {way}, compared with boto3 in the same round", "times", artifact(way), False, "≤ 1.15 by site.yml")
        for way in ("up", "down")
    ],
]


def own(name: str) -> Measure:
    """What the client itself computes for a call, in ms."""
    return lambda side: statistics.median(side["client"][f"{name} own"])


def processor(key: str, unit: str) -> Measure:
    """What the server's host computes for an answer, in ms."""
    return lambda side: side[key]["processor"][unit] if unit else sum(side[key]["processor"].values())


# Title, how it is found in a round.
PROFILE: list[tuple[str, Measure]] = [
    *[(f"`{name}`, the client itself", own(name)) for name in ("log_metric", "log_batch", "get_run", "search_runs")],
    *[
        (f"`log_batch(20)` with 8 clients, {title}", processor("load 20 8", unit))
        for title, unit in (("MLflow", "server"), ("PostgreSQL", "postgresql"), ("gateway", "gateway"), ("together", ""))
    ],
]


def row(rounds: list[dict[str, Round]], title: str, unit: str, measure: Measure, more: bool, goal: str) -> str:
    """One line of the table: medians over the rounds, and the median of the ratios in each round."""
    values = {side: [measure(each[side]) for each in rounds] for side in SIDES}
    pairs = list(zip(values["site.yml"], values["stock"], strict=True)) if more else list(zip(values["stock"], values["site.yml"], strict=True))
    ratio = f"{number(statistics.median(a / b for a, b in pairs))} ×" if all(b for _a, b in pairs) else ""
    stock, ours = (number(statistics.median(values[side])) for side in SIDES)
    return f"| {title} | {stock} | {ours} | {unit} | {ratio} | {goal} |"


def bars(target: Path, title: str, unit: str, groups: dict[str, dict[str, float]], log: bool = False) -> None:
    """Draw both sides beside each other."""
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for index, side in enumerate(SIDES):
        places = [place + (index - 0.5) * 0.38 for place in range(len(groups))]
        drawn = axes.bar(places, [each[side] for each in groups.values()], 0.36, color=COLORS[side], label=side)
        axes.bar_label(drawn, labels=[number(each[side]) for each in groups.values()], fontsize=8)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=9)
    axes.set_yscale("log" if log else "linear")
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Read, write, draw."""
    folder = Path(sys.argv[1])
    result = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
    rounds = result["rounds"]
    lines = [
        "# MLflow by site.yml, compared with MLflow as guides have it",
        "",
        f"{where(result)} Median of {len(rounds)} round{'s' if len(rounds) > 1 else ''}; "
        "ratios are of the same round, and more than 1 is better than stock. Client and server share the machine's cores. "
        f"Measuring took {result['minutes']} minutes; the large artifact has {result['artifact_mib']} MiB.",
        "",
        "| measure | stock | site.yml | | ratio | goal |",
        "| --- | ---: | ---: | --- | ---: | --- |",
        *[row(rounds, *each) for each in TABLE],
        "",
        f"The smallest profile, `mlflow_workers: 1`, takes {result['smallest']} MiB idle: stock takes "
        f"{number(statistics.median(each['stock']['idle']['server'] for each in rounds) / result['smallest'])} times that.",
        "",
        "What the processors do for one call, in ms:",
        "",
        "| call | stock | site.yml |",
        "| --- | ---: | ---: |",
        *[
            f"| {title} | {' | '.join(number(statistics.median(measure(each[side]) for each in rounds)) for side in SIDES)} |"
            for title, measure in PROFILE
        ],
        "",
        "Stock: `pip install mlflow psycopg2-binary boto3`, Debian's PostgreSQL as it comes, `mlflow server --workers 4`, no login, no TLS. By site.yml: the "
        "defaults, so with the gateway, TLS and logins. The same versions, tables, rows and object store.",
    ]
    (folder / "serving.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def middle(measure: Measure) -> dict[str, float]:
        return {side: statistics.median(measure(each[side]) for each in rounds) for side in SIDES}

    calls = ("log_metric", "log_batch", "get_run", "search_runs")
    bars(folder / "serving-latency.svg", "Calls of MlflowClient, p50", "ms", {name: middle(latency(name, 50)) for name in calls}, log=True)
    clients = (1, 8, 32, 100)
    bars(
        folder / "serving-throughput.svg",
        "log_batch with 20 metrics: good answers in a second",
        "answers/s",
        {f"{each} client{'s' if each > 1 else ''}": middle(throughput(f"load 20 {each}")) for each in clients},
    )


main()
