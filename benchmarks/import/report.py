"""Makes a page and JSON of how long it takes to bring a store into PostgreSQL.

usage: report.py ROUNDS FOLDER MLFLOW-VERSION TARGET; FOLDER has a file for each way, with a line a round
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
from pathlib import Path

from harness import machine, save, where


def main() -> None:
    """Write both."""
    rounds, folder, version, target = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    ours = {size: [json.loads(line) for line in (folder / f"ours_{size}").read_text(encoding="utf-8").splitlines()] for size in (1_000_000, 10_000_000)}
    others = {name: [float(line) for line in (folder / name).read_text(encoding="utf-8").split()] for name in ("pgloader", "copy")}
    command = f"make bench NAME=import MODE={'quick' if rounds == 3 else 'full'}"
    about = {"date": datetime.date.today().isoformat(), "command": command, "machine": machine(), "mlflow": version}
    result = about | {"ours": {str(size): each for size, each in ours.items()}, "others": others}
    median = {name: statistics.median(values) for name, values in others.items()}
    small = {name: statistics.median(each[name] for each in ours[1_000_000]) for name in ("copy", "parity", "memory_mib", "rows")}
    large = ours[10_000_000][0]
    both = small["copy"] + small["parity"]
    lines = [
        "# Bringing a store",
        "",
        f"{where(result)} Median of {rounds} rounds, the ways in turns on one host. The store has {small['rows']:,.0f} rows, 1M of them metrics. pgloader "
        "loads data only, as the superuser with triggers off; `\\copy` reads CSV files that were written before. Neither looks at what has come.",
        "",
        "| way | seconds | compared | goal |",
        "| --- | ---: | --- | --- |",
        f"| pgloader | {median['pgloader']:.1f} | | |",
        f"| `psql \\copy` | {median['copy']:.1f} | | |",
        f"| import, the copy | {small['copy']:.1f} | {small['copy'] / median['pgloader']:.2f} × pgloader, "
        f"{median['copy'] / small['copy']:.0%} of the speed of `\\copy` | ≤ 1; ≥ 40 % |",
        f"| import, comparing both sides | {small['parity']:.1f} | {small['parity'] / small['copy']:.2f} × the copy | ≤ 0.5 |",
        f"| import, both | {both:.1f} | {both / median['pgloader']:.2f} × pgloader | |",
        "",
        f"Memory of the process that copies and compares: {small['memory_mib']:.0f} MiB for 1M metrics, {large['memory_mib']} MiB for 10M "
        f"({large['rows']:,} rows, {large['copy']:.0f} s and {large['parity']:.0f} s).",
    ]
    page = "\n".join(lines) + "\n"
    (target / "import.md").write_text(page, encoding="utf-8")
    save(target / "import.json", result)
    print(page)


main()
