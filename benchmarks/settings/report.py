"""Makes a page of what measure.py wrote.

usage: report.py FOLDER, which has settings.json
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import percentile, where

Point = dict[str, Any]
# Title, how it is found, whether more is better.
COLUMNS: list[tuple[str, Callable[[Point], float]]] = [
    *[(f"writes, {clients} clients", lambda point, key=f"writes {clients}": point[key]) for clients in (8, 32)],
    ("search p50", lambda point: percentile(point["searches"], 50)),
    ("search p95", lambda point: percentile(point["searches"], 95)),
    ("memory", lambda point: point["memory"]),
    ("start", lambda point: point["start"]),
]


def ratios(rounds: list[dict[str, dict[str, Point]]], what: str, measure: Callable[[Point], float]) -> list[float]:
    """Return, for each round, how many times as much it is with the change as without it."""
    return [measure(each[what]["with"]) / statistics.mean(measure(each[what][when]) for when in ("before", "after")) for each in rounds]


def main() -> None:
    """Read and write."""
    folder = Path(sys.argv[1])
    result = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    rounds, parts = result["rounds"], result["parts"]
    lines = [
        "# What each setting gives",
        "",
        f"{where(result)} Median of {len(rounds)} round{'s' if len(rounds) > 1 else ''}; client and server share the machine's cores.",
        "",
        "Each row is one change of a host as `site.yml` leaves it, and its figures are how many times as much it is with the change as without it, measured "
        "before and after. Writes are `log_batch(10)` a second, where more is better; of everything else less is better. The row of noise is no change at "
        "all: what differs no more than that has not been shown.",
    ]
    for part in dict.fromkeys(parts.values()):
        lines += ["", f"| {part} | {' | '.join(title for title, _measure in COLUMNS)} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
        for what in (what for what, of in parts.items() if of == part):
            lines.append(f"| {what} | {' | '.join(f'{statistics.median(ratios(rounds, what, measure)):.2f}' for _title, measure in COLUMNS)} |")
    (folder / "settings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


main()
